import type { AppendResult } from '../../contracts/message-store.ts'
import type { LogEntry, ReplicatorHost } from '../../contracts/replicator.ts'
import { asIMError, IMError } from '../../errors.ts'
import type { DecodedEntry } from './log-entry.ts'
import type { LogProblem } from './log-options.ts'

export interface LogApplierOptions {
  readonly log: string
  readonly host: ReplicatorHost
  /** an entry has been applied here */
  readonly applied: (entry: DecodedEntry, results: readonly (readonly AppendResult[])[]) => void
  /** the number of applied entries has grown, and there is room for more */
  readonly moved: () => void
  /** everything before something that cannot be applied has been applied */
  readonly ended: (error: IMError) => void
  readonly report: (problem: LogProblem) => void
}

/** An entry as it has come from the stream. */
export interface Arrived {
  readonly seq: number
  readonly entry: DecodedEntry
  readonly bytes: number
}

const MIN_PAUSE_MS = 50
const MAX_PAUSE_MS = 1_000

/**
 * Gives the host what has arrived from one stream, all of it in one call, one call after the other, and again when a call has
 * failed: a node that passed over an entry would number differently from then on.
 */
export class LogApplier {
  readonly #options: LogApplierOptions
  #waiting: Arrived[] = []
  #heldCount = 0
  #heldBytes = 0
  #appliedSeq = 0
  /** what cannot be applied, behind all that waits */
  #end: IMError | undefined
  #isOver = false
  #running: Promise<void> | undefined
  #endPause: (() => void) | undefined

  constructor(options: LogApplierOptions) {
    this.#options = options
  }

  /** the last entry that is in the host's store */
  get appliedSeq(): number {
    return this.#appliedSeq
  }

  /** arrived and not applied yet: those that wait, and those that the host has */
  get heldCount(): number {
    return this.#heldCount
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  /** The store is there now, by other means than entries. Only while nothing waits. */
  moveTo(position: number): void {
    this.#appliedSeq = position
  }

  add(arrived: Arrived): void {
    if (this.#isOver) return
    this.#waiting.push(arrived)
    this.#heldCount++
    this.#heldBytes += arrived.bytes
    this.#running ??= this.#run()
  }

  /** Nothing comes behind what waits. `ended` is called when that has been applied. */
  end(error: IMError): void {
    this.#end ??= error
    this.#running ??= this.#run()
  }

  /** Apply nothing more. What the host has already, it goes on with: `idle` waits for it. */
  stop(): void {
    this.#isOver = true
    this.#waiting = []
    this.#endPause?.()
  }

  async idle(): Promise<void> {
    await this.#running
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what arrives in the same turn is applied in the same call
    while (this.#waiting.length > 0 && !this.#isOver) await this.#applyWaiting()
    this.#running = undefined
    if (this.#end !== undefined && !this.#isOver) this.#options.ended(this.#end)
  }

  async #applyWaiting(): Promise<void> {
    const { log, applied, moved, ended } = this.#options
    const arrived = this.#waiting
    this.#waiting = [] // what arrives from now on is for the next call
    const { seq } = arrived[0]!
    if (seq !== this.#appliedSeq + 1) return ended(new IMError('IM_LOG_GAP', { detail: `${log}: ${seq} came behind ${this.#appliedSeq}` }))
    const entries = arrived.flatMap(({ entry }) => entry.batches.map(({ key, messages }): LogEntry => ({ key, messages, nodeID: entry.nodeID })))
    const index = arrived.at(-1)!.seq
    const results = await this.#insist(entries, index)
    if (results === undefined) return
    this.#appliedSeq = index
    this.#heldCount -= arrived.length
    let next = 0
    for (const { entry, bytes } of arrived) {
      this.#heldBytes -= bytes
      applied(entry, results.slice(next, (next += entry.batches.length)))
    }
    moved()
  }

  /** @returns undefined when it was stopped before it succeeded */
  async #insist(entries: readonly LogEntry[], index: number): Promise<readonly (readonly AppendResult[])[] | undefined> {
    const { log, host, report } = this.#options
    for (let pauseMs = MIN_PAUSE_MS; !this.#isOver; pauseMs = Math.min(MAX_PAUSE_MS, 2 * pauseMs)) {
      try {
        return await host.apply(entries, { log, index })
      } catch (error) {
        report({ error: asIMError(error, 'IM_STORE_UNAVAILABLE', {}), log, isStopped: false })
      }
      if (!this.#isOver) await this.#pause(pauseMs)
    }
    return undefined
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#endPause?.(), ms)
      this.#endPause = () => {
        clearTimeout(timer)
        this.#endPause = undefined
        resolve()
      }
    })
  }
}
