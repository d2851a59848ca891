import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeRecord, encodeRecord, isRecord } from '../../src/contracts/message-record.ts'
import { MessageFlag } from '../../src/model/message-flags.ts'
import type { Message } from '../../src/model/message.ts'

const KEY = { channelID: 'room', channelType: 2 }
const text = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 12 }), fc.constantFrom('', 'x'.repeat(300)))
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const timeMs = fc.integer({ min: 0, max: 2 ** 48 - 1 })
const revision = fc.record({ kind: fc.constantFrom('edited' as const, 'recalled' as const), version: uint32, byUID: text, timestampMs: timeMs })
const message: fc.Arbitrary<Message> = fc
  .record(
    {
      messageID: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
      clientMsgNo: text,
      fromUID: text,
      payload: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
      timestampMs: timeMs,
      expireSec: uint32,
      topic: text,
      setting: fc.integer({ min: 0, max: 255 }),
      noPersist: fc.boolean(),
      redDot: fc.boolean(),
      syncOnce: fc.boolean(),
      revision,
    },
    { requiredKeys: ['messageID', 'clientMsgNo', 'fromUID', 'payload', 'timestampMs', 'expireSec', 'topic', 'setting', 'noPersist', 'redDot', 'syncOnce'] },
  )
  .map((fields) => ({ ...fields, ...KEY, messageSeq: 7 }))

describe('a message as bytes', () => {
  it('comes back as it was, from the middle of others', () => {
    fc.assert(
      fc.property(message, fc.nat(9), (given, before) => {
        const record = encodeRecord(given)
        const bytes = Buffer.concat([Buffer.alloc(before, 0xff), record, Buffer.alloc(5, 0xff)])
        const end = before + record.length

        expect(isRecord(bytes, before, end)).toBe(true)
        expect(decodeRecord(bytes, before, end, KEY, 7).message).toEqual(given)
      }),
      { numRuns: 500 },
    )
  })

  it('of which some are others, or missing, is none, or can be read without going beyond its end', () => {
    const changes = fc.array(fc.record({ at: fc.nat(400), value: fc.constantFrom(0, 1, 2, 8, 16, 24, 0x7f, 0x80, 0xc3, 0xff) }), { maxLength: 4 })
    fc.assert(
      fc.property(message, changes, fc.nat(80), (given, changed, missingCount) => {
        const bytes = Buffer.from(encodeRecord(given))
        for (const { at, value } of changed) if (at < bytes.length) bytes[at] = value
        const end = Math.max(0, bytes.length - missingCount)
        if (!isRecord(bytes, 0, end)) return
        const { message: read, first } = decodeRecord(bytes, 0, end, KEY, 7)

        // Texts are what their bytes say. (Nobody writes a topic that is empty, and the first payload's hash is not in the message.)
        const hasOtherForm = read.revision !== undefined || ((bytes[0]! & MessageFlag.Topic) !== 0 && read.topic === '')
        if (!hasOtherForm) expect(encodeRecord(read).subarray(20).equals(bytes.subarray(20, end))).toBe(true)
        const texts = [read.fromUID, read.clientMsgNo, read.topic, read.revision?.byUID ?? '']
        expect(texts.reduce((sum, each) => sum + each.length, 20 + read.payload.length)).toBeLessThanOrEqual(end)
        expect(read.payload.byteOffset + read.payload.length).toBe(bytes.byteOffset + end)
        expect(first?.hash.length ?? 32).toBe(32)
      }),
      { numRuns: 5_000 },
    )
  })
})
