/**
 * `imengine/ws`: WebSocket servers of the `ws` package (an optional peer dependency) for an engine. Power loss and a slow
 * peer are the engine's business: this file moves bytes. It is also the example for any other socket with messages.
 */
import type { IncomingMessage } from 'node:http'
import type { Writable } from 'node:stream'
import type { RawData, WebSocket, WebSocketServer } from 'ws'
import type { AcceptInfo, Socket, SocketAcceptor, SocketEvents } from '../../contracts/socket.ts'
import { badOption } from '../../errors.ts'

export interface AttachWebSocketOptions {
  /** what to tell the engine about a socket before its first byte; default: the TCP peer's address */
  readonly describe?: (socket: WebSocket, request: IncomingMessage) => AcceptInfo
}

/**
 * Serve every WebSocket that `server` accepts from now on. Any path and no subprotocol, as the clients expect; put your own
 * checks in front with `noServer` or `verifyClient`. Set `maxPayload` of the server to the engine's `maxFrameBytes` or a
 * little more: `ws` otherwise buffers messages of up to 100 MiB.
 * @returns a function that stops serving new sockets; those that are served stay until they, or the engine, close
 * @throws TypeError  one of them is none, or an engine is attached to the server already
 */
export function attachWebSocketServer(
  engine: SocketAcceptor,
  server: WebSocketServer,
  { describe = describeByAddress }: AttachWebSocketOptions = {},
): () => void {
  attach(engine, server)
  const onConnection = (socket: WebSocket, request: IncomingMessage): void =>
    void serveWebSocket(engine, socket, describe(socket, request))
  server.on('connection', onConnection)
  return () => {
    server.off('connection', onConnection)
    ;(server as Attached)[ATTACHED] = false
  }
}

const ATTACHED = Symbol('imengine attached')

interface Attached extends WebSocketServer {
  [ATTACHED]?: boolean
}

/** Two engines would both answer every client. */
function attach(engine: SocketAcceptor, server: Attached): void {
  if (typeof engine?.accept !== 'function') badOption('engine', 'an engine', engine)
  if (typeof server?.handleUpgrade !== 'function') badOption('server', 'a WebSocketServer of the package ws', server)
  if (server[ATTACHED] === true) throw new TypeError('imengine: an engine is attached to this server already')
  server[ATTACHED] = true
}

/**
 * Serve one WebSocket that is open.
 * @throws TypeError  it is served already
 */
export function serveWebSocket(engine: SocketAcceptor, socket: WebSocket, info: AcceptInfo = {}): SocketEvents {
  if (CONNECTION in socket) throw new TypeError('imengine: this socket is served already')
  socket.on('error', ignore) // 'close' follows, and says all the engine needs
  const connection = ((socket as Served)[CONNECTION] = engine.accept(new MessageSocket(socket), info))
  socket.on('message', onMessage)
  socket.on('close', onClose)
  return connection
}

const CONNECTION = Symbol('imengine connection')
const IS_BINARY = Symbol('imengine binary')

/** The listeners are the same for all sockets, and find the connection here: closures for each would outweigh much of the rest. */
interface Served extends WebSocket {
  [CONNECTION]: SocketEvents
  /** it has sent something binary */
  [IS_BINARY]?: boolean
}

function ignore(): void {
  // There is nothing to do, and nothing to tell the writer of a message that has failed.
}

function onMessage(this: WebSocket, message: RawData, isBinary: boolean): void {
  if (this.readyState !== this.OPEN) return // `ws` goes on bringing messages while it waits for the client's part in closing
  const served = this as Served
  const chunk = Array.isArray(message) ? Buffer.concat(message) : message instanceof ArrayBuffer ? Buffer.from(message) : message
  // Binary clients never send text. What may be JSON is the engine's to judge, by its first byte; but the engine judges once, and
  // would read the text of a client that has begun in binary as frames.
  if (isBinary) served[IS_BINARY] = true
  if (isBinary || (served[IS_BINARY] !== true && chunk[0] === OPENING_BRACE)) served[CONNECTION].receive(chunk)
  else this.close(1003, 'binary messages only')
}

