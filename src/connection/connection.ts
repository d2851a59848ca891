import type { Clock, TimerEntry, Timers } from '../contracts/clock.ts'
import type { ChannelRef, ConnectingPort, ConnectionAdmission, PayloadCipher, ReplayPort } from '../contracts/connection-view.ts'
import type { ConnectionInfo } from '../contracts/facts.ts'
import type { CloseCause } from '../contracts/handler.ts'
import type { Login } from '../contracts/kick-policy.ts'
import type { ConnectionSums, Counts } from '../contracts/metrics.ts'
import type { Socket } from '../contracts/socket.ts'
import { canonicalKey, channelKeyString, isCommandKey, isValidWireID, keepsConversations } from '../model/channel.ts'
import { FrameType, type ConnectPacket, type Frame, type MalformedCode, type SendPacket } from '../model/frames.ts'
import { decimalFromHalves } from '../model/int64.ts'
import { isRecalled, type Message } from '../model/message.ts'
import { receivedChannelID, receivedRedDot } from '../model/receiver-view.ts'
import { ReasonCode } from '../model/reason-code.ts'
import { detectFraming } from '../protocol/detect-framing.ts'
import { encode, sendackByteCount, writeSendack } from '../protocol/encode.ts'
import { FrameDecoder, type DecoderScratch } from '../protocol/frame-decoder.ts'
import { negotiateVersion } from '../protocol/negotiate.ts'
import type { EncodedRecvs } from '../protocol/recv-batch.ts'
import { RecvEncoder } from '../protocol/recv-encoder.ts'
import type { Writer } from '../protocol/writer.ts'
import { Redelivery } from './redelivery.ts'
import { ReplayGate } from './replay-gate.ts'
import { SendQueue } from './send-queue.ts'
import { TokenBucket } from './token-bucket.ts'

export interface ConnectionLimits {
  readonly connectTimeoutMs: number
  readonly authTimeoutMs: number
  readonly idleTimeoutMs: number
  readonly kickLingerMs: number
  readonly closeTimeoutMs: number
  readonly redeliverAfterMs: number
  readonly maxRedeliveries: number
  readonly maxFrameBytes: number
  readonly maxUnauthenticatedBytes: number
  readonly maxSendsPerSecond: number
  readonly maxUnackedRecvs: number
  readonly maxOutboundBytes: number
}

/** What a connection tells the engine. None of these may throw. */
export interface ConnectionHost {
  readonly clock: Clock
  readonly timers: Timers
  readonly limits: ConnectionLimits
  readonly slowConsumer: 'disconnect' | 'skip'
  /** for whoever writes a frame in place, until the call returns */
  readonly writer: Writer
  readonly scratch: DecoderScratch
  readonly counts: Counts
  connectArrived(connection: Connection, frame: ConnectPacket): void
  /** authentication has taken too long; the host answers with `refuse` */
  connectTimedOut(connection: Connection): void
  sendArrived(connection: Connection, frame: SendPacket): void
  /** may the user send one more, counted over all connections? */
  takeUserSendToken(uid: string): boolean
  /** @param isFirst  the connection has not acknowledged it before */
  recvAckArrived(connection: Connection, message: Message, isFirst: boolean): void
  /** Is there nothing but the engine's own steps for EventRecvAck? Then `acknowledged` is told at once, and no event made. */
  readonly settlesRecvAcks: boolean
  acknowledged(connection: Connection, message: Message): void
  /** The message as it is now, if it has been edited or recalled lately. */
  current(message: Message): Message
  pingArrived(connection: Connection): void
  /** it has frames to write: call `flush` at the end of the turn */
  flushWanted(connection: Connection): void
  /** an open connection has ended, once */
  left(connection: Connection, cause: CloseCause): void
  /** a connection that never opened has ended, once */
  refused(connection: Connection, cause: CloseCause, reasonCode: ReasonCode | undefined, detail: string | undefined): void
  /** its socket is gone, once */
  released(connection: Connection): void
  slow(connection: Connection, action: 'disconnected' | 'skipped'): void
  /** messages that were sent again as often as allowed */
  undelivered(connection: Connection, messages: readonly Message[]): void
  /** an error of ours while handling this connection's input; the connection is closed */
  defect(connection: Connection, error: unknown): void
}

