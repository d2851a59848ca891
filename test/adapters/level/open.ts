import { Database, type AnyLevel, type Operations } from '../../../src/adapters/level/database.ts'
import { Writer } from '../../../src/adapters/level/writer.ts'

export interface OpenedLevel {
  readonly level: AnyLevel
  readonly database: Database
  readonly writer: Writer
  /** the writer's time: a failed write is tried again after a second of it. It goes on by `tickMs` whenever it is asked for */
  readonly clock: { nowMs: number; tickMs: number }
  /** have this called when the writer says that what is known is worth nothing */
  onForget(forget: () => void): void
  close(): Promise<void>
}

export interface OpenLevelOptions {
  readonly isForeign?: boolean
  readonly maxPendingBytes?: number
}

/** A database and its writer on a level that may be open or closed; `isForeign`: close leaves it open. */
export async function openLevel(level: AnyLevel, options: OpenLevelOptions = {}): Promise<OpenedLevel> {
  const { isForeign = false, maxPendingBytes = 1 << 28 } = options
  const database = new Database({ make: () => Promise.resolve(level), place: 'the test', isForeign, sync: false })
  await database.open()
  const clock = { nowMs: 0, tickMs: 0 }
  const forgets: (() => void)[] = []
  const forget = (): void => forgets.forEach((each) => each())
  const writer = new Writer({ database, maxPendingBytes, forget, nowMs: () => (clock.nowMs += clock.tickMs) })
  return {
    level,
    database,
    writer,
    clock,
    onForget: (each) => void forgets.push(each),
    close: async () => {
      await writer.idle()
      await database.close()
    },
  }
}

/** A level whose reads can be held back, counted, and whose writes can be held back or made to fail. */
export class FaultyLevel implements AnyLevel {
  readonly #inner: AnyLevel
  readCount = 0
  writeCount = 0
  /** writes from now on that fail with this, and write nothing */
  failure: Error | undefined
  /** only the writes that it says yes to fail */
  failsFor: (operations: Operations) => boolean = () => true
  #reads: Gate | undefined
  #writes: Gate | undefined

  constructor(inner: AnyLevel) {
    this.#inner = inner
  }

  get status(): string {
    return this.#inner.status
  }

  /** Reads from now on get their answer from the database as it is, and hand it on when released. */
  holdReads(): Gate {
    const gate = new Gate(() => (this.#reads = undefined))
    return (this.#reads = gate)
  }

  /** Writes from now on begin when released. */
  holdWrites(): Gate {
    const gate = new Gate(() => (this.#writes = undefined))
    return (this.#writes = gate)
  }

  open(): Promise<void> {
    return this.#inner.open()
  }

  close(): Promise<void> {
    return this.#inner.close()
  }

  get(...[key, options]: Parameters<AnyLevel['get']>): Promise<Buffer | undefined> {
    return this.#read(this.#inner.get(key, options))
  }

  getMany(...[keys, options]: Parameters<AnyLevel['getMany']>): Promise<(Buffer | undefined)[]> {
    return this.#read(this.#inner.getMany(keys, options))
  }

  batch(): ReturnType<AnyLevel['batch']> {
    const batch = this.#inner.batch()
    const operations: Operations = []
    return {
      put: (key, value, options) => {
        operations.push(key, value)
        return batch.put(key, value, options)
      },
      del: (key, options) => {
        operations.push(key, undefined)
        return batch.del(key, options)
      },
      write: async (options) => {
        this.writeCount++
        const gate = this.#writes
        gate?.arrive()
        await gate?.opened
        if (this.failure !== undefined && this.failsFor(operations)) throw this.failure
        await batch.write(options)
      },
    }
  }

  iterator(...[options]: Parameters<AnyLevel['iterator']>): ReturnType<AnyLevel['iterator']> {
    const iterator = this.#inner.iterator(options)
    return { nextv: (size) => this.#read(iterator.nextv(size)), close: () => iterator.close() }
  }

  keys(...[options]: Parameters<AnyLevel['keys']>): ReturnType<AnyLevel['keys']> {
    const iterator = this.#inner.keys(options)
    return { nextv: (size) => this.#read(iterator.nextv(size)), close: () => iterator.close() }
  }

  async #read<T>(answer: Promise<T>): Promise<T> {
    this.readCount++
    const gate = this.#reads
    const found = await answer
    gate?.arrive()
    await gate?.opened
    return found
  }
}

/** Where what comes waits until it is released. */
export class Gate {
  /** somebody waits */
  readonly arrived: Promise<void>
  readonly opened: Promise<void>
  arrive!: () => void
  release!: () => void

  constructor(onRelease: () => void) {
    this.arrived = new Promise((resolve) => {
      this.arrive = resolve
    })
    this.opened = new Promise((resolve) => {
      this.release = () => {
        onRelease()
        resolve()
      }
    })
  }
}
