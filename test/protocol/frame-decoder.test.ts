import { describe, expect, test } from 'vitest'
import { FrameType, type Frame, type SendPacket } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { DecoderScratch, FrameDecoder } from '../../src/protocol/frame-decoder.ts'
import { readable } from './readable.ts'

const PING = Uint8Array.of(0x70)

function send(payload: string, clientSeq = 1): SendPacket {
  return {
    type: FrameType.SEND,
    flags: 0,
    setting: 0,
    clientSeq,
    clientMsgNo: `no-${clientSeq}`,
    streamNo: '',
    channelID: 'g1',
    channelType: 2,
    expireSec: 0,
    msgKey: '',
    topic: '',
    payload: Buffer.from(payload),
  }
}

/** A header of a SEND whose body will have that many bytes. */
function sendHeader(bodyBytes: number): Uint8Array {
  const header = [0x30]
  for (let rest = bodyBytes; ; rest >>>= 7) {
    header.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    if (rest <= 0x7f) return Uint8Array.from(header)
  }
}

describe('the limit of a frame', () => {
  const tooLarge = { status: 'malformed', code: 'too-large' }

  test('is inclusive, counts the body, and is 1 MiB unless told otherwise', () => {
    expect(decode(sendHeader(1_048_576), 5)).toEqual({ status: 'need-more' })
    expect(decode(sendHeader(1_048_577), 5)).toEqual(tooLarge)
    expect(decode(sendHeader(100), 5, { maxFrameBytes: 100 })).toEqual({ status: 'need-more' })
    expect(decode(sendHeader(101), 5, { maxFrameBytes: 100 })).toEqual(tooLarge)
    expect(decode(sendHeader(268_435_455), 5, { maxFrameBytes: 268_435_455 })).toEqual({ status: 'need-more' })
  })

  test('is known with the last byte of the length, not with the body', () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 1_000 })
    const header = sendHeader(1_001)
    for (const byte of header.subarray(0, -1)) expect(decoder.feed(Uint8Array.of(byte), () => undefined)).toBe(undefined)
    expect(decoder.feed(header.subarray(-1), () => undefined)).toBe('too-large')
  })

  test('does not touch a frame of exactly that size', () => {
    const bytes = encode(send('x'.repeat(200)), 5)
    const bodyBytes = bytes.length - 3
    expect(decode(bytes, 5, { maxFrameBytes: bodyBytes }).status).toBe('frame')
    expect(decode(bytes, 5, { maxFrameBytes: bodyBytes - 1 })).toEqual(tooLarge)
  })
})

describe('decode', () => {
  test('starts at the offset and counts from there', () => {
    const bytes = Buffer.concat([PING, encode(send('a'), 5), PING])
    const result = decode(bytes, 5, { offset: 1 })
    expect(result).toMatchObject({ status: 'frame', consumed: bytes.length - 2, frame: { type: FrameType.SEND } })
    expect(decode(bytes, 5, { offset: bytes.length - 1 })).toMatchObject({ status: 'frame', consumed: 1 })
    expect(decode(bytes, 5, { offset: bytes.length })).toEqual({ status: 'need-more' })
    expect(decode(bytes, 5, { offset: bytes.length + 9 })).toEqual({ status: 'need-more' })
  })

  test('gives byte fields as views, and their slice as a copy', () => {
    const bytes = encode(send('abc'), 5)
    const result = decode(bytes, 5)
    const { payload } = (result as { frame: SendPacket }).frame
    expect(payload.buffer).toBe(bytes.buffer)
    const copy = payload.slice()
    bytes.fill(0)
    expect(Buffer.from(copy).toString()).toBe('abc')
    expect(readable(payload)).toBe('000000')
  })

  test('refuses a sequence number that a number cannot hold, and takes the last one that it can', () => {
    const recvack = (seqHex: string): Uint8Array => Buffer.from(`6010${'0000000000000001'}${seqHex}`, 'hex')
    expect(decode(recvack('001fffffffffffff'), 6)).toMatchObject({ frame: { messageSeq: Number.MAX_SAFE_INTEGER } })
    expect(decode(recvack('0020000000000000'), 6)).toEqual({ status: 'malformed', code: 'seq-out-of-range' })
    expect(decode(recvack('ffffffffffffffff'), 6)).toEqual({ status: 'malformed', code: 'seq-out-of-range' })
  })

  test('says what is wrong first, not what is wrong last', () => {
    // A device id that is not UTF-8 in a CONNECT that then ends too early.
    expect(decode(Buffer.from('1007' + '0501' + '0001ff' + '0001', 'hex'), 5)).toEqual({ status: 'malformed', code: 'bad-utf8' })
  })

  test('takes U+FFFD and a byte order mark for the text they are', () => {
    const reason = '\ufeffa\ufffd'
    const bytes = encode({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 1, reason }, 5)
    expect(decode(bytes, 5)).toMatchObject({ frame: { reason } })
  })
})

