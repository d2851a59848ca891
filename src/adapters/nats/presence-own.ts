import { randomBytes } from 'node:crypto'
import type { PresenceEntry } from '../../contracts/presence.ts'
import { asIMError, IMError } from '../../errors.ts'
import type { PresenceBucket } from './presence-bucket.ts'
import { MISSED_BEATS } from './presence-view.ts'
import { encodeAnnouncement, encodeBeat, nodeKey, userKey, type AnnouncedConnection } from './presence-wire.ts'

export interface OwnNodeOptions {
  readonly nodeID: number
  readonly bucket: PresenceBucket
  readonly nowMs: () => number
  /** heartbeats are told to the others with it until one says otherwise; 0 = not known */
  readonly intervalMs: number
  /** from a change to its being written, in milliseconds */
  readonly writeTimeoutMs: number
  /** writes under way */
  readonly maxWrites: number
  /** everything is written again within a third of it */
  readonly maxAgeMs: number
}

interface Waiter {
  readonly timer: NodeJS.Timeout
  resolve(): void
  reject(error: IMError): void
}

interface OwnUser {
  readonly uid: string
  readonly connections: Map<string, AnnouncedConnection>
  /** for the next write */
  waiters: Waiter[]
  /** for the one under way */
  riders: Waiter[]
  isWriting: boolean
  /** changed since its last write began */
  isDirty: boolean
  writtenMs: number
}

const RETRY_PAUSE_MS = 200

/**
 * What this node announces of itself. The map here is the truth, the bucket follows: each user's connections are one value, of
 * which one write is under way at a time and the next one takes everything that has changed meanwhile.
 */
