import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Message } from '../../src/model/message.ts'
import { receivedChannelID, receivedRedDot } from '../../src/model/receiver-view.ts'
import { RecvBatch } from '../../src/protocol/recv-batch.ts'
import { RecvEncoder } from '../../src/protocol/recv-encoder.ts'
import { fuzz, payload, text, uint64 } from './arbitraries.ts'

const flag = fc.boolean()
const someMessage: fc.Arbitrary<Omit<Message, 'channelID' | 'channelType'>> = fc.record({
  messageID: uint64.map(String),
  messageSeq: fc.nat({ max: 0x7fff_ffff }),
  clientMsgNo: text,
  fromUID: fc.constantFrom('ann', 'bob', 'zoë'),
  payload,
  timestampMs: fc.nat({ max: 2_000_000_000_000 }),
  expireSec: fc.nat({ max: 100_000 }),
  topic: text,
  setting: fc.constantFrom(0, 0x80, 0x08, 0x88, 0xff),
  noPersist: flag,
  redDot: flag,
  syncOnce: flag,
})
const channel = fc.constantFrom({ channelID: 'bob@ann', channelType: 1 }, { channelID: 'team', channelType: 2 }, { channelID: 'größe____cmd', channelType: 4 })

describe('RECVs of several messages', () => {
  test('are for every receiver the bytes that each message by itself encodes to, and end where they say', () => {
    fc.assert(
      fc.property(channel, fc.array(someMessage, { minLength: 1, maxLength: 6 }), fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.constantFrom('ann', 'bob', 'eve', 'zoë')), { minLength: 1, maxLength: 8 }), (key, parts, receivers) => {
        const messages = parts.map((part): Message => ({ ...part, ...key }))
        const batch = new RecvBatch(messages)
        for (const [version, uid] of receivers) {
          const { frames, ends } = batch.encode(version, uid)
          expect(ends).toHaveLength(messages.length)
          expect(ends.at(-1)).toBe(frames.length)
          messages.forEach((message, index) => {
            const view = { version, channelID: receivedChannelID(message, uid), redDot: receivedRedDot(message, uid) }
            const frame = frames.subarray(index === 0 ? 0 : ends[index - 1], ends[index])
            expect(Buffer.compare(frame, new RecvEncoder(message).encode(view))).toBe(0)
          })
        }
      }),
      fuzz(1_000),
    )
  })

  const message: Message = {
    messageID: '7', messageSeq: 1, clientMsgNo: 'n', fromUID: 'ann', channelID: 'team', channelType: 2, payload: Buffer.from('hi'),
    timestampMs: 0, expireSec: 0, topic: '', setting: 0, noPersist: false, redDot: true, syncOnce: false,
  }

  test('are the very same bytes for receivers who see the same', () => {
    const batch = new RecvBatch([message, message])
    expect(batch.encode(5, 'bob').frames).toBe(batch.encode(4, 'eve').frames)
    expect(batch.encode(5, 'bob').frames).not.toBe(batch.encode(5, 'ann').frames) // the sender, without a red dot
    expect(batch.encode(5, 'bob').frames).not.toBe(batch.encode(2, 'bob').frames)
  })

  test('are refused when a field does not fit the wire', () => {
    expect(() => new RecvBatch([message, { ...message, messageSeq: 2 ** 32 }]).encode(5, 'bob')).toThrow(RangeError)
    expect(() => new RecvBatch([{ ...message, clientMsgNo: 'x'.repeat(32_768) }]).encode(5, 'bob')).toThrow(RangeError)
  })
})
