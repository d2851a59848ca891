import type { AppendResult } from '../../contracts/message-store.ts'
import { IMError } from '../../errors.ts'
import type { AppendCall } from './append-call.ts'
import { isAnswer } from './failures.ts'

export interface AppendWriterOptions {
  readonly write: (calls: readonly AppendCall[]) => Promise<AppendResult[][][]>
  /** statements under way at once */
  readonly maxStatements: number
  /** messages, and bytes, of one statement; a call alone may be larger */
  readonly maxBatchCount: number
  readonly maxBatchBytes: number
  /** what may wait or be under way; beyond it: IM_QUEUE_FULL */
  readonly maxPendingBytes: number
}

/** How far the queue is looked through for calls whose channels are free: behind a busy one there may be thousands. */
const MAX_LOOK = 1_000

/**
 * What comes while statements are under way waits, and goes together in the next one. Calls that share a channel are taken in
 * their order: one that must wait makes those behind it wait that share a channel with it.
 */
export class AppendWriter {
  readonly #options: AppendWriterOptions
  #queue: AppendCall[] = []
  #pendingBytes = 0
  #statementCount = 0
  #isScheduled = false
  readonly #busy = new Set<string>()
  #onIdle: (() => void)[] = []

  constructor(options: AppendWriterOptions) {
    this.#options = options
  }

  submit(call: AppendCall): void {
    // A call that is larger than the bound can still go alone.
    if (this.#pendingBytes > 0 && this.#pendingBytes + call.bytes > this.#options.maxPendingBytes) {
      throw new IMError('IM_QUEUE_FULL', { detail: 'too much waits for PostgreSQL' })
    }
    this.#pendingBytes += call.bytes
    this.#queue.push(call)
    this.#schedule()
  }

  /** Resolves when nothing waits and nothing is under way. */
  async idle(): Promise<void> {
    if (this.#pendingBytes > 0 || this.#statementCount > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  /** In a microtask: what is submitted in the same turn goes in the same statement. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      while (this.#statementCount < this.#options.maxStatements) {
        const calls = this.#take()
        if (calls.length === 0) return
        void this.#run(calls)
      }
    })
  }

  #take(): AppendCall[] {
    const taken: AppendCall[] = []
    const left: AppendCall[] = []
    const blocked = new Set(this.#busy)
    let count = 0
    let bytes = 0
    let index = 0
    for (; index < this.#queue.length && index < MAX_LOOK; index++) {
      const call = this.#queue[index]!
      const isFull = taken.length > 0 && (count + call.count > this.#options.maxBatchCount || bytes + call.bytes > this.#options.maxBatchBytes)
      if (isFull) break
      if (call.parts.some(({ name }) => blocked.has(name))) {
        for (const { name } of call.parts) blocked.add(name)
        left.push(call)
        continue
      }
      taken.push(call)
      count += call.count
      bytes += call.bytes
    }
    if (taken.length > 0) this.#queue = left.concat(this.#queue.slice(index))
    return taken
  }

  async #run(calls: readonly AppendCall[]): Promise<void> {
    this.#statementCount++
    for (const { parts } of calls) for (const { name } of parts) this.#busy.add(name)
    await this.#write(calls)
    for (const { parts } of calls) for (const { name } of parts) this.#busy.delete(name)
    this.#statementCount--
    for (const { bytes } of calls) this.#pendingBytes -= bytes
    if (this.#queue.length > 0) this.#schedule()
    if (this.#pendingBytes > 0 || this.#statementCount > 0) return
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /**
   * When the server has refused the statement, and would others, each half is tried alone: one call that cannot be stored does
   * no harm to those that happened to go with it. A failure of which nobody knows what it did is everybody's.
   */
  async #write(calls: readonly AppendCall[]): Promise<void> {
    let results: AppendResult[][][]
    try {
      results = await this.#options.write(calls)
    } catch (error) {
      if (calls.length > 1 && isOfOneCall(error)) {
        const middle = calls.length >> 1
        await this.#write(calls.slice(0, middle))
        return this.#write(calls.slice(middle))
      }
      for (const call of calls) call.reject(error)
      return
    }
    for (const [index, call] of calls.entries()) call.resolve(results[index]!)
  }
}

/** Something about the data: a class of SQLSTATEs for data, constraints and limits. */
function isOfOneCall(error: unknown): boolean {
  const cause = error instanceof IMError ? error.cause : undefined
  return isAnswer(cause) && /^(22|23|54|P0)/.test((cause as { code: string }).code)
}
