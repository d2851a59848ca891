/**
 * Messages in a database of the abstract-level family. Power loss: with `durability: 'sync'` what `append` has resolved for
 * is on the disk. A slow disk makes batches larger, and more than `maxPendingBytes` waiting is turned away. Close waits for
 * what is under way.
 */
import type { PageQuery } from '../../contracts/channel-directory.ts'
import type {
  AppendBatch,
  AppendResult,
  ChannelSummary,
  DueRemovals,
  LogPosition,
  MessageChange,
  MessageStore,
  RangeQuery,
  Removal,
  SweepResult,
} from '../../contracts/message-store.ts'
import { checkLogPosition } from '../../contracts/log-position.ts'
import { checkSeq, resolveRange } from '../../contracts/range-bounds.ts'
import { checkRemoval } from '../../contracts/removal.ts'
import { encodeRecord, expiryOf, expiryOfRecord, firstPayload } from '../../contracts/message-record.ts'
import { badOption, IMError, integerBetween } from '../../errors.ts'
import { channelKeyString, ChannelType, type ChannelKey, type Page } from '../../model/channel.ts'
import { isRecalled, type Message, type Revision } from '../../model/message.ts'
import { AppendTask, type AppendHost } from './append-task.ts'
import { ChannelStates, decodeStanding, NEW_CHANNEL, personPrefix, putStanding, type ChannelState } from './channel-states.ts'
import type { Ahead } from './cursor-store.ts'
import type { Database, Operations } from './database.ts'
import { channelNoOfKey, EMPTY, logKey, numberText, positionRow, sentKey, seqKey, seqOfKey, seqRange, SEED_KEY, Tag } from './keys.ts'
import { Lookups } from './lookups.ts'
import { MessageIDs } from './message-ids.ts'
import { NumberFilter } from './number-filter.ts'
import { NumberIndex } from './number-index.ts'
import { pageOfKeys } from './paging.ts'
import { RecentNumbers } from './recent-numbers.ts'
import { decodeRecord, isID } from './record.ts'
import { Removals } from './removals.ts'
import { Row } from './row.ts'
import { Rows } from './rows.ts'
import { Sweeper, type SweeperOptions } from './sweeper.ts'
import { Turns } from '../../model/turns.ts'
import type { Writer } from './writer.ts'

export interface LevelMessageStoreOptions {
  readonly database: Database
  readonly writer: Writer
  readonly maxCachedChannels: number
  readonly maxPendingBytes: number
  readonly dedupeFilterBytes: number
  readonly retention: SweeperOptions['retention']
  readonly dedupeKeepMs: number
  readonly nowMs: () => number
  /** what a log position must not be durable before */
  readonly ahead: () => Ahead | undefined
}

type KnownStanding = Pick<ChannelState, 'no' | 'committed'>

/** Numbers that a range has passed over. */
interface Gap {
  readonly key: ChannelKey
  readonly no: number
  readonly expectedSeq: number
  readonly endSeq: number
  readonly step: 1 | -1
}

export class LevelMessageStore implements MessageStore {
  /** a filter of all numbers and a map of the latest are in memory */
  readonly knowsRepeats = true
  readonly keepsRecords = true
  readonly #database: Database
  readonly #writer: Writer
  readonly #nowMs: () => number
  readonly #ahead: () => Ahead | undefined
  readonly #states: ChannelStates
  readonly #rows: Rows
  readonly #ids: MessageIDs
  readonly #numbers: RecentNumbers
  readonly #filter: NumberFilter
  readonly #index: NumberIndex
  readonly #lookups: Lookups
  readonly #appends: AppendHost
  /** by channel: for what reads a channel's messages and then changes or removes them. Appends touch none that is there */
  readonly #turns = new Turns()
  readonly #removals: Removals
  readonly #sweeper: Sweeper
  #isStopped = true
  #filling: Promise<void> | undefined

