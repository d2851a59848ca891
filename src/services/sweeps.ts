import type { Clock } from '../contracts/clock.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { placeOf } from '../model/node-place.ts'

export interface SweepsOptions {
  readonly clock: Clock
  readonly messages: MessageStore
  /** between two looks; 0: never */
  readonly intervalMs: number
  readonly nodeID: number
  /** others remove the same, by a log */
  readonly isReplicated: boolean
  readonly report: (error: unknown) => void
}

/** Between two pieces of one sweep. */
const AGAIN_MS = 10

/**
 * Has the store remove what has expired; piece by piece, so that nothing else waits long. With a timer of its own, because the
 * wheel would turn for it all the time, and one that does not keep a process alive that has nothing else to do.
 */
export class Sweeps {
  readonly #options: SweepsOptions
  #timer: unknown
  #sweeping: Promise<unknown> = Promise.resolve()
  #isStopped = false

  constructor(options: SweepsOptions) {
    this.#options = options
  }

  start(): void {
    if (this.#options.intervalMs > 0) this.#schedule(this.#pauseMs())
  }

  /** Resolves when the piece that is under way has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#options.clock.clearTimer(this.#timer)
    await this.#sweeping
  }

  #schedule(delayMs: number): void {
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      const swept = this.#sweep()
      this.#sweeping = swept
      void swept.then((isDone) => {
        if (!this.#isStopped) this.#schedule(isDone ? this.#pauseMs() : AGAIN_MS)
      })
    })
    ;(this.#timer as { unref?(): void }).unref?.()
  }

  /**
   * Of nodes that remove the same the first to look finds everything, and the others nothing: each looks at its own place in the
   * interval, which is the same for all by the time of day, whenever they were started and however long a sweep takes.
   */
  #pauseMs(): number {
    const { clock, intervalMs, nodeID, isReplicated } = this.#options
    if (!isReplicated) return intervalMs
    const untilPlaceMs = (placeOf(nodeID) * intervalMs - (clock.nowMs() % intervalMs) + intervalMs) % intervalMs
    return untilPlaceMs < 1 ? intervalMs : untilPlaceMs // a timer that came a little early would look twice
  }

  /** @returns false when there is more to remove */
  async #sweep(): Promise<boolean> {
    const { messages, clock, report } = this.#options
    try {
      const swept = await messages.sweep?.(clock.nowMs())
      return swept?.isDone ?? true
    } catch (error) {
      report(error)
      return true
    }
  }
}
