import { FrameType, LATEST_VERSION, type Frame, type MalformedCode } from '../model/frames.ts'
import { decodeBody, readSeq } from './decode.ts'
import { findFrame, type FrameBounds } from './frame-splitter.ts'
import { DEFAULT_MAX_FRAME_BYTES } from './limits.ts'
import { Reader } from './reader.ts'

const EMPTY = Buffer.alloc(0)

/**
 * What decoding needs only while it goes on. Decoders that share one cost less while they are idle; a decoder that is fed from
 * inside another one's sink does without.
 */
export class DecoderScratch {
  readonly bounds: FrameBounds = { bodyStart: 0, end: 0 }
  readonly reader = new Reader(EMPTY)
  isUsed = false
}

export interface FrameDecoderOptions {
  readonly version?: number
  readonly maxFrameBytes?: number
  readonly copiesPayloads?: boolean
  readonly scratch?: DecoderScratch
}

/** Smallest memory for the start of a frame whose rest has not arrived. */
const MIN_TAIL_BYTES = 256

/**
 * Decodes one connection's byte stream, however it is cut into chunks.
 *
 * A frame that lies whole in a chunk is decoded in place: its byte fields are views on the chunk and live as long as the
 * owner of the chunk leaves it alone, so a sink copies what it keeps. Only the start of a frame whose rest is still to come
 * is copied, so the caller may reuse a chunk's memory as soon as `feed` returns. That copy grows with the bytes that really
 * arrived, never with the length a header announces, and belongs to its one frame: no later frame is written over it.
 */
export class FrameDecoder {
  /**
   * The connection's protocol version. May change at any time, also inside the sink: the very next frame is decoded by it.
   * CONNECT needs none.
   */
  version: number

  /**
   * Takes RECVACKs in the place of the sink, as the halves of the id they name: every message delivered is acknowledged, and no
   * packet has to be made for it. Undefined by default. Called like the sink; false stops.
   */
  onRecvack: ((high: number, low: number) => boolean) | undefined = undefined

  readonly #maxFrameBytes: number
  readonly #copiesPayloads: boolean
  readonly #shared: DecoderScratch
  /** during `feed` */
  #scratch: DecoderScratch
  /** The first `#tailBytes` bytes are the start of a frame. */
  #tail: Uint8Array = EMPTY
  #tailBytes = 0
  #feeding = false
  #broken = false
  #code: MalformedCode | undefined = undefined

  /**
   * @param options.version        LATEST_VERSION by default
   * @param options.maxFrameBytes  bound of the remaining length, inclusive, 1 MiB by default
   * @param options.copiesPayloads  payloads are copies, which the sink may keep; false by default
   * @param options.scratch        what is shared with other decoders; by default the decoder has its own
   */
  constructor(options: FrameDecoderOptions = {}) {
    this.version = options.version ?? LATEST_VERSION
    this.#maxFrameBytes = options.maxFrameBytes ?? DEFAULT_MAX_FRAME_BYTES
    this.#copiesPayloads = options.copiesPayloads ?? false
    this.#shared = this.#scratch = options.scratch ?? new DecoderScratch()
  }

  /** Bytes of an unfinished frame that are held. */
  get pendingBytes(): number {
    return this.#tailBytes
  }

  /** Nothing is decoded any more: the stream was malformed, or a sink returned false or threw. */
  get broken(): boolean {
    return this.#broken
  }

