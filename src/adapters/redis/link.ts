/**
 * One connection to Redis that comes back by itself. Nothing waits in the driver: a command is sent on a connection that is
 * there, or its caller is told within a bounded time that there is none. Commands are sent in the order of the calls, also
 * those that have waited. What was sent when the connection was lost fails at once; whether Redis has done it is unknown then.
 */
import type { Redis } from 'ioredis'
import type { IMError, IMErrorCode } from '../../errors.ts'
import { isDenied, isLoss, Obstacle, redisFailure, withoutArguments } from './failures.ts'

export interface RedisLinkOptions {
  /** Makes the client, once, at the first call; not connected yet. */
  readonly make: () => Promise<Redis>
  /** Runs on every new connection, before anything else does; a rejection ends the connection, and it is tried again. */
  readonly prepare: (client: Redis) => Promise<void>
  readonly connectTimeoutMs: number
  readonly reconnectGraceMs: number
  readonly checkIntervalMs: number
  readonly maxWaitingCount: number
  /** Commands can be sent; those that have waited are sent behind what this sends. */
  readonly ready?: () => void
  /** The connection that `prepare` has run on is gone. */
  readonly lost?: () => void
  /** what failures are told under that no caller hears of */
  readonly code: IMErrorCode
  readonly report: (error: IMError) => void
}

interface Waiting {
  readonly go: (client: Redis) => void
  readonly giveUp: (reason: Error) => void
}

/** A stream that does not end in this time is destroyed by the driver; see `redisClients`. */
export const DISCONNECT_MS = 200

/** After the driver itself has given up, which it does when a retry strategy of the host tells it to. */
const CONNECT_AGAIN_MS = 1_000

export class RedisLink {
  readonly #options: RedisLinkOptions
  #client: Redis | undefined
  /** connected and prepared */
  #ready: Redis | undefined
  /** counts connections: what belongs to an earlier one is too late */
  #connection = 0
  #isOpening = false
  /** it has been gone for so long that nobody waits for it any more */
  #isDown = false
  #lastError: Error = new Obstacle('Redis is not connected')
  #hasReported = false
  #waiting: Waiting[] = []
  #graceTimer: NodeJS.Timeout | undefined
  #checkTimer: NodeJS.Timeout | undefined
  #againTimer: NodeJS.Timeout | undefined
  #closed: Promise<void> | undefined

  constructor(options: RedisLinkOptions) {
    this.#options = options
  }

  get isReady(): boolean {
    return this.#ready !== undefined
  }

  /** Bytes that have been given to the connection and that the system has not taken yet. */
  get bufferedBytes(): number {
    return this.#client?.stream?.writableLength ?? 0
  }