describe('FrameDecoder', () => {
  test('decodes what lies whole in a chunk in place, also behind a frame that began in another', () => {
    const decoder = new FrameDecoder()
    const bytes = Buffer.concat([encode(send('first', 1), 5), encode(send('second', 2), 5), encode(send('third', 3), 5)])
    const chunk = new Uint8Array(bytes.subarray(4)) // memory of its own
    const buffers: unknown[] = []
    decoder.feed(bytes.subarray(0, 4), () => expect.fail('not yet'))
    decoder.feed(chunk, (frame) => void buffers.push((frame as SendPacket).payload.buffer === chunk.buffer))
    expect(buffers).toEqual([false, true, true])
  })

  test('a frame that came in pieces is overwritten by nothing that comes later', () => {
    const decoder = new FrameDecoder()
    const frames: Frame[] = []
    const wanted: unknown[] = []
    for (let i = 0; i < 50; i++) {
      const frame = send(`payload ${i}`, i)
      wanted.push(readable(frame))
      const bytes = encode(frame, 5)
      const scratch = new Uint8Array(bytes.length)
      scratch.set(bytes)
      decoder.feed(scratch.subarray(0, 7), () => expect.fail('not yet'))
      scratch.fill(0xee, 0, 7)
      decoder.feed(scratch.subarray(7, -1), () => expect.fail('not yet'))
      scratch.fill(0xee, 7, -1)
      decoder.feed(scratch.subarray(-1), (decoded) => void frames.push(decoded))
      scratch.fill(0xee)
    }
    expect(readable(frames)).toEqual(wanted)
  })

  test('holds memory for what arrived, not for what was announced', () => {
    const before = process.memoryUsage().arrayBuffers
    const decoders = Array.from({ length: 300 }, () => new FrameDecoder())
    for (const decoder of decoders) {
      decoder.feed(sendHeader(1_048_576), () => undefined)
      for (let i = 0; i < 10; i++) decoder.feed(Uint8Array.of(0), () => undefined)
      expect(decoder.pendingBytes).toBe(14)
    }
    // 300 MiB were announced, 4 kB arrived.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000)
  })

  test('a version set in the sink governs the very next frame of the chunk', () => {
    const v2 = encode(send('second'), 2)
    const v5 = encode(send('fifth'), 5)
    const decoder = new FrameDecoder({ version: 2 })
    const frames: unknown[] = []
    const code = decoder.feed(Buffer.concat([v2, v5, v5]), (frame) => {
      frames.push(readable(frame))
      decoder.version = 5
    })
    expect(code).toBe(undefined)
    expect(frames).toEqual([readable(send('second')), readable(send('fifth')), readable(send('fifth'))])
  })

  test('a version set in the sink governs the next frame also when the first one came in pieces', () => {
    const v2 = encode(send('second'), 2)
    const decoder = new FrameDecoder({ version: 2 })
    const frames: unknown[] = []
    const sink = (frame: Frame): void => {
      frames.push(readable(frame))
      decoder.version = 5
    }
    decoder.feed(v2.subarray(0, 3), sink)
    decoder.feed(Buffer.concat([v2.subarray(3), encode(send('fifth'), 5)]), sink)
    expect(frames).toEqual([readable(send('second')), readable(send('fifth'))])
  })

  test('a sink that returns false sees nothing more, in this chunk or later', () => {
    for (const split of [0, 3]) {
      const bytes = Buffer.concat([encode(send('a'), 5), PING, PING])
      const decoder = new FrameDecoder()
      let calls = 0
      const stop = (): boolean => {
        calls++
        return false
      }
      decoder.feed(bytes.subarray(0, split), stop)
      expect(decoder.feed(bytes.subarray(split), stop)).toBe(undefined)
      expect(decoder.broken).toBe(true)
      expect(decoder.pendingBytes).toBe(0)
      expect(decoder.feed(PING, stop)).toBe(undefined)
      expect(calls).toBe(1)
    }
  })

  test('after a malformed frame it gives the same answer for ever and no frame', () => {
    const decoder = new FrameDecoder()
    const types: number[] = []
    expect(decoder.feed(Uint8Array.of(0x70, 0x80, 0xf0, 0x70), (frame) => void types.push(frame.type))).toBe('unknown-type')
    expect(types).toEqual([FrameType.PING, FrameType.PONG])
    expect(decoder.feed(PING, () => expect.fail('nothing comes after'))).toBe('unknown-type')
    expect(decoder.feed(new Uint8Array(0), () => undefined)).toBe('unknown-type')
  })

  test('a sink that throws is heard, and breaks the decoder', () => {
    const decoder = new FrameDecoder()
    const fail = (): never => {
      throw new Error('from the sink')
    }
    expect(() => decoder.feed(Uint8Array.of(0x70, 0x70), fail)).toThrow('from the sink')
    expect(decoder.broken).toBe(true)
    expect(decoder.feed(PING, fail)).toBe(undefined)
  })

  test('feeding it from inside its sink is a mistake it names', () => {
    const decoder = new FrameDecoder()
    expect(() => decoder.feed(PING, () => void decoder.feed(PING, () => undefined))).toThrow(/inside its own sink/)
  })

  test('takes Uint8Array and Buffer, with and without an offset into their memory', () => {
    const bytes = encode(send('ünï'), 5)
    const shifted = new Uint8Array(bytes.length + 5)
    shifted.set(bytes, 5)
    for (const chunk of [Buffer.from(bytes), new Uint8Array(bytes), shifted.subarray(5)]) {
      const frames: unknown[] = []
      new FrameDecoder().feed(chunk, (frame) => void frames.push(readable(frame)))
      expect(frames).toEqual([readable(send('ünï'))])
    }
  })
})

