/**
 * One log that all nodes agree on, in JetStream streams: with replicas each of them is a Raft group. Power loss: an entry that
 * is acknowledged is on a majority of the servers, on their disks as far as their `sync_interval` says. A slow server makes
 * entries larger; beyond the bounds proposals are turned away. Close ends all waits and leaves the streams as they are.
 */
import { randomBytes } from 'node:crypto'
import type { WaitSignal } from '../../contracts/abort-group.ts'
import type { AppendResult } from '../../contracts/message-store.ts'
import type { Replicator, ReplicatorHost } from '../../contracts/replicator.ts'
import { IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { loadDriver, type ClusterConnection } from './connection.ts'
import { JetStream, JetStreamFailure } from './jetstream.ts'
import type { DecodedEntry } from './log-entry.ts'
import { Isolation } from './isolation.ts'
import { LogDigests } from './log-digests.ts'
import { LogFollower } from './log-follower.ts'
import { checkLogOptions, streamName, subjectName, type LogLimits, type LogProblem, type NatsLogOptions } from './log-options.ts'
import { LogProposer } from './log-proposer.ts'
import { checkServer, endOfPatience, ensureStreams, insist, type Patience } from './log-streams.ts'
import { partitionOf, partitionOfLane } from './partitions.ts'
import { Snapshots } from './snapshots.ts'

/** Where one partition stands on this node. */
export interface PartitionStatus {
  /** its stream */
  readonly log: string
  /** the last entry that is in this node's store */
  readonly appliedIndex: number
  /** the last entry that this node knows to be there: its own at once, those of others when they come, or some seconds later if they do not */
  readonly lastIndex: number
  /** messages that have been proposed here and wait for their apply */
  readonly queuedCount: number
  /** it hears from the stream; false for a moment after a server or the connection was lost */
  readonly isFollowing: boolean
  /** why it will not go on by itself; the engine has to be started again once that is mended */
  readonly stopped: IMError | undefined
}

export interface NatsReplicatorStatus {
  readonly isConnected: boolean
  readonly isStarted: boolean
  /** empty before `start` */
  readonly partitions: readonly PartitionStatus[]
}

interface Partition {
  readonly follower: LogFollower
  readonly proposer: LogProposer
}

const CLOSE_LIMIT_MS = 5_000
/** The same problem of the same stream is told once in this time. */
const REPORT_EVERY_MS = 5_000
const ASK_TIMEOUT_MS = 2_000
const DEFAULT_BEAT_MS = 1_000

export class NatsReplicator implements Replicator {
  readonly #connection: ClusterConnection
  readonly #options: NatsLogOptions
  readonly #limits: LogLimits
  readonly #beatMs: number
  readonly #boot = randomBytes(8).toString('hex')
  readonly #reported = new Map<string, number>()
  #host: ReplicatorHost | undefined
  #partitions: Partition[] = []
  #number = 0
  #maxPayloadBytes = 0
  #isStarted = false
  #isHolding = false
  #closing: Promise<void> | undefined
  #unwatch: (() => void) | undefined
  #unwatchLeaders: (() => void) | undefined
  #isolation: Isolation | undefined
  #snapshots: Snapshots | undefined
  #digests: LogDigests | undefined
  /** ends what `start` waits for */
  #wakeStart: (() => void) | undefined

  /**
   * @param beatMs  how often it tells the other nodes what it has read
   * @throws TypeError for an option out of its range
   */
  constructor(connection: ClusterConnection, options: NatsLogOptions, beatMs = DEFAULT_BEAT_MS) {
    this.#connection = connection
    this.#beatMs = beatMs
    this.#options = options
    this.#limits = checkLogOptions(options)
  }

  /**
   * Resolves when this node has applied everything that was in the log as it started.
   * @throws IM_NOT_SUPPORTED  the host's store cannot keep how far a log has been applied
   * @throws IM_LOG_UNFIT  the servers, or streams that are there, are not what the log needs
   * @throws IM_CLUSTER_UNAVAILABLE  within `startTimeoutMs` there was no majority of servers, or too much was missed
   * @throws IM_LOG_GAP, IM_LOG_REPLACED, IM_LOG_FORMAT, IM_LOG_CORRUPT  what is in the log cannot be applied
   * @throws IM_LOG_DIVERGED  as many other nodes have read something else in it, or more
   */
  async start(host: ReplicatorHost): Promise<void> {
    if (this.#host !== undefined || this.#closing !== undefined) throw new TypeError('imengine: this replicator has been started already')
    this.#host = host
    if (host.logPosition === undefined) {
      throw new IMError('IM_NOT_SUPPORTED', {
        detail: 'the message store has no logPosition, so that after a crash nobody would know which entries of the log it holds',
      })
    }
    const patience = this.#patience()
    try {
      await this.#open(host, patience)
      await this.#caughtUp(patience)
      this.#isStarted = true
      this.#snapshots?.serve()
    } catch (error) {
      const failure = endOfPatience(error, this.#limits)
      await this.close()
      throw failure
    }
  }

  propose(key: ChannelKey, messages: readonly Message[], signal: WaitSignal): Promise<readonly AppendResult[]> {
    const partition = this.#partitions[partitionOf(key, this.#limits.partitionCount)]
    if (partition === undefined || !this.#isStarted) return Promise.reject(new IMError('IM_NOT_RUNNING', { detail: 'the replicator is not started' }))
    return partition.proposer.propose(key, messages, signal)
  }

  gather(key: ChannelKey, count: number, bytes: number): Promise<void> | undefined {
    return this.#partitions[partitionOf(key, this.#limits.partitionCount)]?.proposer.gather(count, bytes)
  }

  operate(lane: string, operation: Uint8Array, signal: WaitSignal): Promise<unknown> {
    const partition = this.#partitions[partitionOfLane(lane, this.#limits.partitionCount)]
    if (partition === undefined || !this.#isStarted) return Promise.reject(new IMError('IM_NOT_RUNNING', { detail: 'the replicator is not started' }))
    return partition.proposer.operate(lane, operation, signal)
  }

  logOf(key: ChannelKey): string {
    return streamName(this.#limits, partitionOf(key, this.#limits.partitionCount))
  }

  status(): NatsReplicatorStatus {
    return {
      isConnected: this.#connection.isConnected,
      isStarted: this.#isStarted && this.#closing === undefined,
      partitions: this.#partitions.map(({ follower, proposer }, partition) => ({
        log: streamName(this.#limits, partition),
        appliedIndex: follower.appliedSeq,
        lastIndex: follower.lastSeq,
        queuedCount: proposer.queuedCount,
        isFollowing: follower.isFollowing,
        stopped: follower.stopped,
      })),
    }
  }

  /** Whoever waits is told IM_REPLICATION_TIMEOUT. An apply under way is waited for, for some seconds. Never rejects. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close())
  }

  async #close(): Promise<void> {
    const error = new IMError('IM_REPLICATION_TIMEOUT', {
      detail: 'closed before it was applied here',
      ...(this.#host === undefined ? {} : { context: { nodeID: this.#host.nodeID } }),
    })
    for (const { proposer } of this.#partitions) proposer.end(error)
    this.#unwatch?.()
    this.#unwatchLeaders?.()
    this.#isolation?.close()
    this.#snapshots?.close()
    this.#digests?.close()
    this.#wakeStart?.()
    const closed = Promise.all(this.#partitions.map(({ follower }) => follower.close()))
    if (this.#isHolding) {
      this.#isHolding = false
      await this.#connection.release()
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_LIMIT_MS)
    })
    await Promise.race([closed, late])
    clearTimeout(timer)
  }

  async #open(host: ReplicatorHost, patience: Patience): Promise<void> {
    const nats = await this.#connection.acquire()
    if (this.#closing !== undefined) {
      await this.#connection.release()
      throw closedWhileStarting()
    }
    this.#isHolding = true
    const { headers } = await loadDriver(() => import('@nats-io/transport-node'), '@nats-io/transport-node')
    const jetStream = new JetStream(nats, headers)
    checkServer(nats.info, this.#limits)
    await insist(patience, this.#limits, async () => {
      try {
        await jetStream.checkAccount(patience.atMost(ASK_TIMEOUT_MS))
      } catch (error) {
        const isOff = error instanceof JetStreamFailure && error.kind === 'no-responders' && nats.info?.jetstream !== true
        throw isOff ? new IMError('IM_LOG_UNFIT', { detail: 'JetStream is off', cause: error }) : error
      }
    })
    await ensureStreams(jetStream, this.#limits, patience)
    this.#snapshots = new Snapshots({
      nats,
      name: this.#limits.name,
      host,
      maxPayloadBytes: () => this.#connection.maxPayloadBytes,
      positions: () => this.#soundPositions(),
      report: (error) => this.#report({ error, log: undefined, isStopped: false }),
    })
    const isRestored = this.#options.recover === undefined && (await this.#bringUp(host, jetStream, patience))
    const positions = await this.#positionsOf(host)
    if (this.#closing !== undefined) throw closedWhileStarting() // `close` has ended what there was, and ends nothing made from here on
    this.#isolation = new Isolation({
      afterMs: this.#limits.isolatedAfterMs,
      silentAfterMs: SILENT_TIMES * this.#limits.isolatedAfterMs,
      isConnected: () => this.#connection.isConnected,
      isHearing: () => this.#living.length === 0 || this.#living.some(({ follower }) => follower.isFollowing),
      isFollowing: () => this.#living.every(({ follower }) => follower.isFollowing),
      catchUp: () => this.#catchUp(),
      tell: (isIsolated) => host.isolated(isIsolated),
    })
    this.#unwatch = this.#connection.watch((state) => {
      if (state.name === 'connected') this.#reconnected()
    })
    this.#partitions = positions.map((_, partition) => this.#partition(host, jetStream, partition))
    this.#digests = new LogDigests({
      nats,
      name: this.#limits.name,
      nodeID: host.nodeID,
      boot: this.#boot,
      beatMs: this.#beatMs,
      isConnected: () => this.#connection.isConnected,
      logs: this.#partitions.map(({ follower }, partition) => ({
        log: streamName(this.#limits, partition),
        isFresh: isRestored || positions[partition] === 0,
        isStopped: () => follower.stopped !== undefined,
        stop: (error) => follower.stop(error),
      })),
      report: this.#report,
    })
    const logs = this.#partitions.map((_, partition) => streamName(this.#limits, partition))
    this.#unwatchLeaders = jetStream.watchLeaders(logs, (log) => {
      const { follower, proposer } = this.#partitions[logs.indexOf(log)]!
      follower.elected()
      proposer.retry()
    })
    for (const [partition, position] of positions.entries()) this.#partitions[partition]!.follower.start(position)
  }

  /** What another node may begin with; none while any of it is in doubt, or has stopped: it may be what should not be copied. */
  #soundPositions(): Readonly<Record<string, number>> | undefined {
    if (this.#digests?.isInDoubt !== false || this.#living.length < this.#partitions.length) return undefined
    return Object.fromEntries(this.status().partitions.map(({ log, appliedIndex }) => [log, appliedIndex]))
  }

  /**
   * A node that has been away for longer than the log reaches back begins with what another one has. One that has only come to no
   * position yet does not: its storage may hold what no log has brought, and a snapshot takes the place of everything.
   * @returns whether it does
   */
  async #bringUp(host: ReplicatorHost, jetStream: JetStream, patience: Patience): Promise<boolean> {
    const needed = new Map<string, number>()
    let isBehind = false
    const positions = await this.#positionsOf(host)
    for (const [partition, position] of positions.entries()) {
      const log = streamName(this.#limits, partition)
      const { state } = await insist(patience, this.#limits, () => jetStream.streamInfo(log, patience.atMost(ASK_TIMEOUT_MS)))
      needed.set(log, state.first_seq - 1) // of all of them: a snapshot takes the place of everything
      if (state.first_seq > position + 1) isBehind = true
    }
    // When nobody can help, the followers find the gap and say so.
    return isBehind && (await this.#snapshots!.fetch(needed))
  }

  #positionsOf(host: ReplicatorHost): Promise<number[]> {
    const logs = Array.from({ length: this.#limits.partitionCount }, (_, partition) => streamName(this.#limits, partition))
    return Promise.all(logs.map(async (log) => host.logPosition!(log)))
  }

  #partition(host: ReplicatorHost, jetStream: JetStream, partition: number): Partition {
    const log = streamName(this.#limits, partition)
    const isConnected = (): boolean => this.#connection.isConnected
    const maxPayloadBytes = (): number => (this.#maxPayloadBytes = this.#connection.maxPayloadBytes || this.#maxPayloadBytes)
    const shared = { log, limits: this.#limits, jetStream, isConnected, maxPayloadBytes, report: this.#report }
    const follower: LogFollower = new LogFollower({
      ...shared,
      host,
      recover: this.#options.recover,
      applied: (entry, results, seq) => {
        this.#digests?.applied(partition, seq, entry.checksum)
        if (this.#isOurs(host, entry)) proposer.applied(entry, results, seq)
      },
      moved: () => {
        if (follower.stopped !== undefined) {
          proposer.end(follower.stopped)
          this.#isolation?.stopped()
        }
        this.#wakeStart?.()
      },
    })
    const proposer: LogProposer = new LogProposer({
      ...shared,
      subject: subjectName(this.#limits, partition),
      nodeID: host.nodeID,
      boot: this.#boot,
      nextNumber: () => ++this.#number,
      know: (seq) => follower.know(seq),
      diverged: (error) => follower.stop(error),
    })
    return { follower, proposer }
  }

  #isOurs({ nodeID }: ReplicatorHost, entry: DecodedEntry): boolean {
    return entry.nodeID === nodeID && entry.boot === this.#boot
  }

  /** Those that have not stopped: what has is no sign of anything but its own end. */
  get #living(): readonly Partition[] {
    return this.#partitions.filter(({ follower }) => follower.stopped === undefined)
  }

  /** @returns whether all partitions are where their streams ended when each was first found to be followed; to be asked again and again */
  #catchUp(): () => boolean {
    const targets: (number | undefined)[] = []
    return () => {
      const behind = this.#partitions.filter(({ follower }, partition) => {
        if (follower.stopped !== undefined) return false
        if (follower.isFollowing) targets[partition] ??= follower.lastSeq
        const target = targets[partition]
        return target === undefined || follower.appliedSeq < target
      })
      return behind.length === 0
    }
  }

  async #caughtUp(patience: Patience): Promise<void> {
    const isCaughtUp = this.#catchUp()
    for (;;) {
      for (const { follower } of this.#partitions) if (follower.stopped !== undefined) throw follower.stopped
      if (isCaughtUp()) return
      await patience.pause(CATCH_UP_LOOK_MS, undefined)
    }
  }

  #patience(): Patience {
    const deadlineMs = performance.now() + this.#limits.startTimeoutMs
    const leftMs = (): number => Math.max(1, deadlineMs - performance.now())
    return {
      atMost: (ms) => Math.ceil(Math.min(ms, leftMs())),
      pause: async (ms, because) => {
        if (this.#closing !== undefined) throw closedWhileStarting()
        if (performance.now() >= deadlineMs) throw endOfPatience(because ?? this.#tooSlow(), this.#limits)
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(ms, leftMs()))
          this.#wakeStart = () => (clearTimeout(timer), resolve())
        })
        this.#wakeStart = undefined
        if (this.#closing !== undefined) throw closedWhileStarting()
      },
    }
  }

  #tooSlow(): IMError {
    const missing = this.status().partitions.map(({ log, appliedIndex, lastIndex }) => `${log} ${appliedIndex} of ${lastIndex}`)
    return new IMError('IM_CLUSTER_UNAVAILABLE', { detail: `not everything was applied within ${this.#limits.startTimeoutMs} ms: ${missing.join(', ')}` })
  }

  #reconnected(): void {
    for (const { follower, proposer } of this.#partitions) {
      follower.restart()
      proposer.retry()
    }
  }

  /** While a cluster is away the same is found out again and again. */
  readonly #report = (problem: LogProblem): void => {
    const { onProblem } = this.#options
    if (onProblem === undefined || this.#closing !== undefined) return
    const name = `${problem.log} ${problem.error.code} ${problem.isStopped}`
    const nowMs = performance.now()
    if (nowMs - (this.#reported.get(name) ?? -Infinity) < REPORT_EVERY_MS) return
    this.#reported.set(name, nowMs)
    try {
      onProblem(problem)
    } catch {
      // Whoever listens has no say in whether the log goes on.
    }
  }
}

/** A new leader takes the servers up to nine seconds, in which none of the streams may bring anything. */
const SILENT_TIMES = 3
/** Progress wakes it earlier. */
const CATCH_UP_LOOK_MS = 100

function closedWhileStarting(): IMError {
  return new IMError('IM_NOT_RUNNING', { detail: 'closed while it was starting' })
}
