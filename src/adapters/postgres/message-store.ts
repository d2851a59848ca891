/**
 * Messages in the database. Power loss: what has resolved is as safe as the server's `synchronous_commit` makes it. A slow
 * server makes statements larger, and more than `maxPendingBytes` waiting is turned away. Close waits for what is under way.
 */
import type { PageQuery } from '../../contracts/channel-directory.ts'
import type {
  AppendBatch,
  AppendResult,
  ChannelSummary,
  MessageChange,
  MessageStore,
  RangeQuery,
  SweepResult,
} from '../../contracts/message-store.ts'
import { checkSeq, resolveRange } from '../../contracts/range-bounds.ts'
import { badOption } from '../../errors.ts'
import { ChannelType, type ChannelKey, type Page } from '../../model/channel.ts'
import { isUint64Decimal } from '../../model/int64.ts'
import type { Message } from '../../model/message.ts'
import { AppendCall, repeatKeyOf } from './append-call.ts'
import { appendAll } from './append-statement.ts'
import { AppendWriter, type AppendWriterOptions } from './append-writer.ts'
import { Channels } from './channels.ts'
import type { Database } from './database.ts'
import { sqlStateOf } from './failures.ts'
import { kindNumber, MESSAGE_COLUMNS, messagesOf, signedOf, timeOf, unsignedOf, type MessageRow } from './message-row.ts'
import { pageOf, pageStart } from './paging.ts'
import { CHANNEL_LOST } from './schema.ts'
import { Sweeper, type SweeperOptions } from './sweeper.ts'
import { textKey, type Texts } from './texts.ts'

export interface PostgresMessageStoreOptions extends Omit<AppendWriterOptions, 'write'>, Omit<SweeperOptions, 'database' | 'texts'> {
  readonly database: Database
  readonly texts: Texts
  readonly maxCachedChannels: number
  readonly nowMs: () => number
}

const MAX_SEQ = 0xffff_ffff

/** Messages that one statement of a truncation removes: its channel is locked for so long. */
const MAX_REMOVED = 2_000

const CHANNEL = (s: string): string => `(SELECT c.no FROM ${s}.channels c WHERE c.channel_type = $1 AND c.channel_key = $2)`
const NOT_EXPIRED = '(m.expires_ms IS NULL OR m.expires_ms > $3)'

export class PostgresMessageStore implements MessageStore {
  readonly #database: Database
  readonly #texts: Texts
  readonly #channels: Channels
  readonly #writer: AppendWriter
  readonly #sweeper: Sweeper
  readonly #nowMs: () => number

  constructor(options: PostgresMessageStoreOptions) {
    const { database, texts, nowMs } = options
    const channels = new Channels(options)
    this.#database = database
    this.#texts = texts
    this.#nowMs = nowMs
    this.#channels = channels
    this.#sweeper = new Sweeper(options)
    this.#writer = new AppendWriter({ ...options, write: (calls) => this.#write(calls) })
  }

  /** The database may be another one than before. */
  forget(): void {
    this.#channels.forget()
  }

  /** Resolves when no append waits or is under way. */
  idle(): Promise<void> {
    return this.#writer.idle()
  }

  append(batches: readonly AppendBatch[]): Promise<AppendResult[][]> {
    return new Promise((resolve, reject) => {
      const call = new AppendCall(batches, resolve, reject)
      if (call.count === 0) resolve(batches.map(() => []))
      else this.#writer.submit(call)
    })
  }

  async range(key: ChannelKey, query: RangeQuery = {}): Promise<Message[]> {
    const range = resolveRange(query, { firstSeq: 1, lastSeq: MAX_SEQ })
    if (range === undefined) return []
    const [first, last, order] = range.step === 1 ? [range.startSeq, range.endSeq, 'ASC'] : [range.endSeq, range.startSeq, 'DESC']
    const { s } = this.#database
    const rows = await this.#database.query<MessageRow>(
      `SELECT ${MESSAGE_COLUMNS} FROM ${s}.messages m
        WHERE m.channel_no = ${CHANNEL(s)} AND ${NOT_EXPIRED} AND m.seq BETWEEN $4 AND $5 ORDER BY m.seq ${order} LIMIT $6`,
      [...this.#place(key), this.#nowMs(), first, last, range.limit],
    )
    return this.#messagesIn(key, rows)
  }

