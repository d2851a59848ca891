import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { batchHeadBytes, decodeEntry, encodeBatch, encodeEntry, type EntryID } from '../../../src/adapters/nats/log-entry.ts'
import { partitionOf } from '../../../src/adapters/nats/partitions.ts'
import { prefixedBytes } from '../../../src/contracts/message-records.ts'
import type { AppendBatch } from '../../../src/contracts/message-store.ts'
import type { Message, Revision } from '../../../src/model/message.ts'

function encode(id: EntryID, batches: readonly AppendBatch[]): Buffer {
  return encodeEntry(id, batches.map(({ key, messages }) => encodeBatch(key, messages, messages.map(prefixedBytes))))
}

const uint = (max: number): fc.Arbitrary<number> => fc.integer({ min: 0, max })
const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.constantFrom('', '\0', 'é', '汉字', 'x'.repeat(65_535)))
const revision: fc.Arbitrary<Revision> = fc.record({
  kind: fc.constantFrom('edited' as const, 'recalled' as const),
  version: uint(2 ** 32 - 1),
  byUID: text,
  timestampMs: uint(2 ** 48 - 1),
})
const fields = {
  messageID: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
  messageSeq: fc.constant(0),
  clientMsgNo: text,
  fromUID: text,
  payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  timestampMs: uint(2 ** 48 - 1),
  expireSec: uint(2 ** 32 - 1),
  topic: text,
  setting: uint(255),
  noPersist: fc.boolean(),
  redDot: fc.boolean(),
  syncOnce: fc.boolean(),
}
const batch: fc.Arbitrary<AppendBatch> = fc
  .record({
    key: fc.record({ channelID: text, channelType: uint(255) }),
    messages: fc.array(fc.oneof(fc.record(fields), fc.record({ ...fields, revision })), { minLength: 1, maxLength: 4 }),
  })
  .map(({ key, messages }) => ({ key, messages: messages.map((message): Message => ({ ...message, ...key })) }))
const entryID: fc.Arbitrary<EntryID> = fc.record({
  nodeID: uint(0xffff),
  boot: fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  number: uint(2 ** 48 - 1),
})

const sample = encode({ nodeID: 7, boot: '0123456789abcdef', number: 9 }, [
  { key: { channelID: 'room', channelType: 2 }, messages: [message('1', 'a'), message('2', 'b')] },
])

function message(messageID: string, clientMsgNo: string): Message {
  const rest = { messageSeq: 0, fromUID: 'ann', channelID: 'room', channelType: 2, timestampMs: 1_700_000_000_000, expireSec: 0, topic: '', setting: 0 }
  return { messageID, clientMsgNo, payload: Buffer.from('hi'), noPersist: false, redDot: true, syncOnce: false, ...rest }
}

/** As if a newer version had written it: with a checksum that is right. */
function withByte(offset: number, value: number): Buffer {
  const bytes = Buffer.from(sample)
  bytes[offset] = value
  bytes.writeUInt32BE(crc32(bytes.subarray(6), crc32(bytes.subarray(0, 2))), 2)
  return bytes
}

