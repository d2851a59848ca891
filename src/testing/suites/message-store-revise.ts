import assert from 'node:assert/strict'
import type { MessageChange, MessageStore } from '../../contracts/message-store.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message, Revision } from '../../model/message.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { append, seqs } from './message-store-append.ts'
import { assertSameMessage, channel, HOSTILE_IDS, ROOM, sampleMessage, sampleMessages } from './samples.ts'

export const RECALL: MessageChange = { kind: 'recalled', byUID: 'ann', timestampMs: 1_800_000_000_000 }

export function editTo(text: string, over: { readonly byUID?: string; readonly timestampMs?: number } = {}): MessageChange {
  return { kind: 'edited', byUID: 'bob', timestampMs: 1_900_000_000_000, ...over, payload: Buffer.from(text) }
}

/** Message `n` as it is after changes: what `append` was given, but for payload and revision. */
function revised(n: number, messageSeq: number, text: string, revision: Revision): Message {
  return sampleMessage(n, { messageSeq, payload: Buffer.from(text), revision })
}

/** Whoever asks, by seq, by id or by the sender's number, is shown this. */
async function assertShown(store: MessageStore, expected: Message): Promise<void> {
  const { channelID, channelType, fromUID, clientMsgNo, messageID, messageSeq } = expected
  const key: ChannelKey = { channelID, channelType }
  assertSameMessage((await store.range(key, { startSeq: messageSeq, limit: 1 }))[0], expected, 'what range shows')
  const backward = await store.range(key, { startSeq: messageSeq, limit: 1, direction: 'backward' })
  assertSameMessage(backward[0], expected, 'what a backward range shows')
  assertSameMessage((await store.get([messageID]))[0], expected, 'what get shows')
  assertSameMessage(await store.findByClientMsgNo(key, fromUID, clientMsgNo), expected, 'what findByClientMsgNo shows')
}

