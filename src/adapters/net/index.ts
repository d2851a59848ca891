/**
 * `imengine/net`: TCP (and TLS) servers of node:net for an engine. Power loss and a slow peer are the engine's business:
 * this file moves bytes. It is also the example for any other socket that is a byte stream.
 */
import type { Server, Socket as NetSocket } from 'node:net'
import type { AcceptInfo, Socket, SocketAcceptor, SocketEvents } from '../../contracts/socket.ts'
import { badOption } from '../../errors.ts'

export interface AttachNetOptions {
  /** what to tell the engine about a socket before its first byte; default: the TCP peer's address */
  readonly describe?: (socket: NetSocket) => AcceptInfo
}

/**
 * Serve every socket that `server` accepts from now on; for a `tls.Server` those whose handshake has succeeded.
 * @returns a function that stops serving new sockets; those that are served stay until they, or the engine, close
 * @throws TypeError  one of them is none, or an engine is attached to the server already
 */
export function attachNetServer(
  engine: SocketAcceptor,
  server: Server,
  { describe = describeByAddress }: AttachNetOptions = {},
): () => void {
  attach(engine, server)
  const event = isTLS(server) ? 'secureConnection' : 'connection'
  const onConnection = (socket: NetSocket): void => void serveNetSocket(engine, socket, describe(socket))
  server.on(event, onConnection)
  return () => {
    server.off(event, onConnection)
    ;(server as Attached)[ATTACHED] = false
  }
}

const ATTACHED = Symbol('imengine attached')

interface Attached extends Server {
  [ATTACHED]?: boolean
}

/** Two engines would both answer every client. */
function attach(engine: SocketAcceptor, server: Attached): void {
  if (typeof engine?.accept !== 'function') badOption('engine', 'an engine', engine)
  if (typeof server?.on !== 'function' || 'handleUpgrade' in server) badOption('server', 'a server of node:net or node:tls', server)
  if (server[ATTACHED] === true) throw new TypeError('imengine: an engine is attached to this server already')
  server[ATTACHED] = true
}

/**
 * Serve one connected socket.
 * @throws TypeError  it is served already
 */
export function serveNetSocket(engine: SocketAcceptor, socket: NetSocket, info: AcceptInfo = {}): SocketEvents {
  if (CONNECTION in socket) throw new TypeError('imengine: this socket is served already')
  socket.setNoDelay(true) // the engine gathers frames itself; waiting for more would only add delay
  socket.on('error', ignore) // 'close' follows, and says all the engine needs
  const connection = ((socket as Served)[CONNECTION] = engine.accept(new StreamSocket(socket), info))
  socket.on('data', onData)
  socket.on('drain', onDrain)
  // A client that has ended its half sends nothing more: a chat connection of one direction is of no use. Node ends the other
  // half itself unless it was told not to.
  if (socket.allowHalfOpen) socket.on('end', onEnd)
  socket.on('close', onClose)
  return connection
}

const CONNECTION = Symbol('imengine connection')

/** The listeners are the same for all sockets, and find the connection here: closures for each would outweigh all the rest. */
interface Served extends NetSocket {
  [CONNECTION]: SocketEvents
}

function ignore(): void {
  // There is nothing to do.
}

function onData(this: NetSocket, chunk: Buffer): void {
  ;(this as Served)[CONNECTION].receive(chunk)
}

function onDrain(this: NetSocket): void {
  ;(this as Served)[CONNECTION].drained()
}

function onEnd(this: NetSocket): void {
  this.end()
}

function onClose(this: NetSocket): void {
  ;(this as Served)[CONNECTION].closed()
}

class StreamSocket implements Socket {
  readonly framing = 'stream'
  readonly #socket: NetSocket

  constructor(socket: NetSocket) {
    this.#socket = socket
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  send(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes)
  }

  close(): void {
    this.#socket.end()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }
}

function isTLS(server: Server): boolean {
  return 'setSecureContext' in server
}

function describeByAddress({ remoteAddress }: NetSocket): AcceptInfo {
  return remoteAddress === undefined ? {} : { remoteAddress }
}
