import type { Socket } from '../contracts/socket.ts'

/** what a waiting frame weighs besides its bytes, about: a PONG is one byte long */
const FRAME_BYTES = 64

/**
 * Room for frames is made at least so large, and never larger ahead of time than a flush in the middle of a turn. Beyond that is
 * only what waits for a transport that wants no more; there it grows by half, or each frame would copy all that wait.
 */
const MIN_ROOM_BYTES = 256
const MAX_ROOM_BYTES = 65_536

const NO_ENDS: readonly number[] = []

/**
 * Frames on their way to one socket, and everything else that is asked of it. Frames gather during a turn, one behind the
 * other in one piece of memory, and leave together: one write on a byte stream, one message per frame on a transport with
 * messages. While the transport wants no more, frames wait here. Nothing throws: a socket that does is told to `broken`, once.
 *
 * What is alone in its turn, as a message to a large group is on each of its connections, is not copied.
 */
export class SendQueue {
  readonly #socket: Socket
  readonly #broken: () => void
  /** The first of what waits, as it was pushed, while there is nothing else. */
  #only: Uint8Array | undefined
  /** Where frames that wait are laid out; a new one after each flush, because the transport may keep the former one. */
  #room: Buffer | undefined
  /** bytes that wait, in `#only` or at the front of `#room` */
  #bytes = 0
  #frameCount = 0
  /** where each of them ends; kept for transports with messages */
  #ends: number[] | undefined
  readonly #isMessages: boolean
  /** how much left with the last flush: the next one is likely to be as large */
  #lastBytes = 0
  #isWriting = false
  /** somebody has asked for a write since the last one began */
  #isWanted = false
  /** the transport said false and has not drained since */
  #isBlocked = false
  #drainCount = 0
  /** what the transport held when last asked: asking costs something on some of them, so it is done once per flush */
  #socketBytes = 0
  /** how the socket is to be closed once everything is written */
  #ending: { readonly code: number; readonly reason: string } | undefined
  /** `close` has been called; the socket has not said that it is gone */
  #isClosing = false
  /** the socket is gone, or given up */
  #isOver = false

  constructor(socket: Socket, broken: () => void) {
    this.#socket = socket
    this.#broken = broken
    this.#isMessages = socket.framing === 'message'
  }

  /** Bytes that have not left the process, here and in the transport. */
  get bytes(): number {
    return this.#bytes + this.#socketBytes
  }

  /** The transport takes nothing: what was pushed is still here. */
  get isBlocked(): boolean {
    return this.#isBlocked
  }

  /** Frames that have not been given to the transport. */
  get frameCount(): number {
    return this.#frameCount
  }

  /** Bytes that the next flush will write. */
  get flushableBytes(): number {
    return this.#isBlocked ? 0 : this.#bytes
  }

  /** Nothing more is accepted: the socket is closing. */
  get isEnding(): boolean {
    return this.#ending !== undefined || this.#isOver
  }

