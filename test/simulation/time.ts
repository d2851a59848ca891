import type { Clock } from 'imengine'

/** 2023-11-14T22:13:20Z, where a FakeClock starts, too. */
const START_MS = 1_700_000_000_000

/** More turns than anything that comes to rest needs. */
const MAX_TURNS = 100_000

export interface SimTimer {
  readonly dueMs: number
  readonly fire: () => void
}

/**
 * One time for a whole world, and everything that waits for it: what is due is done one after the other, and in between
 * everything comes to rest. Nothing of the process's own time is used: microtasks are drained by one turn of the event loop,
 * and what engines defer is kept here and run in the order in which it came.
 */
export class SimTime {
  nowMs = 0
  /** by due time, and among equals in the order in which they were set */
  #timers: SimTimer[] = []
  #deferred: (() => void)[] = []

  after(delayMs: number, fire: () => void): SimTimer {
    const timer = { dueMs: this.nowMs + Math.max(0, delayMs), fire }
    let low = 0
    let high = this.#timers.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#timers[middle]!.dueMs <= timer.dueMs) low = middle + 1
      else high = middle
    }
    this.#timers.splice(low, 0, timer)
    return timer
  }

  cancel(timer: SimTimer): void {
    const index = this.#timers.indexOf(timer)
    if (index >= 0) this.#timers.splice(index, 1)
  }

  defer(run: () => void): void {
    this.#deferred.push(run)
  }

  /** Let promises and deferred work run until nothing more happens that needs no time. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      const run = this.#deferred.shift()
      if (run === undefined) return
      run()
    }
    throw new Error(`work was still deferring itself after ${MAX_TURNS} turns`)
  }

  /** Let `ms` pass. @param afterStep  is asked behind every thing that happens; true ends it there */
  async advance(ms: number, afterStep: () => boolean): Promise<void> {
    const endMs = this.nowMs + ms
    for (;;) {
      await this.settle()
      if (afterStep()) return
      const next = this.#timers[0]
      if (next === undefined || next.dueMs > endMs) break
      this.#timers.shift()
      this.nowMs = Math.max(this.nowMs, next.dueMs)
      next.fire()
    }
    this.nowMs = endMs
  }
}

/** The clock of one life of a node. Stopped, it does nothing any more: that is how a process dies. */
export class LifeClock implements Clock {
  readonly #time: SimTime
  readonly #timers = new Set<SimTimer>()
  #deferredCount = 0
  #isStopped = false
  /** how far the wall clock is off */
  offMs: number

  constructor(time: SimTime, offMs: number) {
    this.#time = time
    this.offMs = offMs
  }

  /** what has been set or deferred and has neither happened nor been cleared */
  get pendingCount(): number {
    return this.#timers.size + this.#deferredCount
  }

  nowMs(): number {
    return START_MS + this.#time.nowMs + this.offMs
  }

  monotonicMs(): number {
    return this.#time.nowMs
  }

  setTimer(delayMs: number, fire: () => void): unknown {
    if (this.#isStopped) return undefined
    const timer = this.#time.after(delayMs, () => {
      this.#timers.delete(timer)
      fire()
    })
    this.#timers.add(timer)
    return timer
  }

  clearTimer(timer: unknown): void {
    if (this.#timers.delete(timer as SimTimer)) this.#time.cancel(timer as SimTimer)
  }

  defer(run: () => void): void {
    this.#deferredCount++
    this.#time.defer(() => {
      this.#deferredCount--
      if (!this.#isStopped) run()
    })
  }

  stop(): void {
    this.#isStopped = true
    for (const timer of this.#timers) this.#time.cancel(timer)
    this.#timers.clear()
  }
}
