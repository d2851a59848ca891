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
  readonly #hurried: Promise<void>
  readonly #drained: Promise<void>
  /** what to take back when it is all over */
  readonly #undo: (() => void)[] = []
  #hurry!: () => void
  #endDrain!: () => void
  #isHurried = false
  #isOver = false
  #dueMs = Infinity
  #timer: unknown

  constructor(clock: Pick<Clock, 'monotonicMs' | 'setTimer' | 'clearTimer' | 'defer'>) {
    this.#clock = clock
    this.#hurried = new Promise((resolve) => (this.#hurry = resolve))
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
      this.#hurry()
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
   * Resolves when nobody wants to wait any longer, but not before one turn more: what needs no time at all comes to its end
   * in that turn, and must not be called late.
   */
  async hurried(): Promise<void> {
    await this.#hurried
    await new Promise<void>((resolve) => this.#clock.defer(resolve))
  }

  /** Nothing is waited for any more, and no timer and no listener is left. */
  end(): void {
    this.#isOver = true
    this.#clock.clearTimer(this.#timer)
    for (const undo of this.#undo.splice(0)) undo()
  }
}