  /** One whole frame, which nobody changes any more. */
  push(frame: Uint8Array): void {
    if (this.isEnding) return
    if (this.#frameCount === 0) {
      this.#only = frame
      this.#bytes = frame.length
      this.#frameCount = 1
      if (this.#isMessages) this.#ends = [frame.length]
    } else {
      const at = this.reserve(frame.length)
      this.#room!.set(frame, at)
    }
  }

  /** Several whole frames one behind the other, which nobody changes any more; `ends` says where each of them ends. */
  pushAll(frames: Uint8Array, ends: readonly number[]): void {
    if (!this.isEnding && ends.length > 0) this.#add(frames, ends)
  }

  /**
   * Room for a frame of `byteCount` bytes that the caller writes into `room` at once, before anything else is asked of this
   * queue; not to be called once it `isEnding`.
   * @returns where the frame starts in `room`
   */
  reserve(byteCount: number): number {
    const at = this.#makeRoom(byteCount)
    this.#bytes = at + byteCount
    this.#frameCount++
    if (this.#isMessages) (this.#ends ??= []).push(this.#bytes)
    return at
  }

  /** What `reserve` has made room in; another one after the next call. */
  get room(): Buffer {
    return this.#room!
  }

  flush(): void {
    if (this.#isOver || (this.#frameCount === 0 && this.#ending === undefined)) return
    this.#attempt(() => this.#write())
  }

  drained(): void {
    this.#drainCount++
    this.#isBlocked = false
    this.#attempt(() => {
      this.#socketBytes = this.#socket.bufferedBytes
      this.#write()
    })
  }

  /**
   * Does more than `limit` bytes wait for the peer to read, counting what each frame here costs besides? Before that is said
   * of it, what gathered in this turn is written and the transport is asked again: the peer may have read everything it was
   * given.
   */
  isBeyond(limit: number): boolean {
    if (this.#weight <= limit) return false
    this.flush()
    this.#attempt(() => (this.#socketBytes = this.#socket.bufferedBytes))
    return this.#weight > limit
  }

  /** Would so many frames of so many bytes more stay within `limit`, as far as is known without asking the transport? */
  hasRoomFor(byteCount: number, frameCount: number, limit: number): boolean {
    return this.#weight + byteCount + frameCount * FRAME_BYTES <= limit
  }

  pause(): void {
    this.#attempt(() => this.#socket.pause?.())
  }

  resume(): void {
    this.#attempt(() => this.#socket.resume?.())
  }

  /** Close the socket as soon as everything is written. */
  end(code: number, reason: string): void {
    if (this.isEnding) return
    this.#ending = { code, reason }
    this.flush()
  }

  /** Close the socket now and forget what waits. */
  destroy(reason: string): void {
    if (this.#isOver) return
    this.release()
    try {
      if (this.#socket.destroy !== undefined) this.#socket.destroy()
      else this.#socket.close(1001, reason)
    } catch {
      // It is broken already; what remains is to forget it.
    }
  }

  /** The socket is gone. */
  release(): void {
    this.#isOver = true
    this.#forget()
  }

  get #weight(): number {
    return this.bytes + this.#frameCount * FRAME_BYTES
  }

  #add(frames: Uint8Array, ends: readonly number[]): void {
    const isFirst = this.#frameCount === 0
    const at = isFirst ? 0 : this.#makeRoom(frames.length)
    if (isFirst) this.#only = frames
    else this.#room!.set(frames, at)
    this.#bytes = at + frames.length
    this.#frameCount += ends.length
    if (!this.#isMessages) return
    this.#ends ??= []
    for (const end of ends) this.#ends.push(at + end)
  }

  #forget(): void {
    this.#only = this.#room = this.#ends = undefined
    this.#bytes = this.#frameCount = 0
  }

  /** @returns where the next `byteCount` bytes go in `#room` */
  #makeRoom(byteCount: number): number {
    const at = this.#bytes
    const room = this.#room
    if (room !== undefined && at + byteCount <= room.length) return at
    const likely = at < MAX_ROOM_BYTES ? Math.min(MAX_ROOM_BYTES, Math.max(MIN_ROOM_BYTES, this.#lastBytes, 2 * at)) : at + (at >>> 1)
    const larger = Buffer.allocUnsafe(Math.max(likely, at + byteCount))
    if (this.#only !== undefined) larger.set(this.#only)
    else if (room !== undefined) larger.set(room.subarray(0, at))
    this.#only = undefined
    this.#room = larger
    return at
  }

  #write(): void {
    this.#isWanted = true
    if (this.#isWriting) return // asked from inside a send: what that has caused goes behind what is being sent
    this.#isWriting = true
    try {
      this.#writeAll()
    } finally {
      this.#isWriting = false
    }
    if (this.#ending === undefined || this.#frameCount > 0 || this.#isClosing) return
    this.#isClosing = true
    this.#socket.close(this.#ending.code, this.#ending.reason)
  }

  #writeAll(): void {
    while (this.#isWanted && !this.#isBlocked && this.#frameCount > 0) {
      this.#isWanted = false
      const bytes = this.#only ?? this.#room!.subarray(0, this.#bytes)
      const ends = this.#ends ?? NO_ENDS
      this.#lastBytes = this.#bytes
      this.#forget()
      if (!this.#isMessages) this.#send(bytes)
      else if (this.#socket.sendFrames !== undefined) this.#socket.sendFrames(bytes, ends)
      else this.#sendEach(bytes, ends)
      this.#socketBytes = this.#socket.bufferedBytes
    }
  }

  #sendEach(bytes: Uint8Array, ends: readonly number[]): void {
    this.#socket.cork?.()
    try {
      for (let index = 0, start = 0; index < ends.length; index++) {
        const end = ends[index]!
        this.#send(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end))
        start = end
        if (!this.#isBlocked) continue
        this.#putBack(bytes.subarray(end), ends.slice(index + 1).map((each) => each - end))
        return
      }
    } finally {
      this.#socket.uncork?.()
    }
  }

  /** What has not been sent goes in front of what a transport that calls back at once has caused. */
  #putBack(rest: Uint8Array, ends: readonly number[]): void {
    const caused = this.#only ?? this.#room?.subarray(0, this.#bytes)
    const causedEnds = this.#ends ?? NO_ENDS
    this.#forget()
    if (this.#isOver) return
    if (ends.length > 0) this.#add(rest, ends)
    if (caused !== undefined) this.#add(caused, causedEnds)
  }

  #send(bytes: Uint8Array): void {
    const drainCount = this.#drainCount
    // A transport may drain before `send` has returned false.
    if (this.#socket.send(bytes) === false && drainCount === this.#drainCount) this.#isBlocked = true
  }

  #attempt(action: () => void): void {
    if (this.#isOver) return
    try {
      action()
    } catch {
      this.#broken()
    }
  }
}
