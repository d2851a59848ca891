import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Cursor, CursorStore } from '../../src/contracts/cursor-store.ts'
import type { ChannelSummary, MessageChange, MessageStore, RangeQuery } from '../../src/contracts/message-store.ts'
import { ChannelType, personChannelID, type ChannelKey } from '../../src/model/channel.ts'
import type { MaybePromise } from '../../src/model/maybe-promise.ts'
import type { Message } from '../../src/model/message.ts'
import { sampleMessage } from '../../src/testing/index.ts'
import { cursorSteps, ModelCursorStore, takeCursorStep, UIDS, WALK_LENGTH } from './cursor-model.ts'
import { ModelMessageStore, type ModelBounds } from './message-model.ts'

export { checkCursorsAgainstModel, ModelCursorStore, type CursorCheck } from './cursor-model.ts'
export { ModelMessageStore, type ModelBounds } from './message-model.ts'

/** Up to where a user has read a channel, in fact: what is gone or does not concern them, and what they answered, is read. */
export function effectiveReadSeq(cursor: Cursor, summary: ChannelSummary): number {
  const floorSeq = Math.max(cursor.joinSeq - 1, cursor.deletedToSeq, summary.floorSeq)
  return Math.max(floorSeq, cursor.readSeq, summary.sentSeq > cursor.unreadMarkSeq ? summary.sentSeq : 0)
}

/**
 * How many messages of a channel a user has to read, by the same formula as an engine. The formula takes off a hidden message
 * that is gone or recalled as well, unless it is below the floor; so the floor is the store's, where a store is compared.
 */
export function unreadOf(
  { messages, cursors }: { readonly messages: ModelMessageStore; readonly cursors: ModelCursorStore },
  uid: string,
  key: ChannelKey,
  floorSeq = messages.highestFloor(key),
): number {
  const readSeq = effectiveReadSeq(cursors.cursor(uid, key), { ...messages.summary(uid, key), floorSeq })
  const hiddenCount = cursors.hidden(uid, key, readSeq, Number.MAX_SAFE_INTEGER).length
  return Math.max(0, messages.countAfter(key, readSeq) - hiddenCount)
}

const FIRST_CHANNEL: ChannelKey = { channelID: 'a', channelType: ChannelType.Group }
const CHANNELS: readonly ChannelKey[] = [
  FIRST_CHANNEL,
  { channelID: 'b', channelType: ChannelType.Group },
  { channelID: 'a', channelType: ChannelType.Community },
  { channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person },
  { channelID: personChannelID('ann', 'ann'), channelType: ChannelType.Person },
  { channelID: 'ann', channelType: ChannelType.Person },
]

interface Draft {
  readonly fromUID: string
  readonly clientMsgNo: string
  readonly text: string
  readonly expireSec: number
}

export type MessageStep =
  | { readonly do: 'append'; readonly batches: readonly { readonly key: ChannelKey; readonly drafts: readonly Draft[] }[] }
  | { readonly do: 'range'; readonly key: ChannelKey; readonly query: RangeQuery }
  | { readonly do: 'truncate'; readonly key: ChannelKey; readonly beforeSeq: number }
  | { readonly do: 'edit'; readonly key: ChannelKey; readonly seq: number; readonly text: string }
  | { readonly do: 'recall' | 'countAfter'; readonly key: ChannelKey; readonly seq: number }
  | { readonly do: 'summaries'; readonly uid: string; readonly keys: readonly ChannelKey[] }
  | { readonly do: 'find'; readonly key: ChannelKey; readonly fromUID: string; readonly clientMsgNo: string }
  | { readonly do: 'get'; readonly numbers: readonly number[] }
  | { readonly do: 'personChannels'; readonly uid: string; readonly limit: number }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'sweep' | 'restart' }

