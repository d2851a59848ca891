import { integerBetween, onlyKnown } from '../../errors.ts'
import type { HTTPClock } from './client.ts'

/** When to stop asking somebody who does not answer. */
export interface BreakerOptions {
  /** failures in a row after which nobody is asked; default 5 */
  readonly failureCount?: number
  /** for how long; then one call is let through, and its end decides; default 10 000 */
  readonly resetMs?: number
}

export function checkedBreaker(name: string, options: BreakerOptions = {}): Required<BreakerOptions> {
  onlyKnown(name, options, ['failureCount', 'resetMs'])
  return {
    failureCount: integerBetween(`${name}.failureCount`, options.failureCount ?? 5, 1, 1_000_000),
    resetMs: integerBetween(`${name}.resetMs`, options.resetMs ?? 10_000, 1, 86_400_000),
  }
}

/** Saves callers the wait for somebody who is down, and them the calls. */
export class Breaker {
  readonly #options: Required<BreakerOptions>
  readonly #clock: HTTPClock
  #failedCount = 0
  #openUntilMs: number | undefined
  #isProbing = false

  constructor(options: Required<BreakerOptions>, clock: HTTPClock) {
    this.#options = options
    this.#clock = clock
  }

  /** Would a call be let through now? */
  get isOpen(): boolean {
    return this.#openUntilMs !== undefined && (this.#isProbing || this.#clock.monotonicMs() < this.#openUntilMs)
  }

  /** May this call be made? If so, its end must be told. */
  begin(): boolean {
    if (this.isOpen) return false
    if (this.#openUntilMs !== undefined) this.#isProbing = true
    return true
  }

  succeeded(): void {
    this.#failedCount = 0
    this.#openUntilMs = undefined
    this.#isProbing = false
  }

  /** Nobody has waited for the end, which says nothing: clients that come and go must not keep others from being asked for. */
  abandoned(): void {
    this.#isProbing = false
  }

  failed(): void {
    this.#failedCount++
    this.#isProbing = false
    if (this.#failedCount >= this.#options.failureCount) this.#openUntilMs = this.#clock.monotonicMs() + this.#options.resetMs
  }
}