/** A flush in the middle of a turn: large fan-outs must not look like a client that does not read. */
const FLUSH_BYTES = 65_536

/** Frames in one chunk of input. SDKs send a handful at once; a million PINGs in one message would hold up everybody. */
const MAX_FRAMES_PER_CHUNK = 10_000

/** So many channels that a client writes to are kept at hand, and none with a longer name. */
const MAX_KNOWN_CHANNELS = 32
const MAX_KNOWN_ID_LENGTH = 128

const SERVER_ONLY = 'a packet that only servers send'

/** How often a client that is replayed to and has much to read is looked at again. */
const ROOM_CHECK_MS = 50

type State = 'new' | 'authenticating' | 'open' | 'closing' | 'closed'

/**
 * One live client: new → authenticating → open → closing → closed. Bytes come in by `receive`, frames go out by `send` and
 * `push`; whatever arrives, the worst that happens is that this one connection closes.
 */
export class Connection implements ConnectingPort, ReplayPort {
  readonly connectionID: string
  readonly remoteAddress: string | undefined
  readonly connectedAtMs: number
  uid = ''
  deviceID = ''
  deviceFlag = 0
  deviceLevel = 0
  version = 0
  cipher: PayloadCipher | undefined
  kicked = false
  /** where the deliveries to this user were counted last, kept for whoever counts them */
  deliveryHint: object | undefined = undefined

  readonly #host: ConnectionHost
  readonly #decoder: FrameDecoder
  readonly #outbound: SendQueue
  /** made with the first message it is sent: most connections of a large server get none for a long time */
  #redelivery: Redelivery | undefined
  #sendTokens: TokenBucket | undefined
  #state: State = 'new'
  #framingKnown = false
  #flushWanted = false
  #paused = false
  #skipping = false
  /** since when what was to be written has waited for the transport; -1 while it does not */
  #blockedSinceMs = -1
  /** the engine closes: what is owed still goes out, and nothing comes in but what it is acknowledged with */
  #isQuiet = false
  #framesInChunk = 0
  /** what has come in before it was admitted, whether it was kept, dropped or never understood */
  #unauthenticatedBytes = 0
  /** a PING came before CONNACK, which must be the first frame the client sees */
  #pongOwed = false
  #lastInboundMs: number
  /** connect, authentication or idle time-out while it lives; linger or close time-out while it ends */
  #timer: TimerEntry | undefined
  #lastChannel: ChannelRef | undefined
  /** the channels it has named lately, by that name, of a client that writes to more than one */
  #channels: Map<string, ChannelRef> | undefined
  /** holds live messages back while older ones are replayed */
  #gate: ReplayGate | undefined
  #roomWaiters: (() => void)[] | undefined
  #checksRoom = false

  constructor(socket: Socket, host: ConnectionHost, connectionID: string, remoteAddress: string | undefined) {
    this.#host = host
    this.connectionID = connectionID
    this.remoteAddress = remoteAddress
    this.connectedAtMs = host.clock.nowMs()
    this.#lastInboundMs = host.clock.monotonicMs()
    this.#decoder = new FrameDecoder({ maxFrameBytes: host.limits.maxFrameBytes, copiesPayloads: true, scratch: host.scratch })
    this.#outbound = new SendQueue(socket, () => this.destroy('peer'))
    this.#timer = host.timers.after(host.limits.connectTimeoutMs, () => this.#connectTimedOut())
  }

