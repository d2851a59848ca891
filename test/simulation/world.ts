import { IMError, MemberRole, type IMErrorCode, type Message } from 'imengine'
import { FrameFlag, FrameType, ReasonCode, type Frame, type RecvPacket } from 'imengine/protocol'
import { Answers, isSend } from './answers.ts'
import { Arrivals } from './arrivals.ts'
import { chanceOf, type Chance } from './chance.ts'
import { Disk, type DiskWeather, type DiskWitness } from './disk.ts'
import { History, type Violation } from './history.ts'
import { asStored, payloadOf } from './house-rules.ts'
import { channelName, channelNameOf, Ledger } from './ledger.ts'
import { Link, type LinkWitness } from './link.ts'
import { Members } from './members.ts'
import { FAIR, Network, Peers, PresenceHub } from './network.ts'
import { PLANNED, RUN_LIMITS, SimNode, type Life, type Planted } from './node.ts'
import { GROUPS, MEMBERS, PLAN_MS, type Action, type Kind, type Plan, type Target } from './plan.ts'
import { SharedLog } from './shared-log.ts'
import { SimTime } from './time.ts'

export interface RunResult {
  readonly violations: readonly Violation[]
  readonly hash: string
  readonly lines: readonly string[]
  /** what has happened how often, to see that something has */
  readonly counts: Readonly<Record<string, number>>
}

/** What a sender wants to be stored. */
interface Wanted {
  readonly uid: string
  readonly target: Target
  readonly payload: string
  readonly as: Kind | undefined
  isSettled: boolean
}

const CLOSE_WITHIN_MS = 40_000
const DRAIN_MS = 2_000

/** What a sender may try again. */
const TRANSIENT: readonly number[] = [ReasonCode.SystemError, ReasonCode.NodeNotMatch, ReasonCode.RateLimit]

/** Codes that mean that the engine, or a store that keeps its contract, has made a mistake. */
const MISTAKES: readonly IMErrorCode[] = ['IM_STORE_CONTRACT', 'IM_LISTENER_FAILED', 'IM_LOG_FORMAT', 'IM_LOG_CORRUPT']

/** Carry out a plan, from its beginning to the end of everything, and tell what was seen. */
export async function run(plan: Plan, planted: Planted = {}): Promise<RunResult> {
  const world = new World(plan, planted)
  const thrown = (error: unknown): void => world.history.broken('P6', `nobody has caught ${String(error)}`)
  process.on('unhandledRejection', thrown)
  try {
    await world.live()
  } finally {
    process.off('unhandledRejection', thrown)
  }
  return { violations: world.history.violations, hash: world.history.hash, lines: world.history.lines, counts: world.counts }
}

class World implements DiskWitness, LinkWitness {
  readonly time = new SimTime()
  readonly history = new History(this.time)
  readonly counts: Record<string, number> = {}
  readonly #plan: Plan
  readonly #planted: Planted
  readonly #chance: Chance
  readonly #network: Network
  readonly #nodes: SimNode[]
  readonly #disks: Disk[]
  readonly #ledger = new Ledger(this.history, this.time)
  readonly #members = new Members(this.time)
  readonly #answers: Answers
  readonly #arrivals: Arrivals
  readonly #links = new Set<Link>()
  /** by device: its last one */
  readonly #linkOf = new Map<number, Link>()
  readonly #linkNames = new Map<string, Link>()
  /** by link and number on it: of what the answer is */
  readonly #asked = new Map<Link, Map<number, string>>()
  readonly #wanted = new Map<string, Wanted>()
  readonly #openChanges = new Map<Life, Set<(isDone: boolean) => void>>()
  #linkCount = 0
  #acksAll = false

