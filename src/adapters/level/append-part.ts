import type { AppendBatch, AppendResult } from '../../contracts/message-store.ts'
import { IMError } from '../../errors.ts'
import { encodeBatch, type Encoded, type Entry, type Original } from './append-entry.ts'
import { putStanding, type ChannelState, type ChannelStates } from './channel-states.ts'
import type { Operations } from './database.ts'
import { EMPTY, expiryKey, sentKey, seqKey, Tag, uint32 } from './keys.ts'
import { putID, putIDs } from './message-ids.ts'
import type { NumberFilter } from './number-filter.ts'
import type { NumberIndex } from './number-index.ts'
import type { RecentNumbers } from './recent-numbers.ts'
import { copyID, idStart } from './record.ts'
import { encodeRow, MAX_ROW_BYTES, MAX_ROW_COUNT, sealOne, sealSeveral } from './row.ts'

export interface PartHost {
  readonly states: ChannelStates
  readonly numbers: RecentNumbers
  readonly filter: NumberFilter
  readonly index: NumberIndex
}

/** What the wire has room for. */
const MAX_SEQ = 0xffff_ffff

/** Some bytes per message besides its record: keys, and what it is in memory. */
const ENTRY_BYTES = 300

/** One call's messages for one channel. */
export class AppendPart {
  readonly bytes: number
  readonly #host: PartHost
  readonly #encoded: Encoded
  state: ChannelState

  /** @throws TypeError for a message that cannot be stored */
  constructor(batch: AppendBatch, pin: () => ChannelState, host: PartHost) {
    this.#host = host
    this.#encoded = encodeBatch(batch)
    this.bytes = this.#encoded.bytes.length + ENTRY_BYTES * this.entries.length
    this.state = pin()
  }

  get entries(): readonly Entry[] {
    return this.#encoded.entries
  }

  /** @throws IM_STORE_FULL */
  check(): void {
    const { planned, key } = this.state
    if (planned.lastSeq + this.entries.length > MAX_SEQ) {
      throw new IMError('IM_STORE_FULL', { detail: 'the channel has given out its last number', context: key })
    }
  }

  /** Give the new messages their numbers. */
  plan(operations: Operations): AppendResult[] {
    const { state, entries } = this
    if (state.no === 0) this.#host.states.create(state, operations)
    const { planned } = state
    let { lastSeq } = planned
    const results = entries.map((entry): AppendResult => {
      const original = this.#originalOf(entry)
      if (original !== undefined) {
        const status = original.hasPayload(entry.payload) ? 'duplicate' : 'conflict'
        return { status, messageID: original.messageID, messageSeq: original.messageSeq }
      }
      entry.messageSeq = ++lastSeq
      if (entry.numberHash !== 0) {
        this.#host.filter.add(entry.numberHash)
        this.#host.numbers.add(entry)
      }
      return entry.result
    })
    const isAll = lastSeq - planned.lastSeq === entries.length // as good as always
    const stored = isAll ? entries : entries.filter((_entry, index) => results[index]!.status === 'stored')
    const [first] = stored
    if (first === undefined) return results
    this.#putRows(stored, operations)
    const lastSender = this.#putSent(stored, operations)
    state.planned = {
      ...planned,
      lastSeq,
      lastTimestampMs: stored.at(-1)!.timestampMs,
      oldestTimestampMs: planned.lastSeq === planned.floorSeq ? first.timestampMs : planned.oldestTimestampMs,
      oldestNumberMs: planned.lastSeq === planned.numberFloorSeq ? first.timestampMs : planned.oldestNumberMs,
      lastSender,
    }
    putStanding(state, operations)
    return results
  }

  #originalOf(entry: Entry): Original | undefined {
    const { filter, numbers } = this.#host
    if (!entry.takeHash(this.state.no, filter) || !filter.mayHave(entry.numberHash)) return undefined
    return numbers.find(entry) ?? entry.found
  }

  /** As few rows as may be. What expires has a row of its own: it will go alone. */
  #putRows(stored: readonly Entry[], operations: Operations): void {
    let first = 0
    let bytes = 0
    let isBehindExpiring = false
    for (let index = 0; index < stored.length; index++) {
      const { recordStart, recordEnd, expiresAtMs } = stored[index]!
      const isFull = bytes + recordEnd - recordStart > MAX_ROW_BYTES || index - first === MAX_ROW_COUNT
      const isApart = expiresAtMs > 0 || isBehindExpiring
      isBehindExpiring = expiresAtMs > 0
      if (index > first && (isFull || isApart)) {
        this.#putRow(stored.slice(first, index), operations)
        first = index
        bytes = 0
      }
      bytes += recordEnd - recordStart
    }
    this.#putRow(first === 0 ? stored : stored.slice(first), operations)
  }

  #putRow(entries: readonly Entry[], operations: Operations): void {
    const { no } = this.state
    const { messageSeq, expiresAtMs } = entries.at(-1)!
    const at = seqKey(Tag.Message, no, messageSeq)
    const { index } = this.#host
    const isListed = index.isListed(entries.length, messageSeq)
    operations.push(at, this.#rowOf(entries, isListed))
    if (isListed) index.putList(operations, at, entries)
    else for (const entry of entries) if (entry.numberHash !== 0) index.putOne(operations, at, no, entry)
    if (entries.length === 1) putID(operations, at, this.#encoded.bytes, idStart(entries[0]!.recordStart))
    else putIDs(operations, at, this.#idsOf(entries))
    if (expiresAtMs > 0) operations.push(expiryKey(expiresAtMs, no, messageSeq), EMPTY)
  }

  #idsOf(entries: readonly Entry[]): Buffer {
    const ids = Buffer.allocUnsafe(8 * entries.length)
    for (let index = 0; index < entries.length; index++) copyID(this.#encoded.bytes, entries[index]!.recordStart, ids, 8 * index)
    return ids
  }

  /** Where they are, as a rule: only those behind something else that was not stored with them have to be moved. */
  #rowOf(entries: readonly Entry[], isListed: boolean): Buffer {
    const { bytes, entries: all } = this.#encoded
    const first = entries[0]!
    const last = entries.at(-1)!
    if (entries.length === 1) return sealOne(bytes, first.recordStart, first.recordEnd)
    const isAtStart = first === all[0] && last === all[entries.length - 1]
    if (!isAtStart) return encodeRow(entries.map(({ record }) => record), isListed)
    return sealSeveral(bytes.subarray(0, last.recordEnd), entries.length, isListed)
  }

  /**
   * The last number of everybody who has sent something, but for the last of them: that is the channel's.
   * @returns who that is
   */
  #putSent(stored: readonly Entry[], operations: Operations): Buffer {
    const { no, planned } = this.state
    const last = stored.at(-1)!
    const isSameSender = last.isFrom(planned.lastSender)
    if (isSameSender && stored.every((entry) => entry.hasSenderOf(last))) return planned.lastSender
    const sent = new Map<string, number>()
    if (planned.lastSender.length > 0) sent.set(planned.lastSender.toString(), planned.lastSeq)
    for (const { fromUID, messageSeq } of stored) sent.set(fromUID, messageSeq)
    sent.delete(last.fromUID)
    for (const [uid, messageSeq] of sent) operations.push(sentKey(no, uid), uint32(messageSeq))
    return isSameSender ? planned.lastSender : last.sender
  }
}