/** What a change does to a message, and to nothing else. */
export const reviseScenarios: readonly Scenario<MessageStore>[] = [
  [
    'an edited message has its new payload and a revision; its ids, place and time stay',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const revision: Revision = { kind: 'edited', version: 1, byUID: 'bob', timestampMs: 1_900_000_000_000 }
      const expected = revised(2, 2, 'better', revision)
      assertSameMessage(await store.revise(ROOM, 2, editTo('better')), expected, 'the answer')
      await assertShown(store, expected)
      for (const n of [1, 3]) await assertShown(store, sampleMessage(n, { messageSeq: n }))
    },
  ],
  [
    'a recalled message has an empty payload and a revision; its ids, place and time stay',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const revision: Revision = { kind: 'recalled', version: 1, byUID: 'ann', timestampMs: 1_800_000_000_000 }
      const expected = revised(2, 2, '', revision)
      assertSameMessage(await store.revise(ROOM, 2, RECALL), expected, 'the answer')
      await assertShown(store, expected)
      assert.deepEqual(seqs(await store.range(ROOM)), [1, 2, 3])
    },
  ],
  [
    'the version counts the changes, and a revision names the last of them',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      for (let version = 1; version <= 5; version++) {
        const by = { byUID: version % 2 === 0 ? '' : `u${version}`, timestampMs: 2_000_000_000_000 - version }
        const expected = revised(1, 1, `text ${version}`, { kind: 'edited', version, ...by })
        assertSameMessage(await store.revise(ROOM, 1, editTo(`text ${version}`, by)), expected, 'the answer')
        await assertShown(store, expected)
      }
      const recalled = revised(1, 1, '', { kind: 'recalled', version: 6, byUID: 'ann', timestampMs: RECALL.timestampMs })
      assertSameMessage(await store.revise(ROOM, 1, RECALL), recalled, 'the answer')
      await assertShown(store, recalled)
      await assertShown(store, sampleMessage(2, { messageSeq: 2 }))
    },
  ],
  [
    'a recalled message never changes again: an edit or another recall is answered with it as it is',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const expected = revised(1, 1, '', { kind: 'recalled', version: 1, byUID: 'ann', timestampMs: RECALL.timestampMs })
      await store.revise(ROOM, 1, RECALL)
      for (const change of [editTo('back again'), editTo(''), { ...RECALL, byUID: 'cleo', timestampMs: 5 }]) {
        assertSameMessage(await store.revise(ROOM, 1, change), expected, 'the answer')
        await assertShown(store, expected)
      }
    },
  ],
  [
    'there is nothing to revise where there is no message, and trying brings nothing into being',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const expiring = { timestampMs: Date.now() - 3_600_000, expireSec: 60 }
      await append(store, ROOM, [sampleMessage(4, expiring), sampleMessage(5)])
      await store.truncate(ROOM, 3)
      for (const change of [RECALL, editTo('new')]) {
        for (const seq of [0, 1, 2, 4, 6, 4_294_967_295]) {
          assert.equal(await store.revise(ROOM, seq, change), undefined, `seq ${seq}`)
        }
        assert.equal(await store.revise(channel('nowhere'), 1, change), undefined)
        assert.equal(await store.revise(channel(ROOM.channelID, 4), 3, change), undefined)
      }
      assert.deepEqual(seqs(await store.range(ROOM)), [3, 5])
      await assertShown(store, sampleMessage(3, { messageSeq: 3 }))
      assert.deepEqual(await store.range(channel('nowhere')), [])
      assert.equal(await store.lastSeq(channel('nowhere')), 0)
      assert.equal(await store.lastSeq(ROOM), 5)
    },
  ],
  [
    'a repeat of an edited message is judged by the payload it came with, and takes nothing back',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      await store.revise(ROOM, 1, editTo('first edit'))
      await store.revise(ROOM, 1, editTo('better'))
      const verdicts = [['message 1', 'duplicate'], ['better', 'conflict'], ['first edit', 'conflict'], ['', 'conflict']]
      await assertVerdicts(store, verdicts)
      await assertShown(store, revised(1, 1, 'better', { kind: 'edited', version: 2, byUID: 'bob', timestampMs: 1_900_000_000_000 }))
      assert.equal(await store.lastSeq(ROOM), 2)
    },
  ],
  [
    'a repeat of a recalled message is judged by the payload it came with, and brings nothing back',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      await store.revise(ROOM, 1, editTo('better'))
      await store.revise(ROOM, 1, RECALL)
      await assertVerdicts(store, [['message 1', 'duplicate'], ['', 'conflict'], ['better', 'conflict']])
      await assertShown(store, revised(1, 1, '', { kind: 'recalled', version: 2, byUID: 'ann', timestampMs: RECALL.timestampMs }))
      assert.equal(await store.lastSeq(ROOM), 2)
    },
  ],
  [
    'an edit takes any payload: none, all byte values, a large one, the one that is there',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const payloads = [new Uint8Array(0), Uint8Array.from({ length: 256 }, (_, i) => i), new Uint8Array(300_000).fill(0xa5)]
      for (const [i, payload] of [...payloads, payloads[2] ?? new Uint8Array(0)].entries()) {
        const revision: Revision = { kind: 'edited', version: i + 1, byUID: 'bob', timestampMs: 7 }
        await store.revise(ROOM, 1, { kind: 'edited', byUID: 'bob', timestampMs: 7, payload })
        await assertShown(store, sampleMessage(1, { messageSeq: 1, payload, revision }))
      }
    },
  ],
  [
    'channels and editors whatever their ids are kept apart',
    async (store) => {
      for (const [i, id] of HOSTILE_IDS.entries()) await append(store, channel(id), sampleMessages(2 * i + 1, 2 * i + 2))
      for (const id of HOSTILE_IDS) {
        const answer = await store.revise(channel(id), 2, editTo(`edit of ${id}`, { byUID: id }))
        assert.equal(answer?.channelID, id)
      }
      for (const [i, id] of HOSTILE_IDS.entries()) {
        const revision: Revision = { kind: 'edited', version: 1, byUID: id, timestampMs: 1_900_000_000_000 }
        await assertShown(store, { ...revised(2 * i + 2, 2, `edit of ${id}`, revision), ...channel(id) })
        await assertShown(store, sampleMessage(2 * i + 1, { ...channel(id), messageSeq: 1 }))
      }
    },
  ],
  [
    'what the caller does to a change afterwards, or to the answer, does not reach the store',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const change = { kind: 'edited' as const, byUID: 'bob', timestampMs: 7, payload: Buffer.from('better') }
      const key = { ...ROOM }
      const answer = await store.revise(key, 1, change)
      change.payload.fill(0)
      Object.assign(change, { byUID: 'mallory', timestampMs: 8 })
      key.channelID = 'elsewhere'
      const expected = revised(1, 1, 'better', { kind: 'edited', version: 1, byUID: 'bob', timestampMs: 7 })
      const reads: (() => Promise<Message | undefined>)[] = [
        async () => answer,
        async () => (await store.range(ROOM))[0],
        async () => (await store.get([expected.messageID]))[0],
        async () => await store.findByClientMsgNo(ROOM, 'ann', 'no-1'),
      ]
      for (const read of reads) {
        const shown = await read()
        shown?.payload.fill(0)
        // A store may hand out what cannot be changed; assigning to it would throw.
        if (shown?.revision !== undefined) Reflect.set(shown.revision, 'version', 99)
        await assertShown(store, expected)
      }
      assert.equal((await store.revise(ROOM, 1, editTo('again')))?.revision?.version, 2)
    },
  ],
  [
    'a revised message expires when it would have, and goes with truncate as any other',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1, { timestampMs: Date.now(), expireSec: 3600 }), ...sampleMessages(2, 4)])
      const edited = await store.revise(ROOM, 1, editTo('better', { timestampMs: Date.now() + 1_000_000 }))
      assert.deepEqual([edited?.expireSec, edited !== undefined && edited.timestampMs <= Date.now()], [3600, true])
      await store.revise(ROOM, 2, RECALL)
      assert.deepEqual(await store.truncate(ROOM, 3), { removedCount: 2 })
      assert.deepEqual(await store.get([1, 2].map((n) => sampleMessage(n).messageID)), [undefined, undefined])
      assert.equal(await store.findByClientMsgNo(ROOM, 'ann', 'no-1'), undefined)
      assert.deepEqual(seqs(await store.range(ROOM)), [3, 4])
    },
  ],
  [
    'edits of one message that overlap each get a version of their own, and the highest is what stays',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      const calls = Array.from({ length: 20 }, (_, i) => started(() => store.revise(ROOM, 1, editTo(`text ${i}`))))
      const answers = await Promise.all(calls)
      const versions = answers.map((answer) => answer?.revision?.version ?? 0)
      assert.deepEqual([...versions].sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i + 1))
      for (const [i, answer] of answers.entries()) assert.equal(Buffer.from(answer?.payload ?? []).toString(), `text ${i}`)
      const last = answers[versions.indexOf(20)]
      assert.ok(last !== undefined)
      await assertShown(store, last)
    },
  ],
  [
    'a recall stays whatever overlaps it: edits, repeats and new messages',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      const [, , , results, repeats] = await Promise.all([
        started(() => store.revise(ROOM, 1, editTo('before'))),
        started(() => store.revise(ROOM, 1, RECALL)),
        started(() => store.revise(ROOM, 1, editTo('after'))),
        started(() => append(store, ROOM, sampleMessages(3, 5))),
        started(() => append(store, ROOM, [sampleMessage(1)])),
      ])
      assert.deepEqual(seqs(results), [3, 4, 5])
      assert.deepEqual(repeats, [{ status: 'duplicate', messageID: sampleMessage(1).messageID, messageSeq: 1 }])
      const [kept] = await store.get([sampleMessage(1).messageID])
      assert.deepEqual([kept?.revision?.kind, kept?.payload.length], ['recalled', 0])
      assert.deepEqual(seqs(await store.range(ROOM)), [1, 2, 3, 4, 5])
    },
  ],
]