  constructor(options: LevelMessageStoreOptions) {
    const { database, writer } = options
    const batchCount = (): number => writer.durableCount
    this.#database = database
    this.#writer = writer
    this.#nowMs = options.nowMs
    this.#ahead = options.ahead
    this.#states = new ChannelStates(options)
    this.#rows = new Rows(database)
    this.#ids = new MessageIDs(database)
    this.#numbers = new RecentNumbers(() => writer.gatheringNumber)
    this.#filter = new NumberFilter({ maxBytes: options.dedupeFilterBytes })
    this.#index = new NumberIndex({ database, filter: this.#filter })
    const ready = (task: AppendTask): void => writer.submit(task)
    const isMending = (): boolean => writer.isMending
    this.#lookups = new Lookups({ states: this.#states, index: this.#index, filter: this.#filter, batchCount, ready, isMending, maxPendingBytes: options.maxPendingBytes })
    this.#appends = { states: this.#states, numbers: this.#numbers, filter: this.#filter, index: this.#index, askAgain: (task) => this.#lookups.submit(task) }
    this.#removals = new Removals({ database, writer, states: this.#states, rows: this.#rows, index: this.#index })
    this.#sweeper = new Sweeper({ ...options, states: this.#states, rows: this.#rows, turns: this.#turns, removals: this.#removals })
  }

  async open(): Promise<void> {
    await this.#states.open()
    this.#filter.seed = (await this.#database.get(SEED_KEY))?.readInt32BE() ?? 0
    this.#isStopped = false
    this.#fill()
  }

  /** Resolves when nothing is under way. */
  async settle(): Promise<void> {
    this.#isStopped = true
    await this.#filling
    await this.#lookups.idle()
    await this.#turns.idle()
  }

  /** Resolves when it is known which client numbers are in use, so that new ones need not be looked up. */
  async ready(): Promise<void> {
    await this.#filling
  }

  /** The database has been opened anew: what is in memory may be wrong. */
  forget(): void {
    this.#states.forget()
    this.#numbers.forget()
    if (!this.#filter.isComplete && !this.#isStopped) this.#fill() // closing the database has ended it
  }

  append(batches: readonly AppendBatch[], position?: LogPosition): Promise<AppendResult[][]> {
    return new Promise((resolve, reject) => {
      const ahead = position === undefined ? undefined : this.#ahead()
      this.#lookups.submit(new AppendTask({ batches, position, ahead }, this.#appends, { resolve, reject }))
    })
  }

  async logPosition(log: string): Promise<number> {
    const index = await this.#database.get(logKey(log))
    return index === undefined ? 0 : index.readUIntBE(0, 6)
  }

  async range(key: ChannelKey, query: RangeQuery = {}): Promise<Message[]> {
    const { no, committed } = await this.#standing(key)
    const range = resolveRange(query, { firstSeq: committed.floorSeq + 1, lastSeq: committed.lastSeq })
    if (range === undefined) return []
    const [first, last] = range.step === 1 ? [range.startSeq, range.endSeq] : [range.endSeq, range.startSeq]
    const nowMs = this.#nowMs()
    const found: Message[] = []
    let expectedSeq = range.startSeq
    // Some may have expired, so there may have to be more than `limit` of them.
    for await (const row of this.#rows.walk({ key, no }, { first, last, isDown: range.step === -1, likelyCount: range.limit })) {
      const inside = row.between(first, last)
      if (range.step === -1) inside.reverse()
      for (const { seq, record } of inside) {
        if (seq !== expectedSeq) await this.#checkRemoved({ key, no, expectedSeq, endSeq: seq, step: range.step })
        expectedSeq = seq + range.step
        if (isExpired(record, nowMs)) continue
        found.push(decodeRecord(record, key, seq).message)
        if (found.length === range.limit) return found
      }
    }
    await this.#checkRemoved({ key, no, expectedSeq, endSeq: range.endSeq + range.step, step: range.step })
    return found
  }

  lastSeq(key: ChannelKey): number | Promise<number> {
    const known = this.#states.known(key)
    return known === undefined ? this.#standing(key).then(({ committed }) => committed.lastSeq) : known.committed.lastSeq
  }

  async findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): Promise<Message | undefined> {
    if (clientMsgNo === '') return undefined
    const { no, committed } = await this.#standing(key)
    if (no === 0) return undefined
    const [record] = await this.#index.find([{ channel: { key, no, committed }, number: numberText(fromUID, clientMsgNo) }])
    return this.#readable(record?.message)
  }

