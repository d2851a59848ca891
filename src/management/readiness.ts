import type { IMErrorCode } from '../errors.ts'

/** Why clients had better go to another node. */
export type NotReadyReason =
  /** `start` has not been called, or has not come back */
  | 'not-started'
  /** `close` has been called */
  | 'closing'
  /** this node has lost the others: the fact `isolated` */
  | 'isolated'
  /** storage has failed lately, and has stored nothing since */
  | 'storage-failing'
  /** a queue of events is near its bound, so that SENDs are refused, or about to be */
  | 'queue-full'
  /** no further socket is taken */
  | 'connections-full'
  /** the webhook does not take what there is to tell, and the outbox is near its bound */
  | 'outbox-full'
  /** a part of the log does not go on by itself */
  | 'log-stopped'
  | 'log-disconnected'
  /** this node has yet to apply more of the log than it should */
  | 'log-behind'
  /** no heartbeat has reached presence for three of them: the others count this node's users as gone */
  | 'presence-stale'

export interface NotReady {
  readonly reason: NotReadyReason
  /** which queue, which log, for how long: for people */
  readonly detail: string
}

export interface Readiness {
  readonly ready: boolean
  /** empty when it is ready */
  readonly reasons: readonly NotReady[]
}

/** How a replicator stands, as far as it says. */
interface LogStatus {
  readonly isConnected?: boolean
  readonly partitions: readonly { readonly log: string; readonly appliedIndex: number; readonly lastIndex: number; readonly stopped: { readonly code: IMErrorCode } | undefined }[]
}

export interface ReadinessCheckOptions {
  readonly state: () => 'new' | 'starting' | 'running' | 'closing' | 'closed'
  readonly isIsolated: () => boolean
  readonly monotonicMs: () => number
  /** messages stored since the start */
  readonly storedCount: () => number
  readonly storageFailureMs: number
  readonly queues: () => Readonly<Record<string, { readonly fullness: number }>>
  readonly sockets: () => { readonly count: number; readonly unauthenticatedCount: number }
  readonly maxConnections: number
  readonly maxUnauthenticated: number
  readonly outboxCount: () => number
  readonly maxOutboxCount: number
  /** undefined: there is no log, or it does not say */
  readonly log: (() => LogStatus) | undefined
  readonly maxLogLag: number
  /** when presence took the last heartbeat (monotonic); undefined without presence */
  readonly lastBeatMs: () => number | undefined
  readonly presenceHeartbeatMs: number
}

/** From here on a queue counts as full: whoever acts on it takes a moment, too. */
const NEARLY = 0.9

/** Failures that say that storage does not do its work. */
const STORAGE_CODES: ReadonlySet<IMErrorCode> = new Set<IMErrorCode>([
  'IM_STORE_UNAVAILABLE', 'IM_STORE_CONTRACT', 'IM_STORE_FULL', 'IM_STORE_LOCKED', 'IM_STORE_DENIED', 'IM_STORE_CORRUPT', 'IM_STORE_FORMAT',
  'IM_DIRECTORY_UNAVAILABLE',
])

/** `engine.ready()`: whether clients should come to this node. It asks nobody, so it may be asked as often as one likes. */
export class ReadinessCheck {
  readonly #options: ReadinessCheckOptions
  #failure: { readonly code: IMErrorCode; readonly atMs: number; readonly storedCount: number } | undefined

  constructor(options: ReadinessCheckOptions) {
    this.#options = options
  }

  /** Something has failed. */
  failed(code: IMErrorCode): void {
    if (!STORAGE_CODES.has(code)) return
    this.#failure = { code, atMs: this.#options.monotonicMs(), storedCount: this.#options.storedCount() }
  }

  check(): Readiness {
    const reasons = [...this.#ofState(), ...this.#ofStorage(), ...this.#ofBounds(), ...this.#ofLog(), ...this.#ofPresence()]
    return Object.freeze({ ready: reasons.length === 0, reasons: Object.freeze(reasons.map((reason) => Object.freeze(reason))) })
  }

  *#ofState(): Generator<NotReady> {
    const state = this.#options.state()
    if (state === 'new' || state === 'starting') yield { reason: 'not-started', detail: state }
    if (state === 'closing' || state === 'closed') yield { reason: 'closing', detail: state }
    if (this.#options.isIsolated()) yield { reason: 'isolated', detail: 'this node has lost the others' }
  }

  /** Behind a load balancer that has taken this node out nothing is stored any more, so time alone ends it as well. */
  *#ofStorage(): Generator<NotReady> {
    const { monotonicMs, storedCount, storageFailureMs } = this.#options
    const failure = this.#failure
    if (failure === undefined || storedCount() > failure.storedCount) return
    const agoMs = monotonicMs() - failure.atMs
    if (agoMs < storageFailureMs) yield { reason: 'storage-failing', detail: `${failure.code} ${Math.round(agoMs)} ms ago` }
  }

  *#ofBounds(): Generator<NotReady> {
    const { queues, sockets, maxConnections, maxUnauthenticated, outboxCount, maxOutboxCount } = this.#options
    for (const [name, { fullness }] of Object.entries(queues())) {
      if (fullness >= NEARLY) yield { reason: 'queue-full', detail: `${name} ${Math.round(fullness * 100)} %` }
    }
    const { count, unauthenticatedCount } = sockets()
    if (count >= maxConnections) yield { reason: 'connections-full', detail: `${count} connections` }
    if (unauthenticatedCount >= maxUnauthenticated) yield { reason: 'connections-full', detail: `${unauthenticatedCount} have not logged in` }
    if (outboxCount() >= NEARLY * maxOutboxCount) yield { reason: 'outbox-full', detail: `${outboxCount()} of ${maxOutboxCount}` }
  }

  *#ofLog(): Generator<NotReady> {
    const { log, maxLogLag, state } = this.#options
    if (log === undefined || state() !== 'running') return
    const { isConnected, partitions } = log()
    if (isConnected === false) yield { reason: 'log-disconnected', detail: 'no connection to the servers of the log' }
    for (const { log: name, stopped, appliedIndex, lastIndex } of partitions) {
      if (stopped !== undefined) yield { reason: 'log-stopped', detail: `${name} ${stopped.code}` }
      else if (lastIndex - appliedIndex >= maxLogLag) yield { reason: 'log-behind', detail: `${name} by ${lastIndex - appliedIndex}` }
    }
  }

  *#ofPresence(): Generator<NotReady> {
    const { lastBeatMs, monotonicMs, presenceHeartbeatMs, state } = this.#options
    const beatMs = lastBeatMs()
    if (beatMs === undefined || state() !== 'running') return
    const silentMs = monotonicMs() - beatMs
    if (silentMs > 3 * presenceHeartbeatMs) yield { reason: 'presence-stale', detail: `${Math.round(silentMs)} ms` }
  }
}
