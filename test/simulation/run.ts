/**
 * `npm run simulate`: runs of the simulation, one seed after the other, until the time is over or a promise is broken.
 *
 *   --minutes 10    for so long (default 1)
 *   --seeds 500     so many, instead of a time
 *   --seed 7        the first one (default: by the clock); alone: only this one, with its whole history
 *   --nodes 3       so many nodes in each (default: drawn)
 *   --topology log  single, shared or log (default: drawn)
 *   --keep 1,5,9    with --seed: only these actions of the plan
 */
import { parseArgs } from 'node:util'
import { planOf, type Topology } from './plan.ts'
import { part, report, shrink } from './shrink.ts'
import { run } from './world.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seeds: { type: 'string' },
    seed: { type: 'string' },
    nodes: { type: 'string' },
    topology: { type: 'string' },
    keep: { type: 'string' },
  },
})

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const numberOf = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text))
const options = { nodeCount: numberOf(values.nodes), topology: values.topology as Topology | undefined }
const spelled = ['nodes', 'topology'].map((name) => (values[name as 'nodes'] === undefined ? '' : ` --${name} ${values[name as 'nodes']}`)).join('')
const given = numberOf(values.seed)

if (given !== undefined && values.seeds === undefined && values.minutes === undefined) {
  const whole = planOf(given, options)
  const kept = values.keep === undefined ? undefined : values.keep === 'none' ? [] : values.keep.split(',').map(Number)
  const result = await run(kept === undefined ? whole : part(whole, kept))
  for (const line of result.lines) say(line)
  for (const { promise, atMs, what } of result.violations) say(`${promise} at ${atMs} ms: ${what}`)
  say(`seed ${given}, ${result.violations.length === 0 ? 'nothing is broken' : 'BROKEN'}, history ${result.hash}`)
  process.exitCode = result.violations.length === 0 ? 0 : 1
} else {
  const first = given ?? (Date.now() & 0x7fff_ffff)
  const seedCount = numberOf(values.seeds) ?? Infinity
  const endMs = performance.now() + (values.seeds === undefined ? (numberOf(values.minutes) ?? 1) * 60_000 : Infinity)
  const totals: Record<string, number> = {}
  let runCount = 0
  for (let seed = first; runCount < seedCount && performance.now() < endMs && process.exitCode === undefined; seed++) {
    const plan = planOf(seed, options)
    const { violations, counts } = await run(plan)
    runCount++
    for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count
    if (violations.length > 0) {
      say(report(plan, await shrink(plan), spelled))
      process.exitCode = 1
    } else if (runCount % 100 === 0) {
      say(`${runCount} seeds, from ${first} on: nothing is broken`)
    }
  }
  say(`${runCount} seeds, from ${first} on. ${Object.entries(totals).map(([name, count]) => `${name} ${count}`).join(', ')}`)
}
