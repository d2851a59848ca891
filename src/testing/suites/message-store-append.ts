import assert from 'node:assert/strict'
import type { AppendBatch, AppendResult, MessageStore } from '../../contracts/message-store.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { started, type Scenario } from './contract-case.ts'
import { channel, ROOM, sampleMessage, sampleMessages } from './samples.ts'

/** Append to one channel; the messages get its key. */
export async function append(
  store: MessageStore,
  key: ChannelKey,
  messages: readonly Message[],
): Promise<readonly AppendResult[]> {
  const results = await store.append([batchOf(key, messages)])
  assert.equal(results.length, 1, 'one list of results per batch')
  assert.equal(results[0]?.length, messages.length, 'one result per message')
  return results[0] ?? []
}

export function batchOf(key: ChannelKey, messages: readonly Message[]): AppendBatch {
  return { key, messages: messages.map((message) => ({ ...message, ...key })) }
}

export function seqs(results: readonly { readonly messageSeq: number }[]): number[] {
  return results.map((result) => result.messageSeq)
}

function statuses(results: readonly AppendResult[]): string[] {
  return results.map((result) => result.status)
}

/** A message that cannot be stored: whoever reads its payload gets an error in the middle of the work. */
export function unstorable(n: number): Message {
  const get = (): never => {
    throw new Error('this payload cannot be read')
  }
  return Object.defineProperty(sampleMessage(n), 'payload', { enumerable: true, get })
}

/** What `append` gives to each message: its number, and its own id back. */
export const numberingScenarios: readonly Scenario<MessageStore>[] = [
  [
    'the first message of a channel gets seq 1, those after it 2, 3 … without gap',
    async (store) => {
      for (let n = 1; n <= 5; n++) {
        const [result] = await append(store, ROOM, [sampleMessage(n)])
        assert.deepEqual(result, { status: 'stored', messageID: sampleMessage(n).messageID, messageSeq: n })
      }
      assert.equal(await store.lastSeq(ROOM), 5)
    },
  ],
  [
    'the messages of one batch get consecutive numbers in the order given',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const results = await append(store, ROOM, sampleMessages(2, 400))
      assert.deepEqual(seqs(results), Array.from({ length: 399 }, (_, i) => i + 2))
      assert.deepEqual(results.map((result) => result.messageID), sampleMessages(2, 400).map((message) => message.messageID))
    },
  ],
  [
    'every channel counts for itself, also within one call',
    async (store) => {
      await append(store, channel('b'), [sampleMessage(1)])
      const results = await store.append([
        batchOf(channel('a'), sampleMessages(2, 3)),
        batchOf(channel('b'), sampleMessages(4, 6)),
        batchOf(channel('c'), [sampleMessage(7)]),
      ])
      assert.deepEqual(results.map(seqs), [[1, 2], [2, 3, 4], [1]])
    },
  ],
  [
    'one id under two channel types is two channels',
    async (store) => {
      await append(store, channel('same', 2), sampleMessages(1, 3))
      const results = await append(store, channel('same', 4), [sampleMessage(4)])
      assert.deepEqual(seqs(results), [1])
      assert.deepEqual(seqs(await store.range(channel('same', 2))), [1, 2, 3])
      assert.deepEqual(seqs(await store.range(channel('same', 4))), [1])
    },
  ],
  [
    'several batches for one channel in one call are taken in order',
    async (store) => {
      const results = await store.append([
        batchOf(ROOM, sampleMessages(1, 2)),
        batchOf(channel('other'), [sampleMessage(3)]),
        batchOf(ROOM, [sampleMessage(2), sampleMessage(4)]),
      ])
      assert.deepEqual(results.map(seqs), [[1, 2], [1], [2, 3]])
      assert.deepEqual(results.map(statuses), [['stored', 'stored'], ['stored'], ['duplicate', 'stored']])
    },
  ],
  [
    'overlapping calls for one channel are taken in the order of the calls, without gap or repeat',
    async (store) => {
      const calls = Array.from({ length: 40 }, (_, i) =>
        started(() => append(store, ROOM, sampleMessages(3 * i + 1, 3 * i + 3))),
      )
      const results = (await Promise.all(calls)).flat()
      assert.deepEqual(seqs(results), Array.from({ length: 120 }, (_, i) => i + 1))
      assert.deepEqual(seqs(await store.range(ROOM, { limit: 1000 })), seqs(results))
    },
  ],
  [
    'overlapping calls for many channels each get their own numbers',
    async (store) => {
      const calls = Array.from({ length: 60 }, (_, i) =>
        started(() => append(store, channel(`room-${i % 20}`), sampleMessages(2 * i + 1, 2 * i + 2))),
      )
      const results = await Promise.all(calls)
      const expected = Array.from({ length: 60 }, (_, i) => [1, 2].map((seq) => 2 * Math.floor(i / 20) + seq))
      assert.deepEqual(results.map(seqs), expected)
    },
  ],
]

