import type { Limits } from './config.ts'
import type { Clock, TimerEntry } from './contracts/clock.ts'
import type { Logger } from './contracts/logger.ts'
import type { Presence, PresenceEntry } from './contracts/presence.ts'
import { asIMError } from './errors.ts'
import type { MaybePromise } from './model/maybe-promise.ts'
import type { Parts } from './parts.ts'
import type { FactEmitter } from './services/fact-emitter.ts'
import { inTime, Waits } from './services/time-limit.ts'

export interface ThisNodeOptions {
  readonly nodeID: number
  readonly limits: Limits
  readonly clock: Clock
  readonly logger: Logger
  readonly facts: FactEmitter
  readonly parts: Parts
  /** tell presence of connections that have gone, as far as it could not be told before */
  readonly settlePresence: (presence: Presence) => Promise<void>
  /** undefined on a single node */
  readonly presence: Presence | undefined
  /** what becomes of who is connected while this node has lost the others */
  readonly whenIsolated: 'close' | 'keep'
}

/** This node among the others: tells presence that it lives, and knows whether it has lost them. */
export class ThisNode {
  readonly #options: ThisNodeOptions
  #isIsolated = false
  /** when one was tried last */
  #lastHeartbeatMs = 0
  #presenceBeatMs = 0
  /** pauses behind which presence has forgotten who is connected here … */
  #silenceCount = 0
  /** … and how many of them had been when everybody was put down as owed last */
  #owedCount = 0
  /** whom presence has forgotten and has not been told again, by connection */
  readonly #owed = new Map<string, PresenceEntry>()
  #announcing: Promise<void> | undefined
  /** heartbeats' own, because they go on when a close has given up waiting for everything else; nobody ends one before its time */
  readonly #waits = new Waits()
  #timer: TimerEntry | undefined
  #beating: Promise<void> = Promise.resolve()
  #isStopped = false

  constructor(options: ThisNodeOptions) {
    this.#options = options
  }

  /** When presence took a heartbeat last; monotonic. */
  get presenceBeatMs(): number {
    return this.#presenceBeatMs
  }

  get isIsolated(): boolean {
    return this.#isIsolated
  }

  /** Nobody is to be connected here until this node has the others again. */
  get keepsClientsAway(): boolean {
    return this.#isIsolated && this.#options.whenIsolated !== 'keep'
  }

  /** Heartbeats, until `stop`: who is connected while the engine drains is found and pushed to as before. */
  start(): void {
    const { presence } = this.#options
    if (presence !== undefined) this.#scheduleHeartbeat(presence)
  }

  /** Nothing more is asked of presence. Resolves when what has been asked is answered, or has had its time: after that it can be left. */
  stop(): Promise<void> {
    this.#isStopped = true
    if (this.#timer !== undefined) this.#options.parts.timers.cancel(this.#timer)
    return this.#beating
  }

  /** This node has lost the others, or has them again: who is connected here is better off elsewhere until then. */
  setIsolated(isIsolated: boolean): void {
    if (this.#isIsolated === isIsolated) return
    this.#isIsolated = isIsolated
    const { nodeID, logger, facts, parts } = this.#options
    logger.warn({ nodeID, isIsolated }, isIsolated ? 'this node has lost the others' : 'this node has the others again')
    facts.emit('isolated', { nodeID, isIsolated })
    if (!this.keepsClientsAway) return
    for (const connection of [...parts.registry.sockets]) connection.end('isolated')
  }

  /** Tell presence that this node lives; after a pause that outlived its entries, everyone is owed to it. */
  #scheduleHeartbeat(presence: Presence): void {
    const { limits, clock, parts } = this.#options
    const intervalMs = limits.presenceHeartbeatMs
    this.#lastHeartbeatMs = this.#presenceBeatMs = clock.monotonicMs()
    const beat = (): void => {
      const nowMs = clock.monotonicMs()
      if (nowMs - this.#lastHeartbeatMs >= 3 * intervalMs) this.#silenceCount++
      this.#lastHeartbeatMs = nowMs
      this.#beating = this.#beatInTime(presence)
      this.#timer = parts.timers.after(intervalMs, beat)
    }
    this.#timer = parts.timers.after(intervalMs, beat)
  }

  /** Never rejects. */
  async #beatInTime(presence: Presence): Promise<void> {
    const { nodeID, limits, facts } = this.#options
    try {
      await this.#inTime(() => this.#beat(presence), limits.presenceHeartbeatMs)
    } catch (error) {
      if (this.#isStopped) return // what becomes of the last one, the leaving of presence will tell
      facts.report(asIMError(error, 'IM_PRESENCE_UNAVAILABLE', { nodeID }))
    }
  }

  async #beat(presence: Presence): Promise<void> {
    const { nodeID, limits, clock, settlePresence } = this.#options
    const silenceCount = this.#silenceCount
    await presence.heartbeat(nodeID, limits.presenceHeartbeatMs)
    if (this.#isStopped) return
    this.#presenceBeatMs = clock.monotonicMs()
    // Not before: presence forgets with the first heartbeat behind the pause, and that one may have failed together with the pause.
    if (silenceCount > this.#owedCount) this.#oweEverybody(silenceCount)
    // Side by side: who is here must not be missing because somebody who has gone cannot be told.
    await Promise.all([settlePresence(presence), this.#announce(presence)])
  }

  #oweEverybody(silenceCount: number): void {
    const { nodeID, parts } = this.#options
    this.#owedCount = silenceCount
    for (const { info } of parts.registry.all()) {
      const { uid, connectionID, deviceFlag, deviceLevel } = info
      this.#owed.set(connectionID, { uid, nodeID, connectionID, deviceFlag, deviceLevel })
    }
  }

  /** Many may take longer than a heartbeat: later ones wait for the same. */
  #announce(presence: Presence): Promise<void> | undefined {
    if (this.#announcing !== undefined || this.#owed.size === 0) return this.#announcing
    return (this.#announcing = this.#announceOwed(presence).finally(() => (this.#announcing = undefined)))
  }

  /** Each gets its try, and those that fail another one with the next heartbeat. @throws what the first that failed was told */
  async #announceOwed(presence: Presence): Promise<void> {
    const { limits, parts } = this.#options
    const { registry } = parts
    const failed: PresenceEntry[] = []
    let failure: unknown
    for (const [connectionID, entry] of this.#owed) {
      if (this.#isStopped) return
      this.#owed.delete(connectionID) // first: another pause, while we wait, owes it anew, and this loop comes to it once more
      const isHere = registry.byID(connectionID) !== undefined
      try {
        await this.#inTime(() => (isHere ? presence.online(entry) : presence.offline(entry)), limits.stepTimeoutMs)
        if (isHere && registry.byID(connectionID) === undefined) this.#owed.set(connectionID, entry) // it has left meanwhile
      } catch (error) {
        failure ??= error
        failed.push(entry)
      }
    }
    for (const entry of failed) this.#owed.set(entry.connectionID, entry)
    if (failed.length > 0) throw failure
  }

  #inTime<T>(ask: () => MaybePromise<T>, timeoutMs: number): Promise<T> {
    return inTime({ timers: this.#options.parts.timers, timeoutMs, waits: this.#waits }, ask)
  }
}
