/** Seeds in a process of its own, up to the first that breaks a promise: see `bundle.ts`. */
import { DEFECTS } from './defects.ts'
import type { Violation } from './history.ts'
import { planOf, type Topology } from './plan.ts'
import { run } from './world.ts'

export interface ChildRequest {
  readonly firstSeed: number
  readonly seedCount: number
  readonly topology?: Topology
  /** by its name: what of it is put around the engine */
  readonly defect?: string
}

export interface ChildResult {
  /** of every seed that was run */
  readonly hashes: readonly string[]
  readonly broken: (Violation & { readonly seed: number }) | undefined
}

const { firstSeed, seedCount, topology, defect } = JSON.parse(process.argv[2] ?? '') as ChildRequest
const found = DEFECTS.find(({ name }) => name === defect)
const hashes: string[] = []
let broken: ChildResult['broken']
for (let seed = firstSeed; seed < firstSeed + seedCount && broken === undefined; seed++) {
  const { violations, hash } = await run(planOf(seed, { topology }), found?.planted?.())
  hashes.push(hash)
  if (violations[0] !== undefined) broken = { seed, ...violations[0] }
}
process.stdout.write(JSON.stringify({ hashes, broken }))