/** What `append` does with a clientMsgNo that it has seen. */
export const repeatScenarios: readonly Scenario<MessageStore>[] = [
  [
    "a repeat with the same payload is a duplicate: it is stored nowhere and answered with the original's ids",
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const again = sampleMessage(90, { clientMsgNo: 'no-2', payload: Buffer.from('message 2'), timestampMs: 5 })
      const original = { status: 'duplicate', messageID: sampleMessage(2).messageID, messageSeq: 2 }
      assert.deepEqual(await append(store, ROOM, [again]), [original])
      assert.equal(await store.lastSeq(ROOM), 3)
      assert.deepEqual(await store.get([again.messageID]), [undefined])
    },
  ],
  [
    'a repeat with another payload is a conflict: the original stays as it was and its ids are the answer',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      for (const payload of ['message 1 ', 'message', '', 'Message 1']) {
        const other = sampleMessage(90, { clientMsgNo: 'no-1', payload: Buffer.from(payload) })
        const original = { status: 'conflict', messageID: sampleMessage(1).messageID, messageSeq: 1 }
        assert.deepEqual(await append(store, ROOM, [other]), [original])
      }
      const [kept] = await store.range(ROOM)
      assert.equal(Buffer.from(kept?.payload ?? []).toString(), 'message 1')
      assert.equal(await store.lastSeq(ROOM), 2)
    },
  ],
  [
    'a repeat within one batch is recognised',
    async (store) => {
      const results = await append(store, ROOM, [
        sampleMessage(1),
        sampleMessage(2, { clientMsgNo: 'no-1', payload: Buffer.from('message 1') }),
        sampleMessage(3, { clientMsgNo: 'no-1' }),
        sampleMessage(4),
      ])
      assert.deepEqual(statuses(results), ['stored', 'duplicate', 'conflict', 'stored'])
      assert.deepEqual(seqs(results), [1, 1, 1, 2])
      assert.deepEqual(results.slice(0, 3).map((result) => result.messageID), Array(3).fill(sampleMessage(1).messageID))
      assert.equal((await store.range(ROOM)).length, 2)
    },
  ],
  [
    'a repeat that overlaps the first try is recognised',
    async (store) => {
      const calls = Array.from({ length: 8 }, () => started(() => append(store, ROOM, [sampleMessage(1)])))
      const results = (await Promise.all(calls)).flat()
      assert.deepEqual(statuses(results), ['stored', ...Array<string>(7).fill('duplicate')])
      assert.deepEqual(seqs(results), Array(8).fill(1))
      assert.equal((await store.range(ROOM)).length, 1)
    },
  ],
  [
    'new messages around repeats are stored and numbered without gap',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const results = await append(store, ROOM, [sampleMessage(4), sampleMessage(2), sampleMessage(5), sampleMessage(3)])
      assert.deepEqual(seqs(results), [4, 2, 5, 3])
      assert.deepEqual(seqs(await append(store, ROOM, [sampleMessage(6)])), [6])
    },
  ],
  [
    'the same clientMsgNo from another sender is another message',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const results = await append(store, ROOM, [
        sampleMessage(2, { fromUID: 'bob', clientMsgNo: 'no-1' }),
        sampleMessage(3, { fromUID: 'cleo', clientMsgNo: 'no-1' }),
        sampleMessage(4, { fromUID: 'bob', clientMsgNo: 'no-1', payload: Buffer.from('message 2') }),
      ])
      assert.deepEqual(statuses(results), ['stored', 'stored', 'duplicate'])
      assert.deepEqual(seqs(results), [2, 3, 2])
    },
  ],
  [
    'the same clientMsgNo in another channel is another message, also when only the type differs',
    async (store) => {
      await append(store, channel('a', 2), [sampleMessage(1)])
      for (const [i, key] of [channel('b', 2), channel('a', 4)].entries()) {
        const results = await append(store, key, [sampleMessage(i + 2, { clientMsgNo: 'no-1' })])
        assert.deepEqual(statuses(results), ['stored'])
      }
    },
  ],
  [
    'an empty clientMsgNo is never a repeat',
    async (store) => {
      const nameless = sampleMessages(1, 3, { clientMsgNo: '', payload: Buffer.from('same') })
      assert.deepEqual(seqs(await append(store, ROOM, nameless)), [1, 2, 3])
      const more = sampleMessages(4, 5, { clientMsgNo: '', payload: Buffer.from('same') })
      assert.deepEqual(statuses(await append(store, ROOM, more)), ['stored', 'stored'])
      assert.equal(await store.findByClientMsgNo(ROOM, 'ann', ''), undefined)
    },
  ],
]

