import { isFirstPayload, type MessageRecord } from '../../contracts/message-record.ts'
import { IMError } from '../../errors.ts'
import type { Entry, Original } from './append-entry.ts'
import type { AppendTask } from './append-task.ts'
import type { ChannelState, ChannelStates } from './channel-states.ts'
import type { NumberFilter } from './number-filter.ts'
import type { NumberIndex } from './number-index.ts'

export interface LookupsOptions {
  readonly states: ChannelStates
  readonly index: NumberIndex
  readonly filter: NumberFilter
  /** batches that are durable */
  readonly batchCount: () => number
  readonly ready: (task: AppendTask) => void
  /** the database cannot be asked, and what is `ready` will come again when it can */
  readonly isMending: () => boolean
  /** waiting for an answer, over all tasks */
  readonly maxPendingBytes: number
}

/**
 * What appends must know before they can be planned: where their channels stand, and whether their numbers have been used. Those
 * with a position wait here for what goes ahead of it, too.
 * Asked while earlier messages are on their way to the disk, for everything that has come meanwhile at once, and passed on
 * in the order in which it came.
 */
export class Lookups {
  readonly #options: LookupsOptions
  #waiting: AppendTask[] = []
  #pendingBytes = 0
  #running: Promise<void> | undefined

  constructor(options: LookupsOptions) {
    this.#options = options
  }

  submit(task: AppendTask): void {
    // Somebody else has had the database opened anew: who comes then need not fail for it. With tasks before it, it stays behind them.
    if (this.#running === undefined && this.#options.isMending()) return this.#options.ready(task)
    if (this.#running === undefined && this.#isClear(task)) {
      task.askedAt = this.#options.batchCount()
      this.#options.ready(task)
      return
    }
    if (this.#pendingBytes + task.bytes > this.#options.maxPendingBytes && this.#pendingBytes > 0) {
      return task.failed(new IMError('IM_QUEUE_FULL', { detail: 'too much waits for the disk' }))
    }
    this.#waiting.push(task)
    this.#pendingBytes += task.bytes
    this.#running ??= this.#run()
  }

  async idle(): Promise<void> {
    await this.#running
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what comes in the same turn is asked for at once
    while (this.#waiting.length > 0) {
      const tasks = this.#waiting
      this.#waiting = []
      const askedAt = this.#options.batchCount()
      for (const task of tasks) task.askedAt = askedAt
      const answered = await this.#answered(tasks)
      for (const task of tasks) this.#pendingBytes -= task.bytes
      for (const task of answered) this.#options.ready(task)
    }
    this.#running = undefined
  }

  /** @returns those about which everything is known now; the others have failed */
  async #answered(tasks: readonly AppendTask[]): Promise<readonly AppendTask[]> {
    try {
      await this.#ask(tasks)
      return tasks
    } catch (error) {
      if (tasks.length === 1) {
        tasks[0]!.failed(error as IMError)
        return []
      }
    }
    // What is damaged concerns those who need it, and nobody who came in the same turn.
    const answered: AppendTask[] = []
    for (const task of tasks) answered.push(...(await this.#answered([task])))
    return answered
  }

  async #ask(tasks: readonly AppendTask[]): Promise<void> {
    for (const { ahead } of tasks) await ahead?.submitted
    await this.#options.states.loadAll([...new Set(tasks.flatMap((task) => task.parts.map(({ state }) => state)))])
    const unsure = tasks.flatMap((task) => this.#unsure(task))
    if (unsure.length === 0) return
    const found = await this.#options.index.find(unsure.map(({ entry, state }) => ({ channel: state, number: entry })))
    for (const [index, { entry }] of unsure.entries()) entry.found = found[index] && originalOf(found[index])
  }

  /** Nothing has to be asked: the channels are known, and the numbers are surely new. */
  #isClear(task: AppendTask): boolean {
    if (task.ahead?.submitted !== undefined) return false
    for (const { state, entries } of task.parts) {
      if (!state.isLoaded) return false
      if (state.no === 0) continue // nobody has ever written there
      for (const entry of entries) if (this.#mayBeUsed(entry, state)) return false
    }
    return true
  }

  /** The messages whose numbers may have been used before. */
  #unsure(task: AppendTask): { entry: Entry; state: ChannelState }[] {
    const unsure: { entry: Entry; state: ChannelState }[] = []
    for (const { state, entries } of task.parts) {
      if (state.no === 0) continue
      for (const entry of entries) if (this.#mayBeUsed(entry, state)) unsure.push({ entry, state })
    }
    return unsure
  }

  #mayBeUsed(entry: Entry, { no }: ChannelState): boolean {
    const { filter } = this.#options
    return entry.takeHash(no, filter) && filter.mayHave(entry.numberHash)
  }
}

function originalOf(record: MessageRecord): Original {
  const { messageID, messageSeq } = record.message
  return { messageID, messageSeq, hasPayload: (payload) => isFirstPayload(record, payload) }
}
