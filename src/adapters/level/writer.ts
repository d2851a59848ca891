import { asIMError, IMError } from '../../errors.ts'
import type { Database, DatabaseBatch, Operations } from './database.ts'

/** Something to be written, alone or with others. */
export interface WriteTask {
  /** about how many bytes it holds */
  readonly bytes: number
  /**
   * Add to the batch that gathers. Called once, in the order of `submit`, most often from inside of it; everything before it
   * is durable, on its way, or in the same batch. A throw takes this task out, and nothing it has added is written.
   */
  plan(operations: Operations): void
  /** its batch is durable */
  done(): void
  /** nothing of it is written, as far as anybody knows */
  failed(error: IMError): void
  /**
   * Instead of `plan`, for a task that has made the database be opened anew, or has come meanwhile: what it knew of the
   * database may be wrong now. It is to ask again and be submitted again.
   */
  askAgain?(): void
  /**
   * Has a write failed since it was called for? Then it throws, and fails with that: what was submitted before it is lost, so
   * it must not be what has the database opened anew, and begin again there. What is called for afterwards may.
   */
  check?(): void
}

export interface WriterOptions {
  readonly database: Database
  /** submitted and not durable yet, over all tasks */
  readonly maxPendingBytes: number
  /** a write has failed: what was kept in memory about the database is worth nothing */
  readonly forget: () => void
  readonly nowMs: () => number
}

interface Batch {
  readonly content: DatabaseBatch
  readonly tasks: WriteTask[]
  bytes: number
  /** it is not what was planned, and must not be written */
  failure: IMError | undefined
}

/** A batch beyond this is closed, and another one begun behind it. */
const MAX_BATCH_BYTES = 16 << 20
/** After a failed write, how long to answer with the same failure before the disk is tried again. */
const RETRY_AFTER_MS = 1_000

/**
 * The one who writes. Whatever comes, of every kind and for every channel, goes into the batch that gathers while the one
 * before it is on its way to the disk. So one disk sync serves everybody who waits, what belongs together is atomic, and the
 * next batch is ready when the disk is.
 *
 * Batches are written one after the other. When one fails, those behind it were planned on what it did not do, so they fail
 * with it, and the database is opened anew before anything else is written.
 */
export class Writer {
  readonly #options: WriterOptions
  /** in order; the first is being written, the last gathers */
  #batches: Batch[] = []
  #pendingBytes = 0
  #batchCount = 0
  #running: Promise<void> | undefined
  /** the first batch is on its way */
  #isWriting = false
  /** the last write has failed, and the database has not been opened anew since */
  #broken: { readonly error: IMError; readonly sinceMs: number } | undefined
  /** what came while the database was being opened anew */
  #mending: WriteTask[] | undefined

  constructor(options: WriterOptions) {
    this.#options = options
  }

  /** Batches that are durable. */
  get durableCount(): number {
    return this.#batchCount
  }

  /** While a task is planned: the number of its batch. Those that are durable have the numbers up to `durableCount`. */
  get gatheringNumber(): number {
    return this.#batchCount + this.#batches.length
  }

  /** The database is being opened anew, and cannot be asked. What is submitted meanwhile waits for it. */
  get isMending(): boolean {
    return this.#mending !== undefined
  }

  /** The database has been opened by its owner: what an earlier life has failed at says nothing any more. */
  begin(): void {
    this.#broken = undefined
  }

