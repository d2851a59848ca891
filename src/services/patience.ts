import type { Clock } from '../contracts/clock.ts'

/** What a caller of `close` says about waiting. */
export interface Waiting {
  /** for what is under way */
  readonly drainMs: number
  /** from its abort on nothing is waited for */
  readonly signal?: AbortSignal | undefined
}

/**
 * How long the end of an engine waits for others. Several may call for the end, each with a patience of their own: the least
 * one counts, so that a second call can cut the first one short and never makes it longer.
 */
export class Patience {
  readonly #clock: Pick<Clock, 'monotonicMs' | 'setTimer' | 'clearTimer' | 'defer'>
  readonly #drained: Promise<void>
  /** those to tell when nobody wants to wait any longer */
  readonly #waiting = new Set<() => void>()
  /** what to take back when it is all over */
  readonly #undo: (() => void)[] = []
  #endDrain!: () => void
  #isHurried = false
  #isOver = false
  #dueMs = Infinity
  #timer: unknown

  constructor(clock: Pick<Clock, 'monotonicMs' | 'setTimer' | 'clearTimer' | 'defer'>) {
    this.#clock = clock
    this.#drained = new Promise((resolve) => (this.#endDrain = resolve))
  }

  get isHurried(): boolean {
    return this.#isHurried
  }

  /** One caller more. */
  heed({ drainMs, signal }: Waiting): void {
    if (this.#isOver) return
    const dueMs = this.#clock.monotonicMs() + drainMs
    if (dueMs < this.#dueMs) {
      this.#dueMs = dueMs
      this.#clock.clearTimer(this.#timer)
      this.#timer = this.#clock.setTimer(drainMs, this.#endDrain)
    }
    if (signal === undefined) return
    const hurry = (): void => {
      this.#isHurried = true
      this.#endDrain()
      for (const told of this.#waiting) this.#clock.defer(told)
      this.#waiting.clear()
    }
    if (signal.aborted) return hurry()
    signal.addEventListener('abort', hurry, { once: true })
    this.#undo.push(() => signal.removeEventListener('abort', hurry))
  }

  /** Resolves when what is under way has had its time. */
  drained(): Promise<void> {
    return this.#drained
  }

  /**
   * Call `told` when nobody wants to wait any longer, but not before one turn more: what needs no time at all comes to its end
   * in that turn, and must not be called late.
   * @returns a function that takes it back: what has ended by itself, long before anybody closes perhaps, must not be kept
   */
  whenHurried(told: () => void): () => void {
    if (this.#isHurried) this.#clock.defer(told)
    else this.#waiting.add(told)
    return () => void this.#waiting.delete(told)
  }

  /** Resolves when `whenHurried` tells. */
  hurried(): Promise<void> {
    return new Promise((resolve) => this.whenHurried(resolve))
  }

  /** Nothing is waited for any more, and no timer and no listener is left. */
  end(): void {
    this.#isOver = true
    this.#clock.clearTimer(this.#timer)
    this.#waiting.clear()
    for (const undo of this.#undo.splice(0)) undo()
  }
}
