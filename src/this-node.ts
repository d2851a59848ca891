import type { Limits } from './config.ts'
import type { Clock } from './contracts/clock.ts'
import type { Logger } from './contracts/logger.ts'
import type { Presence } from './contracts/presence.ts'
import { asIMError } from './errors.ts'
import type { Parts } from './parts.ts'
import type { FactEmitter } from './services/fact-emitter.ts'

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
  readonly isRunning: () => boolean
}

/** This node among the others: tells presence that it lives, and knows whether it has lost them. */
export class ThisNode {
  readonly #options: ThisNodeOptions
  #isIsolated = false
  /** when one was tried last */
  #lastHeartbeatMs = 0
  #presenceBeatMs = 0

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

  /** Heartbeats, until the engine's timers end. */
  start(): void {
    const { presence } = this.#options
    if (presence !== undefined) this.#scheduleHeartbeat(presence)
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

  /** Tell presence that this node lives; after a pause that outlived its entries, announce everyone again. */
  #scheduleHeartbeat(presence: Presence): void {
    const { limits, clock, parts, isRunning } = this.#options
    const intervalMs = limits.presenceHeartbeatMs
    this.#lastHeartbeatMs = this.#presenceBeatMs = clock.monotonicMs()
    const beat = (): void => {
      if (!isRunning()) return
      const nowMs = clock.monotonicMs()
      const wasSilent = nowMs - this.#lastHeartbeatMs >= 3 * intervalMs
      this.#lastHeartbeatMs = nowMs
      void this.#beatInTime(presence, wasSilent)
      parts.timers.after(intervalMs, beat)
    }
    parts.timers.after(intervalMs, beat)
  }

  /** Never rejects. */
  async #beatInTime(presence: Presence, announceAll: boolean): Promise<void> {
    const { nodeID, limits, parts, facts } = this.#options
    try {
      await parts.limited(() => this.#beat(presence, announceAll), limits.presenceHeartbeatMs)
    } catch (error) {
      facts.report(asIMError(error, 'IM_PRESENCE_UNAVAILABLE', { nodeID }))
    }
  }

  async #beat(presence: Presence, announceAll: boolean): Promise<void> {
    const { nodeID, limits, clock, parts, settlePresence } = this.#options
    await presence.heartbeat(nodeID, limits.presenceHeartbeatMs)
    this.#presenceBeatMs = clock.monotonicMs()
    await settlePresence(presence)
    if (!announceAll) return
    const { registry } = parts
    for (const { info } of [...registry.all()]) {
      const { uid, connectionID, deviceFlag, deviceLevel } = info
      if (registry.byID(connectionID) === undefined) continue
      const entry = { uid, nodeID, connectionID, deviceFlag, deviceLevel }
      await presence.online(entry)
      if (registry.byID(connectionID) === undefined) await presence.offline(entry) // it has left meanwhile
    }
  }
}
