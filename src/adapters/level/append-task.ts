import { checkLogPosition } from '../../contracts/log-position.ts'
import type { AppendBatch, AppendResult, LogPosition } from '../../contracts/message-store.ts'
import type { IMError } from '../../errors.ts'
import { AppendPart, type PartHost } from './append-part.ts'
import type { Standing } from './channel-states.ts'
import type { Ahead } from './cursor-store.ts'
import type { Operations } from './database.ts'
import { positionRow } from './keys.ts'
import type { WriteTask } from './writer.ts'

/** What all appends of a store share. */
export interface AppendHost extends PartHost {
  /** what it has learnt is worth nothing: have it looked up and submitted once more */
  readonly askAgain: (task: AppendTask) => void
}

/** Who waits for the results of one call. */
export interface Waiter {
  readonly resolve: (results: AppendResult[][]) => void
  readonly reject: (error: IMError) => void
}

/** What one call of `append` was given. */
export interface AppendCall {
  readonly batches: readonly AppendBatch[]
  readonly position: LogPosition | undefined
  /** what the position must not be durable before */
  readonly ahead: Ahead | undefined
}

/** One call of `append`. */
export class AppendTask implements WriteTask {
  readonly parts: readonly AppendPart[]
  readonly bytes: number
  readonly ahead: Ahead | undefined
  /** batches that were durable when the database was asked: what came later is among the recent numbers */
  askedAt = 0
  readonly #host: AppendHost
  readonly #waiter: Waiter
  /** the row of the log's position; it is in the batch that holds the messages, and so neither is there without the other */
  readonly #position: readonly [key: Buffer, index: Buffer] | undefined
  #results: AppendResult[][] = []
  #standings: Standing[] = []

  /** @throws TypeError for a message that cannot be stored, or a position that no log has */
  constructor({ batches, position, ahead }: AppendCall, host: AppendHost, waiter: Waiter) {
    this.#host = host
    this.#waiter = waiter
    this.ahead = ahead
    if (position !== undefined) checkLogPosition(position)
    this.#position = position && positionRow(position)
    const parts: AppendPart[] = (this.parts = [])
    let bytes = 0
    try {
      for (const batch of batches) {
        const part = new AppendPart(batch, () => host.states.pin(batch.key), host)
        parts.push(part)
        bytes += part.bytes
      }
      this.bytes = bytes
    } catch (error) {
      this.#leave()
      throw error
    }
  }

  /** @throws IM_STORE_UNAVAILABLE, or what has become of what is ahead */
  check(): void {
    this.ahead?.check()
    for (const { state } of this.parts) this.#host.states.check(state)
  }

  plan(operations: Operations): void {
    this.check()
    this.#host.numbers.drop(this.askedAt)
    for (const part of this.parts) part.check()
    this.#results = this.parts.map((part) => part.plan(operations))
    if (this.#position !== undefined) operations.push(...this.#position)
    this.#standings = this.parts.map(({ state }) => state.planned)
  }

  done(): void {
    this.parts.forEach(({ state }, index) => (state.committed = this.#standings[index]!))
    this.#leave()
    this.#waiter.resolve(this.#results)
  }

  failed(error: IMError): void {
    this.#leave()
    this.#waiter.reject(error)
  }

  askAgain(): void {
    this.#leave()
    for (const part of this.parts) {
      part.state = this.#host.states.pin(part.state.key)
      for (const entry of part.entries) entry.forget()
    }
    this.#host.askAgain(this)
  }

  #leave(): void {
    for (const { state } of this.parts) this.#host.states.unpin(state)
  }
}
