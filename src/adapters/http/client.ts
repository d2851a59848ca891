import { Agent, request as requestHTTP, type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { Agent as SecureAgent, request as requestHTTPS } from 'node:https'
import { performance } from 'node:perf_hooks'
import type { Clock } from '../../contracts/clock.ts'
import { IMError, type IMErrorCode } from '../../errors.ts'

/** Time as this adapter needs it; replaced in tests only. */
export type HTTPClock = Pick<Clock, 'nowMs' | 'monotonicMs' | 'setTimer' | 'clearTimer'>

export function systemHTTPClock(): HTTPClock {
  return {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer: (delayMs, fire) => setTimeout(fire, delayMs),
    clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
  }
}

export interface HTTPClientOptions {
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly agent: Agent | undefined
  readonly maxSockets: number
  readonly maxAnswerBytes: number
  readonly clock: HTTPClock
  /** what a failure is called */
  readonly code: IMErrorCode
}

export interface Post {
  /** goes into the query as `event` */
  readonly event?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body: Buffer
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface Reply {
  readonly status: number
  readonly body: Buffer
}

/**
 * Posts JSON to one URL over kept connections. Strict: one time-out for all of it, answers no longer than `maxAnswerBytes` and
 * complete, redirects not followed. Its errors hold a status or a code of the system, never the URL, a header or a body, and
 * so no `cause`: those of a parser quote what they could not read.
 */
export class HTTPClient {
  readonly #options: HTTPClientOptions
  readonly #agent: Agent

  constructor(options: HTTPClientOptions) {
    this.#options = options
    const { agent, maxSockets, url } = options
    this.#agent = agent ?? new (url.protocol === 'https:' ? SecureAgent : Agent)({ keepAlive: true, maxSockets })
  }

  /** @throws IMError of `code` when there is no complete answer in time */
  async post(post: Post): Promise<Reply> {
    const { clock } = this.#options
    const controller = new AbortController()
    const giveUp = (): void => controller.abort(this.#failure('the caller gave up waiting'))
    const timer = clock.setTimer(post.timeoutMs, () => controller.abort(this.#failure(`no answer after ${post.timeoutMs} ms`)))
    if (post.signal.aborted) giveUp()
    post.signal.addEventListener('abort', giveUp, { once: true })
    try {
      return await this.#exchange(post, controller.signal, true)
    } finally {
      clock.clearTimer(timer)
      post.signal.removeEventListener('abort', giveUp)
    }
  }

  #exchange(post: Post, signal: AbortSignal, mayRepeat: boolean): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as IMError)
      let hasAnswer = false
      let isOver = false
      const end = (settle: () => void): void => {
        if (isOver) return
        isOver = true
        signal.removeEventListener('abort', abort)
        settle()
      }
      const fail = (failure: IMError): void => end(() => {
        request.destroy()
        reject(failure)
      })
      const abort = (): void => fail(signal.reason as IMError)
      const broken = (error: NodeJS.ErrnoException): void => {
        // The far end closes a kept connection whenever it likes, also while a request is on its way there.
        const wasStale = request.reusedSocket && !hasAnswer && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
        if (wasStale && mayRepeat) return end(() => resolve(this.#exchange(post, signal, false)))
        fail(this.#failure(`the connection failed (${error.code ?? 'unknown'})`))
      }
      const request = this.#request(post, (response) => {
        hasAnswer = true
        this.#collect(response, fail, (body) => end(() => resolve({ status: response.statusCode ?? 0, body })))
      })
      request.on('error', broken) // stays to the end: a late error must find someone
      request.on('close', () => {
        if (!hasAnswer) fail(this.#failure('the connection ended without an answer'))
      })
      signal.addEventListener('abort', abort, { once: true })
      request.end(post.body)
    })
  }

  #request({ event, headers, body }: Post, answered: (response: IncomingMessage) => void): ClientRequest {
    const url = new URL(this.#options.url)
    if (event !== undefined) url.searchParams.set('event', event)
    const options: RequestOptions = {
      method: 'POST',
      agent: this.#agent,
      headers: {
        accept: 'application/json',
        ...this.#options.headers,
        ...headers,
        'content-type': 'application/json',
        'content-length': body.length,
      },
    }
    return url.protocol === 'https:' ? requestHTTPS(url, options, answered) : requestHTTP(url, options, answered)
  }

  #collect(response: IncomingMessage, fail: (failure: IMError) => void, done: (body: Buffer) => void): void {
    const { maxAnswerBytes } = this.#options
    const tooLong = (): void => fail(this.#failure(`the answer is longer than ${maxAnswerBytes} bytes`))
    const cut = (): void => fail(this.#failure('the connection ended in the middle of the answer'))
    const chunks: Buffer[] = []
    let byteCount = 0
    response.on('error', cut)
    response.on('close', cut) // does nothing behind 'end'
    response.on('end', () => (response.complete ? done(Buffer.concat(chunks)) : cut()))
    if (Number(response.headers['content-length'] ?? 0) > maxAnswerBytes) return tooLong()
    response.on('data', (chunk: Buffer) => {
      byteCount += chunk.length
      if (byteCount > maxAnswerBytes) return tooLong()
      chunks.push(chunk)
    })
  }

  #failure(detail: string): IMError {
    return new IMError(this.#options.code, { detail })
  }
}
