import type { Socket, SocketAcceptor } from 'imengine'
import {
  ClientKeyAgreement,
  encode,
  FrameDecoder,
  FrameType,
  openRecv,
  ReasonCode,
  sealSend,
  type Frame,
  type PayloadCipher,
  type RecvPacket,
  type SendPacket,
} from 'imengine/protocol'
import { socketPair, type SocketPair } from 'imengine/testing'
import type { Chance } from './chance.ts'
import type { Device, Target } from './plan.ts'
import type { SimTime } from './time.ts'

/** One frame either way takes so long at most. */
const MOST_MS = 20

/** What is seen of a connection where the engine's socket is: what has been given to the engine, and what it has written. */
export interface LinkWitness {
  opened(link: Link): void
  given(link: Link, frame: Frame): void
  written(link: Link, frame: Frame): void
  ended(link: Link): void
}

export interface LinkOptions {
  readonly device: Device
  readonly nodeID: number
  /** unlike any other's; the engine knows it as the address */
  readonly name: string
  readonly time: SimTime
  readonly chance: Chance
  readonly witness: LinkWitness
  readonly received: (recv: RecvPacket) => void
  readonly answered: (clientSeq: number, reasonCode: number) => void
  /** what a test puts between the engine and its socket */
  readonly socket?: ((socket: Socket) => Socket) | undefined
}

/** One connection of a device to one life of a node, over a network that cuts bytes anywhere and takes its time. */
export class Link {
  readonly device: Device
  readonly nodeID: number
  readonly options: LinkOptions
  readonly pair: SocketPair
  /** the engine has said that it is in */
  isOpen = false
  /** and the device has heard of it */
  isReady = false
  isOver = false
  /** it has not read for a while: what the engine had to say may be waiting still */
  wasStalled = false
  isStalled = false
  #clientSeq = 0
  #cipher: PayloadCipher | undefined
  #keys: ClientKeyAgreement | undefined
  #lastSentMs = 0
  #lastArrivedMs = 0

