import type { SocketAcceptor } from '../contracts/socket.ts'
import { DeviceFlag } from '../model/device.ts'
import {
  FrameType,
  LATEST_VERSION,
  type ConnackPacket,
  type Frame,
  type PongPacket,
  type RecvPacket,
  type SendackPacket,
} from '../model/frames.ts'
import { Setting } from '../model/message.ts'
import { reasonName, ReasonCode } from '../model/reason-code.ts'
import {
  ClientKeyAgreement,
  encode,
  FrameDecoder,
  negotiateVersion,
  openRecv,
  sealSend,
  type PayloadCipher,
} from '../protocol/index.ts'
import { socketPair, type SocketPair, type SocketPairOptions } from './socket-pair.ts'
import { Inbox } from './inbox.ts'

/** What a TestClient speaks through: `socketPair().client`, or a few lines around a real socket. */
export interface TestTransport {
  write(bytes: Uint8Array): void
  onData(listener: (chunk: Uint8Array) => void): void
  /** resolves, never rejects, when the connection is gone; without it the client never notices */
  readonly closed?: Promise<unknown>
  end?(): void
}

export interface TestClientOptions {
  /** acknowledge every RECV that can be read, as SDKs do; default true */
  readonly autoAck?: boolean
}

export interface TestConnectOptions {
  readonly uid: string
  /** default '' */
  readonly token?: string
  /** default `<uid>-device` */
  readonly deviceID?: string
  /** default APP */
  readonly deviceFlag?: number
  /** default LATEST_VERSION */
  readonly version?: number
  /** send no key and talk plain; default false */
  readonly plaintext?: boolean
  /** default 1 700 000 000 000, where a FakeClock starts */
  readonly clientTimestampMs?: bigint
}

export interface TestSendOptions {
  /** as a client names it: the peer's uid in a person channel */
  readonly channelID: string
  readonly channelType: number
  readonly payload: string | Uint8Array
  /** default `<uid>-<clientSeq>` */
  readonly clientMsgNo?: string
  /** FrameFlag bits, default 0 */
  readonly flags?: number
  readonly setting?: number
  readonly expireSec?: number
  readonly topic?: string
}

/** A RECV whose `payload` is the plaintext; `text` is the same as UTF-8. */
export interface ReceivedMessage extends RecvPacket {
  readonly text: string
}

/**
 * A wkproto client that a test steers. Everything it waits for is a promise that the arriving frame resolves; when the
 * connection ends, or the server sends what a client cannot read, all of them reject instead.
 */
export class TestClient {
  /** every frame that has arrived, in order, RECV payloads as on the wire */
  readonly received: Frame[] = []
  /** every RECV that has arrived, in order, decrypted */
  readonly messages: ReceivedMessage[] = []
  /** resolves when the connection is gone */
  readonly closed: Promise<void>
  uid = ''
  isClosed = false

  readonly #transport: TestTransport
  readonly #autoAck: boolean
  readonly #decoder = new FrameDecoder()
  readonly #frames = new Inbox<Frame>()
  readonly #messages = new Inbox<ReceivedMessage>()
  readonly #sendacks = new Inbox<SendackPacket>()
  readonly #awaitedSeqs = new Set<number>()
  readonly #arrived: Frame[] = []
  #handling = false
  #version = LATEST_VERSION
  #clientSeq = 0
  #keys: ClientKeyAgreement | undefined
  #cipher: PayloadCipher | undefined