  get closed(): boolean {
    return this.#state === 'closing' || this.#state === 'closed'
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  get isAuthenticating(): boolean {
    return this.#state === 'authenticating'
  }

  get receivedAtMs(): number {
    return this.#lastInboundMs
  }

  get login(): Login {
    return this
  }

  get info(): ConnectionInfo {
    const { connectionID, uid, deviceID, deviceFlag, deviceLevel, version, remoteAddress, connectedAtMs } = this
    return { connectionID, uid, deviceID, deviceFlag, deviceLevel, version, remoteAddress, connectedAtMs }
  }

  // ---- from the socket

  receive(chunk: Uint8Array): void {
    if (this.closed) return
    this.#lastInboundMs = this.#host.clock.monotonicMs()
    if (this.#state !== 'open' && !this.#countUnauthenticated(chunk.length)) return
    try {
      if (!this.#framingKnown && !this.#detectFraming(chunk)) return
      this.#framesInChunk = 0
      const malformed = this.#decoder.feed(chunk, this.#onFrame)
      if (malformed !== undefined && !this.closed) this.#endMalformed(malformed)
    } catch (error) {
      this.#host.defect(this, error)
      this.destroy('malformed')
    }
  }

  drained(): void {
    if (this.#state === 'closed') return
    this.#outbound.drained()
    this.#noteBlocked()
    if (this.#hasRoom) this.#tellRoom()
  }

  closedByPeer(): void {
    if (this.#state === 'closed') return
    this.#leave('peer', undefined, undefined)
    this.#release()
  }

  // ---- CONNECT

  admit(admission: ConnectionAdmission): void {
    if (this.#state !== 'authenticating') return
    const { limits, clock } = this.#host
    this.#state = 'open'
    this.deviceLevel = admission.deviceLevel
    this.cipher = admission.cipher
    if (limits.maxSendsPerSecond > 0) this.#sendTokens = new TokenBucket(limits.maxSendsPerSecond, clock.monotonicMs())
    this.send(admission.connack)
    this.#armIdle(limits.idleTimeoutMs)
    if (this.#pongOwed) this.#host.pingArrived(this)
  }

  refuse(reasonCode: ReasonCode, connack: Uint8Array, cause: CloseCause = 'refused'): void {
    if (this.#state !== 'authenticating') return
    this.#outbound.push(connack)
    this.#leave(cause, reasonCode, undefined)
    this.#shutDown(1008, 'refused')
  }

  // ---- output

  send(bytes: Uint8Array): void {
    // A kicked connection lingers: what it is still owed (DISCONNECT, a SENDACK) may leave.
    if (this.#outbound.isEnding) return
    this.#outbound.push(bytes)
    this.#answered()
  }

  acknowledge(flags: number, clientSeq: number, reasonCode: ReasonCode, messageID: string, messageSeq: number): void {
    const outbound = this.#outbound
    if (outbound.isEnding) return
    const at = outbound.reserve(sendackByteCount(this.version))
    const { writer } = this.#host
    writer.moveTo(outbound.room, at)
    // Must not throw, with the room made: numbers and ids are the engine's own, or have been checked.
    writeSendack(writer, this.version, flags, clientSeq, reasonCode, messageID, messageSeq)
    this.#answered()
  }

  push(message: Message, bytes: Uint8Array): boolean {
    if (this.#state !== 'open') return false
    if (this.#gate !== undefined && !this.#passesGate(message)) return false
    return this.#push(message, bytes)
  }

  pushAll(messages: readonly Message[], { frames, ends }: EncodedRecvs, tally?: number[]): void {
    const isRoomy = this.#outbound.hasRoomFor(frames.length, ends.length, this.#host.limits.maxOutboundBytes)
    if (this.#state !== 'open' || this.#gate !== undefined || !isRoomy) {
      messages.forEach((message, index) => {
        const isPushed = this.push(message, frames.subarray(index === 0 ? 0 : ends[index - 1], ends[index]))
        if (isPushed && tally !== undefined) tally[index]!++
      })
      return
    }
    this.#skipping = false
    this.#outbound.pushAll(frames, ends)
    this.#host.counts.pushedCount += ends.length
    if (tally !== undefined) for (let index = 0; index < ends.length; index++) tally[index]!++
    // Before anything is written: a transport may bring the acknowledgement, or show that it is broken, while it takes the frames.
    ;(this.#redelivery ??= this.#newRedelivery()).pushedAll(messages)
    this.#wantFlush()
  }

  /** Write what has gathered. The engine calls it at the end of a turn. */
  flush(): void {
    this.#flushWanted = false
    this.#outbound.flush()
    this.#noteBlocked()
  }

  /** Add what is under way here to what other connections have. */
  measure(sums: ConnectionSums): void {
    if (this.#state === 'closed') return
    sums.states[this.#state]++
    sums.sendFrameCount += this.#outbound.frameCount
    if (this.#blockedSinceMs >= 0) sums.blockedSinceMs = Math.min(sums.blockedSinceMs, this.#blockedSinceMs)
    if (this.#redelivery === undefined) return
    sums.unackedCount += this.#redelivery.count
    sums.unackedSinceMs = Math.min(sums.unackedSinceMs, this.#redelivery.oldestSinceMs ?? Infinity)
  }

  // ---- replay

  holdBack(): void {
    this.#host.counts.replayCount++
    this.#gate = new ReplayGate()
  }

  replay(message: Message): boolean {
    if (this.#state !== 'open') return false
    const isSent = this.#push(message, this.#encodeRecv(message, false))
    if (isSent) this.#host.counts.replayedCount++
    return isSent
  }

  heldBackFrom(channel: string): number {
    return this.#gate?.heldBackFrom(channel) ?? 0
  }

  heldBackTo(channel: string): number {
    return this.#gate?.heldBackTo(channel) ?? 0
  }

  isHeldBack(channel: string, messageSeq: number): boolean {
    return this.#gate?.isHeldBack(channel, messageSeq) === true
  }

  get unsettledChannel(): string | undefined {
    return this.#gate?.unsettled
  }

  settle(channel: string, replayedTo: number): void {
    this.#gate?.settle(channel, replayedTo)
  }

  goLive(): void {
    this.#gate?.open()
    this.#dropGate()
  }

  room(): Promise<void> | undefined {
    if (this.closed || this.#hasRoom) return undefined
    const waiters = (this.#roomWaiters ??= [])
    if (waiters.length === 0) this.#checkRoomLater()
    return new Promise((resolve) => waiters.push(resolve))
  }

  /** A message that it may have got has been edited or recalled: what would be sent again is not what it was. */
  revised(message: Message): void {
    this.#redelivery?.revised(message)
  }

  // ---- port for handlers

  channel(channelID: string, channelType: number): ChannelRef {
    const last = this.#lastChannel
    if (last !== undefined && last.wireID === channelID && last.key.channelType === channelType) return last
    const known = this.#channels?.get(channelID)
    if (known !== undefined && known.key.channelType === channelType) return (this.#lastChannel = known)
    const key = canonicalKey(this.uid, channelID, channelType)
    const isValid = isValidWireID(channelID, channelType)
    const name = channelKeyString(key)
    const channel = { wireID: channelID, key, name, isValid, isCommand: isCommandKey(key), allowedAt: Number.NaN }
    if (last !== undefined && channelID.length <= MAX_KNOWN_ID_LENGTH) {
      if (this.#channels === undefined || this.#channels.size >= MAX_KNOWN_CHANNELS) this.#channels = new Map()
      this.#channels.set(channelID, channel)
    }
    return (this.#lastChannel = channel)
  }

  takeSendToken(): boolean {
    // This connection's own bucket first: what it turns away costs the user's other connections nothing.
    if (this.#sendTokens !== undefined && !this.#sendTokens.take(this.#host.clock.monotonicMs())) return false
    return this.#host.takeUserSendToken(this.uid)
  }

  pauseUntil(register: (resume: () => void) => void): void {
    if (this.#paused || this.closed) return
    this.#paused = true
    this.#outbound.pause()
    register(() => {
      this.#paused = false
      if (!this.closed) this.#outbound.resume()
    })
  }

  settleRecv(messageID: string): void {
    this.#redelivery?.acknowledged(messageID)
  }

  end(cause: CloseCause): void {
    if (this.closed && cause !== 'shutdown') return // a kicked one keeps its linger time, unless the engine closes
    this.#leave(cause, undefined, undefined)
    this.#shutDown(1000, '')
  }

  // ---- ends that come from the engine

  /** Another login, or the host, ends it: it can do nothing more at once, and closes after the linger time. */
  kick(verdict: 'kick' | 'replace', reason: string): void {
    if (this.#state !== 'open') return
    this.kicked = true
    this.#leave('kicked', undefined, undefined)
    if (verdict === 'kick') {
      this.send(encode({ type: FrameType.DISCONNECT, flags: 0, reasonCode: ReasonCode.ConnectKick, reason }, this.version))
    }
    this.#timer = this.#host.timers.after(this.#host.limits.kickLingerMs, () => this.#shutDown(1000, reason))
  }

  /** Take no more input but RECVACKs, which save sending again; what it is owed still goes out. */
  quiesce(): void {
    this.#isQuiet = true
  }

  /** Close at once, throwing away what waits. */
  destroy(cause: CloseCause): void {
    if (this.#state === 'closed') return
    this.#leave(cause, undefined, undefined)
    this.#outbound.destroy(cause)
    this.#release()
  }

  // ---- inside

  /** Judged once what is readable now has been read: when thousands log in at once, it may be us who are late. */
  #connectTimedOut(): void {
    this.#host.clock.defer(() => {
      if (this.#state === 'new') this.#endSilently('connect-timeout')
    })
  }

  /** @returns false when a stranger has sent more than strangers may */
  #countUnauthenticated(byteCount: number): boolean {
    this.#unauthenticatedBytes += byteCount
    if (this.#unauthenticatedBytes <= this.#host.limits.maxUnauthenticatedBytes) return true
    this.#endSilently('limit')
    return false
  }

  #detectFraming(chunk: Uint8Array): boolean {
    const framing = detectFraming(chunk)
    if (framing === undefined) return false // white space only, which no binary client sends; the connect time-out bounds it
    this.#framingKnown = true
    if (framing === 'wkproto') return true
    this.#leave('protocol', undefined, 'JSON-RPC framing is not supported')
    this.#shutDown(1003, 'JSON-RPC is not supported')
    return false
  }

  /** @returns false when nothing more of this chunk may be read */
  readonly #onFrame = (frame: Frame): boolean => {
    this.#host.counts.framesIn[frame.type]!++
    if (++this.#framesInChunk > MAX_FRAMES_PER_CHUNK) this.#endProtocol('too many frames at once')
    switch (this.#state) {
      case 'new':
        this.#onFirstFrame(frame)
        break
      case 'authenticating':
        // SENDs that a client makes before CONNACK are dropped without an answer: it sends them again after it, and a
        // refusal would make it give them up (wkproto, session rules).
        if (frame.type === FrameType.PING) this.#pongOwed = true
        else if (frame.type === FrameType.DISCONNECT) this.end('client')
        else if (frame.type === FrameType.CONNECT) this.#endProtocol('a second CONNECT')
        else if (isServerOnly(frame)) this.#endProtocol(SERVER_ONLY)
        break
      case 'open':
        if (!this.#isQuiet) this.#onOpenFrame(frame)
        break
      case 'closing':
      case 'closed':
        break
    }
    return !this.closed
  }

  /** Unknown ids are no error: some clients acknowledge what was never stored, and one rounds ids. */
  readonly #onRecvack = (high: number, low: number): boolean => {
    this.#host.counts.framesIn[FrameType.RECVACK]!++
    if (++this.#framesInChunk > MAX_FRAMES_PER_CHUNK) this.#endProtocol('too many frames at once')
    if (this.#state !== 'open') return !this.closed
    if (this.#host.settlesRecvAcks) {
      const message = this.#redelivery?.takeAcknowledged(high, low)
      if (message !== undefined) this.#host.acknowledged(this, message)
    } else {
      const message = this.#redelivery?.find(decimalFromHalves(high, low))
      if (message !== undefined) this.#host.recvAckArrived(this, message, this.#redelivery!.noteAcknowledged(message.messageID))
    }
    return true
  }

  #onFirstFrame(frame: Frame): void {
    if (frame.type !== FrameType.CONNECT) return this.#endProtocol('the first frame is not CONNECT')
    const { timers, limits } = this.#host
    this.#state = 'authenticating'
    this.uid = frame.uid
    this.deviceID = frame.deviceID
    this.deviceFlag = frame.deviceFlag
    this.version = negotiateVersion(frame.version)
    this.#decoder.version = this.version // rules the very next frame, which may be in the same chunk
    this.#decoder.onRecvack = this.#onRecvack
    this.#setTimer(timers.after(limits.authTimeoutMs, () => this.#host.connectTimedOut(this)))
    this.#host.connectArrived(this, frame)
  }

  #onOpenFrame(frame: Frame): void {
    switch (frame.type) {
      case FrameType.SEND:
        return this.#host.sendArrived(this, frame)
      case FrameType.RECVACK:
        return // taken by #onRecvack
      case FrameType.PING:
        return this.#host.pingArrived(this)
      case FrameType.SUB: {
        const { flags, subNo, channelID, channelType, action } = frame
        const reasonCode = ReasonCode.NotSupportChannelType
        return this.send(encode({ type: FrameType.SUBACK, flags, subNo, channelID, channelType, action, reasonCode }, this.version))
      }
      case FrameType.EVENT:
        return // legal from clients, and nothing here listens to it
      case FrameType.DISCONNECT:
        return this.end('client')
      case FrameType.CONNECT:
        return this.#endProtocol('a second CONNECT')
      case FrameType.CONNACK:
      case FrameType.SENDACK:
      case FrameType.RECV:
      case FrameType.PONG:
      case FrameType.SUBACK:
        return this.#endProtocol(SERVER_ONLY)
    }
  }

  #resend(message: Message): void {
    if (this.#outbound.isBlocked || !this.#reads()) return // the first one has not left, or cannot be read
    // Who has left the channel is not told of changes any more, and is not shown what it was, either.
    const current = this.#host.current(message)
    if (isRecalled(current)) return this.settleRecv(message.messageID)
    this.#host.counts.redeliveredCount++
    this.send(this.#encodeRecv(current, true))
  }

  #encodeRecv(message: Message, dup: boolean): Uint8Array {
    const view = {
      version: this.version,
      channelID: receivedChannelID(message, this.uid),
      redDot: receivedRedDot(message, this.uid),
      dup,
      cipher: this.cipher,
    }
    return new RecvEncoder(message).encode(view)
  }

  #push(message: Message, bytes: Uint8Array): boolean {
    if (!this.#reads()) {
      this.#host.counts.leftOutCount++
      return false
    }
    this.#outbound.push(bytes)
    this.#host.counts.pushedCount++
    if (!message.noPersist) (this.#redelivery ??= this.#newRedelivery()).pushed(message) // before it is written, as above
    this.#wantFlush()
    return !this.closed
  }

  #newRedelivery(): Redelivery {
    const host = this.#host
    return new Redelivery({
      clock: host.clock,
      timers: host.timers,
      afterMs: host.limits.redeliverAfterMs,
      maxRedeliveries: host.limits.maxRedeliveries,
      maxUnackedRecvs: host.limits.maxUnackedRecvs,
      resend: (message) => this.#resend(message),
      giveUp: (messages) => host.undelivered(this, messages),
      counts: host.counts,
    })
  }

  #noteBlocked(): void {
    if (!this.#outbound.isBlocked) this.#blockedSinceMs = -1
    else if (this.#blockedSinceMs < 0) this.#blockedSinceMs = Math.trunc(this.#host.clock.monotonicMs())
  }

  #passesGate(message: Message): boolean {
    if (message.messageSeq === 0 || !keepsConversations(message.channelType)) return true // never replayed
    const passes = this.#gate!.admits(channelKeyString(message), message.messageSeq)
    if (passes) this.#dropGate()
    return passes
  }

  #dropGate(): void {
    if (this.#gate?.isTransparent === true) this.#gate = undefined
  }

  get #hasRoom(): boolean {
    return !this.#outbound.isBeyond(this.#host.limits.maxOutboundBytes / 4)
  }

  /** Not every transport says when it has drained, so it is asked. */
  #checkRoomLater(): void {
    if (this.#checksRoom) return // one chain of time-outs, however often somebody has begun to wait meanwhile
    this.#checksRoom = true
    this.#host.timers.after(ROOM_CHECK_MS, () => {
      this.#checksRoom = false
      if (this.#roomWaiters === undefined) return
      if (this.closed || this.#hasRoom) this.#tellRoom()
      else this.#checkRoomLater()
    })
  }

  #tellRoom(): void {
    const waiters = this.#roomWaiters
    this.#roomWaiters = undefined
    if (waiters !== undefined) for (const resolve of waiters) resolve()
  }

  #armIdle(delayMs: number): void {
    this.#setTimer(this.#host.timers.after(delayMs, this.#checkIdle))
  }

  /** Judged once what is readable now has been read: it may be us who were silent, and its bytes wait. */
  readonly #checkIdle = (): void => {
    if (this.#isIdle) this.#host.clock.defer(() => this.#endIfIdle())
    else this.#endIfIdle()
  }

  get #isIdle(): boolean {
    const { clock, limits } = this.#host
    return !this.#paused && clock.monotonicMs() - this.#lastInboundMs >= limits.idleTimeoutMs
  }

  #endIfIdle(): void {
    if (this.#state !== 'open') return
    const { clock, limits } = this.#host
    if (this.#paused) this.#lastInboundMs = clock.monotonicMs() // we do not listen, so silence says nothing
    const leftMs = this.#lastInboundMs + limits.idleTimeoutMs - clock.monotonicMs()
    if (leftMs > 0) this.#armIdle(leftMs)
    else this.#endSilently('idle')
  }

  /** Pushes stop at the bound; answers to a client that asks without reading must end, too. */
  #answered(): void {
    this.#wantFlush()
    if (this.#outbound.isBeyond(2 * this.#host.limits.maxOutboundBytes)) this.#cutOff()
  }

  #wantFlush(): void {
    if (this.#outbound.flushableBytes >= FLUSH_BYTES) {
      this.#outbound.flush()
      return this.#noteBlocked()
    }
    if (this.#flushWanted) return
    this.#flushWanted = true
    this.#host.flushWanted(this)
  }

  /** Has the client read enough to be given more? If not, the slow-consumer policy has been carried out. */
  #reads(): boolean {
    if (!this.#outbound.isBeyond(this.#host.limits.maxOutboundBytes)) {
      this.#skipping = false
      return !this.closed // asking the socket may have shown that it is broken
    }
    if (this.#host.slowConsumer === 'disconnect') {
      this.#cutOff()
    } else if (!this.#skipping) {
      this.#skipping = true
      this.#host.slow(this, 'skipped')
    }
    return false
  }

  #cutOff(): void {
    if (this.closed) return
    this.#host.slow(this, 'disconnected')
    this.destroy('slow-consumer')
  }

  #endMalformed(code: MalformedCode): void {
    this.#leave('malformed', undefined, code)
    this.#shutDown(code === 'too-large' ? 1009 : 1002, code)
  }

  #endProtocol(detail: string): void {
    this.#leave('protocol', undefined, detail)
    this.#shutDown(1002, detail)
  }

  /** Without a word, so that the client's SDK reconnects. */
  #endSilently(cause: CloseCause): void {
    this.#leave(cause, undefined, undefined)
    this.#shutDown(1000, cause)
  }

  /** From now on nothing it sends counts and nothing is pushed to it. Tells the engine once. */
  #leave(cause: CloseCause, reasonCode: ReasonCode | undefined, detail: string | undefined): void {
    if (this.closed) return
    const wasOpen = this.#state === 'open'
    this.#state = 'closing'
    this.#setTimer(undefined)
    this.#redelivery?.stop()
    this.#tellRoom()
    if (wasOpen) this.#host.left(this, cause)
    else this.#host.refused(this, cause, reasonCode, detail)
  }

  /** Close the socket once everything is written, or when it takes too long. */
  #shutDown(code: number, reason: string): void {
    if (this.#state === 'closed' || this.#outbound.isEnding) return
    this.#setTimer(this.#host.timers.after(this.#host.limits.closeTimeoutMs, () => this.destroy('peer')))
    this.#outbound.end(code, reason)
  }

  #release(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#setTimer(undefined)
    this.#outbound.release()
    this.#host.released(this)
  }

  #setTimer(timer: TimerEntry | undefined): void {
    if (this.#timer !== undefined) this.#host.timers.cancel(this.#timer)
    this.#timer = timer
  }
}

function isServerOnly({ type }: Frame): boolean {
  return (
    type === FrameType.CONNACK || type === FrameType.SENDACK || type === FrameType.RECV || type === FrameType.PONG || type === FrameType.SUBACK
  )
}