/** How message 1, sent again with these payloads, is judged. */
async function assertVerdicts(store: MessageStore, verdicts: readonly (readonly string[])[]): Promise<void> {
  for (const [text = '', status] of verdicts) {
    const repeat = sampleMessage(90, { clientMsgNo: 'no-1', payload: Buffer.from(text) })
    const answer = { status, messageID: sampleMessage(1).messageID, messageSeq: 1 }
    assert.deepEqual(await append(store, ROOM, [repeat]), [answer], `a repeat with ${JSON.stringify(text)}`)
  }
}

export const reviseSurvivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart edits and recalls are there, versions go on, and what was recalled stays so',
    before: async (store) => {
      await append(store, ROOM, sampleMessages(1, 4))
      await store.revise(ROOM, 1, editTo('first'))
      await store.revise(ROOM, 1, editTo('better'))
      await store.revise(ROOM, 2, RECALL)
      await store.revise(ROOM, 3, editTo('wrong'))
      await store.revise(ROOM, 3, RECALL)
    },
    after: async (store) => {
      const recalled = { kind: 'recalled', byUID: 'ann', timestampMs: RECALL.timestampMs } as const
      const edited = { kind: 'edited', byUID: 'bob', timestampMs: 1_900_000_000_000 } as const
      await assertShown(store, revised(1, 1, 'better', { ...edited, version: 2 }))
      await assertShown(store, revised(2, 2, '', { ...recalled, version: 1 }))
      await assertShown(store, revised(3, 3, '', { ...recalled, version: 2 }))
      await assertShown(store, sampleMessage(4, { messageSeq: 4 }))
      assert.equal(await store.countAfter(ROOM, 0), 2)
      await store.revise(ROOM, 2, editTo('back'))
      await store.revise(ROOM, 1, editTo('best'))
      await assertShown(store, revised(2, 2, '', { ...recalled, version: 1 }))
      await assertShown(store, revised(1, 1, 'best', { ...edited, version: 3 }))
    },
  },
  {
    name: 'after a restart repeats of revised messages are judged by the payload they came with',
    before: async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      await store.revise(ROOM, 1, editTo('better'))
      await store.revise(ROOM, 2, RECALL)
    },
    after: async (store) => {
      const results = await append(store, ROOM, [
        ...sampleMessages(1, 2),
        sampleMessage(90, { clientMsgNo: 'no-1', payload: Buffer.from('better') }),
        sampleMessage(91, { clientMsgNo: 'no-2', payload: Buffer.from('') }),
      ])
      assert.deepEqual(results.map((result) => result.status), ['duplicate', 'duplicate', 'conflict', 'conflict'])
      assert.deepEqual(seqs(results), [1, 2, 1, 2])
    },
  },
]
