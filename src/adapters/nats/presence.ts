/**
 * Who is connected where, in a key-value bucket of JetStream that every node follows into a map of its own: answers come from the map, and no
 * message waits for the servers. Power loss ends the connections together with what is known of them, which is why the bucket is in
 * memory by default. While the servers are slow or gone, logins wait and then fail; the users of other nodes are out of every
 * answer when their nodes have not been heard for three heartbeats. Close leaves what was announced to `leave` and to the others.
 */
import type { KvEntry } from '@nats-io/kv'
import type { QueuedIterator } from '@nats-io/transport-node'
import type { Presence, PresenceEntry, PresenceNode } from '../../contracts/presence.ts'
import { asIMError, IMError } from '../../errors.ts'
import type { ClusterConnection } from './connection.ts'
import { PresenceBucket } from './presence-bucket.ts'
import { OwnNode } from './presence-own.ts'
import { PresenceView } from './presence-view.ts'
import { decodeAnnouncement, decodeBeat, encodeBeat, nodeKey, parseKey, TIME_KEY } from './presence-wire.ts'

export interface NatsPresenceOptions {
  readonly connection: ClusterConnection
  /** of the cluster; the bucket is `<name>_presence` */
  readonly name: string
  readonly replicas: number
  readonly presenceStorage: 'memory' | 'file'
  readonly presenceMaxAgeMs: number
  readonly presenceWriteTimeoutMs: number
  readonly maxPresenceWrites: number
  /** a clock that does not jump */
  readonly nowMs: () => number
  readonly report: (error: IMError) => void
}

/** Between two tries to follow the bucket. */
const FOLLOW_PAUSE_MS = 200

/** From the first answer of the servers to everything that is in the bucket; a large one takes seconds. */
const SETTLE_LIMIT_MS = 30_000

/** Void entries cleared away with one beat. */
const MAX_SWEPT = 10_000

/** What the bucket shows of one of our own nodes. */
interface Shown {
  readonly uids: Set<string>
  /** undefined: its beat has been written again meanwhile, and is still to come */
  beat: string | undefined
}

/** One run through the bucket and what follows it. */
interface Following {
  readonly view: PresenceView
  readonly entries: QueuedIterator<KvEntry>
  /** when an entry of this revision has come, everything before it has */
  readonly settledRevision: number
  /** what the bucket shows of our own nodes, while it is not settled */
  readonly own: Map<number, Shown>
  readonly beganMs: number
  isSettled: boolean
  lastRevision: number
}

/**
 * Keys are of one user on one node, so that a login is one small write, however many users a node has; that a node lives is one
 * key more. What a node announces carries its generation: one write makes all of an earlier life void for everybody.
 */
export class NatsPresence implements Presence {
  readonly #options: NatsPresenceOptions
  readonly #bucket: PresenceBucket
  readonly #own = new Map<number, OwnNode>()
  #view: PresenceView
  #following: Following | undefined
  #starting: Promise<void> | undefined
  #loop: Promise<void> = Promise.resolve()
  #closing: Promise<void> | undefined
  #isClosed = true
  #intervalMs = 0
  #wake: () => void = () => {}
  #settled: () => void = () => {}
  #unwatch: () => void = () => {}
  #isMaintaining = false

