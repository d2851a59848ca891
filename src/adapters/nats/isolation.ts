export interface IsolationOptions {
  /** how long it may last without being said */
  readonly afterMs: number
  /** does this node know everything again? Asked only while it is connected */
  readonly isReunited: () => boolean
  readonly tell: (isIsolated: boolean) => void
}

const LOOK_EVERY_MS = 100

/**
 * Says when this node has lost the servers for so long that it should say so, and when it has them and what it missed again. A
 * partition that has stopped is the same for good: its messages would reach nobody here.
 */
export class Isolation {
  readonly #options: IsolationOptions
  #timer: NodeJS.Timeout | undefined
  #isTold = false
  #isFinal = false

  constructor(options: IsolationOptions) {
    this.#options = options
  }

  /** The connection is gone. */
  lost(): void {
    clearTimeout(this.#timer)
    if (!this.#isTold) this.#timer = setTimeout(() => this.#tell(), this.#options.afterMs)
  }

  /** The connection is back. */
  found(): void {
    clearTimeout(this.#timer)
    if (this.#isTold && !this.#isFinal) this.#look()
  }

  /** It will not go on by itself. */
  stopped(): void {
    clearTimeout(this.#timer)
    this.#isFinal = true
    if (!this.#isTold) this.#tell()
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  #tell(): void {
    this.#isTold = true
    this.#options.tell(true)
  }

  #look(): void {
    if (!this.#options.isReunited()) {
      this.#timer = setTimeout(() => this.#look(), LOOK_EVERY_MS)
      return
    }
    this.#isTold = false
    this.#options.tell(false)
  }
}