// Mostly one channel and its first messages, so that a walk comes back to what it has changed before.
const anyKey = fc.oneof({ weight: 2, arbitrary: fc.constant(FIRST_CHANNEL) }, { weight: 3, arbitrary: fc.constantFrom(...CHANNELS) })
const anyUID = fc.constantFrom(...UIDS)
const anySeq = fc.oneof({ weight: 2, arbitrary: fc.integer({ min: 1, max: 4 }) }, { weight: 1, arbitrary: fc.nat({ max: 30 }) })
const anyText = fc.constantFrom('x', 'y', '')
const anyNo = fc.constantFrom('', 'n1', 'n2', 'n3', 'n4', 'n5')
const anyDraft = fc.record({
  fromUID: anyUID,
  clientMsgNo: anyNo,
  text: anyText,
  expireSec: fc.constantFrom(0, 0, 0, 1, 2, 5),
})
// What is not named is not there, rather than undefined.
const anyQuery = fc.record(
  {
    startSeq: anySeq,
    endSeq: anySeq,
    limit: fc.integer({ min: 1, max: 12 }),
    direction: fc.constantFrom('forward' as const, 'backward' as const),
  },
  { requiredKeys: [] },
)
const anyBatch = fc.record({ key: anyKey, drafts: fc.array(anyDraft, { minLength: 1, maxLength: 6 }) })

const anyMessageStep: fc.Arbitrary<MessageStep> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('append' as const), batches: fc.array(anyBatch, { minLength: 1, maxLength: 3 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('range' as const), key: anyKey, query: anyQuery }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('truncate' as const), key: anyKey, beforeSeq: anySeq }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('edit' as const), key: anyKey, seq: anySeq, text: anyText }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom('recall' as const, 'countAfter' as const), key: anyKey, seq: anySeq }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('summaries' as const), uid: anyUID, keys: fc.array(anyKey, { maxLength: 5 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('find' as const), key: anyKey, fromUID: anyUID, clientMsgNo: anyNo }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('get' as const), numbers: fc.array(fc.nat({ max: 60 }), { maxLength: 6 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('personChannels' as const), uid: anyUID, limit: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 500, 1000, 3000) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('sweep' as const, 'sweep' as const, 'restart' as const) }) },
)

/** A store and its model on one walk, in a time of their own. */
class Walk {
  readonly model: ModelMessageStore
  nowMs = 1_700_000_000_000
  #lastNumber = 0

  constructor(bounds: ModelBounds) {
    this.model = new ModelMessageStore(() => this.nowMs, bounds)
  }

  /** Do it to both, and compare what they answer. A restart is the caller's business: it has another store afterwards. */
  async take(step: MessageStep, store: MessageStore): Promise<void> {
    const { model } = this
    switch (step.do) {
      case 'append':
        return await this.#append(step.batches, store)
      case 'range':
        return assertSame(await store.range(step.key, step.query), model.range(step.key, step.query))
      case 'truncate': {
        const { removedCount } = await store.truncate(step.key, step.beforeSeq)
        const [least, most] = model.truncate(step.key, step.beforeSeq)
        return assert.ok(removedCount >= least && removedCount <= most, `${removedCount} removed, not ${least} to ${most}`)
      }
      case 'edit':
        return await this.#revise(step, { ...this.#change(), kind: 'edited', payload: Buffer.from(step.text) }, store)
      case 'recall':
        return await this.#revise(step, { ...this.#change(), kind: 'recalled' }, store)
      case 'countAfter':
        return await this.#countAfter(step.key, step.seq, store)
      case 'summaries':
        return await this.#summaries(step.uid, step.keys, store)
      case 'find': {
        const { key, fromUID, clientMsgNo } = step
        return assertSame([await store.findByClientMsgNo(key, fromUID, clientMsgNo)], [model.find(key, fromUID, clientMsgNo)])
      }
      case 'get': {
        const ids = step.numbers.map((n) => sampleMessage(n).messageID)
        return assertSame(await store.get(ids), ids.map((id) => model.get(id)))
      }
      case 'personChannels':
        return await this.#personChannels(step.uid, step.limit, store)
      case 'wait':
        this.nowMs += step.ms
        return
      case 'sweep':
        return await this.#sweep(store)
      case 'restart':
        return
    }
  }

