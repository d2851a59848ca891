import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Outbox } from '../../src/contracts/outbox.ts'
import type { MaybePromise } from '../../src/model/maybe-promise.ts'
import { WALK_LENGTH } from './cursor-model.ts'

/** How to get an outbox, and how to look: `numRuns` walks of up to 60 steps, from one seed. */
export interface OutboxCheck<O extends Outbox> {
  open(): MaybePromise<O>
  close?(outbox: O): MaybePromise<void>
  /** another life of the same data; without it no walk has a restart */
  reopen?(outbox: O): MaybePromise<O>
  readonly numRuns: number
  readonly seed: number
}

export interface ModelEntry {
  readonly lane: number
  readonly entryID: number
  readonly text: string
}

/** The outbox as one would explain it: an array of entries in the order in which they came. */
export class ModelOutbox {
  /** all there have been, whatever has become of them: for those who remove what has gone */
  readonly given: ModelEntry[] = []
  entries: ModelEntry[] = []

  /** @throws when an id does not come behind all that its lane has given */
  add(lane: number, entryIDs: readonly number[], texts: readonly string[]): void {
    assert.equal(entryIDs.length, texts.length)
    for (const [i, entryID] of entryIDs.entries()) {
      const lastID = Math.max(0, ...this.given.filter((entry) => entry.lane === lane).map((entry) => entry.entryID))
      assert.ok(Number.isSafeInteger(entryID) && entryID > lastID, `lane ${lane}: ${entryID} comes behind ${lastID}`)
      const entry = { lane, entryID, text: texts[i]! }
      this.given.push(entry)
      this.entries.push(entry)
    }
  }

  remove(lane: number, entryIDs: readonly number[]): void {
    this.entries = this.entries.filter((entry) => entry.lane !== lane || !entryIDs.includes(entry.entryID))
  }

  list(lane: number, { afterID = 0, limit }: { readonly afterID?: number; readonly limit: number }): readonly string[] {
    const found = this.entries.filter((entry) => entry.lane === lane && entry.entryID > afterID)
    return found.slice(0, limit).map(({ entryID, text }) => `${entryID} ${text}`)
  }
}

export const LANES = [0, 1, 255] as const
const anyLane = fc.constantFrom(...LANES)
const anyTexts = fc.array(fc.string({ maxLength: 5 }), { maxLength: 4 })

export type OutboxStep =
  | { readonly do: 'add'; readonly lane: number; readonly texts: readonly string[] }
  /** the entries by their place among all that there have been; of whatever lane */
  | { readonly do: 'remove'; readonly lane: number; readonly picks: readonly number[] }
  | { readonly do: 'removeOldest'; readonly lane: number; readonly count: number }
  | { readonly do: 'list'; readonly lane: number; readonly afterPick: number; readonly limit: number }
  | { readonly do: 'removeAll' | 'restart' }

/** One thing that may be done to an outbox. */
export const anyOutboxStep: fc.Arbitrary<OutboxStep> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('add' as const), lane: anyLane, texts: anyTexts }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), lane: anyLane, picks: fc.array(fc.nat({ max: 60 }), { maxLength: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('removeOldest' as const), lane: anyLane, count: fc.nat({ max: 5 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('list' as const), lane: anyLane, afterPick: fc.nat({ max: 60 }), limit: fc.integer({ min: 1, max: 8 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'removeAll' as const }) },
  { weight: 2, arbitrary: fc.constant({ do: 'restart' as const }) },
)

/** Do it to both, and compare what they answer. A restart is the caller's business: it has another outbox afterwards. */
export async function takeOutboxStep(step: OutboxStep, outbox: Outbox, model: ModelOutbox): Promise<void> {
  switch (step.do) {
    case 'add':
      return model.add(step.lane, await outbox.add(step.lane, step.texts.map((text) => Buffer.from(text))), step.texts)
    case 'remove':
      return remove(step.lane, step.picks.flatMap((pick) => model.given[pick]?.entryID ?? []), outbox, model)
    case 'removeOldest': {
      const ofLane = model.entries.filter(({ lane }) => lane === step.lane)
      return remove(step.lane, ofLane.slice(0, step.count).map(({ entryID }) => entryID), outbox, model)
    }
    case 'removeAll':
      for (const lane of LANES) await remove(lane, model.entries.filter((entry) => entry.lane === lane).map(({ entryID }) => entryID), outbox, model)
      return
    case 'list': {
      const query = { limit: step.limit, ...(step.afterPick === 0 ? {} : { afterID: model.given[step.afterPick]?.entryID ?? step.afterPick }) }
      return assert.deepEqual(await listed(outbox, step.lane, query), model.list(step.lane, query))
    }
    case 'restart':
      return
  }
}

export async function assertSameOutbox(outbox: Outbox, model: ModelOutbox): Promise<void> {
  for (const lane of LANES) assert.deepEqual(await listed(outbox, lane, { limit: 10_000 }), model.list(lane, { limit: 10_000 }))
  assert.equal(await outbox.count(), model.entries.length)
}

/** Whatever is done to it, in whatever order, the outbox answers as the model does. Rejects with the shortest walk that shows otherwise. */
export async function checkOutboxAgainstModel<O extends Outbox>(check: OutboxCheck<O>): Promise<void> {
  const property = fc.asyncProperty(fc.array(anyOutboxStep, WALK_LENGTH), async (steps) => {
    const model = new ModelOutbox()
    let outbox = await check.open()
    try {
      for (const step of steps) {
        await takeOutboxStep(step, outbox, model)
        if (step.do === 'restart' && check.reopen !== undefined) outbox = await check.reopen(outbox)
        assert.equal(await outbox.count(), model.entries.length)
      }
      await assertSameOutbox(outbox, model)
    } finally {
      await check.close?.(outbox)
    }
  })
  await fc.assert(property, { numRuns: check.numRuns, seed: check.seed })
}

async function remove(lane: number, entryIDs: readonly number[], outbox: Outbox, model: ModelOutbox): Promise<void> {
  await outbox.remove(lane, entryIDs)
  model.remove(lane, entryIDs)
}

async function listed(outbox: Outbox, lane: number, query: { readonly afterID?: number; readonly limit: number }): Promise<string[]> {
  return (await outbox.list(lane, query)).map(({ entryID, bytes }) => `${entryID} ${Buffer.from(bytes).toString()}`)
}
