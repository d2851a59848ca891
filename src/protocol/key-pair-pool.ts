import { makeKeyPair, type KeyPair } from './key-pair.ts'

/** Pairs under way at once: libuv's threads are the store's, too. */
const MAX_PENDING = 8
/** So long nobody may have asked before some are made, and so long it is from one batch to the next. */
const QUIET_MS = 20

export interface KeyPairPoolOptions {
  /** pairs kept at most; 0: none are made ahead */
  readonly maxCount: number
  /** call `fire` once, after `delayMs`; must not keep the process alive. @returns what takes it back */
  readonly later: (delayMs: number, fire: () => void) => () => void
  /** for tests: another source of pairs */
  readonly make?: (made: (pair: KeyPair | undefined) => void) => void
}

/**
 * Key pairs made ahead, on other threads, for the moment when everybody connects at once: each is handed out once. They are
 * made while nobody asks for any, because handing work to a thread and taking it back costs half of the work itself. Nothing
 * is made before the first one is asked for, so an engine whose clients talk plain has none.
 */
export class KeyPairPool {
  readonly #options: KeyPairPoolOptions
  readonly #make: (made: (pair: KeyPair | undefined) => void) => void
  #pairs: KeyPair[] = []
  #pendingCount = 0
  #askedCount = 0
  #cancelFill: (() => void) | undefined
  #isClosed = false

  constructor(options: KeyPairPoolOptions) {
    this.#options = options
    this.#make = options.make ?? makeKeyPair
  }

  /** Pairs that are ready. */
  get count(): number {
    return this.#pairs.length
  }

  /** A pair nobody else gets; undefined when none is ready: the caller makes its own. */
  take(): KeyPair | undefined {
    const pair = this.#pairs.pop()
    this.#askedCount++
    this.#fillLater()
    return pair
  }

  /** Forget the keys, and make no more. */
  close(): void {
    this.#isClosed = true
    this.#pairs = []
    this.#cancelFill?.()
    this.#cancelFill = undefined
  }

  get #hasRoom(): boolean {
    return !this.#isClosed && this.#pairs.length + this.#pendingCount < this.#options.maxCount
  }

  #start(): void {
    if (!this.#hasRoom || this.#pendingCount >= MAX_PENDING) return
    this.#pendingCount++
    this.#make((pair) => {
      this.#pendingCount--
      if (pair === undefined || this.#isClosed) return
      this.#pairs.push(pair)
      if (this.#pendingCount === 0) this.#fillLater()
    })
  }

  /** Some at a time, with a timer between: work on other threads keeps the process alive, which filling must not do for long. */
  #fillLater(): void {
    if (this.#cancelFill !== undefined || !this.#hasRoom) return
    const askedCount = this.#askedCount
    this.#cancelFill = this.#options.later(QUIET_MS, () => {
      this.#cancelFill = undefined
      if (this.#askedCount !== askedCount) return this.#fillLater()
      for (let count = this.#pendingCount; count < MAX_PENDING; count++) this.#start()
    })
  }
}
