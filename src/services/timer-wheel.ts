import type { Clock, TimerEntry, Timers } from '../contracts/clock.ts'

interface Entry extends TimerEntry {
  /** the first tick that begins at or after `dueMs` and has not been handled yet: never early */
  readonly tick: number
  fire: (() => void) | undefined
}

const SLOT_COUNT = 512

/**
 * All time-outs of an engine behind one timer of the clock: a hashed wheel of 512 slots. Arming and cancelling cost a few
 * operations however many connections there are; the price is that a time-out fires up to one tick late. The timer runs
 * only while entries exist, so an engine at rest keeps no process alive.
 */
export class TimerWheel implements Timers {
  readonly #clock: Clock
  readonly #tickMs: number
  readonly #slots: Set<Entry>[] = Array.from({ length: SLOT_COUNT }, () => new Set<Entry>())
  #count = 0
  #timer: unknown
  /** the tick that was handled last, counted from the clock's zero */
  #tick: number

  constructor(clock: Clock, tickMs: number) {
    this.#clock = clock
    this.#tickMs = tickMs
    this.#tick = this.#tickOf(clock.monotonicMs())
  }

  get count(): number {
    return this.#count
  }

  after(delayMs: number, fire: () => void): TimerEntry {
    const now = this.#clock.monotonicMs()
    if (this.#count === 0) this.#tick = this.#tickOf(now)
    const dueMs = now + delayMs
    const entry: Entry = { dueMs, tick: Math.max(Math.ceil(dueMs / this.#tickMs), this.#tick + 1), fire }
    this.#slots[entry.tick % SLOT_COUNT]!.add(entry)
    this.#count++
    this.#arm(now)
    return entry
  }

  cancel(entry: TimerEntry): void {
    const own = entry as Entry
    if (own.fire === undefined) return
    own.fire = undefined
    this.#slots[own.tick % SLOT_COUNT]!.delete(own)
    this.#count-- // the clock's timer is left to run out: arming it anew for every time-out would cost more
  }

  /** Forget everything, so that nothing keeps the process alive. */
  stop(): void {
    for (const slot of this.#slots) {
      for (const entry of slot) entry.fire = undefined
      slot.clear()
    }
    this.#count = 0
    if (this.#timer === undefined) return
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  readonly #turn = (): void => {
    this.#timer = undefined
    const nowMs = this.#clock.monotonicMs()
    const last = this.#tickOf(nowMs)
    // After a stall of the event loop one round over all slots is enough.
    const first = Math.max(this.#tick + 1, last - SLOT_COUNT + 1)
    this.#tick = last // now, so that what is armed from inside a time-out lands behind the ticks of this round
    for (let tick = first; tick <= last; tick++) this.#expire(tick, last)
    if (this.#count > 0) this.#arm(nowMs)
  }

  /** Wake at the next tick's beginning: from any other moment a time-out could be two ticks late. */
  #arm(nowMs: number): void {
    this.#timer ??= this.#clock.setTimer((this.#tickOf(nowMs) + 1) * this.#tickMs - nowMs, this.#turn)
  }

  #expire(tick: number, last: number): void {
    const slot = this.#slots[tick % SLOT_COUNT]!
    for (const entry of slot) {
      if (entry.tick > last) continue // a later round of the wheel
      slot.delete(entry)
      this.#count--
      const fire = entry.fire
      entry.fire = undefined
      fire?.()
    }
  }

  #tickOf(monotonicMs: number): number {
    return Math.floor(monotonicMs / this.#tickMs)
  }
}