  async get(messageIDs: readonly string[]): Promise<(Message | undefined)[]> {
    const places = await this.#ids.find(messageIDs)
    const rows = await this.#rowsAt(places.filter((at) => at !== undefined))
    return places.map((at, index) => {
      const found = at && rows.get(nameOf(at))
      const message = found?.row.find((record) => isID(record, messageIDs[index]!))
      return this.#readable(message && decodeRecord(message.record, found!.key, message.seq).message)
    })
  }

  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ removedCount: number }> {
    checkSeq('beforeSeq', beforeSeq)
    return this.#change(key, async (state) => ({
      removedCount: await this.#removals.upTo(state, Math.min(beforeSeq - 1, state.committed.lastSeq)),
    }))
  }

  async summaries(uid: string, keys: readonly ChannelKey[]): Promise<ChannelSummary[]> {
    const standings = await this.#standings(keys)
    const sender = Buffer.from(uid)
    const isElsewhere = ({ no, committed }: KnownStanding): boolean => no > 0 && !committed.lastSender.equals(sender)
    // Behind the standings: whoever is followed as the last sender has their row with the same write.
    const sent = await this.#database.getMany(standings.filter(isElsewhere).map(({ no }) => sentKey(no, uid)))
    let index = 0
    return standings.map((standing) => {
      const { lastSeq, floorSeq, lastTimestampMs } = standing.committed
      if (!isElsewhere(standing)) return { lastSeq, floorSeq, lastTimestampMs, sentSeq: lastSeq }
      return { lastSeq, floorSeq, lastTimestampMs, sentSeq: Math.min(sent[index++]?.readUInt32BE() ?? 0, lastSeq) }
    })
  }

  async countAfter(key: ChannelKey, afterSeq: number): Promise<number> {
    checkSeq('afterSeq', afterSeq)
    const { no, committed } = await this.#standing(key)
    const { lastSeq, floorSeq, holeCount } = committed
    const first = Math.max(afterSeq, floorSeq) + 1
    if (first > lastSeq) return 0
    let count = lastSeq - first + 1
    if (holeCount === 0) return count
    for await (const holes of this.#database.keyStrides(seqRange(Tag.Hole, no, first, lastSeq))) count -= holes.length
    return count
  }

  async personChannelsOf(uid: string, query: PageQuery = {}): Promise<Page<ChannelKey>> {
    return pageOfKeys(this.#database, personPrefix(uid), query, (channelID) => ({ channelID: channelID.toString(), channelType: ChannelType.Person }))
  }

  async revise(key: ChannelKey, messageSeq: number, change: MessageChange, position?: LogPosition): Promise<Message | undefined> {
    const { kind, byUID, timestampMs } = change
    if (kind !== 'recalled' && kind !== 'edited') badOption('change.kind', "'recalled' or 'edited'", kind)
    if (position !== undefined) checkLogPosition(position)
    const payload = kind === 'edited' ? Buffer.from(change.payload) : EMPTY
    return this.#change(key, async (state) => {
      if (state.no === 0 || messageSeq <= state.committed.floorSeq) return undefined
      const row = await this.#rows.at(state, messageSeq)
      const bytes = row?.recordAt(messageSeq)
      const record = bytes && decodeRecord(bytes, key, messageSeq)
      if (record === undefined) return undefined
      const { message } = record
      // What comes through a log is judged by a time that is the same on every node.
      if (isPast(expiryOf(message), position === undefined ? this.#nowMs() : timestampMs)) return undefined
      if (isRecalled(message)) return message
      const revision: Revision = { kind, version: (message.revision?.version ?? 0) + 1, byUID, timestampMs }
      const revised: Message = { ...message, payload, revision }
      const operations: Operations = [row!.at, row!.with(messageSeq, encodeRecord(revised, record.first ?? firstPayload(message.payload)))]
      if (position !== undefined) operations.push(...positionRow(position))
      if (kind === 'edited') await this.#writer.write(operations)
      else await this.#makeHole(state, messageSeq, operations)
      return { ...revised, payload: Buffer.from(payload) }
    })
  }

  async sweep(nowMs: number): Promise<SweepResult> {
    await this.#writer.whole()
    return this.#sweeper.sweep(nowMs)
  }

  async due(nowMs: number, maxCount: number): Promise<DueRemovals> {
    integerBetween('maxCount', maxCount, 1, Number.MAX_SAFE_INTEGER)
    await this.#writer.whole()
    return this.#sweeper.due(nowMs, maxCount)
  }

  async discard(removals: readonly Removal[]): Promise<number> {
    removals.forEach(checkRemoval)
    await this.#writer.whole()
    return this.#sweeper.discard(removals)
  }

  /** What reads before it writes begins with a database that can be written: after a failure it would know wrong things. */
  #change<T>(key: ChannelKey, action: (state: ChannelState) => Promise<T>): Promise<T> {
    return this.#turns.take(channelKeyString(key), async () => {
      await this.#writer.whole()
      return this.#states.with(key, action)
    })
  }

  /**
   * The messages from `expectedSeq` up to and without `endSeq` are not there: have they been removed? A damaged block is passed
   * over by the driver as if it were empty.
   * @throws IM_STORE_CORRUPT
   */
  async #checkRemoved({ key, no, expectedSeq, endSeq, step }: Gap): Promise<void> {
    const missingCount = (endSeq - expectedSeq) * step
    if (missingCount === 0) return
    let removedCount = 0
    if (missingCount > 0) {
      const [first, last] = step === 1 ? [expectedSeq, endSeq - 1] : [endSeq + 1, expectedSeq]
      const holes: number[] = []
      for await (const stride of this.#database.keyStrides(seqRange(Tag.Hole, no, first, last))) for (const at of stride) holes.push(seqOfKey(at))
      // Read behind the holes: one of them that goes with a rising floor is below that floor now.
      const record = await this.#database.get(this.#states.recordKeyOf(key))
      const floorSeq = record === undefined ? 0 : decodeStanding(record, key).standing.floorSeq
      removedCount = Math.max(0, Math.min(last, floorSeq) - first + 1) + holes.filter((seq) => seq > floorSeq).length
    }
    if (removedCount !== missingCount) {
      throw new IMError('IM_STORE_CORRUPT', { detail: `not all messages from ${expectedSeq} to ${endSeq} are there`, context: key })
    }
  }

  /** Beside everything else. Should it fail, appends go on being looked up, and whoever reads next is told. */
  #fill(): void {
    this.#filling = this.#filter.fill(this.#database, () => this.#isStopped).catch(() => undefined)
  }

  /** Write these, and that the message does not count any more. */
  #makeHole(state: ChannelState, messageSeq: number, operations: Operations): Promise<void> {
    return this.#removals.change(state, (batch) => {
      state.planned = { ...state.planned, holeCount: state.planned.holeCount + 1 }
      batch.push(...operations, seqKey(Tag.Hole, state.no, messageSeq), EMPTY)
      putStanding(state, batch)
    })
  }

  async #standing(key: ChannelKey): Promise<Pick<ChannelState, 'no' | 'committed'>> {
    return this.#states.known(key) ?? this.#states.with(key, async (state) => state)
  }

  /** As they are now, and not what becomes of them. */
  async #standings(keys: readonly ChannelKey[]): Promise<KnownStanding[]> {
    const states = keys.map((key) => this.#states.known(key) ?? key)
    const missing = states.filter((state): state is ChannelKey => !isState(state))
    const records = missing.length === 0 ? [] : await this.#database.getMany(missing.map((key) => this.#states.recordKeyOf(key)))
    let index = 0
    return states.map((state) => {
      if (isState(state)) return { no: state.no, committed: state.committed }
      const record = records[index++]
      if (record === undefined) return { no: 0, committed: NEW_CHANNEL }
      const { no, standing } = decodeStanding(record, state)
      return { no, committed: standing }
    })
  }

  /** Rows by `nameOf` their keys, each read once; those that are there. */
  async #rowsAt(places: readonly Buffer[]): Promise<Map<string, { readonly row: Row; readonly key: ChannelKey }>> {
    const unique = [...new Map(places.map((at) => [nameOf(at), at])).values()]
    const found = await this.#database.getMany(unique)
    const rows = new Map<string, { row: Row; key: ChannelKey }>()
    for (const [index, at] of unique.entries()) {
      const bytes = found[index]
      const key = bytes && (await this.#states.keyOf(channelNoOfKey(at)))
      if (key !== undefined) rows.set(nameOf(at), { row: new Row(at, bytes!, key), key })
    }
    return rows
  }

  #readable(message: Message | undefined): Message | undefined {
    return message === undefined || isPast(expiryOf(message), this.#nowMs()) ? undefined : message
  }
}

function isState(value: object): value is ChannelState {
  return 'committed' in value
}

function isExpired(record: Buffer, nowMs: number): boolean {
  return isPast(expiryOfRecord(record), nowMs)
}

function isPast(expiresAtMs: number, nowMs: number): boolean {
  return expiresAtMs > 0 && expiresAtMs <= nowMs
}

function nameOf(key: Buffer): string {
  return key.toString('latin1')
}
