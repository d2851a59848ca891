import type { Clock } from '../contracts/clock.ts'
import { badOption } from '../errors.ts'

/** More turns than anything that comes to rest needs; beyond it, work that defers itself for ever is reported. */
const MAX_TURNS = 10_000

interface FakeTimer {
  readonly dueMs: number
  readonly fire: () => void
}

/**
 * Time that passes only when a test says so.
 *
 * `defer` is a real `setImmediate`: it is the engine's turn, not time. Nothing else of the process's time is used, so a
 * test that awaits `advance` sees the same order in every run.
 */
export class FakeClock implements Clock {
  #monotonicMs = 0
  #wallOffsetMs: number
  #timers = new Set<FakeTimer>()
  #deferredCount = 0
  #advancing = false

  /** @param options.nowMs  what the wall clock shows at the start, default 2023-11-14T22:13:20Z */
  constructor(options: { readonly nowMs?: number } = {}) {
    this.#wallOffsetMs = options.nowMs ?? 1_700_000_000_000
  }

  nowMs(): number {
    return this.#wallOffsetMs + this.#monotonicMs
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  setTimer(delayMs: number, fire: () => void): unknown {
    if (Number.isNaN(delayMs)) badOption('delayMs', 'a number', delayMs)
    const timer: FakeTimer = { dueMs: this.#monotonicMs + Math.max(0, delayMs), fire }
    this.#timers.add(timer)
    return timer
  }

  clearTimer(timer: unknown): void {
    this.#timers.delete(timer as FakeTimer)
  }

  defer(run: () => void): void {
    this.#deferredCount++
    setImmediate(() => {
      this.#deferredCount--
      run()
    })
  }

  /** Timers that have neither fired nor been cleared: 0 after whatever was tested has been closed. */
  get pendingTimerCount(): number {
    return this.#timers.size
  }

  /**
   * Let `ms` pass: fire the timers that become due, by due time and then in the order they were set, timers set meanwhile
   * included, and let everything come to rest (`settle`) before the first, between two and after the last.
   * @throws what a timer throws; Error when called while another `advance` runs
   */
  async advance(ms: number): Promise<void> {
    if (!Number.isFinite(ms) || ms < 0) badOption('ms', 'a finite number from 0', ms)
    if (this.#advancing) throw new Error('imengine: FakeClock.advance is running already; await it')
    this.#advancing = true
    try {
      const endMs = this.#monotonicMs + ms
      await this.settle()
      for (let timer = this.#nextDue(endMs); timer !== undefined; timer = this.#nextDue(endMs)) {
        this.#timers.delete(timer)
        this.#monotonicMs = Math.max(this.#monotonicMs, timer.dueMs)
        timer.fire()
        await this.settle()
      }
      this.#monotonicMs = endMs
    } finally {
      this.#advancing = false
    }
  }

  /** Let promises and deferred work run until nothing more happens that needs no time. Timers do not fire. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      if (this.#deferredCount === 0) return
    }
    throw new Error(`imengine: work was still deferring itself after ${MAX_TURNS} turns`)
  }

  /** Set the wall clock, as an administrator or NTP would. Monotonic time and timers do not notice. */
  setNow(nowMs: number): void {
    this.#wallOffsetMs = nowMs - this.#monotonicMs
  }

  #nextDue(endMs: number): FakeTimer | undefined {
    let next: FakeTimer | undefined
    // A set keeps the order of adding, so of two that are due together the one set first is found.
    for (const timer of this.#timers) {
      if (timer.dueMs <= endMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer
    }
    return next
  }
}
