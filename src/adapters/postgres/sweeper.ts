import type { SweepResult } from '../../contracts/message-store.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Database } from './database.ts'
import type { Texts } from './texts.ts'

/** How long and how many messages a channel keeps; what is left out has no bound. */
export interface Retention {
  readonly maxAgeMs?: number
  readonly maxCount?: number
}

export interface SweeperOptions {
  readonly database: Database
  readonly texts: Texts
  readonly retention: ((key: ChannelKey) => Retention | undefined) | undefined
  /** 0: for as long as the message is there */
  readonly dedupeKeepMs: number
}

/** What one call takes on, so that it ends soon: messages removed or looked at, and channels looked at. */
const MAX_EXPIRED = 1_000
const MAX_CHANNELS = 500
const MAX_REMOVED = 10_000
/** Of one channel in one statement, which locks it. */
const MAX_FRONT = 2_000

interface ChannelRow {
  readonly no: string
  readonly channel_type: number
  readonly channel_key: Buffer
  readonly last_seq: string
  readonly floor_seq: string
  readonly oldest_ms: string | null
  /** of those whose client numbers have not been forgotten */
  readonly oldest_number_ms: string | null
}

/**
 * Removes what nobody is to read any more: first what has expired, then channel by channel what is too old or too many. Several
 * engines may sweep at once: each counts what it has removed itself.
 */
export class Sweeper {
  readonly #options: SweeperOptions
  /** the last channel that is finished, while a round over all of them is under way */
  #position: string | undefined
  #underWay: Promise<unknown> = Promise.resolve()

  constructor(options: SweeperOptions) {
    this.#options = options
  }

  /** One at a time: a round has one position. */
  sweep(nowMs: number): Promise<SweepResult> {
    const result = this.#underWay.then(() => this.#sweep(nowMs))
    this.#underWay = result.catch(() => undefined)
    return result
  }

  async #sweep(nowMs: number): Promise<SweepResult> {
    const expired = await this.#sweepExpired(nowMs)
    const hasRules = this.#options.retention !== undefined || this.#options.dedupeKeepMs > 0
    if (!expired.isDone || !hasRules) return expired
    const retained = await this.#sweepChannels(nowMs)
    return { removedCount: expired.removedCount + retained.removedCount, isDone: retained.isDone }
  }

  async #sweepExpired(nowMs: number): Promise<SweepResult> {
    const { database } = this.#options
    const due = await database.query<{ channel_no: string; seq: string }>(
      `SELECT channel_no, seq FROM ${database.s}.messages WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT ${MAX_EXPIRED}`,
      [nowMs],
    )
    if (due.length === 0) return { removedCount: 0, isDone: true }
    const [row] = await database.query<{ count: number }>(`SELECT ${database.s}.remove_messages($1, $2) AS count`, [
      due.map(({ channel_no }) => channel_no),
      due.map(({ seq }) => seq),
    ])
    return { removedCount: row!.count, isDone: due.length < MAX_EXPIRED }
  }

  async #sweepChannels(nowMs: number): Promise<SweepResult> {
    const { database, texts, dedupeKeepMs } = this.#options
    const rows = await database.query<ChannelRow>(
      `SELECT c.no, c.channel_type, c.channel_key, c.last_seq, c.floor_seq,
          (SELECT m.sent_ms FROM ${database.s}.messages m WHERE m.channel_no = c.no ORDER BY m.seq LIMIT 1) AS oldest_ms,
          (SELECT m.sent_ms FROM ${database.s}.messages m WHERE m.channel_no = c.no AND m.seq > c.number_floor ORDER BY m.seq LIMIT 1) AS oldest_number_ms
        FROM ${database.s}.channels c WHERE c.no > $1 ORDER BY c.no LIMIT ${MAX_CHANNELS}`,
      [this.#position ?? '-1'],
    )
    const ids = await texts.textsOf(rows.map(({ channel_key }) => channel_key))
    let removedCount = 0
    let workCount = 0
    for (const [index, row] of rows.entries()) {
      const key = { channelID: ids[index]!, channelType: row.channel_type }
      const { maxAgeMs = Infinity, maxCount = Infinity } = this.#options.retention?.(key) ?? {}
      const throughSeq = Math.max(0, Number(row.last_seq) - maxCount)
      const beforeMs = nowMs - maxAgeMs
      if (row.oldest_ms !== null && (Number(row.floor_seq) < throughSeq || Number(row.oldest_ms) < beforeMs)) {
        const isDone = await this.#removeFront(row.no, throughSeq, beforeMs, (count) => {
          removedCount += count
          workCount += count
          return workCount < MAX_REMOVED
        })
        if (!isDone) return { removedCount, isDone: false } // and begin with this channel: there may be more
      }
      if (dedupeKeepMs > 0 && row.oldest_number_ms !== null && Number(row.oldest_number_ms) < nowMs - dedupeKeepMs) {
        for (let count = MAX_FRONT; count === MAX_FRONT; workCount += count) {
          if (workCount >= MAX_REMOVED) return { removedCount, isDone: false }
          count = await this.#forgetNumbers(row.no, nowMs - dedupeKeepMs)
        }
      }
      this.#position = row.no
    }
    const isDone = rows.length < MAX_CHANNELS
    if (isDone) this.#position = undefined
    return { removedCount, isDone }
  }

  /** @returns false when `mayGoOn`, which is told how many have gone, has said that it is enough */
  async #removeFront(no: string, throughSeq: number, beforeMs: number, mayGoOn: (count: number) => boolean): Promise<boolean> {
    const { database } = this.#options
    for (;;) {
      const [row] = await database.query<{ count: number }>(`SELECT ${database.s}.remove_front($1, $2, $3, ${MAX_FRONT}) AS count`, [
        no,
        throughSeq,
        Number.isFinite(beforeMs) ? beforeMs : -1,
      ])
      const { count } = row!
      if (!mayGoOn(count)) return false
      if (count < MAX_FRONT) return true
    }
  }

  /** @returns how many messages it has gone through: `MAX_FRONT` when there may be more */
  async #forgetNumbers(no: string, beforeMs: number): Promise<number> {
    const { database } = this.#options
    const [row] = await database.query<{ count: number }>(`SELECT ${database.s}.forget_numbers($1, $2, ${MAX_FRONT}) AS count`, [no, beforeMs])
    return row!.count
  }
}
