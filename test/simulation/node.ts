import {
  DeviceLevel,
  IMEngine,
  type BeforeSendAnswer,
  type Clock,
  type IMEngineOptions,
  type Limits,
  type PeerPush,
  type Presence,
  type Socket,
  type Storage,
  type VerifyTokenResult,
  type Webhook,
} from 'imengine'
import type { Chance } from './chance.ts'
import type { Disk, DiskHandle } from './disk.ts'
import { HOUSE_RULES, judge } from './house-rules.ts'
import type { Peers, PresenceHub, SimPeer } from './network.ts'
import type { Hanging, Setup } from './plan.ts'
import { LogNode, type SharedLog } from './shared-log.ts'
import { LifeClock, type SimTime } from './time.ts'

/** Small, so that every bound and every time-out is met within a run. */
export const RUN_LIMITS = {
  connectTimeoutMs: 1_000,
  authTimeoutMs: 1_500,
  kickLingerMs: 500,
  closeTimeoutMs: 1_500,
  stepTimeoutMs: 1_500,
  webhookTimeoutMs: 800,
  replicateTimeoutMs: 1_500,
  peerPushTimeoutMs: 1_500,
  peerKickTimeoutMs: 500,
  presenceTimeoutMs: 500,
  presenceHeartbeatMs: 1_000,
  redeliverAfterMs: 3_000,
  maxRedeliveries: 3,
  cursorFlushMs: 300,
  sweepIntervalMs: 10_000,
  webhookBatchMs: 50,
  webhookRetryMs: 200,
  maxQueuedPerUser: 8,
  maxQueuedPerChannel: 12,
  maxBatchCount: 5,
  subscriberCacheMs: 1_000,
  permissionCacheMs: 1_000,
  maxReplayPerChannel: 1_000,
  maxOutboundBytes: 65_536,
  // Room for these is made in advance, for every life of every node.
  maxTrackedDeliveries: 1_000,
  maxCachedPermissions: 1_000,
  maxCachedChannels: 100,
} as const satisfies Partial<Limits>

/** What a test puts in the place of something the engine relies on. */
export interface Planted {
  readonly storage?: (storage: Storage) => Storage
  readonly clock?: (clock: Clock) => Clock
  readonly presence?: (presence: Presence) => Presence
  readonly peerPush?: (peerPush: PeerPush, time: SimTime) => PeerPush
  readonly socket?: (socket: Socket) => Socket
  readonly engine?: (engine: IMEngine) => void
}

/** What one run of a process has, and what ends with it. */
export interface Life {
  readonly engine: IMEngine
  readonly clock: LifeClock
  readonly handle: DiskHandle
  readonly peer: SimPeer | undefined
  readonly log: LogNode | undefined
  state: 'starting' | 'running' | 'closing' | 'closed' | 'dead'
  /** it has said that it could not wait for what was under way, or that its store fails */
  hasGivenUp: boolean
}

export interface NodeOptions {
  readonly nodeID: number
  readonly setup: Setup
  readonly disk: Disk
  readonly time: SimTime
  readonly chance: Chance
  readonly peers: Peers | undefined
  readonly presence: PresenceHub | undefined
  readonly log: SharedLog | undefined
  readonly planted: Planted
}

/** What a host that fails on purpose throws: everything else that is thrown is a defect. */
export const PLANNED = 'planned'

/** One engine of a cluster: its lives, one after the other, and how its host behaves. */
export class SimNode {
  readonly options: NodeOptions
  readonly misbehaving = new Map<Hanging, 'hang' | 'throw'>()
  life: Life | undefined
  #lifeCount = 0
  /** a wall clock never starts again before it has stopped: ids are made of it */
  #highestOffMs = 0

  constructor(options: NodeOptions) {
    this.options = options
  }

  get nodeID(): number {
    return this.options.nodeID
  }

  /** Make an engine; nothing is started. */
  begin(): Life {
    const { nodeID, setup, disk, time, chance, peers, presence, log, planted } = this.options
    const clock = new LifeClock(time, this.#highestOffMs)
    const handle = disk.open(nodeID, setup.outboxPrecedes, () => life.hasGivenUp)
    const peer = peers?.peer()
    const logNode = log && new LogNode(log)
    const isDead = (): boolean => life.state === 'dead'
    const told = presence?.of(nodeID, isDead)
    const options: IMEngineOptions = {
      nodeID,
      tokenVerifier: ({ token }) => this.#misbehave('verifier', (): VerifyTokenResult => ({ ok: true, deviceLevel: token === 'master' ? DeviceLevel.Master : DeviceLevel.Slave })),
      storage: planted.storage?.(handle.storage) ?? handle.storage,
      clock: planted.clock?.(clock) ?? clock,
      random: chance.of(`life ${++this.#lifeCount}`),
      plaintext: 'allow',
      // Nobody else changes what one node has read, so it may go by that for ever.
      limits: setup.topology === 'single' ? { ...RUN_LIMITS, subscriberCacheMs: 600_000, permissionCacheMs: 600_000 } : RUN_LIMITS,
      ...(told === undefined ? {} : { presence: planted.presence?.(told) ?? told }),
      ...(peer === undefined ? {} : { peerPush: planted.peerPush?.(peer, time) ?? peer }),
      ...(logNode === undefined ? {} : { replicator: logNode }),
      ...(setup.hasWebhook ? { webhook: this.#webhook() } : {}),
    }
    const engine = new IMEngine(options)
    engine.use('EventOnSend', () => this.#misbehave('handler', () => undefined), { name: 'misbehaving' })
    // In some runs they are a plugin's, and in the others handlers of the host.
    if (setup.hasPlugin) engine.use(HOUSE_RULES)
    else engine.use('EventOnSend', judge, { name: 'judge' })
    planted.engine?.(engine)
    const life: Life = { engine, clock, handle, peer, log: logNode, state: 'starting', hasGivenUp: false }
    this.life = life
    return life
  }

  jump(byMs: number): void {
    if (this.life === undefined) return
    this.life.clock.offMs += byMs
    this.#highestOffMs = Math.max(this.#highestOffMs, this.life.clock.offMs)
  }

  /** The process is gone, in the middle of whatever it does. */
  crash(): void {
    const { life } = this
    if (life === undefined) return
    life.state = 'dead'
    life.clock.stop()
    life.handle.crash()
    life.peer?.crash()
    life.log?.crash()
    this.life = undefined
  }

  #webhook(): Webhook {
    return {
      beforeSend: () => this.#misbehave('beforeSend', (): BeforeSendAnswer => ({ code: 0 })),
      notify: () => this.#misbehave('notify', () => undefined),
    }
  }

  /** As a host that hangs, or throws, or answers. */
  #misbehave<T>(what: Hanging, answer: () => T): T | Promise<T> {
    const how = this.misbehaving.get(what)
    if (how === 'throw') throw new Error(PLANNED)
    if (how === 'hang') return new Promise(() => {})
    return answer()
  }
}