  constructor(plan: Plan, planted: Planted) {
    this.#plan = plan
    this.#planted = planted
    this.#chance = chanceOf(plan.seed, 'world')
    const { setup } = plan
    const network = (this.#network = new Network(this.time, this.#chance.of('network')))
    const isSpread = setup.topology !== 'single'
    const diskCount = setup.topology === 'log' ? setup.nodeCount : 1
    this.#disks = Array.from({ length: diskCount }, (_, index) => this.#newDisk(index))
    const log = setup.topology === 'log' ? new SharedLog(network, this.#chance.of('log')) : undefined
    const peers = isSpread ? new Peers(network) : undefined
    const presence = isSpread ? new PresenceHub(network, this.#chance.of('presence')) : undefined
    this.#nodes = Array.from({ length: setup.nodeCount }, (_, index) => {
      const chance = this.#chance.of(`node ${index}`)
      return new SimNode({ nodeID: index + 1, setup, disk: this.#disks[index] ?? this.#disks[0]!, time: this.time, chance, peers, presence, log, planted })
    })
    const diskOf = (nodeID: number): Disk => this.#nodes[nodeID - 1]!.options.disk
    const { history, time } = this
    const [ledger, members] = [this.#ledger, this.#members]
    const maxWaitingCount = RUN_LIMITS.maxQueuedPerUser + RUN_LIMITS.maxQueuedPerChannel
    this.#answers = new Answers({ history, time, ledger, diskOf, maxWaitingCount, accepted: (link, send, messageID) => this.#arrivals.acceptedFleeting(link, send, messageID) })
    this.#arrivals = new Arrivals({ history, time, ledger, members, topology: setup.topology, diskOf, cacheMs: RUN_LIMITS.subscriberCacheMs })
  }

  /** All of it, up to the first broken promise. */
  async live(): Promise<void> {
    for (const node of this.#nodes) this.#start(node)
    for (const action of this.#plan.actions) this.time.after(action.atMs, () => this.#act(action))
    const phases = [
      () => this.#pass(PLAN_MS + 100),
      () => this.#rest(),
      () => this.#sendAgain(),
      () => this.#logInAgain(),
      () => this.#closeAll(),
    ]
    for (const phase of phases) {
      await phase()
      if (this.history.violations.length > 0) return
    }
  }

  // ---- what disks and connections show

  appended(disk: Disk, nodeID: number, batch: Parameters<DiskWitness['appended']>[2], results: Parameters<DiskWitness['appended']>[3]): void {
    for (const kept of this.#ledger.appended(disk, nodeID, batch, results)) {
      this.#count('stored')
      this.#arrivals.kept(channelName(batch.key), kept)
    }
  }

  revised(disk: Disk, message: Message): void {
    this.#ledger.revised(disk, message)
    this.#count(message.revision?.kind ?? 'unchanged')
  }

  writesAfterClose(nodeID: number, call: string): void {
    this.history.broken('P8', `node ${nodeID} writes (${call}) after it has closed`)
  }

  opened(link: Link): void {
    this.#links.add(link)
    this.#answers.opened(link)
    this.#arrivals.opened(link)
  }

  given(link: Link, frame: Frame): void {
    if (frame.type === FrameType.PING) this.#answers.pinged(link)
    if (!isSend(frame) || !link.isOpen) return
    const no = this.#asked.get(link)?.get(frame.clientSeq)
    if (no === undefined) return // garbage that looks like one
    const payload = this.#payloadsOf.get(link)?.get(frame.clientSeq) ?? ''
    this.#answers.given(link, frame, payload)
    const channel = channelNameOf(link.device.uid, frame)
    if ((frame.flags & FrameFlag.NoPersist) !== 0) this.#arrivals.sentFleeting(link, channel, frame.clientMsgNo, payload)
    else this.#arrivals.sent(link, channel, frame.clientMsgNo)
  }

  written(link: Link, frame: Frame): void {
    this.#count(`frame ${frame.type}`)
    this.history.add(`${this.#nameOf(link)} < ${describe(frame)}`)
    if (frame.type === FrameType.SENDACK) this.#answers.answered(link, frame)
    if (frame.type === FrameType.PONG) this.#answers.ponged(link)
    if (frame.type === FrameType.RECV) this.#arrivals.written(link, frame, link.payloadOf(frame))
  }

  ended(link: Link): void {
    this.history.add(`${this.#nameOf(link)} ends`)
    this.#links.delete(link)
    this.#answers.ended(link)
    this.#arrivals.ended(link)
    this.#asked.delete(link)
    this.#payloadsOf.delete(link)
  }

  // ---- nodes

  #newDisk(index: number): Disk {
    const { disk, topology } = this.#plan.setup
    const made = new Disk({
      name: topology === 'shared' ? 'database' : `disk ${index + 1}`,
      time: this.time,
      chance: this.#chance.of(`disk ${index}`),
      witness: this,
      weather: { mostMs: disk === 'sync' ? 'within the call' : disk === 'quick' ? 5 : 60, failing: 0, isForWrites: false },
      isShared: topology === 'shared',
    })
    for (const group of GROUPS) {
      const key = { channelID: group, channelType: 2 }
      void made.held.channels.putChannel(key) // memory has done it when the call returns
      void made.held.channels.putMembers(key, MEMBERS[group]!.map((uid) => ({ uid, role: MemberRole.Member })))
    }
    return made
  }

  #start(node: SimNode): void {
    if (node.life !== undefined) return
    const life = node.begin()
    const { nodeID } = node
    this.#openChanges.set(life, new Set())
    const { engine } = life
    engine.on('error', (error) => this.#judge(nodeID, life, error))
    engine.on('undelivered', ({ messages, uid }) => {
      for (const { messageID } of messages) this.#arrivals.undelivered(nodeID, messageID, uid)
    })
    engine.on('disconnected', ({ remoteAddress, cause }) => {
      const link = this.#linkNames.get(remoteAddress ?? '')
      this.history.add(`node ${nodeID} lets go of ${remoteAddress}: ${cause}`)
      if (link === undefined) return
      this.#answers.left(link)
      this.#arrivals.left(link)
    })
    this.history.add(`node ${nodeID} starts`)
    engine.start().then(
      () => {
        if (life.state === 'starting') life.state = 'running'
        this.history.add(`node ${nodeID} runs`)
      },
      (error: unknown) => {
        this.history.add(`node ${nodeID} has not started: ${String(error)}`)
        if (life.state !== 'starting') return
        this.#checkClosed(node, life)
        if (node.life === life) node.life = undefined
      },
    )
  }

  #crash(node: SimNode): void {
    const { life } = node
    if (life === undefined) return
    this.history.add(`node ${node.nodeID} crashes`)
    this.#count('crash')
    node.crash()
    for (const link of [...this.#links]) if (link.nodeID === node.nodeID) link.pair.client.destroy()
    // What it had proposed may still come to pass.
    const changes = this.#openChanges.get(life)!
    this.time.after(1_000, () => changes.forEach((ended) => ended(false)))
    void this.#ledger.verify(node.options.disk, node.options.disk.held.messages)
  }

  #close(node: SimNode, then: () => void): void {
    const { life } = node
    if (life === undefined || life.state !== 'running') return then()
    this.history.add(`node ${node.nodeID} closes`)
    this.#count('close')
    life.state = 'closing'
    for (const link of this.#links) if (link.nodeID === node.nodeID) this.#answers.left(link)
    const late = this.time.after(CLOSE_WITHIN_MS, () => {
      if (life.state === 'closing') this.history.broken('P8', `node ${node.nodeID} has not closed after ${CLOSE_WITHIN_MS} ms`)
    })
    void life.engine.close({ drainMs: DRAIN_MS }).then(() => {
      if (life.state !== 'closing') return // it has died meanwhile
      this.time.cancel(late)
      this.history.add(`node ${node.nodeID} has closed`)
      this.#checkClosed(node, life)
      if (node.life === life) node.life = undefined
      then()
    })
  }

  /** P8: nothing of it is left. */
  #checkClosed(node: SimNode, life: Life): void {
    life.state = 'closed'
    life.handle.close()
    // A turn that was asked for while the log ended, and the wheel's own timer, may still run out: within two ticks.
    this.time.after(2 * life.engine.limits.timerTickMs, () => {
      const { pendingCount } = life.clock
      if (pendingCount > 0) this.history.broken('P8', `node ${node.nodeID} has closed and left ${pendingCount} timers`)
    })
    for (const link of this.#links) {
      if (link.nodeID === node.nodeID && link.pair.client.socketEnd === undefined && !link.isStalled) this.history.broken('P8', `node ${node.nodeID} has closed, and ${link.device.deviceID} is still connected`)
    }
    if (life.handle.behindCount > 0 && !life.hasGivenUp) this.history.broken('P8', `node ${node.nodeID} has closed with positions that are not durable`)
    for (const ended of this.#openChanges.get(life)!) ended(false)
  }

  /** Errors are told of what fails around the engine; these are of the engine itself. */
  #judge(nodeID: number, life: Life, error: IMError): void {
    this.history.add(`node ${nodeID} reports ${error.code}`)
    this.#count(error.code)
    if (error.code === 'IM_CLOSE_TIMEOUT' || error.code === 'IM_STORE_UNAVAILABLE') life.hasGivenUp = true
    let cause: unknown = error
    while (cause instanceof IMError && cause.cause !== undefined) cause = cause.cause
    const isDefect = cause instanceof TypeError || cause instanceof RangeError || cause instanceof ReferenceError
    const isUnplanned = error.code === 'IM_HANDLER_FAILED' && !(cause instanceof Error && cause.message === PLANNED)
    if (isDefect || isUnplanned || MISTAKES.includes(error.code)) this.history.broken('P6', `node ${nodeID} reports ${error.message}: ${String(cause)}`)
  }

  // ---- actions

  #act(action: Action): void {
    const { kind, atMs: _atMs, ...rest } = action
    this.history.add(`* ${kind} ${JSON.stringify(rest)}`)
    this.#count(kind)
    switch (action.kind) {
      case 'connect':
        return this.#connect(action.device, this.#nodes[action.node]!)
      case 'send':
        if (action.as !== undefined) this.#count(action.as)
        return this.#send(action.device, action.target, action.no, payloadOf(action.no.padEnd(action.size, '.'), action.as), action.as)
      case 'revise':
        return this.#revise(this.#nodes[action.node]!, action)
      case 'resend':
        return this.#resend(action.device, action.no, action.isOther)
      case 'burst':
        return this.#burst(action.device, action.target, Array.from({ length: action.count }, (_, index) => `${action.no}-${index}`))
      case 'ping':
        return this.#openLink(action.device)?.ping()
      case 'leave':
        return this.#linkOf.get(action.device)?.leave(action.how)
      case 'garbage':
        return this.#linkOf.get(action.device)?.garbage(action.byteCount)
      case 'stall':
        return this.#linkOf.get(action.device)?.stall(action.forMs)
      case 'say':
        return this.#say(this.#nodes[action.node]!, action)
      case 'member':
        return this.#changeMember(this.#nodes[action.node]!, action)
      case 'jump':
        return this.#nodes[action.node]!.jump(action.byMs)
      case 'crash': {
        const node = this.#nodes[action.node]!
        this.#crash(node)
        this.time.after(action.forMs, () => this.#start(node))
        return
      }
      case 'close': {
        const node = this.#nodes[action.node]!
        return this.#close(node, () => void this.time.after(action.forMs, () => this.#start(node)))
      }
      case 'disk': {
        const { disk } = this.#nodes[action.node]!.options
        const { mostMs, failing, isForWrites } = action
        return this.#until<DiskWeather>(action.forMs, disk.usual, (weather) => (disk.weather = weather), { mostMs, failing, isForWrites })
      }
      case 'net': {
        const { losing, repeating, mostMs } = action
        return this.#until(action.forMs, FAIR, (weather) => void this.#network.weather.set(action.node + 1, weather), { losing, repeating, mostMs })
      }
      case 'hang': {
        const { misbehaving } = this.#nodes[action.node]!
        misbehaving.set(action.what, action.how)
        this.time.after(action.forMs, () => void misbehaving.delete(action.what))
        return
      }
    }
  }

  #until<T extends object>(forMs: number, usual: T, set: (weather: T) => void, weather: T): void {
    set(weather)
    this.time.after(forMs, () => set(usual))
  }

  #connect(device: number, node: SimNode): void {
    const engine = node.life?.engine
    if (engine === undefined) return
    const name = `${this.#plan.setup.devices[device]!.deviceID}#${++this.#linkCount}`
    const link = new Link(engine, {
      device: this.#plan.setup.devices[device]!,
      nodeID: node.nodeID,
      name,
      time: this.time,
      chance: this.#chance.of(`link ${this.#linkCount}`),
      witness: this,
      received: (recv) => this.#received(link, recv),
      answered: (clientSeq, reasonCode) => this.#answered(link, clientSeq, reasonCode),
      socket: this.#planted.socket,
    })
    this.#linkNames.set(name, link)
    this.#linkOf.set(device, link)
    link.connect()
  }

  #openLink(device: number): Link | undefined {
    const link = this.#linkOf.get(device)
    return link?.isReady === true && !link.isOver ? link : undefined
  }

  #send(device: number, target: Target, no: string, payload: string, as?: Kind, isWanted = true): void {
    const link = this.#openLink(device)
    const { uid } = this.#plan.setup.devices[device]!
    if (isWanted && !this.#wanted.has(no)) this.#wanted.set(no, { uid, target, payload, as, isSettled: false })
    if (link === undefined) return
    this.#asks(link, link.send(target, no, payload, flagsOf(as)), no, payload, isWanted)
  }

  readonly #payloadsOf = new Map<Link, Map<number, string>>()

  #asks(link: Link, clientSeq: number, no: string, payload: string, isWanted = true): void {
    const asked = mapOf(this.#asked, link)
    asked.set(clientSeq, isWanted ? no : '')
    mapOf(this.#payloadsOf, link).set(clientSeq, asStored(payload))
  }

  #burst(device: number, target: Target, nos: readonly string[]): void {
    const link = this.#openLink(device)
    if (link === undefined) return
    const { uid } = link.device
    for (const no of nos) this.#wanted.set(no, { uid, target, payload: no, as: undefined, isSettled: false })
    link.sendAll(target, nos).forEach((clientSeq, index) => this.#asks(link, clientSeq, nos[index]!, nos[index]!))
  }

  /** By a device of whoever has sent it. */
  #resend(device: number, no: string, isOther: boolean): void {
    const wanted = this.#wanted.get(no)
    if (wanted === undefined) return
    const { devices } = this.#plan.setup
    const own = devices[device]!.uid === wanted.uid ? device : devices.findIndex(({ uid }, index) => uid === wanted.uid && this.#openLink(index) !== undefined)
    if (own < 0) return
    this.#send(own, wanted.target, no, isOther ? `${wanted.payload}!` : wanted.payload, wanted.as, !isOther)
  }

  /** A host changes what it was sent, of what its disk has. */
  #revise(node: SimNode, { no, how, text }: { no: string; how: 'edit' | 'recall'; text: string }): void {
    const { life, options: { disk } } = node
    const wanted = this.#wanted.get(no)
    if (life?.state !== 'running' || wanted === undefined) return
    const { uid, target, as } = wanted
    const kept = this.#ledger.find(disk, channelNameOf(uid, { ...target, flags: flagsOf(as) }), uid, no)
    if (kept === undefined) return
    const { messages } = life.engine
    const revised = how === 'edit' ? messages.edit(kept.messageID, Buffer.from(text)) : messages.recall(kept.messageID)
    revised.then(
      (message) => {
        if (life.state !== 'dead') this.#ledger.revisionTold(disk, message, how === 'edit' ? text : '')
      },
      (error: unknown) => this.#rejected(error),
    )
  }

  #say(node: SimNode, { target, uid, no }: { target: Target; uid: string; no: string }): void {
    const { life } = node
    if (life?.state !== 'running') return
    const request = { ...target, fromUID: uid, clientMsgNo: no, payload: Buffer.from(no) }
    life.engine.messages.send(request).then(
      (receipt) => {
        const send = { channel: channelName(target), clientMsgNo: no, fromUID: uid, payload: no }
        if (life.state !== 'dead') this.#answers.acknowledged(node.nodeID, send, receipt)
      },
      (error: unknown) => this.#rejected(error),
    )
  }

  #changeMember(node: SimNode, { channelID, uid, joins }: { channelID: string; uid: string; joins: boolean }): void {
    const { life } = node
    if (life?.state !== 'running') return
    const key = { channelID, channelType: 2 }
    const changes = this.#openChanges.get(life)!
    const told = this.#members.changing(channelName(key), uid, joins)
    if (!joins) this.#arrivals.leaving(channelName(key), uid)
    const ended = (isDone: boolean): void => {
      if (!changes.delete(ended)) return
      this.history.add(`${uid} ${joins ? 'joins' : 'leaves'} ${channelID}: ${isDone}`)
      told(isDone)
    }
    changes.add(ended)
    const { subscribers } = life.engine.channels
    const changed = joins ? subscribers.add(key, [uid]) : subscribers.remove(key, [uid])
    changed.then(
      () => ended(true),
      (error: unknown) => {
        this.#rejected(error)
        ended(false)
      },
    )
  }