  /** Every question there is, about everything. */
  async askEverything(store: MessageStore): Promise<void> {
    for (const key of CHANNELS) {
      const lastSeq = this.model.lastSeq(key)
      assert.equal(await store.lastSeq(key), lastSeq)
      assertSame(await store.range(key, { limit: 10_000 }), this.model.messages(key))
      for (let seq = 0; seq <= lastSeq + 1; seq++) await this.#countAfter(key, seq, store)
      for (const direction of ['forward', 'backward'] as const) {
        for (let startSeq = 0; startSeq <= lastSeq + 1; startSeq++) {
          const query = { startSeq, direction, limit: 2 }
          assertSame(await store.range(key, query), this.model.range(key, query))
        }
      }
    }
    for (const uid of UIDS) {
      await this.#summaries(uid, CHANNELS, store)
      await this.#personChannels(uid, 1, store)
    }
    const ids = Array.from({ length: this.#lastNumber }, (_, i) => sampleMessage(i + 1).messageID)
    assertSame(await store.get(ids), ids.map((id) => this.model.get(id)))
  }

  async #append(batches: readonly { key: ChannelKey; drafts: readonly Draft[] }[], store: MessageStore): Promise<void> {
    const filled = batches.map(({ key, drafts }) => ({
      key,
      messages: drafts.map(({ text, ...draft }) =>
        sampleMessage(++this.#lastNumber, { ...key, ...draft, payload: Buffer.from(text), timestampMs: this.nowMs }),
      ),
    }))
    const answers = await store.append(filled)
    assert.deepEqual(answers, filled.map(({ key, messages }, i) => this.model.append(key, messages, answers[i])))
  }

  async #revise({ key, seq }: { key: ChannelKey; seq: number }, change: MessageChange, store: MessageStore): Promise<void> {
    assertSame([await store.revise(key, seq, change)], [this.model.revise(key, seq, change)])
  }

  #change(): { byUID: string; timestampMs: number } {
    return { byUID: UIDS[this.#lastNumber % UIDS.length] ?? '', timestampMs: this.nowMs }
  }

  async #countAfter(key: ChannelKey, seq: number, store: MessageStore): Promise<void> {
    const count = await store.countAfter(key, seq)
    const [least, most] = [this.model.readableCountAfter(key, seq), this.model.countAfter(key, seq)]
    assert.ok(count >= least && count <= most, `countAfter ${seq} is ${count}, not ${least} to ${most}`)
  }

  async #summaries(uid: string, keys: readonly ChannelKey[], store: MessageStore): Promise<void> {
    const answers = await store.summaries(uid, keys)
    assert.equal(answers.length, keys.length)
    for (const [i, key] of keys.entries()) {
      const expected = this.model.summary(uid, key)
      const floorSeq = answers[i]?.floorSeq ?? -1
      assert.deepEqual({ ...answers[i] }, { ...expected, floorSeq })
      assert.ok(floorSeq >= expected.floorSeq && floorSeq <= this.model.highestFloor(key), `floorSeq ${floorSeq}`)
    }
  }

  async #personChannels(uid: string, limit: number, store: MessageStore): Promise<void> {
    const ids: string[] = []
    let cursor: string | undefined
    do {
      const page = await store.personChannelsOf(uid, cursor === undefined ? { limit } : { limit, cursor })
      assert.ok(page.items.length <= limit)
      ids.push(...page.items.map((key) => key.channelID))
      cursor = page.cursor
    } while (cursor !== undefined)
    assert.deepEqual(ids.sort(), this.model.personChannelsOf(uid).sort())
  }

  async #sweep(store: MessageStore): Promise<void> {
    if (store.sweep === undefined) return
    let removedCount = 0
    for (let isDone = false; !isDone; ) {
      const result = await store.sweep(this.nowMs)
      removedCount += result.removedCount
      isDone = result.isDone
    }
    assert.equal(removedCount, this.model.sweep(this.nowMs))
  }
}

