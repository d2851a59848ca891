/**
 * The least a relay can do. Sockets in pairs by the order they come: what one sends goes to the other, and an
 * acknowledgement comes back. Parses nothing, keeps nothing, and writes to each socket once per turn: the ceiling for
 * anything that does more.
 */
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { WebSocketServer, type WebSocket } from 'ws'
import { RELAY_ACK_BYTES, RELAY_MESSAGE_BYTES, type Transport } from '../wire.ts'
import { listen, type Running } from './listen.ts'

export function serveRelay(transport: Transport): Promise<Running> {
  return transport === 'ws' ? serveMessages() : serveStream()
}

/** Joins what comes with what came before it. */
function pairing<T>(join: (peer: T, other: T) => void): (peer: T) => void {
  let single: T | undefined
  return (peer) => {
    if (single === undefined) {
      single = peer
    } else {
      join(peer, single)
      single = undefined
    }
  }
}

interface StreamPeer {
  readonly socket: Socket
  out: Buffer[]
  /** bytes of a message that has not arrived whole */
  rest: number
  other: StreamPeer | undefined
}

async function serveStream(): Promise<Running> {
  const server = createServer({ noDelay: true })
  const ack = Buffer.alloc(RELAY_ACK_BYTES)
  const dirty = new Set<StreamPeer>()
  const flush = (): void => {
    for (const peer of dirty) {
      peer.socket.write(peer.out.length === 1 ? peer.out[0]! : Buffer.concat(peer.out))
      peer.out = []
    }
    dirty.clear()
  }
  const queue = (peer: StreamPeer, bytes: Buffer): void => {
    peer.out.push(bytes)
    if (dirty.size === 0) setImmediate(flush)
    dirty.add(peer)
  }
  const pair = pairing<StreamPeer>((peer, other) => {
    peer.other = other
    other.other = peer
  })
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    const peer: StreamPeer = { socket, out: [], rest: 0, other: undefined }
    pair(peer)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk: Buffer) => {
      if (peer.other === undefined) return
      queue(peer.other, chunk)
      const bytes = peer.rest + chunk.length
      peer.rest = bytes % RELAY_MESSAGE_BYTES
      const count = (bytes - peer.rest) / RELAY_MESSAGE_BYTES
      if (count > 0) queue(peer, count === 1 ? ack : Buffer.alloc(count * RELAY_ACK_BYTES))
    })
  })
  const port = await listen(server)
  return {
    port,
    close: async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

interface MessagePeer {
  readonly socket: WebSocket
  /** the TCP socket below, which is corked until the end of the turn */
  readonly stream: Socket
  other: MessagePeer | undefined
}

async function serveMessages(): Promise<Running> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', backlog: 4096 })
  const ack = Buffer.alloc(RELAY_ACK_BYTES)
  const dirty = new Set<MessagePeer>()
  const flush = (): void => {
    for (const { stream } of dirty) stream.uncork()
    dirty.clear()
  }
  const send = (peer: MessagePeer, bytes: Buffer): void => {
    if (dirty.size === 0) setImmediate(flush)
    if (!dirty.has(peer)) {
      dirty.add(peer)
      peer.stream.cork()
    }
    peer.socket.send(bytes, { binary: true, compress: false })
  }
  const pair = pairing<MessagePeer>((peer, other) => {
    peer.other = other
    other.other = peer
  })
  server.on('connection', (socket, request) => {
    const peer: MessagePeer = { socket, stream: request.socket, other: undefined }
    pair(peer)
    socket.on('error', () => socket.terminate())
    socket.on('message', (message) => {
      if (peer.other === undefined) return
      send(peer.other, message as Buffer)
      send(peer, ack)
    })
  })
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.close()
      for (const socket of server.clients) socket.terminate()
    },
  }
}

/** Sockets that are accepted, kept and read, and nothing else: what a connection costs before anybody has done anything. */
export async function serveBare(transport: Transport): Promise<Running> {
  if (transport === 'ws') {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', backlog: 4096 })
    server.on('connection', (socket) => {
      socket.on('error', () => socket.terminate())
      socket.on('message', () => undefined)
    })
    await new Promise((resolve) => server.once('listening', resolve))
    return { port: (server.address() as AddressInfo).port, close: async () => server.close() }
  }
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('data', () => undefined)
    socket.on('close', () => sockets.delete(socket))
  })
  return { port: await listen(server), close: async () => void server.close() }
}
