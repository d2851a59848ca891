import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FrameFlag, FrameType, type RecvPacket } from '../../src/model/frames.ts'
import { RECV_SETTING_MASK, type Message } from '../../src/model/message.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { RecvEncoder, type RecvView } from '../../src/protocol/recv-encoder.ts'
import { openRecv, sealRecv } from '../../src/protocol/seal.ts'
import { SessionCipher } from '../../src/protocol/session-cipher.ts'
import { fuzz, payload, text, uint64 } from './arbitraries.ts'
import { readable } from './readable.ts'

const message: Message = {
  messageID: '701395003561234437',
  messageSeq: 12,
  clientMsgNo: 'no-1',
  fromUID: 'ann',
  channelID: 'ann@bob',
  channelType: 1,
  payload: Buffer.from('{"type":1,"content":"hi"}'),
  timestampMs: 1_767_225_600_999,
  expireSec: 60,
  topic: 'news',
  setting: 0x88,
  noPersist: false,
  redDot: true,
  syncOnce: false,
}
const view: RecvView = { version: 5, channelID: 'ann', redDot: true }

function newCipher(iv = '0123456789abcdef'): SessionCipher {
  return new SessionCipher({ key: 'fedcba9876543210', iv })
}

/** The packet that a receiver with this view has to get, by the slow way. */
function packetFor(m: Message, v: RecvView): RecvPacket {
  const flags =
    (m.noPersist ? FrameFlag.NoPersist : 0) |
    (m.redDot && v.redDot ? FrameFlag.RedDot : 0) |
    (m.syncOnce ? FrameFlag.SyncOnce : 0) |
    (v.dup === true ? FrameFlag.Dup : 0)
  const packet: RecvPacket = {
    type: FrameType.RECV,
    flags,
    setting: m.setting & RECV_SETTING_MASK,
    msgKey: '',
    fromUID: m.fromUID,
    channelID: v.channelID,
    channelType: m.channelType,
    expireSec: m.expireSec,
    clientMsgNo: m.clientMsgNo,
    streamFlag: 0,
    streamNo: '',
    streamID: '0',
    messageID: m.messageID,
    messageSeq: m.messageSeq,
    timestampSec: Math.floor(m.timestampMs / 1000),
    topic: m.topic,
    payload: m.payload,
  }
  return v.cipher === undefined ? packet : sealRecv(packet, v.cipher)
}

const anyMessage: fc.Arbitrary<Message> = fc.record({
  messageID: uint64.map(String),
  messageSeq: fc.integer({ min: 0, max: 0xffff_ffff }),
  clientMsgNo: text,
  fromUID: text,
  channelID: text,
  channelType: fc.integer({ min: 0, max: 255 }),
  payload,
  timestampMs: fc.integer({ min: 0, max: 2_147_483_647_999 }),
  expireSec: fc.integer({ min: 0, max: 0xffff_ffff }),
  topic: text,
  setting: fc.integer({ min: 0, max: 255 }),
  noPersist: fc.boolean(),
  redDot: fc.boolean(),
  syncOnce: fc.boolean(),
})
const anyView = fc.record({
  version: fc.integer({ min: 0, max: 7 }),
  channelID: text,
  redDot: fc.boolean(),
  dup: fc.constantFrom(undefined, false, true),
  sealed: fc.boolean(),
})

test('every view gets the bytes that encode gives for its packet, whatever views came before', () => {
  fc.assert(
    fc.property(anyMessage, fc.array(anyView, { minLength: 1, maxLength: 6 }), (m, views) => {
      const encoder = new RecvEncoder(m)
      const cipher = newCipher()
      for (const { sealed, ...rest } of [...views, ...views]) {
        const v = { ...rest, cipher: sealed ? cipher : undefined }
        expect(readable(encoder.encode(v))).toBe(readable(encode(packetFor(m, v), v.version)))
      }
    }),
    fuzz(400),
  )
})

