import type { ReplicatorHost } from '../../contracts/replicator.ts'
import { asIMError, IMError } from '../../errors.ts'
import type { DecodedEntry } from './log-entry.ts'
import type { LogProblem } from './log-options.ts'

export interface LogApplierOptions {
  readonly log: string
  readonly host: ReplicatorHost
  /** an entry has been applied here */
  readonly applied: (entry: DecodedEntry, results: readonly unknown[], seq: number) => void
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
/** What the host cannot read now, it cannot read later. */
const UNREADABLE: ReadonlySet<string> = new Set(['IM_LOG_FORMAT', 'IM_LOG_CORRUPT'])

/**
 * Gives the host what has arrived from one stream: messages that have come together in one call, operations one by one, one call
 * after the other, and again when a call has failed: a node that passed over an entry would number differently from then on.
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
    const { log, host, applied, moved, ended } = this.#options
    const arrived = this.#waiting
    const { seq, entry: first } = arrived[0]!
    if (seq !== this.#appliedSeq + 1) {
      this.stop()
      return ended(new IMError('IM_LOG_GAP', { detail: `${log}: ${seq} came behind ${this.#appliedSeq}` }))
    }
    const { operation } = first
    const next = operation === undefined ? arrived.findIndex(({ entry }) => entry.operation !== undefined) : 1
    const taken = next < 0 ? arrived : arrived.slice(0, next)
    this.#waiting = next < 0 ? [] : arrived.slice(next) // what arrives from now on is for the next call
    const index = taken.at(-1)!.seq
    const entries = taken.flatMap(({ entry }) => entry.batches)
    const results = await this.#insist(async (): Promise<readonly unknown[]> =>
      operation === undefined ? host.apply(entries, { log, index }) : [await host.operate(operation, { log, index })],
    )
    if (results === undefined) return
    this.#appliedSeq = index
    this.#heldCount -= taken.length
    let place = 0
    for (const { seq: entrySeq, entry, bytes } of taken) {
      this.#heldBytes -= bytes
      applied(entry, results.slice(place, (place += entry.operation === undefined ? entry.batches.length : 1)), entrySeq)
    }
    moved()
  }

  /** @returns undefined when it was stopped before it succeeded */
  async #insist<T>(apply: () => Promise<T>): Promise<T | undefined> {
    const { log, report, ended } = this.#options
    for (let pauseMs = MIN_PAUSE_MS; !this.#isOver; pauseMs = Math.min(MAX_PAUSE_MS, 2 * pauseMs)) {
      try {
        return await apply()
      } catch (error) {
        if (error instanceof IMError && UNREADABLE.has(error.code)) {
          this.stop()
          return void ended(error)
        }
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