  /** Connect when that has not begun, and ask. `ask` runs within this call when the connection is there. */
  run<T>(ask: (client: Redis) => Promise<T>): Promise<T> {
    if (this.#ready?.status === 'ready') return ask(this.#ready)
    if (this.#closed !== undefined) return Promise.reject(new Obstacle('the connection to Redis is closed'))
    if (this.#isDown) return Promise.reject(this.#lastError)
    if (this.#waiting.length >= this.#options.maxWaitingCount) return Promise.reject(new Obstacle('too many calls wait for Redis'))
    const asked = new Promise<T>((resolve, reject) => {
      this.#waiting.push({ go: (client) => resolve(ask(client)), giveUp: reject })
    })
    this.#open()
    return asked
  }

  /** `run` for a question: when the connection is lost with it, it is asked once more on the next one. */
  async ask<T>(ask: (client: Redis) => Promise<T>): Promise<T> {
    const connection = this.#connection
    try {
      return await this.run(ask)
    } catch (error) {
      if (!isLoss(error)) throw error
      if (connection === this.#connection) this.#lose() // the driver notices a moment later
      return await this.run(ask)
    }
  }

  /** Ends in a bounded time, also when the server has gone, and leaves no timer. What waits is given up. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close())
  }

  #open(): void {
    if (this.#isOpening) return
    this.#isOpening = true
    this.#waitFor(this.#options.connectTimeoutMs)
    this.#options.make().then(
      (client) => this.#connect(client),
      (error: unknown) => {
        this.#lastError = error as Error
        this.#giveUp()
      },
    )
  }

  #connect(client: Redis): void {
    if (this.#closed !== undefined) return client.disconnect()
    this.#client = client
    client.on('ready', () => this.#prepare(client))
    client.on('close', () => this.#lose())
    client.on('end', () => this.#ended(client))
    client.on('error', (error) => this.#failed(error))
    client.connect().catch(() => undefined) // told as 'error'
  }

  #prepare(client: Redis): void {
    const connection = this.#connection
    this.#options.prepare(client).then(
      () => {
        if (connection === this.#connection && this.#closed === undefined) this.#prepared(client)
      },
      (error: unknown) => {
        this.#failed(error)
        if (connection === this.#connection && this.#closed === undefined) client.disconnect(true)
      },
    )
  }

  #prepared(client: Redis): void {
    clearTimeout(this.#graceTimer)
    this.#isDown = false
    this.#hasReported = false
    this.#ready = client
    this.#scheduleCheck(client)
    this.#options.ready?.()
    for (const { go } of this.#waiting.splice(0)) go(client)
  }

  #lose(): void {
    this.#connection++
    clearTimeout(this.#checkTimer)
    if (this.#ready === undefined) return
    this.#ready = undefined
    this.#lastError = new Obstacle('the connection to Redis was lost')
    if (this.#closed === undefined) {
      this.#waitFor(this.#options.reconnectGraceMs)
      this.#report(this.#lastError)
    }
    this.#options.lost?.()
  }

  #failed(error: unknown): void {
    this.#lastError = withoutArguments(error)
    this.#report(this.#lastError)
    if (isDenied(error)) this.#giveUp() // the next try is answered the same, until somebody changes something
  }

  /** The driver does not try again by itself. */
  #ended(client: Redis): void {
    if (this.#closed !== undefined) return
    clearTimeout(this.#againTimer)
    this.#againTimer = setTimeout(() => void client.connect().catch(() => undefined), CONNECT_AGAIN_MS)
  }

  /** A server that has vanished without a word is noticed by its silence: a subscriber would wait for it for ever. */
  #scheduleCheck(client: Redis): void {
    this.#checkTimer = setTimeout(() => {
      const connection = this.#connection
      client.ping().then(
        () => connection === this.#connection && this.#closed === undefined && this.#scheduleCheck(client),
        () => {
          if (connection !== this.#connection || this.#closed !== undefined) return
          this.#lose()
          client.disconnect(true)
        },
      )
    }, this.#options.checkIntervalMs)
  }

  #waitFor(delayMs: number): void {
    clearTimeout(this.#graceTimer)
    this.#graceTimer = setTimeout(() => this.#giveUp(), delayMs)
  }

  #giveUp(): void {
    clearTimeout(this.#graceTimer)
    this.#isDown = true
    for (const { giveUp } of this.#waiting.splice(0)) giveUp(this.#lastError)
  }

  /** Once per outage: the driver tells of every try. */
  #report(error: unknown): void {
    if (this.#hasReported || this.#closed !== undefined) return
    this.#hasReported = true
    this.#options.report(redisFailure(this.#options.code, error))
  }

  async #close(): Promise<void> {
    const client = this.#client
    this.#ready = undefined
    this.#lastError = new Obstacle('the connection to Redis is closed')
    this.#giveUp()
    clearTimeout(this.#checkTimer)
    clearTimeout(this.#againTimer)
    if (client === undefined || client.status === 'end') return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      client.once('end', resolve)
      // Between two tries to connect the driver does not say when it has ended.
      timer = setTimeout(resolve, DISCONNECT_MS + 100)
      client.disconnect()
    })
    clearTimeout(timer)
    client.stream?.destroy()
  }
}