describe('plain receivers', () => {
  test('who see the same get the same bytes object', () => {
    const encoder = new RecvEncoder(message)
    const bytes = encoder.encode(view)
    expect(encoder.encode({ ...view })).toBe(bytes)
    expect(encoder.encode({ ...view, dup: false })).toBe(bytes)
    expect(encoder.encode({ ...view, version: 3 })).toBe(bytes)
    expect(encoder.encode({ ...view, version: 4 })).toBe(bytes)
  })

  test('who see something else get other bytes', () => {
    const encoder = new RecvEncoder(message)
    const seen = new Set([encoder.encode(view)])
    for (const other of [{ version: 2 }, { version: 6 }, { channelID: 'bob' }, { redDot: false }, { dup: true }]) {
      seen.add(encoder.encode({ ...view, ...other }))
    }
    expect(seen.size).toBe(6)
  })

  test('with ever other channel ids do not make it grow without bound, and are still right', () => {
    const encoder = new RecvEncoder(message)
    for (let i = 0; i < 50; i++) {
      const v = { ...view, channelID: `c${i}` }
      expect(readable(encoder.encode(v))).toBe(readable(encode(packetFor(message, v), 5)))
    }
    expect(encoder.encode({ ...view, channelID: 'c49' })).not.toBe(encoder.encode({ ...view, channelID: 'c49' }))
  })
})

describe('encrypted receivers', () => {
  test('each read the plaintext with their own key, and no other', () => {
    const encoder = new RecvEncoder(message)
    const ciphers = [newCipher(), newCipher('aaaaaaaaaaaaaaaa'), newCipher('bbbbbbbbbbbbbbbb')]
    const frames = ciphers.map((cipher) => encoder.encode({ ...view, cipher }))
    frames.forEach((bytes, i) => {
      const packet = (decode(bytes, 5) as { frame: RecvPacket }).frame
      ciphers.forEach((cipher, j) => {
        expect(readable(openRecv(packet, cipher))).toBe(i === j ? readable(message.payload) : undefined)
      })
    })
  })

  test('get memory of their own, and leave the message as it was', () => {
    const encoder = new RecvEncoder(message)
    const cipher = newCipher()
    const before = readable(message)
    const first = encoder.encode({ ...view, cipher })
    expect(encoder.encode({ ...view, cipher })).not.toBe(first)
    expect(readable(encoder.encode({ ...view, cipher }))).toBe(readable(first))
    expect(readable(message)).toEqual(before)
  })
})

describe('the fields', () => {
  const decoded = (m: Message, v: RecvView): RecvPacket => (decode(new RecvEncoder(m).encode(v), v.version) as { frame: RecvPacket }).frame

  test('the time is in whole seconds, rounded down', () => {
    expect(decoded(message, view).timestampSec).toBe(1_767_225_600)
    expect(decoded({ ...message, timestampMs: -1 }, view).timestampSec).toBe(-1)
  })

  test('only receipt and topic survive of the setting, so no stream field is ever sent', () => {
    for (const version of [1, 2, 3, 4, 5]) {
      const packet = decoded({ ...message, setting: 0xff }, { ...view, version })
      expect(packet).toMatchObject({ setting: 0x88, streamNo: '', streamID: '0', topic: 'news', messageID: message.messageID })
    }
    expect(decoded({ ...message, setting: 0x80 }, view)).toMatchObject({ setting: 0x80, topic: '' })
  })

  test('a receiver cannot gain the red dot the message does not have', () => {
    expect(decoded({ ...message, redDot: false }, view).flags).toBe(0)
    expect(decoded(message, { ...view, redDot: false }).flags).toBe(0)
    expect(decoded(message, view).flags).toBe(FrameFlag.RedDot)
  })

  test('a sequence number beyond 32 bits reaches version 6 and is a RangeError below', () => {
    const far = { ...message, messageSeq: 2 ** 32 }
    expect(decoded(far, { ...view, version: 6 }).messageSeq).toBe(2 ** 32)
    expect(() => new RecvEncoder(far).encode(view)).toThrow(RangeError)
  })
})
