/**
 * `npm run fuzz -- --minutes 5 [--seed N]`: cases from one seed on, until the time is over. What gives a verdict that no case of
 * the corpus gives is added to it, made as small as it goes; what differs from the reference is added, printed, and ends the
 * process with an error.
 */
import { parseArgs } from 'node:util'
import { caseOf, CONNECTION, DECODER, readCorpus, shrink, writeCorpus, type Target } from './corpus.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '5' }, seed: { type: 'string' } } })
const minutes = Number(values.minutes)
const firstSeed = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed)
if (!(minutes > 0) || !Number.isSafeInteger(firstSeed)) throw new TypeError('--minutes takes a positive number, --seed an integer')
console.log(`fuzz: seeds from ${firstSeed} on, ${minutes} minutes`)
// Cases of a connection cost more and find more.
await search(DECODER, minutes * 60_000 * 0.2)
await search(CONNECTION, minutes * 60_000 * 0.8)

async function search<C extends { readonly chunks: readonly unknown[] }>(target: Target<C>, forMs: number): Promise<void> {
  const corpus = readCorpus(target)
  const known = new Set<string>()
  for (const each of corpus) for (const name of (await target.play(each)).classes) known.add(name)
  const kept = corpus.length
  const endMs = performance.now() + forMs
  let seed = firstSeed
  for (; performance.now() < endMs; seed++) {
    const given = caseOf(target, seed)
    const { problems, classes } = await target.play(given)
    if (problems.length > 0) {
      const smallest = await shrink(given, async (smaller) => (await target.play(smaller)).problems.length > 0)
      corpus.push(smallest)
      console.error(`${target.name}, seed ${seed}: ${(await target.play(smallest)).problems.join('\n  ')}\n  ${JSON.stringify(smallest)}`)
      process.exitCode = 1
      if (corpus.length - kept >= 1_000) break
    }
    const added = [...classes].filter((name) => !known.has(name))
    if (added.length === 0) continue
    for (const name of added) known.add(name)
    corpus.push(await shrink(given, async (smaller) => {
      const { classes: left } = await target.play(smaller)
      return added.every((name) => left.has(name))
    }))
  }
  writeCorpus(target, corpus)
  console.log(`${target.name}: ${seed - firstSeed} cases, ${known.size} kinds of verdict, ${corpus.length - kept} cases added to ${kept}`)
}
