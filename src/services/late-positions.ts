import type { Clock } from '../contracts/clock.ts'
import type { LogPosition, MessageStore } from '../contracts/message-store.ts'

export interface LatePositionsOptions {
  readonly messages: MessageStore
  readonly clock: Clock
}

/** A position that no append has taken along for this long is kept by one of its own. */
const KEEP_AFTER_MS = 250

/**
 * Positions of entries that need nothing written but what goes ahead of every append anyway: the next append keeps a later one of
 * the same log, so nothing waits for the disk on their account. They must not stay behind for long either: a log that is swept
 * beyond what a store says it has come to looks as if entries were missing there.
 */
export class LatePositions {
  readonly #options: LatePositionsOptions
  /** by log: the last that the store has not been given, nor one behind it */
  readonly #late = new Map<string, LogPosition>()
  /** by log: the last that the store has been given, successfully or not */
  readonly #given = new Map<string, number>()
  #timer: unknown
  #isOver = false
  #keeping: Promise<void> | undefined

  constructor(options: LatePositionsOptions) {
    this.#options = options
  }

  /** The store need not have it yet. */
  add(position: LogPosition): void {
    if (this.#isOver) return // the log brings again what the store does not know to be applied
    this.#late.set(position.log, position)
    this.#timer ??= this.#options.clock.setTimer(KEEP_AFTER_MS, () => {
      this.#timer = undefined
      this.keep().catch(() => undefined) // it is tried again; a store that cannot be written says so with the next entry
    })
  }

  /** The store is being given this one. Whoever gives it insists until it is kept. */
  passed({ log, index }: LogPosition): void {
    this.#late.delete(log)
    this.#given.set(log, index)
  }

  /** Is there anything that the store has not kept yet? */
  get isAny(): boolean {
    return this.#late.size > 0 || this.#keeping !== undefined
  }

  /** Resolves when the store has kept all that are late now. */
  async keep(): Promise<void> {
    if (this.#keeping !== undefined) await this.#keeping
    // By now others may be late, and whoever waits for them as well may have begun already. No more rounds: other logs may go on for ever.
    if (this.isAny) await (this.#keeping ??= this.#keep().finally(() => (this.#keeping = undefined)))
  }

  /** Nothing is late any more, whatever comes back after this. */
  async end(): Promise<void> {
    await this.keep().catch(() => undefined)
    this.#isOver = true
    await this.drop()
  }

  /** Those that are late are not kept any more: the store is to be another one. What it has been given is waited for. */
  async drop(): Promise<void> {
    await this.#keeping?.catch(() => undefined) // what of it has failed is late again then
    this.#stop()
    this.#late.clear()
  }

  #stop(): void {
    this.#options.clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  async #keep(): Promise<void> {
    this.#stop()
    const positions = [...this.#late.values()]
    for (const position of positions) this.passed(position)
    const outcomes = await Promise.allSettled(positions.map(async (position) => this.#options.messages.append([], position)))
    for (const [index, { status }] of outcomes.entries()) {
      const { log } = positions[index]!
      const isLast = this.#given.get(log) === positions[index]!.index && !this.#late.has(log)
      if (status === 'rejected' && isLast) this.add(positions[index]!)
    }
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  }
}