test('decoders that share their scratch disturb each other neither in turn nor from inside a sink', () => {
  const scratch = new DecoderScratch()
  const texts = (count: number, name: string): Uint8Array[] => Array.from({ length: count }, (_, index) => encode(send(`${name}${index}`), 5))
  const outer = new FrameDecoder({ version: 5, scratch })
  const inner = new FrameDecoder({ version: 5, scratch })
  const got: string[] = []
  const keep = (frame: Frame): void => void (frame.type === FrameType.SEND && got.push(Buffer.from(frame.payload).toString()))
  const innerBytes = Buffer.concat(texts(3, 'inner '))
  let fedBytes = 0
  outer.feed(Buffer.concat(texts(3, 'outer ')), (frame) => {
    const half = Math.min(innerBytes.length, fedBytes + Math.ceil(innerBytes.length / 3) + 1)
    inner.feed(innerBytes.subarray(fedBytes, half), keep)
    fedBytes = half
    keep(frame)
  })
  expect(fedBytes).toBe(innerBytes.length)
  expect(got.filter((text) => text.startsWith('outer'))).toEqual(['outer 0', 'outer 1', 'outer 2'])
  expect(got.filter((text) => text.startsWith('inner'))).toEqual(['inner 0', 'inner 1', 'inner 2'])
  expect(scratch.isUsed).toBe(false)
  expect(() => outer.feed(PING, () => { throw new Error('boom') })).toThrow('boom')
  expect(scratch.isUsed).toBe(false)
})

