export interface IsolationOptions {
  /** how long there may be no connection without its being said */
  readonly afterMs: number
  /** how long a server may be there that brings nothing: servers that choose a new leader are silent for some seconds as well */
  readonly silentAfterMs: number
  readonly isConnected: () => boolean
  /** does any stream that has not been given up bring what there is? A server that has lost the others is there, and brings none */
  readonly isHearing: () => boolean
  /** is everything that has not been given up followed? */
  readonly isFollowing: () => boolean
  /**
   * Called when the connection is there again. @returns whether this node has what it had missed by then, each time it is called: what
   * comes all the while is never all applied at any one look, and those who are not isolated have not applied it either
   */
  readonly catchUp: () => () => boolean
  readonly tell: (isIsolated: boolean) => void
}

const LOOK_EVERY_MS = 100

/**
 * Says when this node has lost the servers for so long that it should say so, and when it has them and what it missed again. A
 * partition that has stopped is the same for good: its messages would reach nobody here.
 */
export class Isolation {
  readonly #options: IsolationOptions
  readonly #timer: NodeJS.Timeout
  #connectedMs = performance.now()
  #heardMs = performance.now()
  /** since when the connection is there; what was followed over the one before still looks as if it were heard for a moment */
  #sinceMs: number | undefined
  /** of the connection that is there */
  #isCaughtUp: (() => boolean) | undefined
  #isTold = false

  constructor(options: IsolationOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS)
  }

  /** A part of the log will not go on by itself. */
  stopped(): void {
    clearInterval(this.#timer)
    if (this.#isTold) return
    this.#isTold = true
    this.#options.tell(true)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const { afterMs, silentAfterMs, isConnected, isHearing, isFollowing, catchUp, tell } = this.#options
    const nowMs = performance.now()
    if (isConnected()) {
      this.#connectedMs = nowMs
      this.#sinceMs ??= nowMs
      if (isHearing()) this.#heardMs = nowMs
    } else {
      this.#sinceMs = undefined
    }
    const isLost = nowMs - this.#connectedMs >= afterMs || nowMs - this.#heardMs >= silentAfterMs
    const isThere = this.#sinceMs !== undefined && nowMs - this.#sinceMs >= LOOK_EVERY_MS
    if (isLost || !isThere) this.#isCaughtUp = undefined
    if (isLost === this.#isTold) return
    if (this.#isTold) {
      if (!isThere) return
      this.#isCaughtUp ??= catchUp()
      if (!this.#isCaughtUp() || !isFollowing()) return
    }
    this.#isTold = isLost
    tell(isLost)
  }
}