  constructor(transport: TestTransport, options: TestClientOptions = {}) {
    this.#transport = transport
    this.#autoAck = options.autoAck ?? true
    transport.onData((chunk) => this.#receive(chunk))
    this.closed = (transport.closed ?? new Promise(() => {})).then(() => {
      this.isClosed = true
      this.#fail(new Error(`the connection of ${this.uid || 'a client'} has ended`))
    })
  }

  /** The payload key after a successful encrypted CONNECT. */
  get cipher(): PayloadCipher | undefined {
    return this.#cipher
  }

  /** Send CONNECT. Resolves with CONNACK, also with a refusing one. */
  async connect(options: TestConnectOptions): Promise<ConnackPacket> {
    const { uid, token = '', deviceID = `${uid}-device`, deviceFlag = DeviceFlag.App, version = LATEST_VERSION } = options
    this.uid = uid
    this.#version = this.#decoder.version = negotiateVersion(version)
    this.#keys = options.plaintext === true ? undefined : new ClientKeyAgreement()
    const clientKey = this.#keys?.clientKey ?? ''
    const { clientTimestampMs = 1_700_000_000_000n } = options
    this.write({ type: FrameType.CONNECT, flags: 0, version, deviceFlag, deviceID, uid, token, clientTimestampMs, clientKey })
    return await this.next(FrameType.CONNACK)
  }

  /** Send one message, encrypted when the connection is. Resolves with the SENDACK that carries its clientSeq. */
  send(options: TestSendOptions): Promise<SendackPacket> {
    const clientSeq = ++this.#clientSeq
    const { channelID, channelType, payload, clientMsgNo = `${this.uid}-${clientSeq}`, topic = '', setting = 0 } = options
    const packet = {
      type: FrameType.SEND,
      flags: options.flags ?? 0,
      // Without its bit a topic has no place on the wire.
      setting: topic === '' ? setting : setting | Setting.Topic,
      clientSeq,
      clientMsgNo,
      streamNo: '',
      channelID,
      channelType,
      expireSec: options.expireSec ?? 0,
      msgKey: '',
      topic,
      payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
    }
    this.#awaitedSeqs.add(clientSeq)
    const answered = this.#sendacks.next(clientSeq)
    this.write(this.#cipher === undefined ? packet : sealSend(packet, this.#cipher))
    return answered
  }

  /** Resolves with the PONG. */
  ping(): Promise<PongPacket> {
    const answered = this.next(FrameType.PONG)
    this.write({ type: FrameType.PING })
    return answered
  }

  /** Send RECVACK for one message, with the flags of its RECV. */
  ack({ flags, messageID, messageSeq }: Pick<RecvPacket, 'flags' | 'messageID' | 'messageSeq'>): void {
    this.write({ type: FrameType.RECVACK, flags, messageID, messageSeq })
  }

  /** Send any frame as it is. */
  write(frame: Frame): void {
    this.sendRaw(encode(frame, this.#version))
  }

  /** Send bytes that may be anything. */
  sendRaw(bytes: Uint8Array): void {
    this.#transport.write(bytes)
  }

  /** Leave without a word of the protocol. */
  end(): void {
    this.#transport.end?.()
  }

  /**
   * The next frame of one type that no call has been given yet, now or when it comes. A SENDACK that answers a `send` goes
   * there and not here, so that what is found here is one too many.
   */
  next<T extends Frame['type']>(type: T): Promise<Extract<Frame, { type: T }>> {
    return this.#frames.next(type) as Promise<Extract<Frame, { type: T }>>
  }

  /** The next message, decrypted, now or when it comes. */
  nextRecv(): Promise<ReceivedMessage> {
    return this.#messages.next(0)
  }

  #receive(chunk: Uint8Array): void {
    // Frames are views on the chunk and are kept; the chunk is the transport's.
    const malformed = this.#decoder.feed(Uint8Array.from(chunk), (frame) => void this.#arrived.push(frame))
    // What a frame causes may bring the next chunk before this call ends; frames are handled one by one all the same.
    if (this.#handling) return
    this.#handling = true
    for (let frame = this.#arrived.shift(); frame !== undefined; frame = this.#arrived.shift()) this.#handle(frame)
    this.#handling = false
    if (malformed !== undefined) this.#fail(new Error(`the server sent bytes that are not wkproto: ${malformed}`))
  }

  #handle(frame: Frame): void {
    this.received.push(frame)
    if (frame.type === FrameType.CONNACK && frame.reasonCode === ReasonCode.Success && frame.serverKey !== '') {
      this.#cipher = this.#keys?.complete(frame.serverKey, frame.salt)
    }
    if (frame.type === FrameType.RECV) this.#handleRecv(frame)
    if (frame.type === FrameType.SENDACK && this.#awaitedSeqs.delete(frame.clientSeq)) {
      this.#sendacks.put(frame.clientSeq, frame)
    } else {
      this.#frames.put(frame.type, frame)
    }
  }

  #handleRecv(packet: RecvPacket): void {
    const payload = this.#cipher === undefined ? packet.payload : openRecv(packet, this.#cipher)
    if (payload === undefined) {
      this.#fail(new Error(`RECV ${packet.messageID} is not made with this connection's key`))
      return
    }
    const message = { ...packet, payload, text: Buffer.from(payload).toString() }
    this.messages.push(message)
    this.#messages.put(0, message)
    if (this.#autoAck) this.ack(packet)
  }

  #fail(error: Error): void {
    this.#frames.fail(error)
    this.#messages.fail(error)
    this.#sendacks.fail(error)
  }
}

/** A client that is logged in, and the connection it has in memory. */
export interface ConnectedTestClient {
  readonly client: TestClient
  readonly pair: SocketPair
  readonly connack: ConnackPacket
}

export interface ConnectTestClientOptions extends TestConnectOptions, TestClientOptions, SocketPairOptions {
  /** what the engine is told of the socket; default nothing */
  readonly remoteAddress?: string
}

/**
 * Open a connection in memory to an engine and log in.
 * @throws Error when CONNACK refuses; use a TestClient of your own to look at refusals
 */
export async function connectTestClient(
  engine: SocketAcceptor,
  options: ConnectTestClientOptions,
): Promise<ConnectedTestClient> {
  if ('state' in engine && engine.state !== 'running') throw new Error(`the engine is not running, but ${String(engine.state)}: await engine.start() first`)
  const pair = socketPair(options)
  const { remoteAddress } = options
  pair.attach(engine.accept(pair.server, remoteAddress === undefined ? {} : { remoteAddress }))
  const client = new TestClient(pair.client, options)
  const connack = await client.connect(options)
  if (connack.reasonCode !== ReasonCode.Success) {
    throw new Error(`CONNECT of ${options.uid} was refused: ${reasonName(connack.reasonCode)}`)
  }
  return { client, pair, connack }
}
