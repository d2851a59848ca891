import assert from 'node:assert/strict'
import fc from 'fast-check'
import { it } from 'vitest'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import type { AppendResult, MessageStore, RangeQuery } from '../../../src/contracts/message-store.ts'
import type { ChannelKey } from '../../../src/model/channel.ts'
import type { Message } from '../../../src/model/message.ts'
import { sampleMessage } from '../../../src/testing/index.ts'

/** The store as one would explain it: one list of everything, searched from the front for every question. */
class ModelStore {
  readonly #maxPerChannel: number
  #messages: Message[] = []
  readonly #lastSeqs = new Map<string, number>()

  constructor(maxPerChannel: number) {
    this.#maxPerChannel = maxPerChannel
  }

  append(key: ChannelKey, messages: readonly Message[]): AppendResult[] {
    return messages.map((message) => {
      const earlier = message.clientMsgNo === '' ? undefined : this.find(key, message.fromUID, message.clientMsgNo)
      if (earlier !== undefined) {
        const status = Buffer.compare(earlier.payload, message.payload) === 0 ? 'duplicate' : 'conflict'
        return { status, messageID: earlier.messageID, messageSeq: earlier.messageSeq }
      }
      const messageSeq = this.lastSeq(key) + 1
      this.#lastSeqs.set(JSON.stringify(key), messageSeq)
      this.#messages.push({ ...message, messageSeq })
      this.truncate(key, messageSeq - this.#maxPerChannel + 1)
      return { status: 'stored', messageID: message.messageID, messageSeq }
    })
  }

  of(key: ChannelKey): Message[] {
    return this.#messages.filter((message) => message.channelID === key.channelID && message.channelType === key.channelType)
  }

  range(key: ChannelKey, { startSeq, endSeq, limit = 100, direction }: RangeQuery): number[] {
    const seqs = this.of(key).map((message) => message.messageSeq)
    const [low, high] = direction === 'backward' ? [endSeq ?? 0, startSeq ?? Infinity] : [startSeq ?? 0, endSeq ?? Infinity]
    const inside = seqs.filter((seq) => seq >= low && seq <= high)
    return (direction === 'backward' ? inside.reverse() : inside).slice(0, limit)
  }

  lastSeq(key: ChannelKey): number {
    return this.#lastSeqs.get(JSON.stringify(key)) ?? 0
  }

  find(key: ChannelKey, fromUID: string, clientMsgNo: string): Message | undefined {
    return this.of(key).find((message) => message.fromUID === fromUID && message.clientMsgNo === clientMsgNo)
  }

  get(messageID: string): Message | undefined {
    return this.#messages.find((message) => message.messageID === messageID)
  }

  truncate(key: ChannelKey, beforeSeq: number): number {
    const before = this.#messages.length
    const gone = new Set(this.of(key).filter((message) => message.messageSeq < beforeSeq))
    this.#messages = this.#messages.filter((message) => !gone.has(message))
    return before - this.#messages.length
  }
}

const arbitraryKey = fc.record({ channelID: fc.constantFrom('a', 'b'), channelType: fc.constantFrom(1, 2) })
const arbitraryDraft = fc.record({
  fromUID: fc.constantFrom('ann', 'bob'),
  clientMsgNo: fc.constantFrom('', 'n1', 'n2', 'n3', 'n4', 'n5'),
  payload: fc.constantFrom('x', 'y').map((text) => Buffer.from(text)),
})
const arbitrarySeq = fc.option(fc.nat({ max: 30 }), { nil: undefined })
const arbitraryQuery: fc.Arbitrary<RangeQuery> = fc
  .record({
    startSeq: arbitrarySeq,
    endSeq: arbitrarySeq,
    limit: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
    direction: fc.constantFrom('forward' as const, 'backward' as const, undefined),
  })
  .map((query) => Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)))

type Step = (store: MessageStore, model: ModelStore, nextID: () => number) => Promise<void>

const appendStep: fc.Arbitrary<Step> = fc
  .tuple(arbitraryKey, fc.array(arbitraryDraft, { minLength: 1, maxLength: 6 }))
  .map(([key, drafts]) => async (store, model, nextID) => {
    const messages = drafts.map((draft) => sampleMessage(nextID(), { ...draft, ...key }))
    assert.deepEqual(await store.append([{ key, messages }]), [model.append(key, messages)])
  })

const truncateStep: fc.Arbitrary<Step> = fc.tuple(arbitraryKey, fc.nat({ max: 30 })).map(([key, beforeSeq]) => async (store, model) => {
  const { removedCount } = await store.truncate(key, beforeSeq)
  assert.equal(removedCount, model.truncate(key, beforeSeq))
})

const rangeStep: fc.Arbitrary<Step> = fc.tuple(arbitraryKey, arbitraryQuery).map(([key, query]) => async (store, model) => {
  const found = await store.range(key, query)
  assert.deepEqual(found.map((message) => message.messageSeq), model.range(key, query))
})

const lookupStep: fc.Arbitrary<Step> = fc.tuple(arbitraryKey, arbitraryDraft).map(([key, { fromUID, clientMsgNo }]) => async (store, model) => {
  assert.equal(await store.lastSeq(key), model.lastSeq(key))
  const expected = clientMsgNo === '' ? undefined : model.find(key, fromUID, clientMsgNo)
  assert.equal((await store.findByClientMsgNo(key, fromUID, clientMsgNo))?.messageID, expected?.messageID)
  const ids = [1, 5, 9, 20, 40].map((n) => sampleMessage(n).messageID)
  assert.deepEqual((await store.get(ids)).map((message) => message?.messageSeq), ids.map((id) => model.get(id)?.messageSeq))
})

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/memory` looks elsewhere. */
it('the store answers as a plain list would, whatever is done to it in whatever order', async () => {
  const steps = fc.array(fc.oneof({ arbitrary: appendStep, weight: 3 }, truncateStep, rangeStep, lookupStep), { maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(steps, fc.integer({ min: 1, max: 12 }), async (run, maxMessagesPerChannel) => {
      const store = memoryMessageStore({ maxMessagesPerChannel })
      const model = new ModelStore(maxMessagesPerChannel)
      let lastID = 0
      for (const step of run) await step(store, model, () => ++lastID)
    }),
    { numRuns: 300, seed: Number(process.env['FUZZ_SEED'] ?? 20_260_101) },
  )
})