describe('an entry of the log', () => {
  it('is read as it was written, with every field of every message', () => {
    fc.assert(
      fc.property(entryID, fc.array(batch, { maxLength: 4 }), (id, batches) => {
        const bytes = encode(id, batches)
        const { batches: read, ...rest } = decodeEntry(bytes)

        expect(rest).toEqual({ ...id, checksum: bytes.readUInt32BE(2) })
        expect(read.map(({ key, messages }) => ({ key, messages }))).toEqual(batches)
        for (const [index, { messages }] of batches.entries()) {
          for (const [at, each] of messages.entries()) expect(read[index]!.records!.message(at, 7)).toEqual({ ...each, messageSeq: 7 })
        }
      }),
      { numRuns: 300 },
    )
  })

  it('has the same bytes from one version to the next', () => {
    expect(sample.toString('hex')).toBe(
      '0201' + 'c5de95ee' + '0007' + '0123456789abcdef' + '000000000009' + '0000' + '0001' + '02' + '0004726f6f6d' + '0002' + '00000046' +
        '010000001e' + '0200' + '0000000000000001' + '018bcfe56800' + '00000000' + '0003616e6e' + '000161' + '6869' +
        '010000001e' + '0200' + '0000000000000002' + '018bcfe56800' + '00000000' + '0003616e6e' + '000162' + '6869',
    )
  })

  it('with any byte changed is IM_LOG_CORRUPT, or of a version that is not known', () => {
    for (let offset = 0; offset < sample.length; offset++) {
      const bytes = Buffer.from(sample)
      bytes[offset]! ^= 1 << (offset % 8)
      expect(() => decodeEntry(bytes), `byte ${offset}`).toThrow(expect.objectContaining({ code: offset === 0 ? 'IM_LOG_FORMAT' : 'IM_LOG_CORRUPT' }))
    }
  })

  it('cut short anywhere, or with more behind it, is IM_LOG_CORRUPT', () => {
    for (let length = 0; length < sample.length; length++) {
      expect(() => decodeEntry(sample.subarray(0, length)), `${length} bytes`).toThrow(expect.objectContaining({ code: 'IM_LOG_CORRUPT' }))
    }
    expect(() => decodeEntry(Buffer.concat([sample, Buffer.from([0])]))).toThrow(expect.objectContaining({ code: 'IM_LOG_CORRUPT' }))
  })

  it('of a kind or version that is not known is IM_LOG_FORMAT, and says which', () => {
    expect(() => decodeEntry(withByte(1, 3))).toThrow(/entries of kind 3/)
    expect(() => decodeEntry(withByte(0, 3))).toThrow(/version 3/)
    expect(() => decodeEntry(withByte(1, 3))).toThrow(expect.objectContaining({ code: 'IM_LOG_FORMAT' }))
  })

  it('whose counts are wrong, though its checksum is right, is IM_LOG_CORRUPT', () => {
    expect(() => decodeEntry(withByte(25, 2))).toThrow(expect.objectContaining({ code: 'IM_LOG_CORRUPT' }))
    expect(() => decodeEntry(withByte(25, 0))).toThrow(expect.objectContaining({ code: 'IM_LOG_CORRUPT' }))
  })

  it('of whatever bytes, though its checksum is right, is refused, or can be read to its end', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ offset: fc.integer({ min: 24, max: sample.length - 1 }), value: uint(255) }), { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = Buffer.from(sample)
        for (const { offset, value } of changes) bytes[offset] = value
        bytes.writeUInt32BE(crc32(bytes.subarray(6), crc32(bytes.subarray(0, 2))), 2)
        let entry
        try {
          entry = decodeEntry(bytes)
        } catch (error) {
          expect(error).toMatchObject({ code: 'IM_LOG_CORRUPT' })
          return
        }
        for (const { messages } of entry.batches) for (const { messageID, payload } of messages) expect([messageID, payload.length < bytes.length]).toEqual([expect.stringMatching(/^\d+$/), true])
      }),
      { numRuns: 2_000 },
    )
  })

  it('takes no message that would come back as another one', () => {
    const key = { channelID: 'x'.repeat(65_536), channelType: 2 }
    expect(() => batchHeadBytes(key)).toThrow(TypeError)
    expect(() => prefixedBytes({ ...message('1', 'y'.repeat(65_536)) })).toThrow(TypeError)
    expect(() => encode({ nodeID: 1, boot: '0123456789abcdef', number: 1 }, [{ key: { channelID: 'a', channelType: 2 }, messages: [message('-1', 'a')] }])).toThrow(TypeError)
  })
})

describe('partitionOf', () => {
  it('never changes for a channel', () => {
    // FNV-1a of the bytes: the nodes of a cluster must agree, from one version to the next.
    const fnv = (name: string): number => [...Buffer.from(name)].reduce((hash, byte) => Number((BigInt(hash ^ byte) & 0xffffffffn) * 0x01000193n & 0xffffffffn), 0x811c9dc5)
    for (const [channelID, channelType] of [['room', 2], ['', 1], ['汉字', 2], ['ann@bob', 1], ['a\0b', 255]] as const) {
      expect(partitionOf({ channelID, channelType }, 7)).toBe(fnv(`${channelType}:${channelID}`) % 7)
    }
    expect(['a', 'b', 'c', 'd', 'e'].map((channelID) => partitionOf({ channelID, channelType: 2 }, 3))).toEqual([0, 0, 1, 0, 1])
  })

  it('spreads channels over all partitions', () => {
    const counts = [0, 0, 0]
    for (let i = 0; i < 3_000; i++) counts[partitionOf({ channelID: `group-${i}`, channelType: 2 }, 3)]!++
    for (const count of counts) expect(count).toBeGreaterThan(800)
  })
})