  /** What the host is told must be an error that it can tell apart. */
  #rejected(error: unknown): void {
    if (!(error instanceof IMError)) this.history.broken('P6', `a call of the host ends in ${String(error)}`)
  }

  // ---- devices

  #received(link: Link, recv: RecvPacket): void {
    this.#arrivals.received(link, recv)
    const { ackProbability } = link.device
    if (this.#acksAll || link.options.chance.happens(ackProbability)) link.ack(recv)
  }

  #answered(link: Link, clientSeq: number, reasonCode: number): void {
    const wanted = this.#wanted.get(this.#asked.get(link)?.get(clientSeq) ?? '')
    if (wanted !== undefined && !TRANSIENT.includes(reasonCode)) wanted.isSettled = true
  }

  // ---- the end

  async #pass(ms: number): Promise<void> {
    await this.time.advance(ms, () => {
      this.#answers.check()
      return this.history.violations.length > 0
    })
  }

  /** Faults have ended by themselves. Who was told nothing yet is told now. */
  async #rest(): Promise<void> {
    await this.#pass(6_000) // the last of them
    for (const node of this.#nodes) this.#start(node)
    await this.#pass(8_000)
    for (const link of this.#links) if (link.isReady) link.ping()
    await this.#pass(1_000)
    this.#answers.checkEnd()
    this.#arrivals.checkEnd()
  }

  /** Everybody sends again what was not answered for good, from wherever. */
  async #sendAgain(): Promise<void> {
    const { devices } = this.#plan.setup
    devices.forEach((_device, index) => {
      if (this.#openLink(index) === undefined) this.#connect(index, this.#chance.pick(this.#nodes))
    })
    await this.#pass(2_000)
    for (const [no, { uid, target, payload, as, isSettled }] of this.#wanted) {
      if (isSettled) continue
      this.#send(devices.findLastIndex((device) => device.uid === uid), target, no, payload, as)
      await this.#pass(50)
    }
    await this.#pass(4_000)
    this.#answers.checkEnd()
  }

  async #logInAgain(): Promise<void> {
    for (const link of [...this.#links]) link.leave('end')
    this.#acksAll = true
    await this.#pass(2_000)
    this.#plan.setup.devices.forEach((_device, index) => this.#connect(index, this.#chance.pick(this.#nodes)))
    await this.#pass(6_000)
    for (const disk of this.#disks) this.#arrivals.checkComplete(disk)
  }

  async #closeAll(): Promise<void> {
    for (const node of this.#nodes) this.#close(node, () => undefined)
    await this.#pass(CLOSE_WITHIN_MS + 100)
    for (const disk of this.#disks) await this.#ledger.verify(disk, disk.held.messages)
    this.#checkEqual()
  }

  /** P2: nodes of one log hold the same. */
  #checkEqual(): void {
    const [first, ...others] = this.#disks
    for (const disk of others) {
      const channels = new Set([...this.#ledger.channels(first!).keys(), ...this.#ledger.channels(disk).keys()])
      for (const channel of channels) {
        const [one, other] = [first!, disk].map((each) => this.#ledger.channels(each).get(channel)?.length ?? 0)
        if (one !== other) this.history.broken('P2', `${channel} has ${one} messages on ${first!.name} and ${other} on ${disk.name}`)
      }
    }
  }

  #nameOf(link: Link): string {
    return link.options.name
  }

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1
  }
}

function flagsOf(as: Kind | undefined): number {
  return as === 'noPersist' ? FrameFlag.NoPersist : as === 'command' ? FrameFlag.SyncOnce : 0
}

function mapOf<K, I, V>(maps: Map<K, Map<I, V>>, key: K): Map<I, V> {
  let map = maps.get(key)
  if (map === undefined) maps.set(key, (map = new Map<I, V>()))
  return map
}

function describe(frame: Frame): string {
  switch (frame.type) {
    case FrameType.CONNACK:
      return `CONNACK ${frame.reasonCode}`
    case FrameType.SENDACK:
      return `SENDACK ${frame.clientSeq} ${frame.reasonCode} ${frame.messageID} ${frame.messageSeq}`
    case FrameType.RECV:
      return `RECV ${frame.channelType}:${frame.channelID} ${frame.messageSeq} ${frame.messageID}${(frame.flags & 8) === 0 ? '' : ' again'}`
    default:
      return String(frame.type)
  }
}
