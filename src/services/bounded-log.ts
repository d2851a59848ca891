import type { Clock } from '../contracts/clock.ts'
import type { Logger } from '../contracts/logger.ts'
import { ERRORS } from '../errors.ts'

const WINDOW_MS = 1_000

/** Lines of one kind in the second that began with the first of them. */
interface Window {
  sinceMs: number
  count: number
  leftOutCount: number
  readonly level: 'info' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

/** What a refused connection is called in the log. */
export const REFUSED = 'connection refused'

/**
 * A logger in which refused connections, and failures of one code, have so many lines a second: whoever can cause them must not be
 * able to fill a disk with them. What is left out is counted and told. Other lines pass.
 */
export class BoundedLog implements Logger {
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #maxPerSecond: number
  /** by kind, of which there are as many as error codes, and one */
  readonly #windows = new Map<string, Window>()
  #timer: unknown
  #isClosed = false

  /** @param maxPerSecond  0 for no bound */
  constructor(logger: Logger, clock: Clock, maxPerSecond: number) {
    this.#logger = logger
    this.#clock = clock
    this.#maxPerSecond = maxPerSecond
  }

  debug(fields: Readonly<Record<string, unknown>>, message: string): void {
    this.#logger.debug(fields, message)
  }

  warn(fields: Readonly<Record<string, unknown>>, message: string): void {
    this.#logger.warn(fields, message)
  }

  info(fields: Readonly<Record<string, unknown>>, message: string): void {
    if (message !== REFUSED || this.#admits(REFUSED, 'info', {}, message)) this.#logger.info(fields, message)
  }

  error(fields: Readonly<Record<string, unknown>>, message: string): void {
    const { code } = fields
    const isKnown = typeof code === 'string' && Object.hasOwn(ERRORS, code)
    if (!isKnown || this.#admits(code, 'error', { code }, ERRORS[code as keyof typeof ERRORS].message)) this.#logger.error(fields, message)
  }

  /** The engine closes: what was left out is told now, and no timer is left. What is left out later is told with the next line of its kind. */
  close(): void {
    this.#isClosed = true
    this.#tell()
  }

  #admits(kind: string, level: Window['level'], fields: Window['fields'], message: string): boolean {
    if (this.#maxPerSecond === 0) return true
    const nowMs = this.#clock.monotonicMs()
    let window = this.#windows.get(kind)
    if (window === undefined) this.#windows.set(kind, (window = { sinceMs: nowMs, count: 0, leftOutCount: 0, level, fields, message }))
    if (nowMs - window.sinceMs >= WINDOW_MS) {
      this.#tellOf(window)
      window.sinceMs = nowMs
      window.count = 0
    }
    if (window.count < this.#maxPerSecond) {
      window.count++
      return true
    }
    window.leftOutCount++
    if (this.#timer === undefined && !this.#isClosed) {
      this.#timer = this.#clock.setTimer(WINDOW_MS, () => this.#tell())
      ;(this.#timer as { unref?(): void }).unref?.()
    }
    return false
  }

  #tell(): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    for (const window of this.#windows.values()) this.#tellOf(window)
  }

  #tellOf(window: Window): void {
    const { level, fields, message, leftOutCount } = window
    if (leftOutCount === 0) return
    window.leftOutCount = 0
    this.#logger[level]({ ...fields, leftOutCount }, `${message}: lines were left out`)
  }
}