  /** Resolves at once as a rule; after a failed write when the database has been brought back. Rejects when it has not. */
  async whole(): Promise<void> {
    if (this.#broken !== undefined) await this.write([])
  }

  submit(task: WriteTask): void {
    if (this.#pendingBytes + task.bytes > this.#options.maxPendingBytes && this.#pendingBytes > 0) {
      return task.failed(new IMError('IM_QUEUE_FULL', { detail: 'too much waits for the disk' }))
    }
    if (this.#broken === undefined) return this.#plan(task)
    if (this.#mending === undefined && this.#isTooSoon(this.#broken.sinceMs)) return task.failed(this.#broken.error)
    try {
      task.check?.()
    } catch (error) {
      return task.failed(error as IMError)
    }
    this.#pendingBytes += task.bytes
    if (this.#mending !== undefined) return void this.#mending.push(task)
    this.#mending = [task]
    this.#running = this.#mend()
  }

  /** Write these, durable once resolved; `applied` is called before anybody who waits for it goes on. */
  write(operations: Operations, applied?: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      let bytes = 0
      for (const part of operations) bytes += part?.length ?? 0
      this.submit({
        bytes,
        plan: (batch) => {
          for (const part of operations) batch.push(part) // they may be too many for arguments of a call
        },
        done: () => {
          applied?.()
          resolve()
        },
        failed: reject,
      })
    })
  }

  /** Resolves when nothing waits and nothing is being written. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  #plan(task: WriteTask): void {
    const operations: Operations = []
    let batch: Batch
    try {
      batch = this.#gathering() // first: what is planned may want its number
      task.plan(operations)
    } catch (error) {
      if (this.#batches.length > 0) this.#running ??= this.#run() // it may be a new one that nobody else comes to
      return task.failed(asIMError(error, 'IM_STORE_UNAVAILABLE', {}))
    }
    batch.tasks.push(task)
    batch.bytes += task.bytes
    this.#pendingBytes += task.bytes
    try {
      batch.content.add(operations)
    } catch (error) {
      // Planned, and not in the batch, and others may be planned on it: it fails when it is its turn, as if it had been written.
      batch.failure ??= asIMError(error, 'IM_STORE_UNAVAILABLE', {})
    }
    this.#running ??= this.#run()
  }

  #gathering(): Batch {
    const last = this.#batches.at(-1)
    const isOpen = last !== undefined && last.bytes < MAX_BATCH_BYTES && (this.#batches.length > 1 || !this.#isWriting)
    if (isOpen) return last
    const batch = { content: this.#options.database.batch(), tasks: [], bytes: 0, failure: undefined }
    this.#batches.push(batch)
    return batch
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what is submitted in the same turn goes in the same batch
    while (this.#batches.length > 0) {
      const batch = this.#batches[0]!
      this.#isWriting = true
      try {
        if (batch.failure !== undefined) throw batch.failure
        if (batch.tasks.length > 0) await batch.content.write()
        else batch.content.drop()
      } catch (error) {
        this.#isWriting = false
        this.#fail(error as IMError)
        break
      }
      this.#isWriting = false
      this.#batches.shift()
      this.#batchCount++
      this.#pendingBytes -= batch.bytes
      for (const task of batch.tasks) task.done()
    }
    this.#running = undefined
  }

  #fail(error: IMError): void {
    const tasks = this.#batches.flatMap((batch) => batch.tasks)
    for (const { content } of this.#batches) content.drop()
    this.#batches = []
    this.#pendingBytes = 0
    this.#broken = { error, sinceMs: this.#options.nowMs() }
    this.#options.forget()
    for (const task of tasks) task.failed(error)
  }

  #isTooSoon(sinceMs: number): boolean {
    const passedMs = this.#options.nowMs() - sinceMs
    return passedMs >= 0 && passedMs < RETRY_AFTER_MS
  }

  /** Bring the database back after a failed write; what has come meanwhile is planned then, or fails. */
  async #mend(): Promise<void> {
    let failure: IMError | undefined
    try {
      await this.#options.database.reopen()
    } catch (error) {
      failure = error as IMError
    }
    const tasks = this.#mending ?? []
    this.#mending = undefined
    this.#running = undefined
    for (const task of tasks) this.#pendingBytes -= task.bytes
    if (failure !== undefined) {
      this.#broken = { error: failure, sinceMs: this.#options.nowMs() }
      for (const task of tasks) task.failed(failure)
      return
    }
    this.#broken = undefined
    this.#options.forget()
    for (const task of tasks) {
      if (task.askAgain === undefined) this.#plan(task)
      else task.askAgain()
    }
  }
}
