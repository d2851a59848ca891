import type { PromiseName } from './history.ts'
import type { Planted } from './node.ts'
import type { Action, Plan } from './plan.ts'
import { run, type RunResult } from './world.ts'

export interface Shrunk {
  /** the actions that are left, by their places in the plan */
  readonly kept: readonly number[]
  readonly result: RunResult
}

/** Only these actions of a plan. */
export function part(plan: Plan, kept: readonly number[]): Plan {
  return { ...plan, actions: kept.map((index) => plan.actions[index]).filter((action): action is Action => action !== undefined) }
}

/**
 * Leave out what is not needed to break the same promise: halves first, then smaller pieces, until no single action can be
 * spared or `maxRuns` have been made (delta debugging).
 */
export async function shrink(plan: Plan, planted: Planted = {}, maxRuns = 300): Promise<Shrunk> {
  let kept = plan.actions.map((_action, index) => index)
  let result = await run(plan, planted)
  const promise = result.violations[0]?.promise
  if (promise === undefined) throw new Error('nothing is broken')
  let runCount = 0
  for (let size = Math.ceil(kept.length / 2); size >= 1 && runCount < maxRuns; ) {
    let isSmaller = false
    for (let first = 0; first < kept.length && runCount < maxRuns; ) {
      const fewer = [...kept.slice(0, first), ...kept.slice(first + size)]
      const tried = await run(part(plan, fewer), planted)
      runCount++
      if (breaks(tried, promise)) {
        kept = fewer
        result = tried
        isSmaller = true
      } else {
        first += size
      }
    }
    if (size === 1 && !isSmaller) break
    if (!isSmaller || size > kept.length) size = Math.max(1, Math.floor(Math.min(size, kept.length) / 2))
    if (kept.length === 0) break
  }
  return { kept, result }
}

function breaks(result: RunResult, promise: PromiseName): boolean {
  return result.violations[0]?.promise === promise
}

/** For whoever has to mend it: what is broken, what has to be done for it, all that was seen, and how to see it again. */
export function report(plan: Plan, { kept, result }: Shrunk, options = ''): string {
  const { setup, seed } = plan
  return [
    `seed ${seed}: ${setup.topology}, ${setup.nodeCount} nodes, disk ${setup.disk}; ${kept.length} of ${plan.actions.length} actions are enough`,
    ...result.violations.map(({ promise, atMs, what }) => `  ${promise} at ${atMs} ms: ${what}`),
    '',
    ...result.lines.map((line) => `  ${line}`),
    '',
    `npm run simulate -- --seed ${seed}${options} --keep ${kept.length === 0 ? 'none' : kept.join(',')}`,
  ].join('\n')
}
