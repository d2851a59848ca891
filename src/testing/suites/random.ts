import assert from 'node:assert/strict'
import type { Random } from '../../contracts/random.ts'
import { casesOf, type ContractCase, type ContractOptions, type Opened, type Scenario } from './contract-case.ts'

/** The promises of a Random, as far as they can be seen from outside: that it cannot be predicted is not among those. */
export function randomContract<O extends Opened<Random>>(options: ContractOptions<Random, O>): ContractCase[] {
  return casesOf(options, scenarios)
}

const scenarios: readonly Scenario<Random>[] = [
  [
    'bytes gives as many bytes as asked, also none and many',
    async (random) => {
      for (const count of [0, 1, 16, 32, 65_537]) {
        const bytes = random.bytes(count)
        assert.ok(bytes instanceof Uint8Array)
        assert.equal(bytes.length, count)
      }
    },
  ],
  [
    'no two answers are the same, and none shares memory with another',
    async (random) => {
      const answers = Array.from({ length: 200 }, () => random.bytes(16))
      const texts = answers.map((bytes) => Buffer.from(bytes).toString('hex'))
      assert.equal(new Set(texts).size, 200)
      answers[0]?.fill(0)
      assert.deepEqual(answers.slice(1).map((bytes) => Buffer.from(bytes).toString('hex')), texts.slice(1))
    },
  ],
  [
    'every value of a byte occurs, none much more often than others',
    async (random) => {
      const counts = new Array<number>(256).fill(0)
      for (const byte of random.bytes(256 * 400)) counts[byte] = (counts[byte] ?? 0) + 1
      // 400 are expected with a deviation of 20; eight deviations happen by chance less than once in 10^12 runs.
      for (const [value, count] of counts.entries()) assert.ok(Math.abs(count - 400) < 160, `byte ${value}: ${count} times`)
    },
  ],
]
