import { describe, expect, test } from 'vitest'
import type { Frame } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { FrameDecoder } from '../../src/protocol/frame-decoder.ts'
import { readable } from './readable.ts'
import { loadVectors, vectorBytes, vectorFrame, type FrameVector, type MalformedVector, type StreamVector } from './vectors.ts'

const frameVectors = [...loadVectors<FrameVector>('frames-c2s.json'), ...loadVectors<FrameVector>('frames-s2c.json')]

/** Feeds the chunks to a fresh decoder from memory that is used again for every chunk, as a socket may do it. */
function feedAll(chunks: Iterable<Uint8Array>, version: number): { frames: unknown[]; code: string | undefined; decoder: FrameDecoder } {
  const decoder = new FrameDecoder({ version })
  const frames: unknown[] = []
  const memory = new Uint8Array(70_000)
  const keep = (frame: Frame): void => void frames.push(readable(frame))
  let code: string | undefined
  for (const chunk of chunks) {
    if (chunk.length > memory.length) code = decoder.feed(chunk, keep)
    else {
      memory.set(chunk)
      code = decoder.feed(memory.subarray(0, chunk.length), keep)
      memory.fill(0xee, 0, chunk.length)
    }
  }
  return { frames, code, decoder }
}

function* singleBytes(bytes: Uint8Array): Generator<Uint8Array> {
  for (let i = 0; i < bytes.length; i++) yield bytes.subarray(i, i + 1)
}

describe.each(frameVectors)('$name', (vector) => {
  const bytes = vectorBytes(vector)
  const frame = vectorFrame(vector.frame)

  test('decodes to the frame and says how much it took', () => {
    const result = decode(bytes, vector.version)
    expect(result).toMatchObject({ status: 'frame', consumed: vector.consumed })
    expect(readable(result.status === 'frame' ? result.frame : undefined)).toEqual(readable(frame))
    expect(vector.consumed).toBe(bytes.length)
  })

  test.runIf(vector.use.includes('encode'))('encodes to the bytes', () => {
    expect(readable(encode(frame, vector.version))).toBe(readable(bytes))
  })

  test('fed byte by byte gives the frame with its last byte and not before', () => {
    const short = feedAll(singleBytes(bytes.subarray(0, -1)), vector.version)
    expect(short.frames).toEqual([])
    expect(short.decoder.pendingBytes).toBe(bytes.length - 1)
    const whole = feedAll(singleBytes(bytes), vector.version)
    expect(whole.frames).toEqual([readable(frame)])
    expect(whole.decoder.pendingBytes).toBe(0)
  })

  test('cut anywhere asks for more', () => {
    // Long frames are cut everywhere near both ends and now and then between.
    const step = bytes.length > 2_000 ? Math.floor(bytes.length / 500) : 1
    for (let end = 0; end < bytes.length; end += end < 300 || end > bytes.length - 300 ? 1 : step) {
      if (decode(bytes.subarray(0, end), vector.version).status !== 'need-more') expect.fail(`cut at ${end}`)
    }
  })
})

test.each(loadVectors<MalformedVector>('malformed.json'))('malformed: $name', (vector) => {
  const bytes = vectorBytes(vector)
  const { verdict, code, frame, consumed } = vector.expect
  const result = decode(bytes, vector.version)
  const feeds = [feedAll([bytes], vector.version), feedAll(singleBytes(bytes), vector.version)]
  if (verdict === 'need-more') {
    expect(result).toEqual({ status: 'need-more' })
    for (const fed of feeds) {
      expect(fed.frames).toEqual([])
      expect(fed.code).toBe(undefined)
      expect(fed.decoder.pendingBytes).toBe(bytes.length)
    }
  } else if (verdict === 'malformed') {
    expect(result).toEqual({ status: 'malformed', code })
    for (const fed of feeds) {
      expect(fed.frames).toEqual([])
      expect(fed.code).toBe(code)
      expect(fed.decoder.broken).toBe(true)
      expect(fed.decoder.pendingBytes).toBe(0)
    }
  } else {
    const expected = readable(vectorFrame(frame!))
    expect(result).toMatchObject({ status: 'frame', consumed })
    for (const fed of feeds) expect(fed.frames[0]).toEqual(expected)
  }
})

test.each(loadVectors<StreamVector>('stream.json'))('stream: $name', (vector) => {
  const fed = feedAll(
    vector.chunks.map((hex) => Buffer.from(hex, 'hex')),
    vector.version,
  )
  expect(fed.frames).toEqual(vector.expect.frames.map((frame) => readable(vectorFrame(frame))))
  expect(fed.code).toBe(vector.expect.error)
  expect(fed.decoder.broken).toBe(vector.expect.error !== undefined)
  if (vector.expect.rest !== undefined) expect(fed.decoder.pendingBytes).toBe(vector.expect.rest)
})
