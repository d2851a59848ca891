import { FrameType, type MalformedCode } from '../model/frames.ts'

/** Where the frame that `findFrame` found lies: its body is [bodyStart, end), the next frame starts at `end`. */
export interface FrameBounds {
  bodyStart: number
  end: number
}

/**
 * Finds the frame that starts at `start` in bytes [start, limit). PING and PONG have an empty body and no length.
 * `'need-more'` sets `bounds.end` to where the frame will end when its header is complete, and to 0 when it is not. What is
 * wrong with a header is said as soon as it can be known: an unknown type from the first byte, a length above
 * `maxFrameBytes` before the body arrives.
 */
export function findFrame(
  bytes: Uint8Array,
  start: number,
  limit: number,
  maxFrameBytes: number,
  bounds: FrameBounds,
): 'whole' | 'need-more' | MalformedCode {
  bounds.end = 0
  if (start >= limit) return 'need-more'
  const type = bytes[start]! >>> 4
  if (type === FrameType.PING || type === FrameType.PONG) {
    bounds.bodyStart = start + 1
    bounds.end = start + 1
    return 'whole'
  }
  if (type < FrameType.CONNECT || type > FrameType.EVENT) return 'unknown-type'
  let bodyBytes = 0
  let at = start + 1
  for (let shift = 0; ; shift += 7) {
    if (at >= limit) return 'need-more'
    const byte = bytes[at++]!
    bodyBytes |= (byte & 0x7f) << shift
    if (byte < 0x80) break
    if (shift === 21) return 'bad-length'
  }
  if (bodyBytes > maxFrameBytes) return 'too-large'
  bounds.bodyStart = at
  bounds.end = at + bodyBytes
  return bounds.end > limit ? 'need-more' : 'whole'
}
