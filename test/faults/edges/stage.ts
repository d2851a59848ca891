/** An engine behind real sockets, in virtual time: what it does by the clock happens when a test says so, and the rest is awaited. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterEach, expect } from 'vitest'
import { allowAnyToken, ChannelType, IMEngine, type Facts, type IMEngineOptions, type IMError } from 'imengine'
import { attachNetServer } from 'imengine/net'
import type { SendackPacket } from 'imengine/protocol'
import { FakeClock, seededRandom, TestClient, type TestClientOptions, type TestTransport } from 'imengine/testing'
import { attachWebSocketServer } from 'imengine/ws'
import { WebSocket, WebSocketServer } from 'ws'
import { systemClock } from '../../../src/services/system.ts'

export type Transport = 'tcp' | 'ws'

/** A group that the fault has nothing to do with. */
const NEIGHBOURS = { channelID: 'neighbours', channelType: ChannelType.Group }
/** The group in which it happens. */
export const ROOM = { channelID: 'room', channelType: ChannelType.Group }

const WAITS_MS = 20_000

/** Wait for a condition, however long it takes: there is no time in it but the one at which a test gives up. */
export async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const endMs = performance.now() + WAITS_MS; !isSo(); ) {
    if (performance.now() > endMs) throw new Error(`it never came to this: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** For what only the clock of the machine can show. */
export const realClock = systemClock

/** A client on a real socket, and the TCP socket below it. */
export interface Peer {
  readonly client: TestClient
  readonly socket: Socket
}

const open: Edge[] = []

afterEach(async () => {
  for (const edge of open.splice(0)) await edge.close()
})

export async function edgeOf(options: Partial<IMEngineOptions> = {}, members: readonly string[] = ['ann', 'bob', 'cat']): Promise<Edge> {
  const edge = new Edge(options)
  await edge.start(members)
  open.push(edge)
  return edge
}

export class Edge {
  readonly engine: IMEngine
  readonly clock = new FakeClock()
  readonly errors: IMError[] = []
  readonly refused: Facts['connectionRefused'][0][] = []
  readonly slow: Facts['slowConsumer'][0][] = []
  /** the server's ends of all TCP connections so far, in the order of their coming */
  readonly accepted: Socket[] = []
  readonly #server: Server = createServer()
  readonly #webSockets: WebSocketServer
  readonly #dialled: Socket[] = []
  #talker: Peer | undefined
  #listeners: Peer[] = []
  #saidCount = 0

  constructor(options: Partial<IMEngineOptions>) {
    this.engine = new IMEngine({ tokenVerifier: allowAnyToken(), plaintext: 'allow', clock: this.clock, random: seededRandom(1), ...options })
    this.engine.on('error', (error) => this.errors.push(error))
    this.engine.on('connectionRefused', (fact) => this.refused.push(fact))
    this.engine.on('slowConsumer', (fact) => this.slow.push(fact))
    this.#webSockets = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: this.engine.limits.maxFrameBytes + 16 })
    this.#server.on('connection', (socket) => this.accepted.push(socket))
  }

  async start(members: readonly string[]): Promise<void> {
    await this.engine.start()
    attachNetServer(this.engine, this.#server)
    attachWebSocketServer(this.engine, this.#webSockets)
    if (this.#webSockets.address() === null) await once(this.#webSockets, 'listening')
    this.#server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 })
    await once(this.#server, 'listening')
    await this.engine.channels.create(ROOM, { subscribers: members })
    await this.engine.channels.create(NEIGHBOURS, { subscribers: ['talker', 'tcp-listener', 'ws-listener'] })
    this.#talker = await this.login('talker', 'tcp')
    this.#listeners = [await this.login('tcp-listener', 'tcp'), await this.login('ws-listener', 'ws')]
  }

  /** A TCP connection on which nothing has been said. */
  async dialTCP(): Promise<Socket> {
    const socket = connect({ port: (this.#server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true })
    socket.on('error', () => undefined)
    this.#dialled.push(socket)
    await once(socket, 'connect')
    return socket
  }

  /** The server's end of a TCP connection. */
  async serverEndOf(socket: Socket): Promise<Socket> {
    const find = (): Socket | undefined => this.accepted.find(({ remotePort }) => remotePort === socket.localPort)
    await until('the server has accepted the connection', () => find() !== undefined)
    return find()!
  }

  async dial(transport: Transport, options: TestClientOptions = {}): Promise<Peer> {
    return transport === 'tcp' ? tcpPeer(await this.dialTCP(), options) : this.dialWebSocket(options)
  }

  async login(uid: string, transport: Transport, options: TestClientOptions = {}): Promise<Peer> {
    const peer = await this.dial(transport, options)
    expect((await peer.client.connect({ uid, deviceID: uid, plaintext: true })).reasonCode).toBe(1)
    return peer
  }

  async dialWebSocket(options: TestClientOptions = {}): Promise<Peer & { readonly webSocket: WebSocket }> {
    const socket = new WebSocket(`ws://127.0.0.1:${(this.#webSockets.address() as AddressInfo).port}`)
    socket.on('error', () => undefined)
    await once(socket, 'open')
    const below = (socket as unknown as { readonly _socket: Socket })._socket
    this.#dialled.push(below)
    const transport: TestTransport = {
      write: (bytes) => socket.send(bytes),
      onData: (listener) => void socket.on('message', (chunk: Buffer) => listener(chunk)),
      closed: new Promise((resolve) => socket.once('close', () => resolve(undefined))),
      end: () => socket.close(),
    }
    return { client: new TestClient(transport, options), socket: below, webSocket: socket }
  }

  /** The neighbours say so many things, and all of them hear all of it, once and in order. */
  async neighboursChat(count = 20): Promise<void> {
    const { client } = this.#talker!
    const texts = Array.from({ length: count }, () => `said ${++this.#saidCount}`)
    const sendacks = await Promise.all(texts.map((payload) => client.send({ ...NEIGHBOURS, payload })))
    expect(sendacks.map(({ reasonCode }) => reasonCode)).toEqual(texts.map(() => 1))
    const all = Array.from({ length: this.#saidCount }, (_, index) => `said ${index + 1}`)
    await until('the neighbours have heard everything', () => this.#listeners.every((peer) => peer.client.messages.length >= all.length))
    for (const peer of this.#listeners) {
      expect(peer.client.messages.map(({ text }) => text)).toEqual(all)
      expect(peer.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(all.map((_, index) => index + 1))
    }
  }

  /** Time goes by for clients that ping before they could be taken for idle. */
  async pass(ms: number, peers: readonly Peer[]): Promise<void> {
    await Promise.all([this.#talker!, ...this.#listeners, ...peers].map(({ client }) => client.ping()))
    await this.clock.advance(ms)
  }

  /** The numbers of the room run without a gap, and what was acknowledged is there, once, under its id and number. */
  async checkRoom(sendacks: readonly SendackPacket[]): Promise<void> {
    const history = []
    for await (const message of this.engine.messages.range(ROOM, { startSeq: 1 })) history.push(message)
    expect(history.map(({ messageSeq }) => messageSeq)).toEqual(history.map((_, index) => index + 1))
    expect(new Set(history.map(({ messageID }) => messageID)).size).toBe(history.length)
    for (const { reasonCode, messageID, messageSeq } of sendacks) {
      if (reasonCode === 1) expect(history[messageSeq - 1]?.messageID).toBe(messageID)
      else expect([messageID, messageSeq]).toEqual(['0', 0])
    }
  }

  /** Everybody goes, and nothing of them is left. */
  async close(): Promise<void> {
    for (const socket of this.#dialled) socket.destroy()
    await until('no connection is left', () => this.engine.connections.list().length === 0)
    const closing = this.engine.close({ drainMs: 0 })
    await this.clock.advance(this.engine.limits.closeTimeoutMs + 1_000)
    await closing
    await new Promise((resolve) => this.#server.close(resolve)) // which waits for every TCP connection
    await new Promise((resolve) => this.#webSockets.close(resolve))
    expect(this.clock.pendingTimerCount).toBe(0)
  }
}

export function tcpPeer(socket: Socket, options: TestClientOptions = {}): Peer {
  const transport: TestTransport = {
    write: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on('data', listener),
    closed: new Promise((resolve) => socket.once('close', () => resolve(undefined))),
    end: () => void socket.end(),
  }
  return { client: new TestClient(transport, options), socket }
}
