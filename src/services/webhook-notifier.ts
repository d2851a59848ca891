import type { AbortGroup } from '../contracts/abort-group.ts'
import type { Timers } from '../contracts/clock.ts'
import type { Webhook, WebhookEvent } from '../contracts/webhook.ts'
import { IMError } from '../errors.ts'
import { withTimeLimit } from './time-limit.ts'

export interface WebhookNotifierOptions {
  readonly webhook: Webhook
  readonly timers: Timers
  readonly timeoutMs: number
  /** messages and changes of online state waiting at most; beyond it the newest are left out and reported */
  readonly maxCount: number
  readonly waits: AbortGroup
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
  #waitingCount = 0
  #leftOutCount = 0

  constructor(options: WebhookNotifierOptions) {
    this.#options = options
  }

  add(event: WebhookEvent): void {
    if (this.#options.webhook.notify === undefined) return
    const count = countOf(event)
    if (this.#waitingCount + count > this.#options.maxCount) {
      this.#leftOutCount += count
      return
    }
    this.#waitingCount += count
    this.#waiting.push(event)
    this.#running ??= this.#run()
  }

  get isIdle(): boolean {
    return this.#running === undefined
  }

  /** Resolves when everything added so far has been told, or has failed. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what comes in the same turn goes in the same call
    while (this.#waiting.length > 0) {
      const events = this.#waiting.splice(0, MAX_EVENTS_PER_CALL)
      for (const event of events) this.#waitingCount -= countOf(event)
      await this.#tell(events)
      this.#reportLeftOut()
    }
    this.#running = undefined
  }

  async #tell(events: readonly WebhookEvent[]): Promise<void> {
    const { webhook, report } = this.#options
    try {
      await withTimeLimit(this.#options, (signal) => webhook.notify?.(events, signal))
    } catch (reason) {
      report(new IMError('IM_WEBHOOK_FAILED', { cause: reason }))
    }
  }

  #reportLeftOut(): void {
    if (this.#leftOutCount === 0) return
    this.#options.report(new IMError('IM_QUEUE_FULL', { detail: `${this.#leftOutCount} webhook notifications left out` }))
    this.#leftOutCount = 0
  }
}

function countOf(event: WebhookEvent): number {
  return event.event === 'msg.notify' ? event.messages.length : 1
}
