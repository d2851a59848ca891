import { describe, expect, test } from 'vitest'
import type { Frame } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { FrameDecoder } from '../../src/protocol/frame-decoder.ts'
import { loadVectors, vectorBytes, vectorFrame, type FrameVector, type MalformedVector, type StreamVector } from './vectors.ts'

const frameVectors = [...loadVectors<FrameVector>('frames-c2s.json'), ...loadVectors<FrameVector>('frames-s2c.json')]
const malformedVectors = loadVectors<MalformedVector>('malformed.json')

/** Feeds the chunks to a fresh decoder; byte fields are copied, as every receiver of a frame has to. */
function feedAll(chunks: Iterable<Uint8Array>, version: number): { frames: Frame[]; code: string | undefined; decoder: FrameDecoder } {
  const decoder = new FrameDecoder({ version })
  const frames: Frame[] = []
  let code: string | undefined
  for (const chunk of chunks) code = decoder.feed(chunk, (frame) => void frames.push(structuredClone(frame)))
  return { frames, code, decoder }
}

describe.each(frameVectors)('$name', (vector) => {
  const bytes = vectorBytes(vector)
  const frame = vectorFrame(vector.frame)

  test('decodes to the frame and says how much it took', () => {
    expect(decode(bytes, vector.version)).toEqual({ status: 'frame', frame, consumed: vector.consumed })
    expect(vector.consumed).toBe(bytes.length)
  })

  test.runIf(vector.use.includes('encode'))('encodes to the bytes', () => {
    expect(Buffer.from(encode(frame, vector.version)).equals(bytes)).toBe(true)
  })

  test('fed byte by byte gives the frame with its last byte', () => {
    const decoder = new FrameDecoder({ version: vector.version })
    const frames: Frame[] = []
    for (let i = 0; i < bytes.length; i++) {
      expect(frames.length).toBe(0)
      // One byte of memory, used again for every chunk: nothing may point at it.
      decoder.feed(bytes.subarray(i, i + 1), (decoded) => void frames.push(decoded))
    }
    expect(frames).toEqual([frame])
    expect(decoder.pendingBytes).toBe(0)
  })

  test('cut anywhere asks for more', () => {
    // Long frames are cut everywhere near both ends and now and then between.
    const step = bytes.length > 2_000 ? Math.floor(bytes.length / 500) : 1
    for (let end = 0; end < bytes.length; end += end < 300 || end > bytes.length - 300 ? 1 : step) {
      if (decode(bytes.subarray(0, end), vector.version).status !== 'need-more') expect.fail(`cut at ${end}`)
    }
  })
})

test.each(malformedVectors)('malformed: $name', (vector) => {
  const bytes = vectorBytes(vector)
  const { verdict, code, frame, consumed } = vector.expect
  const result = decode(bytes, vector.version)
  const whole = feedAll([bytes], vector.version)
  const single = feedAll(Array.from(bytes, (byte) => Uint8Array.of(byte)), vector.version)
  if (verdict === 'need-more') {
    expect(result).toEqual({ status: 'need-more' })
    for (const fed of [whole, single]) {
      expect(fed.frames).toEqual([])
      expect(fed.code).toBe(undefined)
      expect(fed.decoder.pendingBytes).toBe(bytes.length)
    }
  } else if (verdict === 'malformed') {
    expect(result).toEqual({ status: 'malformed', code })
    for (const fed of [whole, single]) {
      expect(fed.frames).toEqual([])
      expect(fed.code).toBe(code)
      expect(fed.decoder.broken).toBe(true)
    }
  } else {
    const expected = vectorFrame(frame!)
    expect(result).toEqual({ status: 'frame', frame: expected, consumed })
    expect(whole.frames[0]).toEqual(expected)
    expect(single.frames[0]).toEqual(expected)
  }
})

test.each(loadVectors<StreamVector>('stream.json'))('stream: $name', (vector) => {
  const fed = feedAll(
    vector.chunks.map((hex) => Buffer.from(hex, 'hex')),
    vector.version,
  )
  expect(fed.frames).toEqual(vector.expect.frames.map(vectorFrame))
  expect(fed.code).toBe(vector.expect.error)
  expect(fed.decoder.broken).toBe(vector.expect.error !== undefined)
  if (vector.expect.rest !== undefined) expect(fed.decoder.pendingBytes).toBe(vector.expect.rest)
})