  constructor(engine: SocketAcceptor, options: LinkOptions) {
    this.options = options
    this.device = options.device
    this.nodeID = options.nodeID
    const { framing, delivery, version } = options.device
    this.pair = socketPair({ framing, delivery, highWaterBytes: 2_048 })
    const fromServer = new FrameDecoder()
    const fromClient = new FrameDecoder()
    fromServer.version = fromClient.version = version
    this.pair.client.onData((chunk) => {
      fromServer.feed(Uint8Array.from(chunk), (frame) => this.#written(frame))
    })
    options.witness.opened(this)
    const events = engine.accept(options.socket?.(this.pair.server) ?? this.pair.server, { remoteAddress: options.name })
    this.pair.attach({
      receive: (chunk) => {
        // Seen first: the engine may answer within the call.
        fromClient.feed(Uint8Array.from(chunk), (frame) => options.witness.given(this, frame))
        events.receive(chunk)
      },
      drained: () => events.drained(),
      closed: () => events.closed(),
    })
    void this.pair.client.closed.then(() => {
      this.isOver = true
      options.witness.ended(this)
    })
  }

  connect(): void {
    const { device, chance } = this.options
    if (device.isEncrypted) this.#keys = new ClientKeyAgreement((count) => chance.bytes(count))
    const { uid, deviceID, deviceFlag, version } = device
    const token = device.isMaster ? 'master' : 'slave'
    const clientKey = this.#keys?.clientKey ?? ''
    this.#send({ type: FrameType.CONNECT, flags: 0, version, deviceFlag, deviceID, uid, token, clientTimestampMs: 0n, clientKey })
  }

  /** @returns the number that the answer carries */
  send(target: Target, no: string, payload: string, flags = 0): number {
    const clientSeq = ++this.#clientSeq
    this.#send(this.#sealed({ ...this.#packet(target, no, payload, clientSeq), flags }))
    return clientSeq
  }

  /** Many at once, in one piece. */
  sendAll(target: Target, nos: readonly string[]): number[] {
    const seqs = nos.map(() => ++this.#clientSeq)
    const frames = nos.map((no, index) => encode(this.#sealed(this.#packet(target, no, no, seqs[index]!)), this.device.version))
    this.#write(Buffer.concat(frames))
    return seqs
  }

  ack({ flags, messageID, messageSeq }: RecvPacket): void {
    this.#send({ type: FrameType.RECVACK, flags, messageID, messageSeq })
  }

  ping(): void {
    this.#send({ type: FrameType.PING })
  }

  garbage(byteCount: number): void {
    this.#write(this.options.chance.bytes(byteCount))
  }

  stall(forMs: number): void {
    this.wasStalled = this.isStalled = true
    this.pair.client.pauseReading()
    this.options.time.after(forMs, () => {
      this.isStalled = false
      this.pair.client.resumeReading()
    })
  }

  leave(how: 'end' | 'vanish' | 'midframe'): void {
    if (how === 'vanish') return this.pair.client.destroy()
    if (how === 'midframe') {
      const whole = encode(this.#packet({ channelID: 'team', channelType: 2 }, 'cut', 'cut', ++this.#clientSeq), this.device.version)
      this.#write(whole.subarray(0, 1 + this.options.chance.below(whole.length - 1)))
    }
    this.#inOrder(() => (how === 'midframe' ? this.pair.client.destroy() : this.pair.client.end()))
  }

  payloadOf(recv: RecvPacket): string | undefined {
    const payload = this.#cipher === undefined ? recv.payload : openRecv(recv, this.#cipher)
    return payload === undefined ? undefined : Buffer.from(payload).toString()
  }

  #packet({ channelID, channelType }: Target, clientMsgNo: string, payload: string, clientSeq: number): SendPacket {
    const head = { type: FrameType.SEND, flags: 0, setting: 0, streamNo: '', expireSec: 0, msgKey: '', topic: '' }
    return { ...head, clientSeq, clientMsgNo, channelID, channelType, payload: Buffer.from(payload) }
  }

  #sealed(packet: SendPacket): SendPacket {
    return this.#cipher === undefined ? packet : sealSend(packet, this.#cipher)
  }

  #send(frame: Frame): void {
    this.#write(encode(frame, this.device.version))
  }

  /** In pieces that mean nothing. */
  #write(bytes: Uint8Array): void {
    const { chance } = this.options
    for (let first = 0; first < bytes.length; ) {
      const end = chance.happens(0.7) ? bytes.length : Math.min(bytes.length, first + 1 + chance.below(40))
      const piece = bytes.slice(first, end)
      this.#inOrder(() => this.pair.client.write(piece))
      first = end
    }
  }

  #inOrder(run: () => void): void {
    const { time, chance } = this.options
    this.#lastSentMs = Math.max(this.#lastSentMs, time.nowMs + chance.between(0, MOST_MS))
    time.after(this.#lastSentMs - time.nowMs, run)
  }

  /** The engine has written it; the device has it a little later, in order, unless the connection breaks. */
  #written(frame: Frame): void {
    const { time, chance, witness } = this.options
    if (frame.type === FrameType.CONNACK && frame.reasonCode === ReasonCode.Success) {
      this.isOpen = true
      if (frame.serverKey !== '') this.#cipher = this.#keys?.complete(frame.serverKey, frame.salt)
    }
    witness.written(this, frame)
    this.#lastArrivedMs = Math.max(this.#lastArrivedMs, time.nowMs + chance.between(0, MOST_MS))
    time.after(this.#lastArrivedMs - time.nowMs, () => this.#arrived(frame))
  }

  #arrived(frame: Frame): void {
    const { received, answered } = this.options
    if (this.pair.client.socketEnd?.by === 'client') return
    if (frame.type === FrameType.CONNACK) this.isReady = this.isOpen
    if (frame.type === FrameType.RECV) received(frame)
    if (frame.type === FrameType.SENDACK) answered(frame.clientSeq, frame.reasonCode)
  }
}
