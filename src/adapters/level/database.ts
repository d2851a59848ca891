/**
 * The key-value database beneath the level adapter: any of the abstract-level family. Power loss: a write with `sync` is on
 * the disk when it resolves. A slow disk makes batches larger. Close waits for what is under way.
 */
import { IMError } from '../../errors.ts'
import { storageFailure } from './failures.ts'

/** A range of keys, in byte order. */
export interface KeyRange {
  readonly gte: Buffer
  readonly lt: Buffer
  readonly reverse?: boolean
  readonly limit?: number
  /** of classic-level: how much is handed over at once */
  readonly highWaterMarkBytes?: number
}

type Encodings = { readonly keyEncoding: 'buffer'; readonly valueEncoding: 'buffer' }

interface LevelChainedBatch {
  put(key: Buffer, value: Buffer, options?: Encodings): unknown
  del(key: Buffer, options?: Encodings): unknown
  write(options?: { readonly sync?: boolean }): Promise<void>
  close?(): Promise<void>
}

interface LevelIterator<T> {
  nextv(size: number): Promise<T[]>
  close(): Promise<void>
}

/** What is used of an abstract-level database; `ClassicLevel`, `MemoryLevel` and their sublevels are some. */
export interface AnyLevel {
  readonly status: string
  open(): Promise<void>
  close(): Promise<void>
  get(key: Buffer, options: Encodings): Promise<Buffer | undefined>
  getMany(keys: Buffer[], options: Encodings): Promise<(Buffer | undefined)[]>
  batch(): LevelChainedBatch
  iterator(options: KeyRange & Encodings): LevelIterator<[Buffer, Buffer]>
  keys(options: KeyRange & Encodings): LevelIterator<Buffer>
}

export interface DatabaseOptions {
  /** Makes the database, once, at the first `open`. */
  readonly make: () => Promise<AnyLevel>
  /** for messages of errors: where it is */
  readonly place: string
  /** it was handed to us open or closed, and is its owner's to close at the end */
  readonly isForeign: boolean
  readonly sync: boolean
  /** Before a broken database is closed, which reads can still use: could it be opened again? Rejects when not. */
  readonly probe?: () => Promise<void>
}

/** Operations that become durable together, or not at all. */
export interface DatabaseBatch {
  add(operations: Operations): void
  /** durable when it resolves (as far as `durability` goes) */
  write(): Promise<void>
  /** It is not going to be written: let the database forget it. */
  drop(): void
}

/** Puts and deletions in order: key, value, key, value …; undefined deletes. */
export type Operations = (Buffer | undefined)[]

const ENCODINGS: Encodings = Object.freeze({ keyEncoding: 'buffer', valueEncoding: 'buffer' })

/** Entries read at once while a range is walked. */
const STRIDE = 1_000

/** classic-level hands over so much at once, whatever is asked for; its own default is made for small ranges. */
export const READ_AHEAD = Object.freeze({ highWaterMarkBytes: 262_144 })

/** All failures leave it as IMErrors that say what to do. */
export class Database {
  readonly place: string
  readonly #options: DatabaseOptions
  #level: AnyLevel | undefined
  #isOpen = false

  constructor(options: DatabaseOptions) {
    this.#options = options
    this.place = options.place
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  async open(): Promise<void> {
    try {
      this.#level ??= await this.#options.make()
      await this.#level.open()
      this.#isOpen = true
    } catch (error) {
      throw storageFailure(error, this.place)
    }
  }

  async close(): Promise<void> {
    this.#isOpen = false
    if (this.#options.isForeign) return
    try {
      await this.#level?.close()
    } catch (error) {
      throw storageFailure(error, this.place)
    }
  }

  /**
   * After a failed write nobody knows what the log file ends with, and what is written behind it might not be found again.
   * Opened anew, the database has read its log to the end and begins another one.
   */
  async reopen(): Promise<void> {
    try {
      await this.#options.probe?.()
    } catch (error) {
      throw storageFailure(error, this.place)
    }
    this.#isOpen = false
    await this.#level?.close().catch(() => undefined) // what is broken need not close well
    await this.open()
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    return this.#attempt((level) => level.get(key, ENCODINGS))
  }

  async getMany(keys: Buffer[]): Promise<(Buffer | undefined)[]> {
    return this.#attempt((level) => level.getMany(keys, ENCODINGS))
  }

  /** All of a range that is known to be small. */
  async entries(range: KeyRange & { readonly limit: number }): Promise<[Buffer, Buffer][]> {
    const found: [Buffer, Buffer][] = []
    for await (const stride of this.strides(range, range.limit)) found.push(...stride)
    return found
  }

  /** A range piece by piece; `stride` entries at once, when that is known to be enough as a rule. */
  async *strides(range: KeyRange, stride = STRIDE): AsyncGenerator<[Buffer, Buffer][], void, undefined> {
    const iterator = await this.#attempt((level) => Promise.resolve(level.iterator({ ...range, ...ENCODINGS })))
    yield* this.#walk(iterator, Math.min(stride, range.limit ?? STRIDE))
  }

  async *keyStrides(range: KeyRange): AsyncGenerator<Buffer[], void, undefined> {
    const iterator = await this.#attempt((level) => Promise.resolve(level.keys({ ...range, ...ENCODINGS, ...READ_AHEAD })))
    yield* this.#walk(iterator, Math.min(STRIDE, range.limit ?? STRIDE))
  }

  /** An atomic batch to be filled. @throws IM_STORE_UNAVAILABLE while the database is not open */
  batch(): DatabaseBatch {
    if (!this.#isOpen || this.#level === undefined) throw this.#notOpen()
    const batch = this.#level.batch()
    const encodings = this.#options.isForeign ? ENCODINGS : undefined // ours has them by default, which is cheaper
    return {
      add: (operations) => {
        for (let index = 0; index < operations.length; index += 2) {
          const key = operations[index]!
          const value = operations[index + 1]
          if (value === undefined) batch.del(key, encodings)
          else batch.put(key, value, encodings)
        }
      },
      write: () => this.#attempt(() => batch.write({ sync: this.#options.sync })),
      drop: () => void batch.close?.().catch(() => undefined), // one that has been written is closed already
    }
  }

  /** One atomic batch of its own, before there is a writer. */
  async write(operations: Operations): Promise<void> {
    const batch = this.batch()
    batch.add(operations)
    await batch.write()
  }

  async *#walk<T>(iterator: LevelIterator<T>, size: number): AsyncGenerator<T[], void, undefined> {
    try {
      for (;;) {
        const stride = await this.#attempt(() => iterator.nextv(size))
        if (stride.length === 0) return
        yield stride
      }
    } finally {
      await iterator.close().catch(() => undefined) // it has told, or nobody waits any more
    }
  }

  async #attempt<T>(action: (level: AnyLevel) => Promise<T>): Promise<T> {
    if (!this.#isOpen || this.#level === undefined) throw this.#notOpen()
    try {
      return await action(this.#level)
    } catch (error) {
      throw storageFailure(error, this.place)
    }
  }

  #notOpen(): IMError {
    return new IMError('IM_STORE_UNAVAILABLE', { detail: `${this.place} is not open: the engine opens it when it starts` })
  }
}