  async lastSeq(key: ChannelKey): Promise<number> {
    const [row] = await this.#database.query<{ last_seq: string }>(
      `SELECT last_seq FROM ${this.#database.s}.channels WHERE channel_type = $1 AND channel_key = $2`,
      this.#place(key),
    )
    return Number(row?.last_seq ?? 0)
  }

  async findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): Promise<Message | undefined> {
    if (clientMsgNo === '') return undefined
    const { s } = this.#database
    const rows = await this.#database.query<MessageRow>(
      `SELECT ${MESSAGE_COLUMNS} FROM ${s}.messages m WHERE m.channel_no = ${CHANNEL(s)} AND ${NOT_EXPIRED} AND m.repeat_key = $4`,
      [...this.#place(key), this.#nowMs(), repeatKeyOf(textKey(fromUID), Buffer.from(clientMsgNo))],
    )
    const [message] = await this.#messagesIn(key, rows)
    return message
  }

  async get(messageIDs: readonly string[]): Promise<(Message | undefined)[]> {
    const asked = messageIDs.filter(isUint64Decimal)
    if (asked.length === 0) return messageIDs.map(() => undefined)
    const { s } = this.#database
    const rows = await this.#database.query<MessageRow & { channel_type: number; channel_key: Buffer }>(
      `SELECT ${MESSAGE_COLUMNS}, c.channel_type, c.channel_key FROM ${s}.messages m JOIN ${s}.channels c ON c.no = m.channel_no
        WHERE m.message_id = ANY ($1::bigint[]) AND (m.expires_ms IS NULL OR m.expires_ms > $2)`,
      [asked.map(signedOf), this.#nowMs()],
    )
    const channelIDs = await this.#texts.textsOf(rows.map(({ channel_key }) => channel_key))
    const keys = (index: number): ChannelKey => ({ channelID: channelIDs[index]!, channelType: rows[index]!.channel_type })
    const messages = await messagesOf(rows, keys, this.#texts)
    const places = new Map(rows.map(({ message_id }, index) => [unsignedOf(message_id), index]))
    // An id that is asked for twice gets two messages: what is handed out is the reader's.
    return messageIDs.map((messageID) => {
      const message = messages[places.get(messageID) ?? -1]
      return message && { ...message, payload: Buffer.from(message.payload) }
    })
  }

  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ removedCount: number }> {
    checkSeq('beforeSeq', beforeSeq)
    const { s } = this.#database
    const throughSeq = Math.min(beforeSeq - 1, MAX_SEQ)
    for (let removedCount = 0; ; ) {
      const [row] = await this.#database.query<{ count: number | null }>(
        `SELECT ${s}.remove_front(c.no, $3, -1, ${MAX_REMOVED}) AS count FROM ${s}.channels c WHERE c.channel_type = $1 AND c.channel_key = $2`,
        [...this.#place(key), throughSeq],
      )
      const count = row?.count ?? 0
      removedCount += count
      if (count < MAX_REMOVED) return { removedCount }
    }
  }

  async summaries(uid: string, keys: readonly ChannelKey[]): Promise<ChannelSummary[]> {
    if (keys.length === 0) return []
    const { s } = this.#database
    const rows = await this.#database.query<{ last_seq: string; floor_seq: string; last_ms: string; sent_seq: string }>(
      `SELECT coalesce(c.last_seq, 0) AS last_seq, coalesce(c.floor_seq, 0) AS floor_seq, coalesce(c.last_ms, 0) AS last_ms, coalesce(w.last_seq, 0) AS sent_seq
        FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY g (t, k, ord)
        LEFT JOIN ${s}.channels c ON c.channel_type = g.t AND c.channel_key = g.k
        LEFT JOIN ${s}.senders w ON w.channel_no = c.no AND w.uid_key = $3
        ORDER BY g.ord`,
      [keys.map(({ channelType }) => channelType), keys.map(({ channelID }) => textKey(channelID)), textKey(uid)],
    )
    return rows.map(({ last_seq, floor_seq, last_ms, sent_seq }) => ({
      lastSeq: Number(last_seq),
      floorSeq: Number(floor_seq),
      lastTimestampMs: Number(last_ms),
      sentSeq: Number(sent_seq),
    }))
  }

  async countAfter(key: ChannelKey, afterSeq: number): Promise<number> {
    checkSeq('afterSeq', afterSeq)
    const { s } = this.#database
    const [row] = await this.#database.query<{ count: string }>(
      `SELECT greatest(0, f.last_seq - f.from_seq) - (SELECT count(*) FROM ${s}.holes h WHERE h.channel_no = f.no AND h.seq > f.from_seq) AS count
        FROM (SELECT c.no, c.last_seq, greatest($3::bigint, c.floor_seq) AS from_seq FROM ${s}.channels c WHERE c.channel_type = $1 AND c.channel_key = $2) f`,
      [...this.#place(key), afterSeq],
    )
    return Number(row?.count ?? 0)
  }

  async personChannelsOf(uid: string, query: PageQuery = {}): Promise<Page<ChannelKey>> {
    const start = pageStart(query)
    const rows = await this.#database.query<{ channel_key: Buffer }>(
      `SELECT channel_key FROM ${this.#database.s}.person_channels
        WHERE uid_key = $1 AND ($2::bytea IS NULL OR channel_key > $2) ORDER BY channel_key LIMIT $3`,
      [textKey(uid), start.last, start.limit + 1],
    )
    return pageOf(rows, start, ({ channel_key }) => channel_key, async (shown) => {
      const ids = await this.#texts.textsOf(shown.map(({ channel_key }) => channel_key))
      return ids.map((channelID) => ({ channelID, channelType: ChannelType.Person }))
    })
  }

  async revise(key: ChannelKey, messageSeq: number, change: MessageChange): Promise<Message | undefined> {
    checkSeq('messageSeq', messageSeq)
    const { kind, byUID } = change
    const timestampMs = timeOf('change timestampMs', change.timestampMs)
    const kindNo = kindNumber(kind)
    if (kind === 'edited' && !(change.payload instanceof Uint8Array)) badOption('change payload', 'a Uint8Array', change.payload)
    const payload = Buffer.from(kind === 'edited' ? change.payload : [])
    const { s } = this.#database
    const place = this.#place(key)
    // Before anything is awaited: the key is the caller's.
    const { channelID, channelType } = key
    const nowMs = this.#nowMs()
    // In FROM the function is called once, whatever the number of its columns.
    const rows = await this.#database.query<MessageRow>(
      `SELECT ${MESSAGE_COLUMNS} FROM ${s}.channels c, ${s}.revise(c.no, $3, $4, $5, $6, $7, $8) m
        WHERE c.channel_type = $1 AND c.channel_key = $2 AND m.seq IS NOT NULL`,
      [...place, messageSeq, kindNo, Buffer.from(byUID), timestampMs, payload, nowMs],
    )
    const [message] = await this.#messagesIn({ channelID, channelType }, rows)
    return message
  }

  sweep(nowMs: number): Promise<SweepResult> {
    if (!Number.isFinite(nowMs)) badOption('sweep nowMs', 'a time in milliseconds', nowMs)
    return this.#sweeper.sweep(Math.trunc(nowMs))
  }

  async #write(calls: readonly AppendCall[]): Promise<AppendResult[][][]> {
    try {
      return await appendAll(calls, { database: this.#database, texts: this.#texts, channels: this.#channels })
    } catch (error) {
      if (sqlStateOf((error as { cause?: unknown }).cause) === CHANNEL_LOST) {
        this.#channels.forget()
        this.#texts.forget()
      }
      throw error
    }
  }

  #place({ channelID, channelType }: ChannelKey): [channelType: number, channelKey: Buffer] {
    return [channelType, textKey(channelID)]
  }

  #messagesIn({ channelID, channelType }: ChannelKey, rows: readonly MessageRow[]): Promise<Message[]> {
    const key = { channelID, channelType }
    return messagesOf(rows, () => key, this.#texts)
  }
}
