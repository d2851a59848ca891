import { expiryOfRecord, timestampOf } from '../../contracts/message-record.ts'
import type { IMError } from '../../errors.ts'
import { putStanding, type ChannelState, type ChannelStates, type Standing } from './channel-states.ts'
import type { Database, Operations } from './database.ts'
import { EMPTY, expiryKey, seqKey, seqRange, Tag } from './keys.ts'
import { putIDs } from './message-ids.ts'
import type { NumberIndex } from './number-index.ts'
import { idsOf } from './record.ts'
import type { Row } from './row.ts'
import type { Rows } from './rows.ts'
import type { Writer } from './writer.ts'

export interface RemovalsOptions {
  readonly database: Database
  readonly writer: Writer
  readonly states: ChannelStates
  readonly rows: Rows
  readonly index: NumberIndex
}

/** Messages removed with one batch. */
const PIECE_COUNT = 500

/** Takes messages away with everything that leads to them. The caller holds the channel's lock. */
export class Removals {
  readonly #database: Database
  readonly #writer: Writer
  readonly #states: ChannelStates
  readonly #rows: Rows
  readonly #index: NumberIndex

  constructor({ database, writer, states, rows, index }: RemovalsOptions) {
    this.#database = database
    this.#writer = writer
    this.#states = states
    this.#rows = rows
    this.#index = index
  }

  /** Plan a change of the channel's standing, durable once resolved. */
  change(state: ChannelState, plan: (operations: Operations) => void): Promise<void> {
    return new Promise((resolve, reject: (error: IMError) => void) => {
      let standing = state.planned
      this.#writer.submit({
        bytes: 0,
        plan: (operations) => {
          this.#states.check(state)
          plan(operations)
          standing = state.planned
        },
        done: () => {
          state.committed = standing
          resolve()
        },
        failed: reject,
      })
    })
  }

  /**
   * Everything up to `lastSeq`, piece by piece: a crash in between leaves fewer messages and a floor that says so.
   * @returns how many there were
   */
  async upTo(state: ChannelState, lastSeq: number): Promise<number> {
    let removedCount = 0
    while (state.committed.floorSeq < lastSeq) {
      const first = state.committed.floorSeq + 1
      let floorSeq = Math.min(lastSeq, first + PIECE_COUNT - 1)
      const operations: Operations = []
      let foundCount = 0
      for await (const row of this.#rows.walk(state, { first, last: floorSeq })) {
        floorSeq = Math.max(floorSeq, Math.min(lastSeq, row.lastSeq)) // with the rest of the row, if that goes, too
        foundCount += row.between(first, floorSeq).length
        this.#removeFront(state, row, floorSeq, operations)
      }
      const holes = await this.#holes(state, first, floorSeq)
      const next = await this.#timestampAt(state, floorSeq + 1)
      for (const hole of holes) operations.push(hole, undefined)
      await this.change(state, (batch) => {
        const { planned } = state
        const numberFloorSeq = Math.max(planned.numberFloorSeq, floorSeq)
        state.planned = {
          ...planned,
          floorSeq,
          numberFloorSeq,
          holeCount: planned.holeCount - holes.length,
          oldestTimestampMs: next ?? planned.oldestTimestampMs,
          oldestNumberMs: numberFloorSeq === floorSeq ? (next ?? planned.oldestNumberMs) : planned.oldestNumberMs,
        } satisfies Standing
        for (const part of operations) batch.push(part)
        putStanding(state, batch)
      })
      removedCount += foundCount
    }
    return removedCount
  }

  /** One message in the middle that expires then: its number stays used. @returns false when there is none that does */
  async expired(state: ChannelState, messageSeq: number, expiresAtMs: number): Promise<boolean> {
    const at = expiryKey(expiresAtMs, state.no, messageSeq)
    const row = await this.#rows.at(state, messageSeq)
    // What expires is alone in its row: what points at another one, or at another time, points at nothing.
    const [record, ...others] = row?.records ?? []
    const isMeant = record !== undefined && others.length === 0 && expiryKey(expiryOfRecord(record), state.no, messageSeq).equals(at)
    if (row === undefined || !isMeant || messageSeq <= state.committed.floorSeq) {
      await this.#writer.write([at, undefined])
      return false
    }
    const hole = seqKey(Tag.Hole, state.no, messageSeq)
    const isHole = (await this.#database.get(hole)) !== undefined // it had been recalled
    const operations: Operations = [at, undefined]
    this.#removeFront(state, row, messageSeq, operations)
    await this.change(state, (batch) => {
      batch.push(...operations)
      if (isHole) return
      state.planned = { ...state.planned, holeCount: state.planned.holeCount + 1 }
      batch.push(hole, EMPTY)
      putStanding(state, batch)
    })
    return true
  }

  /** A key that leads to nothing. */
  drop(key: Buffer): Promise<void> {
    return this.#writer.write([key, undefined])
  }

  /** The numbers of messages up to `lastSeq` are forgotten; the messages stay. */
  async forgetNumbers(state: ChannelState, lastSeq: number): Promise<void> {
    while (state.committed.numberFloorSeq < lastSeq) {
      const first = state.committed.numberFloorSeq + 1
      const numberFloorSeq = Math.min(lastSeq, first + PIECE_COUNT - 1)
      const operations: Operations = []
      for await (const row of this.#rows.walk(state, { first, last: numberFloorSeq })) {
        this.#index.remove(operations, state.no, row, first, numberFloorSeq)
      }
      const next = await this.#timestampAt(state, numberFloorSeq + 1)
      await this.change(state, (batch) => {
        state.planned = { ...state.planned, numberFloorSeq, oldestNumberMs: next ?? state.planned.oldestNumberMs }
        for (const part of operations) batch.push(part)
        putStanding(state, batch)
      })
    }
  }

  /** The message at `seq`, or the next one there is, was sent then; undefined when there is none. */
  async #timestampAt(state: ChannelState, seq: number): Promise<number | undefined> {
    if (seq > state.committed.lastSeq) return undefined
    const row = await this.#rows.next(state, seq, state.committed.lastSeq)
    const [next] = row?.between(seq, state.committed.lastSeq) ?? []
    return next && timestampOf(next.record)
  }

  async #holes(state: ChannelState, first: number, last: number): Promise<Buffer[]> {
    const holes: Buffer[] = []
    if (state.committed.holeCount === 0) return holes
    for await (const stride of this.#database.keyStrides(seqRange(Tag.Hole, state.no, first, last))) holes.push(...stride)
    return holes
  }

  /** Take the messages up to `lastSeq` out of a row, with all that leads to them. */
  #removeFront(state: ChannelState, row: Row, lastSeq: number, operations: Operations): void {
    const left = row.from(lastSeq + 1)
    putIDs(operations, row.at, idsOf(row.records), true)
    if (left !== undefined) putIDs(operations, row.at, idsOf(left.records))
    operations.push(row.at, left?.bytes)
    // Of those that are forgotten already a later message may have the number since.
    const { numberFloorSeq } = state.committed
    this.#index.remove(operations, state.no, row, numberFloorSeq + 1, Math.max(numberFloorSeq, lastSeq))
    for (const { seq, record } of row.between(row.firstSeq, lastSeq)) {
      const expiresAtMs = expiryOfRecord(record)
      if (expiresAtMs > 0) operations.push(expiryKey(expiresAtMs, state.no, seq), undefined)
    }
  }
}
