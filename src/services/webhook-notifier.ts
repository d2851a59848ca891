import type { Timers } from '../contracts/clock.ts'
import type { Webhook, WebhookEvent } from '../contracts/webhook.ts'
import { asIMError, IMError } from '../errors.ts'

export interface WebhookNotifierOptions {
  readonly webhook: Webhook
  readonly timers: Timers
  readonly timeoutMs: number
  /** events waiting at most; beyond it the newest are left out and reported */
  readonly maxCount: number
  readonly closing: AbortSignal
  readonly report: (error: IMError) => void
}

const MAX_EVENTS_PER_CALL = 100

/**
 * Tells the webhook what has happened, one call at a time, so that order is kept; what happens during a call goes with the
 * next one. At most once: a call that fails is reported, not repeated. Never holds up a message.
 */
export class WebhookNotifier {
  readonly #options: WebhookNotifierOptions
  #waiting: WebhookEvent[] = []
  #running: Promise<void> | undefined
  #leftOutCount = 0

  constructor(options: WebhookNotifierOptions) {
    this.#options = options
  }

  add(event: WebhookEvent): void {
    if (this.#options.webhook.notify === undefined) return
    if (this.#waiting.length >= this.#options.maxCount) {
      this.#leftOutCount++
      return
    }
    this.#waiting.push(event)
    this.#running ??= this.#run()
  }

  /** Resolves when everything added so far has been told, or has failed. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what comes in the same turn goes in the same call
    while (this.#waiting.length > 0) {
      const events = this.#waiting.splice(0, MAX_EVENTS_PER_CALL)
      await this.#tell(events)
      this.#reportLeftOut()
    }
    this.#running = undefined
  }

  async #tell(events: readonly WebhookEvent[]): Promise<void> {
    const { webhook, timers, timeoutMs, closing, report } = this.#options
    const timeout = new AbortController()
    const signal = AbortSignal.any([timeout.signal, closing])
    const entry = timers.after(timeoutMs, () => timeout.abort(new IMError('IM_WEBHOOK_FAILED', { detail: `${timeoutMs} ms` })))
    try {
      await Promise.race([webhook.notify?.(events, signal), rejectOnAbort(signal)])
    } catch (reason) {
      report(asIMError(reason, 'IM_WEBHOOK_FAILED', {}))
    } finally {
      timers.cancel(entry)
    }
  }

  #reportLeftOut(): void {
    if (this.#leftOutCount === 0) return
    this.#options.report(new IMError('IM_QUEUE_FULL', { detail: `${this.#leftOutCount} webhook notifications left out` }))
    this.#leftOutCount = 0
  }
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const abort = (): void => reject(asIMError(signal.reason, 'IM_ABORTED', {}))
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
  })
}