function onClose(this: WebSocket): void {
  ;(this as Served)[CONNECTION].closed()
}

const OPENING_BRACE = 0x7b
const SEND_OPTIONS = { binary: true, compress: false } as const

/** One frame per message, as clients of version 2 need it. */
class MessageSocket implements Socket {
  readonly framing = 'message'
  readonly #socket: WebSocket

  constructor(socket: WebSocket) {
    this.#socket = socket
  }

  get bufferedBytes(): number {
    return this.#socket.bufferedAmount
  }

  send(bytes: Uint8Array): void {
    // A failure to write is told by 'close'; without a callback `ws` would throw it at us.
    this.#socket.send(bytes, SEND_OPTIONS, ignore)
  }

  /**
   * All of them with one write to the TCP socket below: `ws` makes two writes, a header and a callback of each message, which
   * costs more than everything else a chat message needs. What a server sends is not masked, so a message is its length and
   * its bytes (RFC 6455, 5.2). Left to `ws` where it may compress, which it does behind our back, and on a socket that this
   * process has opened, whose messages must be masked.
   */
  sendFrames(frames: Uint8Array, ends: readonly number[]): void {
    const stream = this.#isServerSide ? this.#stream : undefined
    if (stream === undefined || this.#socket.readyState !== this.#socket.OPEN || this.#socket.extensions !== '') {
      for (let index = 0, start = 0; index < ends.length; start = ends[index++]!) this.send(frames.subarray(start, ends[index]))
      return
    }
    stream.write(asMessages(frames, ends))
  }

  close(code?: number, reason = ''): void {
    this.#socket.close(code, reason.replace(/[^\x20-\x7e]/g, '?').slice(0, 123)) // 123 bytes at most (RFC 6455)
  }

  destroy(): void {
    this.#socket.terminate()
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  cork(): void {
    this.#stream?.cork()
  }

  uncork(): void {
    this.#stream?.uncork()
  }

  /** `ws` does not name it in its types. */
  get #isServerSide(): boolean {
    return (this.#socket as unknown as { readonly _isServer?: boolean })._isServer === true
  }

  /** The TCP socket below, which `ws` does not name in its types. */
  get #stream(): Writable | undefined {
    return (this.#socket as unknown as { readonly _socket?: Writable | null })._socket ?? undefined
  }
}

/** Each frame as an unmasked binary message that is not cut. */
function asMessages(frames: Uint8Array, ends: readonly number[]): Buffer {
  let byteCount = frames.length
  for (let index = 0, start = 0; index < ends.length; start = ends[index++]!) byteCount += headerByteCount(ends[index]! - start)
  const messages = Buffer.allocUnsafe(byteCount)
  let at = 0
  for (let index = 0, start = 0; index < ends.length; start = ends[index++]!) {
    const end = ends[index]!
    const length = end - start
    messages[at++] = FINAL_BINARY
    if (length < 126) {
      messages[at++] = length
    } else if (length < 65_536) {
      messages[at++] = 126
      at = messages.writeUInt16BE(length, at)
    } else {
      messages[at++] = 127
      at = messages.writeUInt32BE(0, at) // no frame has 4 GiB
      at = messages.writeUInt32BE(length, at)
    }
    messages.set(frames.subarray(start, end), at)
    at += length
  }
  return messages
}

const FINAL_BINARY = 0x82

function headerByteCount(length: number): number {
  return length < 126 ? 2 : length < 65_536 ? 4 : 10
}

function describeByAddress(_socket: WebSocket, { socket }: IncomingMessage): AcceptInfo {
  return socket.remoteAddress === undefined ? {} : { remoteAddress: socket.remoteAddress }
}
