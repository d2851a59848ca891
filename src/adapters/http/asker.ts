import PQueue from 'p-queue'
import { IMError, type IMErrorCode } from '../../errors.ts'
import { Breaker, type BreakerOptions } from './breaker.ts'
import type { HTTPClient, HTTPClock, Post } from './client.ts'

export interface AskerOptions {
  readonly client: HTTPClient
  readonly clock: HTTPClock
  readonly code: IMErrorCode
  readonly maxConcurrent: number
  readonly maxQueued: number
  /** for all of it: the wait for a turn and the call */
  readonly timeoutMs: number
  readonly breaker: Required<BreakerOptions>
}

/** Questions that are answered by JSON with status 200, some at a time, others in their turn, and none while nobody answers. */
export class Asker {
  readonly #options: AskerOptions
  readonly #queue: PQueue
  readonly #breaker: Breaker

  constructor(options: AskerOptions) {
    this.#options = options
    this.#queue = new PQueue({ concurrency: options.maxConcurrent })
    this.#breaker = new Breaker(options.breaker, options.clock)
  }

  /**
   * @param read  the answer out of the JSON; undefined when it is not one
   * @throws IMError of `code`: no answer, or none in time, or not asked at all
   */
  async ask<T>(post: Omit<Post, 'timeoutMs'>, read: (answer: unknown) => T | undefined): Promise<T> {
    const { maxQueued, timeoutMs, clock } = this.#options
    if (this.#breaker.isOpen) throw this.#notAsked()
    if (this.#queue.size >= maxQueued) throw this.#failure(`${maxQueued} questions are waiting`)
    const controller = new AbortController()
    const giveUp = (): void => controller.abort(this.#failure('the caller gave up waiting'))
    const timer = clock.setTimer(timeoutMs, () => controller.abort(this.#failure(`no answer after ${timeoutMs} ms`)))
    if (post.signal.aborted) giveUp()
    post.signal.addEventListener('abort', giveUp, { once: true })
    const { signal } = controller
    try {
      return await this.#queue.add(() => this.#ask({ ...post, signal, timeoutMs }, read, post.signal), { signal })
    } catch (reason) {
      throw signal.aborted ? signal.reason : reason
    } finally {
      clock.clearTimer(timer)
      post.signal.removeEventListener('abort', giveUp)
    }
  }

  async #ask<T>(post: Post, read: (answer: unknown) => T | undefined, caller: AbortSignal): Promise<T> {
    if (!this.#breaker.begin()) throw this.#notAsked()
    try {
      const { status, body } = await this.#options.client.post(post)
      if (status !== 200) throw this.#failure(`status ${status}`)
      const answer = read(parsed(body))
      if (answer === undefined) throw this.#failure('the answer is not what was asked for')
      this.#breaker.succeeded()
      return answer
    } catch (reason) {
      if (caller.aborted) this.#breaker.abandoned()
      else this.#breaker.failed()
      throw reason
    }
  }

  #notAsked(): IMError {
    return this.#failure('it has failed too often and is not asked for a while')
  }

  #failure(detail: string): IMError {
    return new IMError(this.#options.code, { detail })
  }
}

/** undefined for what is not JSON: the parser's own error would quote it. */
function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString()) as unknown
  } catch {
    return undefined
  }
}