/** What a failed `append` leaves behind: nothing. */
export const failureScenarios: readonly Scenario<MessageStore>[] = [
  [
    'an append that fails writes nothing and uses up no number',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      await assert.rejects(started(() => store.append([{ key: ROOM, messages: [sampleMessage(2), unstorable(3)] }])))
      assert.equal(await store.lastSeq(ROOM), 1)
      assert.deepEqual(seqs(await store.range(ROOM)), [1])
      assert.deepEqual(await store.get([sampleMessage(2).messageID]), [undefined])
      assert.equal(await store.findByClientMsgNo(ROOM, 'ann', 'no-2'), undefined)
      const results = await append(store, ROOM, [sampleMessage(2)])
      assert.deepEqual(results, [{ status: 'stored', messageID: sampleMessage(2).messageID, messageSeq: 2 }])
    },
  ],
  [
    'when one batch of a call fails, none of the call is written',
    async (store) => {
      const other = channel('other')
      const call = started(() => store.append([batchOf(other, [sampleMessage(1)]), { key: ROOM, messages: [unstorable(2)] }]))
      await assert.rejects(call)
      assert.deepEqual(await store.range(other), [])
      assert.equal(await store.lastSeq(other), 0)
      assert.deepEqual(seqs(await append(store, other, [sampleMessage(1)])), [1])
    },
  ],
  [
    'an append that fails does no harm to those that overlap it',
    async (store) => {
      const [before, failed, sameChannel, otherChannel] = await Promise.allSettled([
        started(() => append(store, ROOM, [sampleMessage(1)])),
        started(() => store.append([{ key: ROOM, messages: [sampleMessage(2), unstorable(3)] }])),
        started(() => append(store, ROOM, [sampleMessage(4)])),
        started(() => append(store, channel('other'), [sampleMessage(5)])),
      ])
      assert.equal(failed.status, 'rejected')
      assert.deepEqual(seqs(valueOf(before)), [1])
      assert.deepEqual(seqs(valueOf(sameChannel)), [2])
      assert.deepEqual(seqs(valueOf(otherChannel)), [1])
    },
  ],
]

function valueOf<T>(outcome: PromiseSettledResult<T>): T {
  assert.ok(outcome.status === 'fulfilled', 'an append that has nothing to do with the failed one must succeed')
  return outcome.value
}
