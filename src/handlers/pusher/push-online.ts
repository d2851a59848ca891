import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { ConnectionPort } from '../../contracts/connection-view.ts'
import type { Diagnostics } from '../../contracts/diagnostics.ts'
import type { FactSink, IsOffline, OnlineDevice } from '../../contracts/facts.ts'
import type { Steps, PushOnlineContext } from '../../contracts/handler.ts'
import type { Counts } from '../../contracts/metrics.ts'
import type { Presence } from '../../contracts/presence.ts'
import type { TraceMarks } from '../../contracts/trace.ts'
import { asIMError, IMError, type IMErrorContext } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { isPromise } from '../../model/maybe-promise.ts'
import { isRecalled, type Message } from '../../model/message.ts'
import type { Outcome } from '../../model/outcome.ts'
import type { Reach } from '../../model/reach.ts'
import { receivedChannelID, receivedRedDot } from '../../model/receiver-view.ts'
import { RecvBatch } from '../../protocol/recv-batch.ts'
import { RecvEncoder } from '../../protocol/recv-encoder.ts'
import { EngineEvent } from '../engine-event.ts'

/** A message on its way out, and the connection it must not go back to. */
export interface PushSource {
  readonly message: Message
  readonly connectionID: string | undefined
  /** when it came in here (monotonic), when it did */
  readonly receivedAtMs?: number | undefined
  /** where it is written down what becomes of it, when somebody wants to know */
  readonly trace?: TraceMarks | undefined
}

export interface PushOnlineServices {
  /** the open connections of a user on this node */
  readonly connectionsOf: (uid: string) => readonly ConnectionPort[]
  /** where users are; undefined on a single node. Ends in time */
  readonly locate: Presence['locate'] | undefined
  /** the devices of a user who is on another node; undefined where `locate` is. Ends in time */
  readonly devices: ((uid: string) => Promise<readonly OnlineDevice[]>) | undefined
  readonly isOffline: IsOffline | undefined
  /** the message as it is now: it may have been edited or recalled while it waited */
  readonly current: (message: Message) => Message
  /** `uid` has nothing more to get of the message */
  readonly delivered: (uid: string, message: Message) => void
  /** tell the webhook who is offline for a message; undefined when it does not want to know */
  readonly notifyOffline: ((message: Message, uids: readonly string[]) => void) | undefined
  readonly nodeID: number
  readonly facts: FactSink
  readonly counts: Counts
  readonly diagnostics: Diagnostics
  /** milliseconds since 1970; asked for what is traced, and when somebody listens to diagnostics */
  readonly nowMs: () => number
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** hand messages to another node; it sees to time-out and repetition */
  readonly pushToPeer: (nodeID: number, key: ChannelKey, messages: readonly Message[], uids: readonly string[]) => void
}

/** EventPushOnline: stored messages to some of a channel's members. One at a time per channel, so order is kept. */
export const pushOnlineSteps: Steps<PushOnlineEvent> = { filterOnline, encode, write }

const EVENT_BYTES = 512

const NOBODY: readonly ConnectionPort[] = []

export class PushOnlineEvent extends EngineEvent implements PushOnlineContext {
  readonly event = 'EventPushOnline'
  readonly key: ChannelKey
  readonly sources: readonly PushSource[]
  readonly uids: readonly string[]
  readonly services: PushOnlineServices
  readonly queueBytes: number
  readonly reach: Reach
  /** set by filterOnline */
  targets: readonly ConnectionPort[] = NOBODY
  remote: ReadonlyMap<number, readonly string[]> | undefined
  /** set by encode */
  batch: RecvBatch | undefined
  /** per source how many connections it was given to; undefined when none of them is traced */
  tally: number[] | undefined = undefined
  /** 0 when nobody asks */
  readonly startedAtMs: number

