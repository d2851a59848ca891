import { randomBytes } from 'node:crypto'
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node'
import { IMError } from '../../errors.ts'
import { decodeAnswer } from './peer-wire.ts'

export interface PeerCallsOptions {
  readonly nats: NatsConnection
  readonly subjectOf: (nodeID: number) => string
  /** a call that has not been answered for so long has failed */
  readonly timeoutMs: number
  readonly maxCount: number
  readonly maxBytes: number
}

interface Call {
  readonly nodeID: number
  readonly dueMs: number
  readonly settle: (failure: IMError | undefined) => void
}

/** In the place of a call's id; those are numbers. */
const GATHERING = 'gathering'

/** The longest that a server is waited for which should answer at once. */
const FLUSH_LIMIT_MS = 2_000

/**
 * Requests with one inbox for all answers. Not by the driver's own, which takes a timer for each call and knows no abort signal.
 */
export class PeerCalls {
  readonly #options: PeerCallsOptions
  /** in the order in which they are due */
  readonly #calls = new Map<string, Call>()
  readonly #inbox: string
  #subscription: Subscription | undefined
  #gathering: ((msg: Msg) => void) | undefined
  #lastID = 0
  #bytes = 0
  #isClosed = false

  constructor(options: PeerCallsOptions) {
    this.#options = options
    this.#inbox = `_INBOX.${randomBytes(12).toString('hex')}`
  }

  async openInbox(): Promise<void> {
    this.#subscription = this.#options.nats.subscribe(`${this.#inbox}.*`, {
      callback: (error, msg) => {
        if (error === null) this.#answered(msg)
      },
    })
    await this.flush()
  }

  /** @throws IM_PEER_UNREACHABLE  not taken over, or unknown whether it was */
  ask(nodeID: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const { nats, subjectOf, timeoutMs, maxCount, maxBytes } = this.#options
    const refused = (detail: string): Promise<never> => Promise.reject(unreachable(nodeID, detail))
    if (this.#isClosed) return refused('the peer is closed')
    if (signal.aborted) return refused('the caller gave up')
    if (this.#calls.size > 0 && (this.#calls.size >= maxCount || this.#bytes + bytes.length > maxBytes)) return refused('too many calls wait for an answer')
    return new Promise((resolve, reject) => {
      const id = String(++this.#lastID)
      const onAbort = (): void => settle(unreachable(nodeID, 'the caller gave up'))
      const settle = (failure: IMError | undefined): void => {
        if (!this.#calls.delete(id)) return
        this.#bytes -= bytes.length
        signal.removeEventListener('abort', onAbort)
        if (failure === undefined) resolve()
        else reject(failure)
      }
      this.#calls.set(id, { nodeID, dueMs: performance.now() + timeoutMs, settle })
      this.#bytes += bytes.length
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        nats.publish(subjectOf(nodeID), bytes, { reply: `${this.#inbox}.${id}` })
      } catch {
        settle(unreachable(nodeID, 'the connection to NATS is closed'))
      }
    })
  }

  /** Ask everyone who listens, until `isEnough` of an answer, or until there is nobody, or until `limitMs` have passed. */
  async gather(subject: string, bytes: Uint8Array, limitMs: number, isEnough: (answer: Uint8Array) => boolean): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs)
      this.#gathering = (msg) => {
        if (isNoResponders(msg) || isEnough(msg.data)) resolve()
      }
    })
    this.#options.nats.publish(subject, bytes, { reply: `${this.#inbox}.${GATHERING}` })
    await over
    clearTimeout(timer)
    this.#gathering = undefined
  }

  /** Everything published until now is with the server, and everything it had for us has been read. @throws when it is silent */
  async flush(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('no answer')), FLUSH_LIMIT_MS)
    })
    const flushed = this.#options.nats.flush()
    flushed.catch(() => undefined) // when it fails behind the limit
    try {
      await Promise.race([flushed, late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Fail those that have waited too long. */
  expire(): void {
    const nowMs = performance.now()
    for (const { dueMs, nodeID, settle } of this.#calls.values()) {
      if (dueMs > nowMs) return
      settle(unreachable(nodeID, 'no answer in time'))
    }
  }

  failAllTo(nodeID: number): void {
    for (const call of [...this.#calls.values()]) if (call.nodeID === nodeID) call.settle(unreachable(nodeID, 'the node has fallen silent'))
  }

  failAll(detail: string): void {
    for (const { nodeID, settle } of [...this.#calls.values()]) settle(unreachable(nodeID, detail))
  }

  close(): void {
    this.#isClosed = true
    this.#subscription?.unsubscribe()
    this.failAll('the peer is closed')
  }

  #answered(msg: Msg): void {
    const id = msg.subject.slice(this.#inbox.length + 1)
    if (id === GATHERING) return this.#gathering?.(msg)
    const call = this.#calls.get(id)
    if (call === undefined) return // it has been given up
    const { nodeID, settle } = call
    if (isNoResponders(msg)) return settle(unreachable(nodeID, 'no such node'))
    const answer = decodeAnswer(msg.data)
    settle(answer === 'taken' ? undefined : unreachable(nodeID, answer))
  }
}

/** What the server answers where nobody listens. */
function isNoResponders({ data, headers }: Msg): boolean {
  return data.length === 0 && headers?.code === 503
}

function unreachable(nodeID: number, detail: string): IMError {
  return new IMError('IM_PEER_UNREACHABLE', { detail, context: { nodeID } })
}
