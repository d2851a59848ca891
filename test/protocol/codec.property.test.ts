import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Frame } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { FrameDecoder } from '../../src/protocol/frame-decoder.ts'
import { frameAt, fuzz, version } from './arbitraries.ts'
import { readable } from './readable.ts'

const MALFORMED = ['unknown-type', 'bad-length', 'too-large', 'truncated-body', 'string-too-long', 'bad-utf8', 'seq-out-of-range']

const versionAndFrame = version.chain((v) => fc.tuple(fc.constant(v), frameAt(v)))
const versionAndFrames = version.chain((v) => fc.tuple(fc.constant(v), fc.array(frameAt(v), { maxLength: 8 })))

/** Cuts bytes at the given places, which may repeat: empty chunks are chunks too. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const ends = places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b)
  return [...ends, bytes.length].map((end, i) => bytes.slice(i === 0 ? 0 : ends[i - 1], end))
}

/** What a decoder makes of the chunks, every chunk overwritten as soon as it has been fed. */
function feedAll(chunks: readonly Uint8Array[], connectionVersion: number): { frames: unknown[]; code: string | undefined; pendingBytes: number } {
  const decoder = new FrameDecoder({ version: connectionVersion })
  const frames: unknown[] = []
  let code: string | undefined
  for (const chunk of chunks) {
    code = decoder.feed(chunk, (frame) => void frames.push(readable(frame)))
    chunk.fill(0xee)
  }
  return { frames, code, pendingBytes: decoder.pendingBytes }
}

test('every frame comes back from its bytes, at every version', () => {
  fc.assert(
    fc.property(versionAndFrame, ([connectionVersion, frame]) => {
      const bytes = encode(frame, connectionVersion)
      const result = decode(bytes, connectionVersion)
      expect(result).toMatchObject({ status: 'frame', consumed: bytes.length })
      expect(readable((result as { frame: Frame }).frame)).toEqual(readable(frame))
      // The remaining length is in its shortest form: its last byte is not a zero that only fills up.
      if (bytes.length > 2) expect(bytes[1]! >= 0x80 && bytes[2] === 0).toBe(false)
    }),
    fuzz(3_000),
  )
})

const oddVersionAndFrame = fc
  .constantFrom({ odd: 0, same: 1 }, { odd: 7, same: 6 }, { odd: 255, same: 6 })
  .chain((versions) => fc.tuple(fc.constant(versions), frameAt(versions.same)))

test('version 0 reads and writes like 1, and one above 6 like 6', () => {
  fc.assert(
    fc.property(oddVersionAndFrame, ([{ odd, same }, frame]) => {
      const bytes = encode(frame, odd)
      expect(readable(bytes)).toBe(readable(encode(frame, same)))
      expect(readable(decode(bytes, odd))).toEqual(readable(decode(bytes, same)))
    }),
    fuzz(300),
  )
})

test('any chunking of a stream gives the same frames', () => {
  fc.assert(
    fc.property(versionAndFrames, fc.array(fc.nat(), { maxLength: 12 }), ([connectionVersion, frames], places) => {
      const bytes = Buffer.concat(frames.map((frame) => encode(frame, connectionVersion)))
      const fed = feedAll(cut(bytes, places), connectionVersion)
      expect(fed.frames).toEqual(frames.map(readable))
      expect(fed.code).toBe(undefined)
      expect(fed.pendingBytes).toBe(0)
    }),
    fuzz(600),
  )
})

/** Checks what holds for any input at all; the chunked decoder has to agree with `decode` frame by frame. */
function checkHostile(bytes: Uint8Array, connectionVersion: number, places: readonly number[]): void {
  const frames: unknown[] = []
  let offset = 0
  let code: string | undefined
  for (;;) {
    const result = decode(bytes, connectionVersion, { offset })
    if (result.status === 'malformed') {
      code = result.code
      break
    }
    if (result.status === 'need-more') break
    expect(result.consumed).toBeGreaterThan(0)
    offset += result.consumed
    expect(offset).toBeLessThanOrEqual(bytes.length)
    frames.push(readable(result.frame))
    // A frame that decodes can be sent on: a proxy must not fall over what a client may send.
    const again = decode(encode(result.frame, connectionVersion), connectionVersion)
    expect(readable((again as { frame: Frame }).frame)).toEqual(frames.at(-1))
  }
  if (code !== undefined) expect(MALFORMED).toContain(code)
  const fed = feedAll(cut(bytes, places), connectionVersion)
  expect(fed.frames).toEqual(frames)
  expect(fed.code).toBe(code)
  expect(fed.pendingBytes).toBe(code === undefined ? bytes.length - offset : 0)
}

test('random bytes never throw and never take more than there is', () => {
  // A first byte and a length that fit, or nearly every case would end at the header.
  const framed = fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 60 }))
    .map(([first, body]) => Uint8Array.of(first, body.length, ...body))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), framed), fc.integer({ min: 0, max: 7 }), fc.array(fc.nat(), { maxLength: 4 }), checkHostile),
    fuzz(6_000),
  )
})

test('frames with bytes changed, removed or put in never throw and never take more than there is', () => {
  const change = fc.record({ at: fc.nat(), remove: fc.integer({ min: 0, max: 3 }), insert: fc.uint8Array({ maxLength: 3 }) })
  fc.assert(
    fc.property(
      versionAndFrames,
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(), { maxLength: 4 }),
      ([connectionVersion, frames], changes, places) => {
        let bytes = Buffer.concat(frames.map((frame) => encode(frame, connectionVersion)))
        for (const { at, remove, insert } of changes) {
          const place = at % (bytes.length + 1)
          bytes = Buffer.concat([bytes.subarray(0, place), insert, bytes.subarray(place + remove)])
        }
        checkHostile(bytes, connectionVersion, places)
      },
    ),
    fuzz(1_000),
  )
})
