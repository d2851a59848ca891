/** Feeds one case to the engine's code and to the reference, and tells where they differ. */
import { EventEmitter } from 'node:events'
import { IMEngine, memoryStorage, type Facts, type IMError } from 'imengine'
import { FrameDecoder, FrameType, type ConnackPacket, type Frame, type SendackPacket } from 'imengine/protocol'
import { FakeClock, seededRandom, socketPair, type SocketPair } from 'imengine/testing'
import { serveWebSocket } from 'imengine/ws'
import type { WebSocket } from 'ws'
import type { ConnectionCase, DecoderCase, Part, SealedSend } from './inputs.ts'
import { ReferenceConnection, type World } from './reference/connection.ts'
import type { ReferenceCipher } from './reference/payload.ts'
import { ReferenceStream, show } from './reference/wire.ts'

/** What came of one case. */
export interface Played {
  /** where the code and the reference differ; none is how it should be */
  readonly problems: readonly string[]
  /** the verdicts that were met, for choosing cases that are worth keeping */
  readonly classes: ReadonlySet<string>
}

export function playDecoder({ version, maxFrameBytes, chunks }: DecoderCase): Played {
  const problems: string[] = []
  const classes = new Set<string>()
  const decoder = new FrameDecoder({ version, maxFrameBytes })
  const reference = new ReferenceStream(version, maxFrameBytes)
  let fedBytes = 0
  for (const [index, hex] of chunks.entries()) {
    const chunk = Buffer.from(hex, 'hex')
    fedBytes += chunk.length
    const found: string[] = []
    const malformed = decoder.feed(chunk, (frame) => void found.push(show(frame)))
    chunk.fill(0xdd) // the caller may reuse its memory
    reference.add(Buffer.from(hex, 'hex'))
    const expected: string[] = []
    for (let frame = reference.next(); frame !== undefined; frame = reference.next()) {
      expected.push(show(frame))
      classes.add(`v${version} type ${frame.type}`)
    }
    if (found.join('\n') !== expected.join('\n')) problems.push(`chunk ${index}: frames ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
    if (malformed !== reference.malformed) problems.push(`chunk ${index}: ${malformed} instead of ${reference.malformed}`)
    if (decoder.broken !== (reference.malformed !== undefined)) problems.push(`chunk ${index}: broken is ${decoder.broken}`)
    if (decoder.pendingBytes !== reference.restBytes) problems.push(`chunk ${index}: ${decoder.pendingBytes} bytes are held instead of ${reference.restBytes}`)
    if (decoder.pendingBytes > Math.min(fedBytes, maxFrameBytes + 5)) problems.push(`chunk ${index}: more is held than may be: ${decoder.pendingBytes}`)
    if (reference.malformed !== undefined) classes.add(`v${version} ${reference.malformed}`)
  }
  return { problems, classes }
}

const LIMITS = { maxFrameBytes: 1_024, maxPayloadBytes: 512, maxUnauthenticatedBytes: 8_192, maxQueuedPerUser: 1_024 } as const
/** Caches are made as large as they may get, which takes longer than most cases. */
const SMALL_CACHES = { maxCachedPermissions: 100, maxCachedChannels: 100, maxTrackedDeliveries: 100 } as const
const MEMBERS = ['ann', 'bob', 'mallory']
/** An engine answers a frame with less than this many bytes more than the frame has. */
const ANSWER_BYTES = 256

export async function playConnection(given: ConnectionCase): Promise<Played> {
  const world: World = { ...LIMITS, plaintext: given.plaintext, members: MEMBERS }
  const stage = await openStage(given)
  const reference = new ReferenceConnection(world)
  const seen = new Answers(stage.pair)
  const problems: string[] = []
  let fedBytes = 0
  let cipher: ReferenceCipher | undefined
  for (const [index, part] of given.chunks.entries()) {
    const chunk = typeof part === 'string' ? Buffer.from(part, 'hex') : 'text' in part ? Buffer.from(part.text) : sealedFrame(part.sealed, reference.version, cipher)
    fedBytes += chunk.length
    const isText = typeof part !== 'string' && 'text' in part && given.transport === 'ws'
    stage.feed(Buffer.from(chunk), isText)
    if (isText) reference.receiveText()
    else reference.receive(chunk)
    await stage.clock.settle()
    if (index >= given.verifiedAfter && reference.state === 'authenticating') {
      stage.verify()
      reference.verified(given.isKnown)
      await stage.clock.settle()
    }
    seen.version = reference.version
    seen.read()
    if (cipher === undefined && reference.state === 'open' && seen.connack !== undefined && seen.connack.serverKey !== '') {
      cipher = reference.agreed(seen.connack.serverKey, seen.connack.salt)
    }
    problems.push(...compare(reference, seen, stage).map((problem) => `chunk ${index} (${labelOf(part)}): ${problem}`))
    if (problems.length > 0) break
  }
  if (stage.pair.client.received.length > fedBytes * (1 + ANSWER_BYTES)) problems.push(`${stage.pair.client.received.length} bytes of answers to ${fedBytes}`)
  problems.push(...(await compareHistory(reference, seen, stage)))
  problems.push(...(await stage.leave()))
  return { problems, classes: reference.classes }
}

function labelOf(part: Part): string {
  return JSON.stringify(part).slice(0, 80)
}

/** What an engine has said, read by its own decoder: the reference's would do, and this one is tested with it elsewhere. */
class Answers {
  connack: ConnackPacket | undefined
  readonly frames: Frame[] = []
  malformed: string | undefined
  readonly #pair: SocketPair
  readonly #decoder = new FrameDecoder()
  #readCount = 0

  constructor(pair: SocketPair) {
    this.#pair = pair
  }

  get sendacks(): SendackPacket[] {
    return this.frames.filter((frame): frame is SendackPacket => frame.type === FrameType.SENDACK)
  }

  read(): void {
    const { chunks } = this.#pair.client
    for (; this.#readCount < chunks.length; this.#readCount++) {
      this.malformed ??= this.#decoder.feed(Buffer.from(chunks[this.#readCount]!), (frame) => {
        this.frames.push(frame)
        // Both versions of the layout say the same of the first two fields, and refusals have empty texts behind them.
        if (frame.type === FrameType.CONNACK) this.connack = frame
      })
    }
  }

  set version(version: number) {
    this.#decoder.version = version
  }
}

interface Stage {
  readonly engine: IMEngine
  readonly clock: FakeClock
  readonly pair: SocketPair
  readonly errors: IMError[]
  readonly causes: string[]
  feed(chunk: Buffer, isText: boolean): void
  verify(): void
  /** @returns what is left behind */
  leave(): Promise<string[]>
}

async function openStage({ transport, plaintext, isKnown }: ConnectionCase): Promise<Stage> {
  const clock = new FakeClock()
  let verify = (): void => undefined
  const engine = new IMEngine({
    clock, plaintext, random: seededRandom(1), storage: memoryStorage({ nowMs: () => clock.nowMs() }), limits: { ...LIMITS, ...SMALL_CACHES },
    tokenVerifier: () => new Promise((resolve) => (verify = () => resolve({ ok: isKnown }))),
  })
  const errors: IMError[] = []
  const causes: string[] = []
  const told = ({ cause }: { readonly cause: Facts['disconnected'][0]['cause'] }): void => void causes.push(cause)
  engine.on('error', (error) => errors.push(error))
  engine.on('connectionRefused', told)
  engine.on('disconnected', told)
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: 2 }, { subscribers: MEMBERS })
  const pair = socketPair({ framing: transport === 'ws' ? 'message' : 'stream', delivery: 'sync' })
  const socket = new FakeWebSocket(pair)
  if (transport === 'ws') pair.attach(asEvents(socket, serveWebSocket(engine, socket as unknown as WebSocket)))
  else pair.attach(engine.accept(pair.server))
  return {
    engine, clock, pair, errors, causes,
    feed: (chunk, isText) => (transport === 'ws' ? socket.emit('message', chunk, !isText) : pair.client.write(chunk)),
    verify: () => verify(),
    leave: async () => {
      pair.client.destroy()
      await clock.settle()
      const left = engine.connections.list().length
      const closing = engine.close({ drainMs: 0 })
      await clock.advance(2 * engine.limits.timerTickMs) // a verifier that has not answered is given up
      await closing
      return [...(left > 0 ? [`${left} connections are left`] : []), ...(clock.pendingTimerCount > 0 ? [`${clock.pendingTimerCount} timers are left`] : [])]
    },
  }
}

/** As much of a `ws` socket as the adapter uses. As a real one, it goes on bringing messages while it closes. */
class FakeWebSocket extends EventEmitter {
  readonly OPEN = 1
  readonly extensions = ''
  readyState = 1
  readonly bufferedAmount = 0
  readonly #pair: SocketPair

  constructor(pair: SocketPair) {
    super()
    this.#pair = pair
  }

  send(bytes: Uint8Array): void {
    if (this.readyState === this.OPEN) this.#pair.server.send(bytes)
  }

  close(code?: number, reason?: string): void {
    if (this.readyState !== this.OPEN) return
    this.readyState = 2
    this.#pair.server.close(code, reason)
  }

  terminate(): void {
    this.readyState = 3
    this.#pair.server.destroy?.()
  }

  pause(): void {
    // Nothing here is ever paused for long.
  }

  resume(): void {
    // As above.
  }
}

/** The pair tells only when it is over: messages go to the fake socket themselves. */
function asEvents(socket: FakeWebSocket, events: ReturnType<IMEngine['accept']>): ReturnType<IMEngine['accept']> {
  return { receive: (chunk) => events.receive(chunk), drained: () => events.drained(), closed: () => void socket.emit('close') }
}

/** A SEND whose payload the client has encrypted; without a key, the same in the clear. */
function sealedFrame({ clientSeq, clientMsgNo, channelID, channelType, text, flippedBit }: SealedSend, version: number, cipher: ReferenceCipher | undefined): Buffer {
  const string = (value: string): Buffer => Buffer.concat([Buffer.of(Buffer.byteLength(value) >> 8, Buffer.byteLength(value) & 0xff), Buffer.from(value)])
  const payload = cipher?.seal(Buffer.from(text)) ?? Buffer.from(text)
  const msgKey = cipher?.msgKey({ clientSeq, clientMsgNo, channelID, channelType }, payload) ?? ''
  const body = Buffer.concat([
    Buffer.of(0, 0, 0, 0, clientSeq), string(clientMsgNo), string(channelID), Buffer.of(channelType), version >= 3 ? Buffer.alloc(4) : Buffer.alloc(0), string(msgKey), payload,
  ])
  const bytes = Buffer.concat([Buffer.of(0x30, (body.length & 0x7f) | 0x80, body.length >> 7), body])
  if (flippedBit !== undefined) bytes[bytes.length - 1 - ((flippedBit >> 3) % bytes.length)]! ^= 1 << (flippedBit & 7)
  return bytes
}

function compare(reference: ReferenceConnection, seen: Answers, { pair, causes, errors }: Stage): string[] {
  const problems: string[] = []
  const differs = (what: string, found: unknown, expected: unknown): void => {
    if (JSON.stringify(found) !== JSON.stringify(expected)) problems.push(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
  }
  const end = pair.client.socketEnd
  differs('errors', errors.map(({ code }) => code), [])
  differs('what the server says', seen.malformed, undefined)
  differs('CONNACK', seen.connack?.reasonCode, reference.connack)
  if (seen.frames.length > 0) differs('first frame', seen.frames[0]!.type, FrameType.CONNACK)
  differs('end', end === undefined ? undefined : { by: end.by, code: end.code }, reference.end === undefined ? undefined : { by: 'server', code: reference.end.code })
  if (reference.end?.reason !== undefined) differs('reason of the end', end?.reason, reference.end.reason)
  if (reference.end?.cause !== undefined) differs('causes', causes, [reference.end.cause])
  const { owed, recent } = reference
  const subacks = seen.frames.flatMap((frame) => (frame.type === FrameType.SUBACK ? [JSON.stringify([frame.flags, frame.subNo, frame.channelID, frame.channelType, frame.action, frame.reasonCode])] : []))
  const pongCount = seen.frames.filter(({ type }) => type === FrameType.PONG).length
  const others = seen.frames.filter(({ type }) => !([FrameType.CONNACK, FrameType.SENDACK, FrameType.SUBACK, FrameType.PONG] as number[]).includes(type))
  differs('frames that nobody asked for', others.map(({ type }) => type), [])
  const isOver = reference.isOver
  // Of what came together with the end, the answers may or may not have got out.
  differs('SUBACKs', subacks, [...owed.subacks, ...recent.subacks].slice(0, isOver ? Math.max(owed.subacks.length, subacks.length) : undefined))
  const allPongs = owed.pongCount + recent.pongCount
  if (pongCount > allPongs || pongCount < (isOver ? Math.min(owed.pongCount, LIMITS.maxQueuedPerUser) : Math.min(allPongs, LIMITS.maxQueuedPerUser))) problems.push(`${pongCount} PONGs to ${allPongs} PINGs`)
  problems.push(...compareSendacks(reference, seen))
  return problems
}

/** Exactly one for each SEND, with a reason that is right; in any order, because channels are independent. */
function compareSendacks({ owed, recent, isOver }: ReferenceConnection, seen: Answers): string[] {
  const problems: string[] = []
  const left = [...seen.sendacks]
  const take = (list: readonly { readonly clientSeq: number; readonly flags: number; readonly reasons: readonly number[] }[], isSure: boolean): void => {
    // Those that leave no choice first.
    for (const { clientSeq, flags, reasons } of list.toSorted((a, b) => a.reasons.length - b.reasons.length)) {
      const at = left.findIndex((ack) => ack.clientSeq === clientSeq && ack.flags === flags && reasons.includes(ack.reasonCode))
      if (at !== -1) left.splice(at, 1)
      else if (isSure) problems.push(`no SENDACK for ${clientSeq} with reason ${reasons.join(' or ')} and flags ${flags}`)
    }
  }
  take(owed.sendacks, true)
  take(recent.sendacks, !isOver)
  if (left.length > 0) problems.push(`SENDACKs that are wrong or too many: ${JSON.stringify(left)}`)
  return problems
}

/** What was acknowledged as kept is there, under its id and its number, and what was refused has none. */
async function compareHistory({ owed, recent }: ReferenceConnection, seen: Answers, { engine }: Stage): Promise<string[]> {
  const problems: string[] = []
  const payloads = new Set([...owed.sendacks, ...recent.sendacks].flatMap(({ payload }) => (payload === undefined ? [] : [payload])))
  for (const { messageID, messageSeq, reasonCode, flags } of seen.sendacks) {
    if (reasonCode !== 1) {
      if (messageID !== '0' || messageSeq !== 0) problems.push(`a refusal with the id ${messageID} and the number ${messageSeq}`)
      continue
    }
    if ((flags & 1) !== 0 && messageSeq === 0) continue
    const kept = await engine.messages.get([messageID])
    const message = kept[0]
    if (message?.messageSeq !== messageSeq) problems.push(`acknowledged as ${messageID} with the number ${messageSeq}, and kept as ${message?.messageSeq}`)
    else if (!payloads.has(Buffer.from(message.payload).toString('hex'))) problems.push(`${messageID} is kept with another payload`)
  }
  return problems
}
