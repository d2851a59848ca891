import assert from 'node:assert/strict'
import type { ChannelKey } from '../../model/channel.ts'
import { ChannelType } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'

export function channel(channelID: string, channelType: number = ChannelType.Group): ChannelKey {
  return { channelID, channelType }
}

export const ROOM = channel('room')

/** Message number `n` as it would be given to `append`: no two numbers share an id or a clientMsgNo. */
export function sampleMessage(n: number, over: Partial<Message> = {}): Message {
  return {
    messageID: String(7_000_000_000_000_000_000n + BigInt(n)),
    messageSeq: 0,
    clientMsgNo: `no-${n}`,
    fromUID: 'ann',
    channelID: ROOM.channelID,
    channelType: ROOM.channelType,
    payload: Buffer.from(`message ${n}`),
    timestampMs: 1_700_000_000_000 + n,
    expireSec: 0,
    topic: '',
    setting: 0,
    noPersist: false,
    redDot: true,
    syncOnce: false,
    ...over,
  }
}

/** Messages first .. last, both included. */
export function sampleMessages(first: number, last: number, over: Partial<Message> = {}): Message[] {
  return Array.from({ length: last - first + 1 }, (_, i) => sampleMessage(first + i, over))
}

/** Every field is equal; what kind of byte array the payload is does not matter. */
export function assertSameMessage(actual: Message | undefined, expected: Message, what = 'the message'): void {
  assert.ok(actual !== undefined, `${what} is missing`)
  assert.deepEqual(comparable(actual), comparable(expected), `${what} came back changed`)
}

export function assertSameMessages(actual: readonly Message[], expected: readonly Message[]): void {
  assert.deepEqual(actual.map(comparable), expected.map(comparable))
}

function comparable(message: Message): Record<string, unknown> {
  assert.ok(message.payload instanceof Uint8Array, 'a payload must be a Uint8Array')
  return { ...message, payload: Buffer.from(message.payload).toString('hex') }
}

/** Ids that break whoever joins, splits, quotes or trusts them. All are well-formed text. */
export const HOSTILE_IDS: readonly string[] = [
  'a\0b',
  '\0',
  'a:b',
  '2:room',
  'a@b',
  '@',
  'a/b',
  '../a',
  'a|b',
  'a,b',
  'a b ',
  'a\nb',
  '%00',
  '*',
  '$1',
  `'; drop table messages; --`,
  '{"uid":"a"}',
  '__proto__',
  'constructor',
  'ä',
  'a\u0308',
  '汉字',
  '👩‍👩‍👧',
  '\u{10ffff}',
  '\uffff',
  'ROOM',
  'x'.repeat(32_767),
  `${'x'.repeat(32_766)}y`,
]

/** Two different pairs that become one text in a store that joins them with this separator. */
export const CONFUSABLE_PAIRS: readonly (readonly [readonly [string, string], readonly [string, string]])[] = [
  '',
  '\0',
  ':',
  '@',
  '/',
  '|',
  ',',
  '\u{10ffff}',
].map((separator) => [
  ['a', `b${separator}c`],
  [`a${separator}b`, 'c'],
])
