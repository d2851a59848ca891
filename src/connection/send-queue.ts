import type { Socket } from '../contracts/socket.ts'

/**
 * Frames on their way to one socket. They gather during a turn and leave together: one write on a byte stream, one message
 * per frame (corked) on a transport with messages. While the transport wants no more, frames wait here.
 */
export class SendQueue {
  readonly #socket: Socket
  #frames: Uint8Array[] = []
  #bytes = 0
  /** the transport said false and has not drained since */
  #blocked = false
  /** what the transport held when last asked: asking costs something on some of them, so it is done once per flush */
  #socketBytes = 0

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** Bytes that have not left the process, here and in the transport. */
  get bytes(): number {
    return this.#bytes + this.#socketBytes
  }

  /** Bytes that wait for the next flush. */
  get unsentBytes(): number {
    return this.#blocked ? 0 : this.#bytes
  }

  get isEmpty(): boolean {
    return this.#frames.length === 0
  }

  push(frame: Uint8Array): void {
    this.#frames.push(frame)
    this.#bytes += frame.length
  }

  /** Write what waits. Throws what the socket throws. */
  flush(): void {
    if (this.#blocked || this.#frames.length === 0) return
    const frames = this.#frames
    this.#frames = []
    const bytes = this.#bytes
    this.#bytes = 0
    if (this.#socket.framing === 'message') this.#sendEach(frames)
    else this.#send(frames.length === 1 ? frames[0]! : Buffer.concat(frames, bytes))
    this.#socketBytes = this.#socket.bufferedBytes
  }

  drained(): void {
    this.#blocked = false
    this.#socketBytes = this.#socket.bufferedBytes
  }

  /** Ask the transport again: a peer that has read meanwhile must not be taken for one that does not. */
  refresh(): void {
    this.#socketBytes = this.#socket.bufferedBytes
  }

  clear(): void {
    this.#frames = []
    this.#bytes = 0
  }

  #sendEach(frames: readonly Uint8Array[]): void {
    this.#socket.cork?.()
    try {
      for (let index = 0; index < frames.length; index++) {
        this.#send(frames[index]!)
        if (this.#blocked) {
          for (const waiting of frames.slice(index + 1)) this.push(waiting)
          return
        }
      }
    } finally {
      this.#socket.uncork?.()
    }
  }

  #send(bytes: Uint8Array): void {
    if (this.#socket.send(bytes) === false) this.#blocked = true
  }
}
