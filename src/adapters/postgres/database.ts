/**
 * The server beneath the PostgreSQL adapter, behind a bounded pool. Power loss: what a statement has resolved for is as safe
 * as the server's `synchronous_commit` makes it. A slow or silent server: everything has a time limit, and a connection that
 * did not answer in time is closed, since nobody knows what comes on it next. Close: waits for what is under way, no longer
 * than a statement may take, and then drops the sockets.
 */
import type * as PgDriver from 'pg'
import { createHash } from 'node:crypto'
import { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { IMError } from '../../errors.ts'
import { isAnswer, sqlStateOf, storageFailure } from './failures.ts'

/** What is used of a `pg.PoolClient`. */
export interface AnyClient {
  query(query: { readonly text: string; readonly values?: unknown[]; readonly name?: string }): Promise<{ readonly rows: unknown[] }>
  release(destroy?: boolean): void
  on(event: 'error' | 'end', listener: (error?: unknown) => void): unknown
  removeListener(event: 'error' | 'end', listener: (error?: unknown) => void): unknown
}

/** What is used of a `pg.Pool`. */
export interface AnyPool {
  connect(): Promise<AnyClient>
  on(event: 'error', listener: (error: unknown) => void): unknown
  removeListener(event: 'error', listener: (error: unknown) => void): unknown
  end(): Promise<void>
}

export interface DatabaseOptions {
  readonly connectionString: string | undefined
  /** the host's own, which stays open */
  readonly pool: AnyPool | undefined
  readonly schema: string
  readonly maxConnections: number
  readonly connectTimeoutMs: number
  readonly statementTimeoutMs: number
  readonly synchronousCommit: string | undefined
  /** calls that wait for a connection; beyond it: IM_QUEUE_FULL */
  readonly maxWaitingCount: number
}

/** Behind the server's own time limit: by then it has said that it gave up, if it still says anything. */
const ANSWER_GRACE_MS = 1_000

/** A statement that lost a deadlock, or to another one that changed the same rows, has done nothing. */
const LOST_TO_ANOTHER = /^(40P01|40001)$/
const MAX_TRY_COUNT = 4

export class Database {
  /** the quoted name of the schema */
  readonly s: string
  readonly #options: DatabaseOptions
  readonly #names = new Map<string, string>()
  /** of our own pool */
  readonly #sockets = new Set<Socket>()
  readonly #seen = new WeakSet<AnyClient>()
  #pool: AnyPool | undefined
  #waitingCount = 0
  readonly #underWay = new Set<Promise<unknown>>()
  #closing: AbortController | undefined

  constructor(options: DatabaseOptions) {
    this.#options = options
    this.s = `"${options.schema.replaceAll('"', '""')}"`
  }

  get schema(): string {
    return this.#options.schema
  }

  get isOpen(): boolean {
    return this.#pool !== undefined
  }

  /** Aborted by `close`: for what waits between its statements. */
  get closed(): AbortSignal {
    return this.#closing?.signal ?? AbortSignal.abort()
  }

  async open(): Promise<void> {
    const closing = (this.#closing = new AbortController())
    const pool = this.#options.pool ?? (await this.#makePool())
    if (closing.signal.aborted) {
      if (pool !== this.#options.pool) await pool.end()
      throw closedFailure()
    }
    pool.on('error', ignore) // of a connection that idles: the pool has dropped it, and the next call makes another
    this.#pool = pool
  }

  async close(): Promise<void> {
    this.#closing?.abort()
    const pool = this.#pool
    this.#pool = undefined
    if (pool === undefined) return
    const { connectTimeoutMs, statementTimeoutMs } = this.#options
    // All that is under way has its own limit, no longer than this, but for a change of the schema: that is given up.
    await atMost(Promise.allSettled([...this.#underWay]), connectTimeoutMs + statementTimeoutMs + 2 * ANSWER_GRACE_MS)
    if (pool === this.#options.pool) return void pool.removeListener('error', ignore)
    // Ending says goodbye, and waits for the server to hang up: one that is silent is not waited for.
    await atMost(pool.end().catch(() => undefined), ANSWER_GRACE_MS)
    for (const socket of this.#sockets) socket.destroy()
  }

  /**
   * One statement, which is one transaction. Durable once resolved.
   * @throws an IMError; unless the server has answered with one, nobody knows whether the statement took effect
   */
  async query<R>(text: string, values: readonly unknown[] = []): Promise<R[]> {
    for (let tryCount = 1; ; tryCount++) {
      try {
        return await this.#track(this.#once<R>(text, values))
      } catch (error) {
        if (tryCount < MAX_TRY_COUNT && LOST_TO_ANOTHER.test(sqlStateOf(error) ?? '')) continue
        throw storageFailure(error)
      }
    }
  }

  /** Several statements on one connection. `action` gets a `query` of that connection; when it rejects, the connection is closed. */
  session<T>(action: (query: Query) => Promise<T>, limitMs?: number): Promise<T> {
    const run = async (): Promise<T> => {
      const client = await this.#connect().catch((error: unknown) => {
        throw storageFailure(error)
      })
      let isWhole = false
      try {
        const answer = await action((text, values) => this.#ask(client, text, values, { limitMs, isPrepared: false }))
        isWhole = true
        return answer
      } catch (error) {
        throw storageFailure(error)
      } finally {
        giveBack(client, isWhole)
      }
    }
    return this.#track(run())
  }

  /** A connection for good, until `release`. `onLost` is called when it breaks. */
  async hold(onLost: () => void): Promise<HeldConnection> {
    try {
      const client = await this.#connect()
      client.on('end', onLost)
      return {
        query: async (text, values) => {
          try {
            return await this.#ask(client, text, values, { isPrepared: false })
          } catch (error) {
            throw storageFailure(error)
          }
        },
        release: () => giveBack(client, false),
      }
    } catch (error) {
      throw storageFailure(error)
    }
  }

  async #once<R>(text: string, values: readonly unknown[]): Promise<R[]> {
    const client = await this.#connect()
    let isWhole = true
    try {
      return (await this.#ask(client, text, values, { isPrepared: true })) as R[]
    } catch (error) {
      isWhole = isAnswer(error)
      throw error
    } finally {
      giveBack(client, isWhole)
    }
  }

  async #ask(client: AnyClient, text: string, values: readonly unknown[] = [], { limitMs, isPrepared }: AskOptions): Promise<unknown[]> {
    const query_timeout = (limitMs ?? this.#options.statementTimeoutMs) + ANSWER_GRACE_MS
    const query = { text, values: [...values], query_timeout, ...(isPrepared && { name: this.#nameOf(text) }) }
    const { rows } = await client.query(query)
    return rows
  }

  async #connect(): Promise<AnyClient> {
    const pool = this.#pool
    if (pool === undefined) throw closedFailure()
    if (this.#waitingCount >= this.#options.maxWaitingCount) throw new IMError('IM_QUEUE_FULL', { detail: 'too many calls wait for a connection' })
    this.#waitingCount++
    try {
      const client = await (pool === this.#options.pool ? this.#limited(pool.connect()) : pool.connect())
      // Whatever is under way on it is told; without a listener the process would end.
      client.on('error', ignore)
      if (pool === this.#options.pool || this.#seen.has(client)) return client
      this.#seen.add(client)
      await this.#prepare(client)
      return client
    } finally {
      this.#waitingCount--
    }
  }

  /** For a host's pool, which may wait for ever; ours has a limit of its own. */
  async #limited(connecting: Promise<AnyClient>): Promise<AnyClient> {
    const given = new AbortController()
    const limit = pause(this.#options.connectTimeoutMs + ANSWER_GRACE_MS, 'late' as const, { signal: given.signal })
    limit.catch(() => undefined)
    try {
      const first = await Promise.race([connecting, limit])
      if (first !== 'late') return first
      connecting.then((client) => giveBack(client, true), () => undefined)
      throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'no connection became free in time' })
    } finally {
      given.abort()
    }
  }

  /** The limits that the server is to keep on its own side. */
  async #prepare(client: AnyClient): Promise<void> {
    const { statementTimeoutMs, synchronousCommit } = this.#options
    const settings = [`SET statement_timeout = ${statementTimeoutMs}`, `SET idle_in_transaction_session_timeout = ${statementTimeoutMs}`]
    if (synchronousCommit !== undefined) settings.push(`SET synchronous_commit = ${synchronousCommit}`)
    try {
      await this.#ask(client, settings.join('; '), undefined, { isPrepared: false })
    } catch (error) {
      giveBack(client, false)
      throw error
    }
  }

  /** Prepared statements are named by what they say: two storages may share a host's pool. */
  #nameOf(text: string): string {
    let name = this.#names.get(text)
    if (name === undefined) this.#names.set(text, (name = `imengine_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`))
    return name
  }

  async #track<T>(call: Promise<T>): Promise<T> {
    this.#underWay.add(call)
    try {
      return await call
    } finally {
      this.#underWay.delete(call)
    }
  }

  async #makePool(): Promise<AnyPool> {
    const { connectionString, maxConnections, connectTimeoutMs } = this.#options
    let driver: typeof PgDriver
    try {
      driver = await import('pg')
    } catch (cause) {
      throw new IMError('IM_DRIVER_MISSING', { detail: 'npm install pg', cause })
    }
    const pool = new driver.Pool({
      connectionString,
      max: maxConnections,
      connectionTimeoutMillis: connectTimeoutMs,
      application_name: 'imengine',
      keepAlive: true,
      stream: () => {
        const socket = new Socket()
        this.#sockets.add(socket)
        socket.once('close', () => this.#sockets.delete(socket))
        return socket
      },
    })
    return pool
  }
}

/** A statement on a connection that is given. @throws what the driver throws */
export type Query = (text: string, values?: readonly unknown[]) => Promise<unknown[]>

export interface HeldConnection {
  /** @throws an IMError */
  readonly query: Query
  readonly release: () => void
}

interface AskOptions {
  readonly limitMs?: number | undefined
  readonly isPrepared: boolean
}

/** Resolves with the action, or when the time is over. */
async function atMost(action: Promise<unknown>, limitMs: number): Promise<void> {
  const given = new AbortController()
  const limit = pause(limitMs, undefined, { signal: given.signal }).catch(() => undefined)
  await Promise.race([action, limit])
  given.abort()
}

/** The listener of a client that is closed stays: something may still come on its socket. */
function giveBack(client: AnyClient, isWhole: boolean): void {
  if (isWhole) client.removeListener('error', ignore)
  client.release(!isWhole)
}

function ignore(): void {
  // Nothing is lost: whoever waits for something is told.
}

function closedFailure(): IMError {
  return new IMError('IM_STORE_UNAVAILABLE', { detail: 'the storage is not open' })
}