function assertSame(actual: readonly (Message | undefined)[], expected: readonly (Message | undefined)[]): void {
  const plain = (message: Message | undefined): object | undefined =>
    message === undefined ? undefined : { ...message, payload: Buffer.from(message.payload).toString('hex') }
  assert.deepEqual(actual.map(plain), expected.map(plain))
}

/** How to get a store, and how to look: `numRuns` walks of up to 60 steps, from one seed. */
export interface StoreCheck<S> {
  /** the store decides by this time what has expired */
  open(environment: { readonly nowMs: () => number }): MaybePromise<S>
  close?(store: S): MaybePromise<void>
  /** another life of the same data; without it no walk has a restart */
  reopen?(store: S, environment: { readonly nowMs: () => number }): MaybePromise<S>
  readonly numRuns: number
  readonly seed: number
  /** the bounds that the opened stores have */
  readonly bounds?: ModelBounds
}

/** Whatever is done to it, in whatever order, the store answers as the model does. Rejects with the shortest walk that shows otherwise. */
export async function checkStoreAgainstModel<S extends MessageStore>(check: StoreCheck<S>): Promise<void> {
  const property = fc.asyncProperty(fc.array(anyMessageStep, WALK_LENGTH), async (steps) => {
    const walk = new Walk(check.bounds ?? {})
    const environment = { nowMs: () => walk.nowMs }
    let store = await check.open(environment)
    try {
      for (const step of steps) {
        await walk.take(step, store)
        if (step.do === 'restart' && check.reopen !== undefined) store = await check.reopen(store, environment)
      }
      await walk.askEverything(store)
    } finally {
      await check.close?.(store)
    }
  })
  await fc.assert(property, { numRuns: check.numRuns, seed: check.seed })
}

/** What is unread by the answers of two stores is what is unread by the models, for everybody in every channel. */
export async function checkUnreadAgainstModel<S extends { readonly messages: MessageStore; readonly cursors: CursorStore }>(
  check: StoreCheck<S>,
): Promise<void> {
  const anyStep = fc.oneof(
    anyMessageStep.map((message) => ({ message })),
    cursorSteps(CHANNELS).map((cursor) => ({ cursor })),
  )
  const property = fc.asyncProperty(fc.array(anyStep, WALK_LENGTH), async (steps) => {
    const walk = new Walk(check.bounds ?? {})
    const cursorModel = new ModelCursorStore()
    const store = await check.open({ nowMs: () => walk.nowMs })
    try {
      for (const step of steps) {
        if ('message' in step) await walk.take(step.message, store.messages)
        else await takeCursorStep(step.cursor, store.cursors, cursorModel)
      }
      await walk.take({ do: 'sweep' }, store.messages) // until then, what has expired may count or not
      for (const uid of UIDS) {
        for (const key of CHANNELS) {
          const [summary] = await store.messages.summaries(uid, [key])
          assert.ok(summary !== undefined)
          const expected = unreadOf({ messages: walk.model, cursors: cursorModel }, uid, key, summary.floorSeq)
          assert.equal(await unreadIn(store, uid, key, summary), expected)
        }
      }
    } finally {
      await check.close?.(store)
    }
  })
  await fc.assert(property, { numRuns: check.numRuns, seed: check.seed })
}

async function unreadIn(
  { messages, cursors }: { readonly messages: MessageStore; readonly cursors: CursorStore },
  uid: string,
  key: ChannelKey,
  summary: ChannelSummary,
): Promise<number> {
  const readSeq = effectiveReadSeq(await cursors.cursor(uid, key), summary)
  const hidden = await cursors.hidden(uid, key, readSeq, Number.MAX_SAFE_INTEGER)
  return Math.max(0, (await messages.countAfter(key, readSeq)) - hidden.length)
}
