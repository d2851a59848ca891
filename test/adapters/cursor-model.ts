import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Cursor, CursorStore, CursorUpdate } from '../../src/contracts/cursor-store.ts'
import { channelKeyString, type ChannelKey } from '../../src/model/channel.ts'
import type { MaybePromise } from '../../src/model/maybe-promise.ts'

/** How to get a store, and how to look: `numRuns` walks of up to 60 steps, from one seed. */
export interface CursorCheck<S extends CursorStore> {
  open(): MaybePromise<S>
  close?(store: S): MaybePromise<void>
  /** another life of the same data; without it no walk has a restart */
  reopen?(store: S): MaybePromise<S>
  readonly numRuns: number
  readonly seed: number
}

const NOWHERE: Cursor = { deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0 }
const POSITIONS = ['deliveredSeq', 'readSeq', 'joinSeq', 'deletedToSeq', 'unreadMarkSeq'] as const

/** The store as one would explain it: an object per user and channel. */
export class ModelCursorStore {
  readonly #cursors = new Map<string, Record<keyof Cursor, number>>()
  readonly #hidden = new Map<string, number[]>()

  cursor(uid: string, key: ChannelKey): Record<keyof Cursor, number> {
    return this.#cursors.get(nameOf(uid, key)) ?? { ...NOWHERE }
  }

  advance(updates: readonly CursorUpdate[]): void {
    for (const update of updates) this.#set(update, (seq, current) => Math.max(seq, current))
  }

  put(updates: readonly CursorUpdate[]): void {
    for (const update of updates) this.#set(update, (seq) => seq)
  }

  remove(key: ChannelKey, uids: readonly string[]): void {
    for (const uid of uids) {
      this.#cursors.delete(nameOf(uid, key))
      this.#hidden.delete(nameOf(uid, key))
    }
  }

  hide(uid: string, key: ChannelKey, seqs: readonly number[]): void {
    this.#hidden.set(nameOf(uid, key), [...(this.#hidden.get(nameOf(uid, key)) ?? []), ...seqs])
  }

  hidden(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): number[] {
    const inside = (this.#hidden.get(nameOf(uid, key)) ?? []).filter((seq) => seq > afterSeq && seq <= throughSeq)
    return [...new Set(inside)].sort((a, b) => a - b)
  }

  #set(update: CursorUpdate, choose: (seq: number, current: number) => number): void {
    const current = this.cursor(update.uid, update.key)
    const changed = { ...current }
    for (const name of POSITIONS) changed[name] = choose(update[name] ?? current[name], current[name])
    this.#cursors.set(nameOf(update.uid, update.key), changed)
  }
}

function nameOf(uid: string, key: ChannelKey): string {
  return JSON.stringify([uid, channelKeyString(key)])
}

/** Without a size, walks would be five steps long on average. */
export const WALK_LENGTH = { maxLength: 60, size: 'max' } as const

export const UIDS = ['ann', 'bob', 'cleo'] as const
const anyUID = fc.constantFrom(...UIDS)
const anySeq = fc.oneof({ arbitrary: fc.nat({ max: 30 }), weight: 9 }, fc.constantFrom(255, 256, 65_536, 4_294_967_295))
// What is not named is not there, rather than undefined.
const anyPositions = fc.record(Object.fromEntries(POSITIONS.map((name) => [name, anySeq])), { requiredKeys: [] })

export type CursorStep =
  | { readonly do: 'advance' | 'put'; readonly updates: readonly CursorUpdate[] }
  | { readonly do: 'remove'; readonly key: ChannelKey; readonly uids: readonly string[] }
  | { readonly do: 'hide'; readonly uid: string; readonly key: ChannelKey; readonly seqs: readonly number[] }
  | { readonly do: 'hidden'; readonly uid: string; readonly key: ChannelKey; readonly afterSeq: number; readonly throughSeq: number }
  | { readonly do: 'cursors'; readonly uid: string; readonly keys: readonly ChannelKey[] }
  | { readonly do: 'flush' | 'restart' }

/** One thing that may be done to positions in one of these channels. */
export function cursorSteps(channels: readonly ChannelKey[]): fc.Arbitrary<CursorStep> {
  const anyKey = fc.constantFrom(...channels)
  const anyUpdates = fc.array(
    fc.tuple(anyUID, anyKey, anyPositions).map(([uid, key, positions]) => ({ uid, key, ...positions })),
    { maxLength: 4 },
  )
  return fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('advance' as const, 'put' as const), updates: anyUpdates }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), key: anyKey, uids: fc.array(anyUID, { maxLength: 2 }) }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant('hide' as const), uid: anyUID, key: anyKey, seqs: fc.array(anySeq, { maxLength: 5 }) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant('hidden' as const), uid: anyUID, key: anyKey, afterSeq: anySeq, throughSeq: anySeq }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('cursors' as const), uid: anyUID, keys: fc.array(anyKey, { maxLength: 5 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('flush' as const, 'restart' as const) }) },
  )
}

/** Do it to both, and compare what they answer. A restart is the caller's business: it has another store afterwards. */
export async function takeCursorStep(step: CursorStep, store: CursorStore, model: ModelCursorStore): Promise<void> {
  switch (step.do) {
    case 'advance':
    case 'put':
      await store[step.do](step.updates)
      return model[step.do](step.updates)
    case 'remove':
      await store.remove(step.key, step.uids)
      return model.remove(step.key, step.uids)
    case 'hide':
      await store.hide(step.uid, step.key, step.seqs)
      return model.hide(step.uid, step.key, step.seqs)
    case 'hidden': {
      const { uid, key, afterSeq, throughSeq } = step
      assert.deepEqual([...(await store.hidden(uid, key, afterSeq, throughSeq))], model.hidden(uid, key, afterSeq, throughSeq))
      return
    }
    case 'cursors': {
      const cursors = await store.cursors(step.uid, step.keys)
      assert.deepEqual(cursors.map((cursor) => ({ ...cursor })), step.keys.map((key) => model.cursor(step.uid, key)))
      return
    }
    case 'flush':
    case 'restart':
      return void (await store.flush())
  }
}

const CHANNELS: readonly ChannelKey[] = [
  { channelID: 'a', channelType: 2 },
  { channelID: 'b', channelType: 2 },
  { channelID: 'a', channelType: 4 },
]

/** Whatever is done to it, in whatever order, the store answers as the model does. Rejects with the shortest walk that shows otherwise. */
export async function checkCursorsAgainstModel<S extends CursorStore>(check: CursorCheck<S>): Promise<void> {
  const walks = fc.array(cursorSteps(CHANNELS), WALK_LENGTH)
  const property = fc.asyncProperty(walks, async (steps) => {
    const model = new ModelCursorStore()
    let store = await check.open()
    try {
      for (const step of steps) {
        await takeCursorStep(step, store, model)
        if (step.do === 'restart' && check.reopen !== undefined) store = await check.reopen(store)
      }
      for (const uid of UIDS) {
        for (const key of CHANNELS) {
          assert.deepEqual({ ...(await store.cursor(uid, key)) }, model.cursor(uid, key))
          assert.deepEqual([...(await store.hidden(uid, key, 0, 4_294_967_295))], model.hidden(uid, key, 0, 4_294_967_295))
        }
      }
    } finally {
      await check.close?.(store)
    }
  })
  await fc.assert(property, { numRuns: check.numRuns, seed: check.seed })
}
