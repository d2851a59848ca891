import { setTimeout as pause } from 'node:timers/promises'
import { IMError } from '../../errors.ts'
import type { Database, HeldConnection } from './database.ts'

/** A process that has died lets go of its lock when the server notices; so long whoever comes next waits for it. */
const WAIT_MS = 3_000
const RETRY_MS = 50

/**
 * Two engines of one `instance` would tell the webhook the same things: so whoever uses the outbox holds a lock of the server,
 * on a connection of its own, from the first use to the end. It ends with that connection, and is taken again by the next use.
 */
export class InstanceLock {
  readonly #database: Database
  readonly #instance: string
  #held: HeldConnection | undefined
  #taking: Promise<void> | undefined

  constructor(database: Database, instance: string) {
    this.#database = database
    this.#instance = instance
  }

  /** @throws IM_STORE_LOCKED while another engine holds it */
  async take(): Promise<void> {
    if (this.#held !== undefined) return
    this.#taking ??= this.#take().finally(() => (this.#taking = undefined))
    await this.#taking
  }

  async release(): Promise<void> {
    await this.#taking?.catch(() => undefined)
    const held = this.#held
    this.#held = undefined
    if (held === undefined) return
    // Said, so that whoever comes next need not wait until the server has noticed that the connection is closed.
    await held.query(`SELECT pg_advisory_unlock_all()`).catch(() => undefined)
    held.release()
  }

  async #take(): Promise<void> {
    const { closed } = this.#database
    const place = [`imengine ${this.#database.schema}`, this.#instance]
    const connection = await this.#database.hold(() => this.#lost(connection))
    try {
      for (let waitedMs = 0; ; waitedMs += RETRY_MS) {
        const [row] = (await connection.query(`SELECT pg_try_advisory_lock(hashtext($1), hashtext($2)) AS is_ours`, place)) as { readonly is_ours: boolean }[]
        if (row!.is_ours) break
        if (waitedMs >= WAIT_MS) {
          throw new IMError('IM_STORE_LOCKED', { detail: `another engine uses the outbox of instance ${JSON.stringify(this.#instance)}; give each an instance of its own` })
        }
        await pause(RETRY_MS, undefined, { signal: closed })
      }
      this.#held = connection
    } catch (error) {
      connection.release()
      throw error instanceof IMError ? error : new IMError('IM_STORE_UNAVAILABLE', { detail: 'the storage is being closed', cause: error })
    }
  }

  #lost(connection: HeldConnection): void {
    if (this.#held !== connection) return
    this.#held = undefined
    connection.release()
  }
}