export class OwnNode {
  readonly nodeID: number
  readonly #options: OwnNodeOptions
  /** those written longest ago first */
  readonly #users = new Map<string, OwnUser>()
  readonly #uidByConnectionID = new Map<string, string>()
  /** Those that are dirty and not being written, from `#head` on. An array: a set walks over all it has lost to reach its first. */
  #queue: OwnUser[] = []
  #head = 0
  #generation = newGeneration()
  /** of the beat that has announced this generation; 0 = not yet */
  #beatRevision = 0
  /** when the others were last told that this node lives; -Infinity = never in this generation */
  #toldMs = -Infinity
  #intervalMs: number
  #calledMs: number
  /** its host was silent: hidden until it beats again */
  #isOverdue = false
  #beating: Promise<void> | undefined
  #writeCount = 0
  #retryTimer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: OwnNodeOptions) {
    this.#options = options
    this.nodeID = options.nodeID
    this.#intervalMs = options.intervalMs
    this.#calledMs = Infinity // until the first heartbeat it does not run out
  }

  get generation(): string {
    return this.#generation
  }

  get beatRevision(): number {
    return this.#beatRevision
  }

  get userCount(): number {
    return this.#users.size
  }

  /** What is held here is shown here, whether or not the others can be told. */
  isLive(nowMs: number): boolean {
    if (this.#intervalMs > 0 && this.#calledMs !== Infinity && nowMs - this.#calledMs >= MISSED_BEATS * this.#intervalMs) this.#fallSilent()
    return !this.#isOverdue
  }

  holds(uid: string): boolean {
    return (this.#users.get(uid)?.connections.size ?? 0) > 0
  }

  devicesOf(uid: string): PresenceEntry[] {
    return [...(this.#users.get(uid)?.connections.values() ?? [])].map((connection) => ({ uid, nodeID: this.nodeID, ...connection }))
  }

  online({ uid, connectionID, deviceFlag, deviceLevel }: PresenceEntry): Promise<void> {
    this.isLive(this.#options.nowMs())
    const earlier = this.#uidByConnectionID.get(connectionID)
    if (earlier !== undefined && earlier !== uid) this.#take(earlier, connectionID)
    let user = this.#users.get(uid)
    if (user === undefined) this.#users.set(uid, (user = newUser(uid)))
    this.#uidByConnectionID.set(connectionID, uid)
    user.connections.set(connectionID, { connectionID, deviceFlag, deviceLevel })
    return this.#written(user)
  }

  offline(connectionID: string): Promise<void> {
    const uid = this.#uidByConnectionID.get(connectionID)
    const user = uid === undefined ? undefined : this.#take(uid, connectionID)
    return user === undefined ? Promise.resolve() : this.#written(user)
  }

  /** @throws IM_PRESENCE_UNAVAILABLE  the others have not been told */
  async heartbeat(intervalMs: number): Promise<void> {
    const nowMs = this.#options.nowMs()
    this.isLive(nowMs)
    this.#isOverdue = false
    this.#calledMs = nowMs
    this.#intervalMs = intervalMs
    // The others have taken this node for dead, and may have cleared away what it had announced.
    if (this.#beatRevision > 0 && nowMs - this.#toldMs >= MISSED_BEATS * intervalMs) this.startAnew()
    await this.#beat()
    this.#refresh(nowMs)
    this.#pump()
  }

  /** Under a generation of its own, everything is announced again. */
  startAnew(): void {
    this.#generation = newGeneration()
    this.#beatRevision = 0
    for (const user of this.#users.values()) this.#soil(user)
    this.#pump()
  }

  /** The bucket shows these of our users in this generation: write what is missing, take out what is too much. */
  reconcile(shownUIDs: ReadonlySet<string>): void {
    for (const user of this.#users.values()) if (!shownUIDs.has(user.uid) && user.connections.size > 0) this.#soil(user)
    for (const uid of shownUIDs) {
      if (this.#users.has(uid)) continue
      const user = newUser(uid)
      this.#users.set(uid, user)
      this.#soil(user)
    }
    this.#pump()
  }

  /** There is a way to the bucket again. */
  resume(): void {
    this.#pump()
  }

  /** Nothing is written any more; who waits is told `error`. */
  close(error: IMError): void {
    this.#isClosed = true
    clearTimeout(this.#retryTimer)
    for (const user of this.#users.values()) settle(user, error)
    this.#users.clear()
    this.#uidByConnectionID.clear()
    this.#queue = []
    this.#head = 0
  }

  #take(uid: string, connectionID: string): OwnUser | undefined {
    this.#uidByConnectionID.delete(connectionID)
    const user = this.#users.get(uid)
    user?.connections.delete(connectionID)
    if (user !== undefined) this.#soil(user)
    return user
  }

  /** Its value in the bucket is not what it should be. */
  #soil(user: OwnUser): void {
    if (!user.isDirty && !user.isWriting) this.#queue.push(user)
    user.isDirty = true
  }

  #fallSilent(): void {
    this.#calledMs = Infinity
    this.#isOverdue = true
    for (const user of this.#users.values()) settle(user, new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'this node was silent' }))
    this.#users.clear()
    this.#uidByConnectionID.clear()
    this.#queue = []
    this.#head = 0
    this.#generation = newGeneration()
    this.#beatRevision = 0
  }

  #written(user: OwnUser): Promise<void> {
    this.#soil(user)
    const { nodeID } = this
    const written = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        user.waiters = user.waiters.filter((one) => one !== waiter)
        reject(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'it was not written in time', context: { uid: user.uid, nodeID } }))
      }, this.#options.writeTimeoutMs)
      const waiter: Waiter = { timer, resolve, reject }
      user.waiters.push(waiter)
    })
    this.#pump()
    return written
  }

  /** Tell the others that this node lives. Those who come while it is told wait for the same. */
  #beat(): Promise<void> {
    return (this.#beating ??= this.#writeBeat().finally(() => {
      this.#beating = undefined
    }))
  }

  async #writeBeat(): Promise<void> {
    const { bucket, nowMs } = this.#options
    const generation = this.#generation
    const beganMs = nowMs()
    let revision: number
    try {
      revision = await bucket.put(nodeKey(this.nodeID), encodeBeat({ generation, intervalMs: this.#intervalMs }))
    } catch (cause) {
      throw asIMError(cause, 'IM_PRESENCE_UNAVAILABLE', { nodeID: this.nodeID })
    }
    if (this.#generation !== generation || this.#isClosed) return
    this.#beatRevision = revision
    this.#toldMs = beganMs
  }

  #pump(): void {
    if (this.#isClosed || this.#head === this.#queue.length || !this.#options.bucket.isReachable) return
    if (this.#beatRevision === 0) {
      // First the generation, then what belongs to it: who reads the bucket in order would drop it otherwise.
      if (this.#beating === undefined) this.#beat().then(() => this.#pump(), () => this.#retryLater())
      return
    }
    while (this.#head < this.#queue.length && this.#writeCount < this.#options.maxWrites) {
      const user = this.#queue[this.#head++]!
      if (this.#users.get(user.uid) === user) void this.#write(user)
    }
    if (this.#head < 1_024 || 2 * this.#head < this.#queue.length) return
    this.#queue.splice(0, this.#head)
    this.#head = 0
  }

  async #write(user: OwnUser): Promise<void> {
    const { bucket, nowMs } = this.#options
    const { uid, connections } = user
    const generation = this.#generation
    const isGone = connections.size === 0
    user.riders = user.waiters
    user.waiters = []
    user.isWriting = true
    user.isDirty = false
    this.#writeCount++
    let isWritten = true
    try {
      const key = userKey(this.nodeID, uid)
      if (isGone) await bucket.remove(key)
      else await bucket.put(key, encodeAnnouncement(generation, uid, connections.values()))
    } catch {
      isWritten = false // tried again until it works; who waits is told by the time limit
    }
    this.#writeCount--
    user.isWriting = false
    if (this.#users.get(uid) !== user) return this.#pump() // forgotten meanwhile, and who waited has been told
    if (isWritten && generation === this.#generation) {
      for (const { timer, resolve } of user.riders.splice(0)) {
        clearTimeout(timer)
        resolve()
      }
      user.writtenMs = nowMs()
      this.#users.delete(uid)
      if (connections.size > 0 || user.isDirty) this.#users.set(uid, user) // behind the others
      if (user.isDirty) this.#queue.push(user)
    } else {
      user.waiters.unshift(...user.riders.splice(0))
      user.isDirty = true
      this.#queue.push(user)
      if (!isWritten) return this.#retryLater()
    }
    this.#pump()
  }

  #retryLater(): void {
    if (this.#isClosed) return
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      this.#pump()
    }, RETRY_PAUSE_MS)
  }

  /** Write again what was written longest ago, so that nothing that lives reaches the age at which the servers drop it. */
  #refresh(nowMs: number): void {
    const periodMs = this.#options.maxAgeMs / 3
    let left = Math.ceil((2 * this.#users.size * this.#intervalMs) / periodMs)
    for (const user of this.#users.values()) {
      if (left-- <= 0 || nowMs - user.writtenMs < periodMs) return
      if (user.writtenMs > 0) this.#soil(user)
    }
  }
}

function newUser(uid: string): OwnUser {
  return { uid, connections: new Map(), waiters: [], riders: [], isWriting: false, isDirty: false, writtenMs: 0 }
}

function newGeneration(): string {
  return randomBytes(9).toString('base64url')
}

function settle(user: OwnUser, error: IMError): void {
  for (const { timer, reject } of [...user.riders.splice(0), ...user.waiters.splice(0)]) {
    clearTimeout(timer)
    reject(error)
  }
}
