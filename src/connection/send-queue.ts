import type { Socket } from '../contracts/socket.ts'

/** what a waiting frame weighs besides its bytes, about: a PONG is one byte long */
const FRAME_BYTES = 64

/**
 * Frames on their way to one socket, and everything else that is asked of it. Frames gather during a turn and leave
 * together: one write on a byte stream, one message per frame (corked) on a transport with messages. While the transport
 * wants no more, frames wait here. Nothing throws: a socket that does is told to `broken`, once.
 */
export class SendQueue {
  readonly #socket: Socket
  readonly #broken: () => void
  #frames: Uint8Array[] = []
  #bytes = 0
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
  }

  /** Bytes that have not left the process, here and in the transport. */
  get bytes(): number {
    return this.#bytes + this.#socketBytes
  }

  /** The transport takes nothing: what was pushed is still here. */
  get isBlocked(): boolean {
    return this.#isBlocked
  }

  /** Bytes that the next flush will write. */
  get flushableBytes(): number {
    return this.#isBlocked ? 0 : this.#bytes
  }

  /** Nothing more is accepted: the socket is closing. */
  get isEnding(): boolean {
    return this.#ending !== undefined || this.#isOver
  }

  push(frame: Uint8Array): void {
    if (this.isEnding) return
    this.#frames.push(frame)
    this.#bytes += frame.length
  }

  flush(): void {
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
   * Does more than `limit` bytes wait for the peer to read, counting what each frame here costs besides? Before that is said of it, what gathered in this turn is
   * written and the transport is asked again: the peer may have read everything it was given.
   */
  isBeyond(limit: number): boolean {
    if (this.#weight <= limit) return false
    this.flush()
    this.#attempt(() => (this.#socketBytes = this.#socket.bufferedBytes))
    return this.#weight > limit
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
    this.#frames = []
    this.#bytes = 0
  }

  get #weight(): number {
    return this.bytes + this.#frames.length * FRAME_BYTES
  }

  #write(): void {
    if (!this.#isBlocked && this.#frames.length > 0) {
      const frames = this.#frames
      const bytes = this.#bytes
      this.#frames = []
      this.#bytes = 0
      if (this.#socket.framing === 'message') this.#sendEach(frames)
      else this.#send(frames.length === 1 ? frames[0]! : Buffer.concat(frames, bytes))
      this.#socketBytes = this.#socket.bufferedBytes
    }
    if (this.#ending === undefined || this.#frames.length > 0 || this.#isClosing) return
    this.#isClosing = true
    this.#socket.close(this.#ending.code, this.#ending.reason)
  }

  #sendEach(frames: readonly Uint8Array[]): void {
    this.#socket.cork?.()
    try {
      for (let index = 0; index < frames.length; index++) {
        this.#send(frames[index]!)
        if (!this.#isBlocked) continue
        const rest = frames.slice(index + 1)
        for (const frame of rest) this.#bytes += frame.length
        this.#frames = [...rest, ...this.#frames] // behind them: what a transport that calls back at once has caused
        return
      }
    } finally {
      this.#socket.uncork?.()
    }
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
