import { describe, expect, test } from 'vitest'
import { FrameType, type Frame, type RecvPacket, type SendackPacket } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { lengthByteCount } from '../../src/protocol/writer.ts'
import { readable } from './readable.ts'

const frames: [name: string, frame: Frame, version: number, hex: string][] = [
  ['ping is one byte', { type: FrameType.PING }, 5, '70'],
  ['pong is one byte', { type: FrameType.PONG }, 1, '80'],
  ['recvack', { type: FrameType.RECVACK, flags: 0, messageID: '1', messageSeq: 2 }, 5, '600c000000000000000100000002'],
  ['recvack, seq of 64 bits', { type: FrameType.RECVACK, flags: 9, messageID: '1', messageSeq: 2 ** 32 + 2 }, 6, '691000000000000000010000000100000002'],
  ['sendack, highest id', { type: FrameType.SENDACK, flags: 2, messageID: '18446744073709551615', clientSeq: 1, messageSeq: 2, reasonCode: 3 }, 5, '4211ffffffffffffffff000000010000000203'],
  ['disconnect', { type: FrameType.DISCONNECT, flags: 0, reasonCode: 12, reason: 'é' }, 5, '90050c0002c3a9'],
]

test.each(frames)('%s', (_name, frame, version, hex) => {
  const bytes = Buffer.from(hex, 'hex')
  expect(readable(encode(frame, version))).toBe(hex)
  expect(decode(bytes, version)).toEqual({ status: 'frame', frame, consumed: bytes.length })
  for (let end = 0; end < bytes.length; end++) expect(decode(bytes.subarray(0, end), version)).toEqual({ status: 'need-more' })
})

const sendack: SendackPacket = { type: FrameType.SENDACK, flags: 0, messageID: '1', clientSeq: 1, messageSeq: 1, reasonCode: 1 }
const recv: RecvPacket = {
  type: FrameType.RECV,
  flags: 0,
  setting: 0,
  msgKey: '',
  fromUID: 'a',
  channelID: 'g',
  channelType: 2,
  expireSec: 0,
  clientMsgNo: '',
  streamFlag: 1,
  streamNo: 'never sent',
  streamID: '5',
  messageID: '1',
  messageSeq: 1,
  timestampSec: 1,
  topic: 'never sent',
  payload: Uint8Array.of(1),
}

describe('fields that the version or the setting leaves out', () => {
  test('are not written, whatever the packet holds', () => {
    const plain = { ...recv, streamFlag: 0, streamNo: '', streamID: '0', topic: '' }
    for (const version of [1, 2, 3, 4, 5, 6]) expect(readable(encode(recv, version))).toBe(readable(encode(plain, version)))
    expect(encode({ ...recv, expireSec: 9 }, 2).length).toBe(encode(recv, 3).length - 4)
  })

  test('do not have to be valid', () => {
    expect(() => encode({ ...recv, topic: 'x'.repeat(40_000) }, 5)).not.toThrow()
    expect(() => encode({ ...recv, setting: 0x08, topic: 'x'.repeat(40_000) }, 5)).toThrow(RangeError)
  })
})

test('the stream bit adds its three fields at versions 2 to 4, and nothing at any other', () => {
  const extraBytes = [1, 2, 3, 4, 5, 6].map(
    (version) => encode({ ...recv, setting: 0x02, streamNo: 'sn' }, version).length - encode(recv, version).length,
  )
  expect(extraBytes).toEqual([0, 13, 13, 13, 0, 0])
})

describe('a mistake of the caller', () => {
  const mistakes: [name: string, frame: unknown, version: number][] = [
    ['a string of 32768 bytes', { ...recv, fromUID: 'x'.repeat(32_768) }, 5],
    ['a string of 32768 bytes in fewer characters', { ...recv, fromUID: '用'.repeat(10_923) }, 5],
    ['a flag that is none', { ...sendack, flags: 16 }, 5],
    ['a byte above 255', { ...sendack, reasonCode: 256 }, 5],
    ['a byte that is missing', { ...sendack, reasonCode: undefined }, 5],
    ['a negative counter', { ...sendack, clientSeq: -1 }, 5],
    ['a sequence number above 32 bits before version 6', { ...sendack, messageSeq: 2 ** 32 }, 5],
    ['a sequence number that is not safe', { ...sendack, messageSeq: 2 ** 53 }, 6],
    ['a fraction', { ...sendack, clientSeq: 1.5 }, 5],
    ['a timestamp in milliseconds', { ...recv, timestampSec: 1_767_225_600_000 }, 5],
    ['an id above 64 bits', { ...sendack, messageID: '18446744073709551616' }, 5],
    ['an id that is negative', { ...sendack, messageID: '-1' }, 5],
    ['an id that is empty', { ...sendack, messageID: '' }, 5],
    ['an id that is not decimal', { ...sendack, messageID: '12ab' }, 5],
  ]
  test.each(mistakes)('%s is a RangeError, never a wrong frame', (_name, frame, version) => {
    expect(() => encode(frame as Frame, version)).toThrow(RangeError)
  })

  test('a packet of no type and a payload of no bytes are TypeErrors', () => {
    expect(() => encode({ type: 13 } as unknown as Frame, 5)).toThrow(TypeError)
    expect(() => encode({ ...recv, payload: 'text' } as unknown as Frame, 5)).toThrow(TypeError)
  })

  test('a string of 32767 bytes is none', () => {
    const reason = '用'.repeat(10_922) + 'x'
    const bytes = encode({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 1, reason }, 5)
    expect(decode(bytes, 5)).toMatchObject({ frame: { reason } })
  })
})

test('a lone surrogate goes out as U+FFFD and its length is counted so', () => {
  const bytes = encode({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 1, reason: 'a\ud800b' }, 5)
  expect(decode(bytes, 5)).toMatchObject({ consumed: bytes.length, frame: { reason: 'a\ufffdb' } })
})

test('the remaining length is as short as it can be', () => {
  const counts = [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455].map(lengthByteCount)
  expect(counts).toEqual([1, 1, 2, 2, 3, 3, 4, 4])
  expect(() => lengthByteCount(268_435_456)).toThrow(RangeError)
})

test('an encoded frame keeps its bytes while others are encoded', () => {
  const first = encode(sendack, 5)
  const hex = readable(first)
  for (let i = 0; i < 2_000; i++) encode({ ...sendack, clientSeq: i }, 5)
  expect(readable(first)).toBe(hex)
})
