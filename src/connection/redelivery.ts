import type { Clock, TimerEntry, Timers } from '../contracts/clock.ts'
import type { Counts } from '../contracts/metrics.ts'
import type { Message } from '../model/message.ts'
import { UnackedRecvs } from './unacked.ts'

export interface RedeliveryOptions {
  readonly clock: Clock
  readonly timers: Timers
  /** 0: never again on the same connection */
  readonly afterMs: number
  readonly maxRedeliveries: number
  readonly maxUnackedRecvs: number
  readonly resend: (message: Message) => void
  readonly giveUp: (messages: readonly Message[]) => void
  readonly counts: Pick<Counts, 'forgottenCount'>
}

/** Sends what one connection does not acknowledge again, some times. One time-out however many messages wait. */
export class Redelivery {
  readonly #options: RedeliveryOptions
  readonly #unacked: UnackedRecvs
  #timer: TimerEntry | undefined
  /** the connection has ended, which may happen while several are being added */
  #isStopped = false

  constructor(options: RedeliveryOptions) {
    this.#options = options
    this.#unacked = new UnackedRecvs(options.maxUnackedRecvs)
  }

  /** Messages that wait for their RECVACK. */
  get count(): number {
    return this.#unacked.count
  }

  /** When the one was sent, for the last time so far, that is due first; undefined when there is none. */
  get oldestSinceMs(): number | undefined {
    const { nextDueMs } = this.#unacked
    return nextDueMs === undefined ? undefined : nextDueMs - this.#options.afterMs
  }

  pushed(message: Message): void {
    this.#add(message, this.#options.clock.monotonicMs())
  }

  #add(message: Message, nowMs: number): void {
    if (this.#isStopped) return
    const { timers, afterMs } = this.#options
    const forgotten = this.#unacked.add(message, nowMs + afterMs)
    if (forgotten !== undefined) this.#options.counts.forgottenCount++
    if (forgotten !== undefined && afterMs > 0) this.#options.giveUp([forgotten])
    if (afterMs > 0 && !this.#isStopped) this.#timer ??= timers.after(afterMs, this.#check)
  }

  /** `pushed` for several at once. */
  pushedAll(messages: readonly Message[]): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const message of messages) if (!message.noPersist) this.#add(message, nowMs)
  }

  /** The message whose id is `high * 2^32 + low`, which has been acknowledged; undefined when nothing is known of it. */
  takeAcknowledged(high: number, low: number): Message | undefined {
    return this.#unacked.take(high, low)
  }

  find(messageID: string): Message | undefined {
    return this.#unacked.find(messageID)
  }

  noteAcknowledged(messageID: string): boolean {
    return this.#unacked.noteAcknowledged(messageID)
  }

  acknowledged(messageID: string): void {
    this.#unacked.remove(messageID)
  }

  revised(message: Message): void {
    this.#unacked.revise(message)
  }

  /** The connection is gone; the history has what it did not acknowledge. */
  stop(): void {
    this.#isStopped = true
    if (this.#timer !== undefined) this.#options.timers.cancel(this.#timer)
    this.#timer = undefined
    this.#unacked.clear()
  }

  /** Judged once what is readable now has been read: when it is us who are late, the acknowledgements are there already. */
  readonly #check = (): void => this.#options.clock.defer(() => this.#resendDue())

  #resendDue(): void {
    if (this.#isStopped) return
    this.#timer = undefined
    const { clock, timers, afterMs, maxRedeliveries, resend, giveUp } = this.#options
    const nowMs = clock.monotonicMs()
    const { again, givenUp } = this.#unacked.takeDue(nowMs, afterMs, maxRedeliveries)
    for (const message of again) resend(message)
    if (givenUp.length > 0) giveUp(givenUp)
    const nextDueMs = this.#unacked.nextDueMs // undefined, too, when a resend has ended the connection
    if (nextDueMs !== undefined) this.#timer ??= timers.after(Math.max(1, nextDueMs - nowMs), this.#check)
  }
}
