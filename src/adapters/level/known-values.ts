import { LRUCache } from 'lru-cache'
import type { MaybePromise } from '../../model/maybe-promise.ts'

export interface KnownValuesOptions {
  /** The values of these keys, in the order asked. */
  readonly read: (keys: Buffer[]) => Promise<(Buffer | undefined)[]>
  readonly maxCount: number
}

/** Longer keys are asked for every time: who invents channels with long names must not fill the memory with them. */
const MAX_KEY_BYTES = 512

/** Stands for "there is none", which is known as well. */
const ABSENT = Buffer.alloc(0)

interface Gathering {
  readonly keys: Buffer[]
  readonly values: Promise<(Buffer | undefined)[]>
}

/**
 * What has been read or written lately, in front of the database. What is absent is remembered, too: that is the usual
 * answer of a deny list.
 *
 * Invariant: a value is kept only if nothing has been written to its key since it was asked for. So every write that has
 * become durable must be told (`wrote`, `changed`) before its caller hears of it.
 */
export class KnownValues {
  readonly #options: KnownValuesOptions
  readonly #known: LRUCache<string, Buffer>
  /** under way, and not overtaken by a write */
  readonly #reads = new Map<string, Promise<Buffer | undefined>>()
  #gathering: Gathering | undefined

  constructor(options: KnownValuesOptions) {
    this.#options = options
    this.#known = new LRUCache({ max: options.maxCount })
  }

  /** At once when it is known. */
  get(key: Buffer): MaybePromise<Buffer | undefined> {
    const name = nameOf(key)
    const known = this.#known.get(name)
    if (known !== undefined) return known === ABSENT ? undefined : known
    return this.#reads.get(name) ?? this.#read(name, key)
  }

  /** This is durable now; undefined: deleted. The value must be no slice of a pool, which would stay with it. */
  wrote(key: Buffer, value: Buffer | undefined): void {
    const name = nameOf(key)
    this.#reads.delete(name)
    // What is deleted is not asked for as a rule; a channel's members must not push out everything else when they go.
    if (value !== undefined || this.#known.has(name)) this.#keep(name, value)
  }

  /** Something durable has changed what will be read here. */
  changed(key: Buffer): void {
    const name = nameOf(key)
    this.#reads.delete(name)
    this.#known.delete(name)
  }

  /** Nothing is known any more, nor will be by what is being read now. */
  forget(): void {
    this.#reads.clear()
    this.#known.clear()
  }

  #read(name: string, key: Buffer): Promise<Buffer | undefined> {
    const { keys, values } = (this.#gathering ??= this.#gather())
    const index = keys.push(key) - 1
    const isLast = (): boolean => this.#reads.get(name) === read && this.#reads.delete(name)
    const read: Promise<Buffer | undefined> = values.then(
      (found) => {
        if (isLast()) this.#keep(name, found[index])
        return found[index]
      },
      (error: unknown) => {
        isLast()
        throw error
      },
    )
    this.#reads.set(name, read)
    return read
  }

  /** What is asked in the same turn is read at once. */
  #gather(): Gathering {
    const keys: Buffer[] = []
    const values = Promise.resolve().then(() => {
      this.#gathering = undefined
      return this.#options.read(keys)
    })
    return { keys, values }
  }

  #keep(name: string, value: Buffer | undefined): void {
    if (name.length <= MAX_KEY_BYTES) this.#known.set(name, value ?? ABSENT)
  }
}

function nameOf(key: Buffer): string {
  return key.toString('latin1')
}