  constructor(
    key: ChannelKey,
    sources: readonly PushSource[],
    uids: readonly string[],
    services: PushOnlineServices,
    reach: Reach = 'all',
  ) {
    super()
    this.key = key
    this.sources = sources
    this.uids = uids
    this.services = services
    this.reach = reach
    this.startedAtMs = services.diagnostics.push.hasSubscribers ? services.nowMs() : 0
    this.queueBytes = sources.reduce((bytes, source) => bytes + source.message.payload.length, EVENT_BYTES)
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  get messages(): readonly Message[] {
    return this.sources.map((source) => source.message)
  }

  describe(): IMErrorContext {
    return { channelID: this.key.channelID, channelType: this.key.channelType }
  }

  finish(result: unknown): void {
    if (result instanceof IMError) this.services.report(result)
  }
}

function filterOnline(ctx: PushOnlineEvent): Outcome | Promise<Outcome> {
  const { locate } = ctx.services
  if (locate === undefined || ctx.reach === 'here' || (ctx.reach === 'logged' && !wantsOffline(ctx))) return sortOut(ctx, undefined)
  const failed = (reason: unknown): void => {
    // Those who are connected here get their messages all the same.
    const context = { ...ctx.describe(), event: ctx.event, step: 'filterOnline' }
    ctx.services.report(new IMError('IM_PRESENCE_UNAVAILABLE', { cause: reason, context }))
    sortOut(ctx, undefined)
  }
  try {
    const located = locate(ctx.uids)
    if (isPromise(located)) return located.then((nodes) => sortOut(ctx, nodes), failed)
    sortOut(ctx, located)
  } catch (reason) {
    failed(reason)
  }
}

/** Into connections here, users on other nodes, and users nowhere. The own registry knows better than presence. */
function sortOut(ctx: PushOnlineEvent, nodes: ReadonlyMap<string, readonly number[]> | undefined): void {
  const { services } = ctx
  ctx.targets = connectionsOf(ctx)
  if (nodes !== undefined && ctx.reach === 'all') ctx.remote = remoteOf(ctx, nodes)
  if (ctx.reach === 'here' || !wantsOffline(ctx)) return
  if (ctx.reach === 'logged' && nodes === undefined) return // nobody knows who is connected to the other nodes
  const offline: string[] = []
  const connected: string[] = []
  const elsewhere: string[] = []
  for (const uid of ctx.uids) {
    const isElsewhere = nodes?.get(uid)?.some((nodeID) => nodeID !== services.nodeID) === true
    const group = isElsewhere ? elsewhere : services.connectionsOf(uid).length > 0 ? connected : offline
    group.push(uid)
  }
  judgeOffline(ctx, { offline, connected, elsewhere })
}

function wantsOffline({ services }: PushOnlineEvent): boolean {
  return services.notifyOffline !== undefined || services.facts.has('offlineMessage')
}

/** In a conversation of two, as a rule, one receiver's connections: then they are the registry's own array, which never changes. */
function connectionsOf({ uids, services }: PushOnlineEvent): readonly ConnectionPort[] {
  let first: readonly ConnectionPort[] = NOBODY
  let all: ConnectionPort[] | undefined
  for (const uid of uids) {
    const here = services.connectionsOf(uid)
    if (here.length === 0) continue
    if (first.length === 0) {
      first = here
    } else {
      all ??= [...first]
      for (const connection of here) all.push(connection)
    }
  }
  return all ?? first
}

function remoteOf({ uids, services }: PushOnlineEvent, nodes: ReadonlyMap<string, readonly number[]>): Map<number, string[]> {
  const remote = new Map<number, string[]>()
  for (const uid of uids) {
    for (const nodeID of nodes.get(uid) ?? []) {
      if (nodeID === services.nodeID) continue
      const group = remote.get(nodeID)
      if (group === undefined) remote.set(nodeID, [uid])
      else group.push(uid)
    }
  }
  return remote
}

interface Receivers {
  /** not connected at all */
  readonly offline: readonly string[]
  /** connected to this node only */
  readonly connected: readonly string[]
  /** connected to other nodes, and perhaps to this one */
  readonly elsewhere: readonly string[]
}

/** Who counts as offline. Only a host's own rule asks which devices there are; nothing waits for the answer of other nodes. */
function judgeOffline(ctx: PushOnlineEvent, { offline, connected, elsewhere }: Receivers): void {
  const { isOffline, devices, connectionsOf } = ctx.services
  if (isOffline === undefined) return tellOffline(ctx, offline, new Map())
  const judge = (online: ReadonlyMap<string, readonly OnlineDevice[]>): void => {
    try {
      const uids = [...offline, ...online.keys()].filter((uid) => isOffline({ uid, devices: online.get(uid) ?? [] }))
      tellOffline(ctx, uids, new Map(uids.flatMap((uid) => (online.has(uid) ? [[uid, online.get(uid)!]] : []))))
    } catch (thrown) {
      ctx.services.report(asIMError(thrown, 'IM_HANDLER_FAILED', { ...ctx.describe(), event: ctx.event, step: 'isOffline' }))
    }
  }
  const here = new Map(connected.map((uid) => [uid, connectionsOf(uid).map(deviceOf)]))
  if (elsewhere.length === 0 || devices === undefined) return judge(here)
  void Promise.all(elsewhere.map(async (uid) => [uid, (await devices(uid)).map(deviceOf)] as const)).then(
    (there) => judge(new Map([...here, ...there])),
    (reason: unknown) => {
      ctx.services.report(asIMError(reason, 'IM_PRESENCE_UNAVAILABLE', ctx.describe()))
      judge(here)
    },
  )
}

function deviceOf({ deviceFlag, deviceLevel }: OnlineDevice): OnlineDevice {
  return { deviceFlag, deviceLevel }
}

/** Nobody is to be woken up by a message of their own. */
function tellOffline(ctx: PushOnlineEvent, offline: readonly string[], devices: ReadonlyMap<string, readonly OnlineDevice[]>): void {
  const { key, messages, services } = ctx
  if (offline.length === 0) return
  if (services.notifyOffline !== undefined) {
    for (const message of messages) {
      const uids = offline.filter((uid) => uid !== message.fromUID)
      if (uids.length > 0) services.notifyOffline(message, uids)
    }
  }
  if (!services.facts.has('offlineMessage')) return
  const senders = new Set(messages.map((message) => message.fromUID))
  if (!offline.some((uid) => senders.has(uid))) return services.facts.emit('offlineMessage', { key, messages, uids: offline, devices })
  for (const message of messages) {
    const uids = offline.filter((uid) => uid !== message.fromUID)
    if (uids.length > 0) services.facts.emit('offlineMessage', { key, messages: [message], uids, devices })
  }
}

/** What does not depend on the receiver is laid out once; equal receivers share their bytes. */
function encode(ctx: PushOnlineEvent): Outcome {
  if (ctx.targets.length > 0) ctx.batch = new RecvBatch(ctx.sources.map(({ message }) => ctx.services.current(message)))
}

function write(ctx: PushOnlineEvent): Outcome {
  const { batch, sources } = ctx
  if (batch !== undefined) {
    ctx.tally = sources.some(({ trace }) => trace !== undefined) ? sources.map(() => 0) : undefined
    const origins = originsOf(sources)
    if (ctx.targets.some(({ connectionID }) => !origins.includes(connectionID))) {
      for (const { receivedAtMs } of sources) if (receivedAtMs !== undefined) ctx.services.counts.pushing(receivedAtMs)
    }
    const isToBeShown = sources.every((source) => !isRecalled(ctx.services.current(source.message)))
    let encoders: readonly RecvEncoder[] | undefined
    for (const connection of ctx.targets) {
      if (connection.cipher !== undefined) {
        encoders ??= batch.messages.map((message) => new RecvEncoder(message))
        writeSealed(ctx, connection, encoders)
      } else if (isToBeShown && !origins.includes(connection.connectionID)) {
        connection.pushAll(batch.messages, batch.encode(connection.version, connection.uid), ctx.tally)
      } else {
        writeSome(ctx, connection, batch)
      }
    }
  }
  tellTraces(ctx)
  if (ctx.services.diagnostics.push.hasSubscribers) tellPush(ctx)
  if (ctx.remote === undefined) return
  for (const [nodeID, uids] of ctx.remote) ctx.services.pushToPeer(nodeID, ctx.key, ctx.messages, uids)
}

function tellPush({ services, key: { channelID, channelType }, sources, uids, targets, remote, startedAtMs }: PushOnlineEvent): void {
  if (targets.length === 0 && remote === undefined) return
  const { diagnostics: { nodeID, push }, nowMs } = services
  const endedAtMs = nowMs()
  const messageIDs = sources.map(({ message }) => message.messageID)
  const counts = { uidCount: uids.length, connectionCount: targets.length, nodeCount: remote?.size ?? 0 }
  push.publish({ nodeID, channelID, channelType, messageIDs, ...counts, startedAtMs: startedAtMs || endedAtMs, endedAtMs })
}

function tellTraces({ sources, tally, remote, services }: PushOnlineEvent): void {
  if (tally === undefined && (remote === undefined || sources.every(({ trace }) => trace === undefined))) return
  const nowMs = services.nowMs()
  sources.forEach(({ trace }, index) => trace?.pushed(tally?.[index] ?? 0, remote?.size ?? 0, nowMs))
}

/** The connections that messages came in on: as a rule there is one. */
function originsOf(sources: readonly PushSource[]): string[] {
  const first = sources[0]!.connectionID
  const origins = first === undefined ? [] : [first]
  for (const { connectionID } of sources) {
    if (connectionID !== undefined && origins[origins.length - 1] !== connectionID && !origins.includes(connectionID)) origins.push(connectionID)
  }
  return origins
}

/** One by one, to a connection that has sent some of them itself, or when some are not to be shown any more. */
function writeSome(ctx: PushOnlineEvent, connection: ConnectionPort, batch: RecvBatch): void {
  const isForIt = ctx.sources.map((source) => isToGo(ctx, source, connection))
  if (!isForIt.includes(true)) return
  const { frames, ends } = batch.encode(connection.version, connection.uid)
  isForIt.forEach((goes, index) => {
    if (!goes) return
    const isPushed = connection.push(batch.messages[index]!, frames.subarray(index === 0 ? 0 : ends[index - 1], ends[index]))
    if (isPushed && ctx.tally !== undefined) ctx.tally[index]!++
  })
}

function writeSealed(ctx: PushOnlineEvent, connection: ConnectionPort, encoders: readonly RecvEncoder[]): void {
  const { uid, version, cipher } = connection
  for (let index = 0; index < encoders.length; index++) {
    const source = ctx.sources[index]!
    if (!isToGo(ctx, source, connection)) continue
    const message = ctx.services.current(source.message)
    const view = { version, channelID: receivedChannelID(message, uid), redDot: receivedRedDot(message, uid), cipher }
    if (connection.push(message, encoders[index]!.encode(view)) && ctx.tally !== undefined) ctx.tally[index]!++
  }
}

/** Not back to where it came from; and nobody is to see what a recalled message was, and there is nothing else. */
function isToGo({ services }: PushOnlineEvent, { message, connectionID }: PushSource, connection: ConnectionPort): boolean {
  if (connectionID === connection.connectionID) return false
  if (!isRecalled(services.current(message))) return true
  services.delivered(connection.uid, message)
  return false
}