describe('RECVACKs that go past the sink', () => {
  const ack = (messageID: string, messageSeq: number, version: number): Uint8Array => encode({ type: FrameType.RECVACK, flags: 0, messageID, messageSeq }, version)

  test.each([5, 6])('come in their place among the other frames, as the halves of their ids (version %i)', (version) => {
    const seen: string[] = []
    const decoder = new FrameDecoder({ version })
    decoder.onRecvack = (high, low) => (seen.push(`ack ${(BigInt(high) << 32n) | BigInt(low)}`), true)
    const chunk = Buffer.concat([PING, ack('18446744073709551615', 7, version), encode(send('x'), version), ack('4294967296', 8, version)])
    for (const size of [chunk.length, 3]) {
      seen.length = 0
      for (let at = 0; at < chunk.length; at += size) decoder.feed(Buffer.from(chunk.subarray(at, at + size)), (frame) => void seen.push(String(frame.type)))
      expect(seen).toEqual([String(FrameType.PING), 'ack 18446744073709551615', String(FrameType.SEND), 'ack 4294967296'])
    }
  })

  test('that are cut short are malformed as everywhere else, and nothing comes after', () => {
    const decoder = new FrameDecoder({ version: 5 })
    decoder.onRecvack = () => true
    const short = Uint8Array.of(0x60, 11, ...new Array<number>(11).fill(1))
    expect(decoder.feed(Buffer.concat([short, PING]), () => expect.unreachable())).toBe('truncated-body')
  })

  test('end the stream when they are answered with false', () => {
    const decoder = new FrameDecoder({ version: 5 })
    decoder.onRecvack = () => false
    expect(decoder.feed(Buffer.concat([ack('1', 1, 5), PING]), () => expect.unreachable())).toBeUndefined()
    expect(decoder.broken).toBe(true)
  })
})

test('payloads that are copied stay as they were when the chunk is used again', () => {
  for (const copiesPayloads of [true, false]) {
    const frames: Frame[] = []
    const chunk = Buffer.from(encode(send('payload'), 5))
    new FrameDecoder({ version: 5, copiesPayloads }).feed(chunk, (frame) => void frames.push(frame))
    chunk.fill(0x78)
    expect(Buffer.from((frames[0] as SendPacket).payload).toString()).toBe(copiesPayloads ? 'payload' : 'xxxxxxx')
  }
})

test('channel ids of one length that differ in a single character, wherever it stands, are never taken for each other', () => {
  const seen: string[] = []
  const decoder = new FrameDecoder({})
  const ids = ['g12', 'h12', 'h22', 'h23']
  for (const channelID of ids) decoder.feed(encode({ ...send('x'), channelID }, 5), (frame) => void seen.push((frame as SendPacket).channelID))
  expect(seen).toEqual(ids)
})

test('a channel id is read anew for every frame, also when it only looks like the one before', () => {
  const ids = ['g1', 'g2', 'g2', 'g22', 'ü', 'ü', 'Ã¼', '', 'g1', 'größe', 'größe', 'gr\u00f6sse']
  const seen: string[] = []
  const decoder = new FrameDecoder({ version: 5 })
  for (const channelID of ids) decoder.feed(encode({ ...send('x'), channelID }, 5), (frame) => void seen.push((frame as SendPacket).channelID))
  expect(seen).toEqual(ids)
})