  /**
   * Hands every frame that is complete with `chunk` to `onFrame`, in order, before it returns.
   * @param onFrame  returns false to stop: the rest of the chunk is discarded and the decoder decodes nothing more
   * @returns what is wrong with the stream, once it is; the frames before that have been handed out, none after, and every
   *          later call gives the same answer. Undefined otherwise, also after a stop
   * @throws Error  called from inside its own sink: the bytes would overtake the rest of the current chunk
   */
  feed(chunk: Uint8Array, onFrame: (frame: Frame) => boolean | void): MalformedCode | undefined {
    if (this.#broken) return this.#code
    if (this.#feeding) throw new Error('imengine: FrameDecoder.feed was called from inside its own sink')
    this.#feeding = true
    const scratch = (this.#scratch = this.#shared.isUsed ? new DecoderScratch() : this.#shared)
    scratch.isUsed = true
    scratch.reader.copiesRest = this.#copiesPayloads
    let finished = false
    try {
      const start = this.#tailBytes === 0 ? 0 : this.#finishTail(chunk, onFrame)
      if (start < chunk.length && !this.#broken) this.#feedWhole(chunk, start, onFrame)
      finished = true
    } finally {
      this.#feeding = false
      scratch.reader.setBytes(EMPTY) // or an idle connection would keep its last chunk alive
      scratch.isUsed = false
      this.#scratch = this.#shared
      if (!finished) this.#break(undefined)
    }
    return this.#code
  }

  /** Decodes in place from `start`, and keeps what is left over. */
  #feedWhole(chunk: Uint8Array, start: number, onFrame: (frame: Frame) => boolean | void): void {
    const reader = this.#scratch.reader
    const bounds = this.#scratch.bounds
    reader.setBytes(chunk)
    let at = start
    while (at < chunk.length) {
      const found = findFrame(chunk, at, chunk.length, this.#maxFrameBytes, bounds)
      if (found === 'need-more') {
        this.#appendToTail(chunk, at, chunk.length)
        return
      }
      if (found !== 'whole') {
        this.#break(found)
        return
      }
      if (!this.#deliver(chunk[at]!, onFrame)) return
      at = bounds.end
    }
  }

  /**
   * Takes from the chunk what the unfinished frame still needs, and delivers it when that is all of it.
   * @returns how many bytes of the chunk it used
   */
  #finishTail(chunk: Uint8Array, onFrame: (frame: Frame) => boolean | void): number {
    const bounds = this.#scratch.bounds
    let used = 0
    for (;;) {
      const found = findFrame(this.#tail, 0, this.#tailBytes, this.#maxFrameBytes, bounds)
      if (found === 'whole') break
      if (found !== 'need-more') {
        this.#break(found)
        return used
      }
      if (used === chunk.length) return used
      // With its header incomplete the frame needs one more byte at least; a header never grows past five.
      const missing = bounds.end === 0 ? 1 : bounds.end - this.#tailBytes
      const end = Math.min(used + missing, chunk.length)
      this.#appendToTail(chunk, used, end)
      used = end
    }
    const tail = this.#tail
    this.#tail = EMPTY
    this.#tailBytes = 0
    this.#scratch.reader.setBytes(tail)
    this.#deliver(tail[0]!, onFrame)
    return used
  }

  /** Decodes the frame that `bounds` describes and hands it out; false when nothing may follow it. */
  #deliver(firstByte: number, onFrame: (frame: Frame) => boolean | void): boolean {
    const reader = this.#scratch.reader
    reader.setBody(this.#scratch.bounds.bodyStart, this.#scratch.bounds.end)
    if (this.onRecvack !== undefined && firstByte >>> 4 === FrameType.RECVACK) return this.#deliverRecvack(reader, this.onRecvack)
    const frame = decodeBody(firstByte, reader, this.version)
    if (reader.error !== undefined) {
      this.#break(reader.error)
      return false
    }
    if (onFrame(frame) === false) {
      this.#break(undefined)
      return false
    }
    return true
  }

  #deliverRecvack(reader: Reader, onRecvack: (high: number, low: number) => boolean): boolean {
    const high = reader.u32()
    const low = reader.u32()
    readSeq(reader, this.version) // must be there, and says nothing that the id does not
    if (reader.error !== undefined) {
      this.#break(reader.error)
      return false
    }
    if (onRecvack(high, low)) return true
    this.#break(undefined)
    return false
  }

  #appendToTail(chunk: Uint8Array, start: number, end: number): void {
    const byteCount = this.#tailBytes + (end - start)
    if (byteCount > this.#tail.length) {
      const grown = new Uint8Array(Math.max(MIN_TAIL_BYTES, byteCount, 2 * this.#tailBytes))
      grown.set(this.#tail.subarray(0, this.#tailBytes))
      this.#tail = grown
    }
    this.#tail.set(chunk.subarray(start, end), this.#tailBytes)
    this.#tailBytes = byteCount
  }

  #break(code: MalformedCode | undefined): void {
    this.#broken = true
    this.#code = code
    this.#tail = EMPTY
    this.#tailBytes = 0
  }
}