  constructor(options: NatsPresenceOptions) {
    const { connection, name, replicas, presenceStorage, presenceMaxAgeMs, presenceWriteTimeoutMs, nowMs } = options
    this.#options = options
    this.#view = new PresenceView(nowMs)
    this.#bucket = new PresenceBucket({
      connection,
      bucketName: `${name}_presence`,
      replicas,
      storage: presenceStorage,
      maxAgeMs: presenceMaxAgeMs,
      writeTimeoutMs: presenceWriteTimeoutMs,
    })
  }

  /** users of other nodes that are held in the map */
  get uidCount(): number {
    return this.#view.uidCount
  }

  /** Follow the bucket; resolves when everything that was in it is known here. */
  start({ intervalMs }: Pick<PresenceNode, 'intervalMs'>): Promise<void> {
    if (this.#starting !== undefined) return this.#starting
    this.#intervalMs = intervalMs
    this.#bucket.keepFor(10 * intervalMs) // or a node that lives could be dropped between two beats
    if (this.#closing === undefined) this.#isClosed = false
    const starting = (this.#starting = this.#start(this.#closing))
    starting.catch(() => {
      if (this.#starting === starting) this.#starting = undefined
    })
    return starting
  }

  online(entry: PresenceEntry): Promise<void> {
    if (this.#isClosed) return Promise.reject(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'it is not started' }))
    return this.#ownNode(entry.nodeID).online(entry)
  }

  offline({ nodeID, connectionID }: PresenceEntry): Promise<void> {
    return this.#own.get(nodeID)?.offline(connectionID) ?? Promise.resolve()
  }

  locate(uids: readonly string[]): Map<string, readonly number[]> {
    const nowMs = this.#options.nowMs()
    const view = this.#view
    const live = [...this.#own.values()].filter((node) => node.isLive(nowMs))
    const located = new Map<string, readonly number[]>()
    let nodeIDs: number[] = []
    for (const uid of uids) {
      for (const node of live) if (node.holds(uid)) nodeIDs.push(node.nodeID)
      view.nodeIDsOf(uid, nowMs, nodeIDs)
      if (nodeIDs.length === 0) continue
      if (nodeIDs.length > 1) nodeIDs.sort((a, b) => a - b)
      located.set(uid, nodeIDs)
      nodeIDs = []
    }
    return located
  }

  devices(uid: string): PresenceEntry[] {
    const nowMs = this.#options.nowMs()
    const here = [...this.#own.values()].filter((node) => node.isLive(nowMs)).flatMap((node) => node.devicesOf(uid))
    return [...here, ...this.#view.devicesOf(uid, nowMs)]
  }

  async heartbeat(nodeID: number, intervalMs: number): Promise<void> {
    if (this.#isClosed) throw new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'it is not started' })
    const node = this.#ownNode(nodeID)
    const following = this.#following
    // What the bucket took an interval ago has not come back: whatever this run waits for, it hears nothing any more.
    const isDeaf = following?.isSettled === true ? node.beatRevision > following.lastRevision : this.#options.nowMs() - (following?.beganMs ?? Infinity) > SETTLE_LIMIT_MS
    if (isDeaf) following?.entries.stop()
    try {
      await node.heartbeat(intervalMs)
    } catch (error) {
      this.#following?.entries.stop() // it may be that there is no bucket any more
      throw error
    }
    void this.#maintain()
  }

  async leave(nodeID: number): Promise<void> {
    if (this.#isClosed) return // nothing has been announced: its start has failed, or it has ended
    this.#own.get(nodeID)?.close(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'the node has left' }))
    this.#own.delete(nodeID)
    this.#view.beat(nodeID, { generation: '', intervalMs: 0 }, 0, 0)
    try {
      await this.#bucket.put(nodeKey(nodeID), encodeBeat({ generation: '', intervalMs: 0 }))
    } catch (cause) {
      throw asIMError(cause, 'IM_PRESENCE_UNAVAILABLE', { nodeID })
    }
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close().finally(() => {
      this.#closing = undefined
    }))
  }

  async #start(closing: Promise<void> | undefined): Promise<void> {
    if (closing !== undefined) {
      await closing
      this.#isClosed = false
    }
    try {
      await this.#bucket.acquire()
      this.#unwatch = this.#options.connection.watch(({ name }) => {
        // A new connection is followed anew: what was written meanwhile is in the bucket, or the bucket is not there.
        this.#following?.entries.stop()
        if (name === 'connected') this.#wake()
      })
      await this.#bucket.ensure(() => this.#isClosed)
      const settled = new Promise<void>((resolve) => {
        this.#settled = resolve
      })
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new IMError('IM_CLUSTER_UNAVAILABLE', { detail: 'JetStream does not tell what is in the bucket of presence' })), SETTLE_LIMIT_MS)
      })
      this.#loop = this.#followForEver()
      await Promise.race([settled, late]).finally(() => clearTimeout(timer))
      if (this.#isClosed) throw new IMError('IM_ABORTED', { detail: 'presence was closed while it started' })
    } catch (error) {
      await this.#end()
      throw asIMError(error, 'IM_CLUSTER_UNAVAILABLE', {})
    }
  }

  async #close(): Promise<void> {
    this.#isClosed = true
    this.#settled()
    await this.#starting?.catch(() => undefined)
    this.#starting = undefined
    await this.#end()
  }

  async #end(): Promise<void> {
    this.#isClosed = true
    this.#unwatch()
    for (const node of this.#own.values()) node.close(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'it is closed' }))
    this.#own.clear()
    this.#following?.entries.stop()
    this.#wake()
    await this.#bucket.release() // what the loop waits for ends with it
    await this.#loop
    this.#view = new PresenceView(this.#options.nowMs)
  }

  #ownNode(nodeID: number): OwnNode {
    let node = this.#own.get(nodeID)
    if (node === undefined) {
      const { nowMs, presenceWriteTimeoutMs, maxPresenceWrites, presenceMaxAgeMs } = this.#options
      node = new OwnNode({
        nodeID,
        bucket: this.#bucket,
        nowMs,
        intervalMs: this.#intervalMs,
        writeTimeoutMs: presenceWriteTimeoutMs,
        maxWrites: maxPresenceWrites,
        maxAgeMs: presenceMaxAgeMs,
      })
      this.#own.set(nodeID, node)
      this.#view.forgetNode(nodeID)
    }
    return node
  }

  async #followForEver(): Promise<void> {
    while (!this.#isClosed) {
      try {
        if (this.#bucket.isReachable) await this.#follow()
      } catch (cause) {
        if (!this.#isClosed && this.#bucket.isReachable) this.#options.report(asIMError(cause, 'IM_PRESENCE_UNAVAILABLE', {}))
      }
      this.#following = undefined
      if (!this.#isClosed) await this.#pause(FOLLOW_PAUSE_MS)
    }
  }

  /** Ends when the bucket cannot be followed any longer. */
  async #follow(): Promise<void> {
    await this.#bucket.ensure(() => this.#isClosed || !this.#options.connection.isConnected)
    const settledRevision = await this.#bucket.put(TIME_KEY, '')
    const entries = await this.#bucket.watch()
    const { nowMs } = this.#options
    const following: Following = { view: new PresenceView(nowMs), entries, settledRevision, own: new Map(), beganMs: nowMs(), isSettled: false, lastRevision: 0 }
    this.#following = following
    if (this.#isClosed) return entries.stop()
    for await (const entry of entries) {
      this.#take(following, entry)
      if (!following.isSettled && entry.revision >= settledRevision) this.#settle(following, entry.created.getTime())
      following.lastRevision = entry.revision
    }
  }

  #settle(following: Following, serverNowMs: number): void {
    const { view, own } = following
    following.isSettled = true
    view.settle(serverNowMs)
    this.#view = view
    for (const node of this.#own.values()) {
      view.forgetNode(node.nodeID) // from before it was our own
      const shown = own.get(node.nodeID)
      if (node.beatRevision > 0 && shown?.beat !== undefined && shown.beat !== node.generation) node.startAnew()
      else node.reconcile(shown?.uids ?? new Set())
    }
    own.clear()
    this.#settled()
  }

  #take(following: Following, entry: KvEntry): void {
    const key = parseKey(entry.key)
    if (key === undefined || key.kind === 'time') return
    const { view } = following
    const { nodeID } = key
    const text = entry.operation === 'PUT' ? entry.string() : undefined
    const own = this.#own.get(nodeID)
    if (key.kind === 'node') {
      const beat = text === undefined ? undefined : decodeBeat(text)
      if (own !== undefined) return this.#takeOwnBeat(following, own, beat?.generation ?? '', entry.revision)
      if (beat === undefined) view.forgetNode(nodeID)
      else view.beat(nodeID, beat, entry.revision, entry.created.getTime())
      return
    }
    const announcement = text === undefined ? undefined : decodeAnnouncement(text)
    const uid = key.uid ?? announcement?.uid
    if (own !== undefined) {
      if (!following.isSettled && uid !== undefined && announcement?.generation === own.generation) this.#shownOf(following, nodeID).uids.add(uid)
    } else if (announcement === undefined || uid === undefined) view.remove(nodeID, key.suffix, uid)
    else view.put(nodeID, key.suffix, uid, announcement, entry.revision)
  }

  /** Somebody else has written the beat of one of our own nodes: it was declared dead, or another process goes by its number. */
  #takeOwnBeat(following: Following, own: OwnNode, generation: string, revision: number): void {
    if (!following.isSettled) this.#shownOf(following, own.nodeID).beat = generation
    else if (own.beatRevision > 0 && revision > own.beatRevision && generation !== own.generation) own.startAnew()
  }

  #shownOf({ own }: Following, nodeID: number): Shown {
    let shown = own.get(nodeID)
    if (shown === undefined) own.set(nodeID, (shown = { uids: new Set(), beat: undefined }))
    return shown
  }

  /** Declare nodes dead that have been silent for long, each only if it has not beaten since, and clear away what is void. */
  async #maintain(): Promise<void> {
    if (this.#isMaintaining || this.#following?.isSettled !== true) return
    const view = this.#view
    this.#isMaintaining = true
    try {
      for (const { nodeID, beatRevision } of view.silentNodes()) {
        await this.#bucket.put(nodeKey(nodeID), encodeBeat({ generation: '', intervalMs: 0 }), beatRevision)
      }
    } catch {
      // Another node was faster, or this one hears less than it believes; both show with the next beat.
    }
    const voidRevisions = await view.sweep(MAX_SWEPT, () => new Promise((resolve) => setImmediate(resolve)))
    // All see the same; one node of them does it, and what it does not come to, the servers drop at presenceMaxAgeMs.
    const isFirst = Math.min(...this.#own.keys()) < Math.min(...view.liveNodeIDs())
    if (isFirst) await this.#bucket.erase(voidRevisions)
    this.#isMaintaining = false
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
