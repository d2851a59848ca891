import type { IMError } from '../../errors.ts'
import { putStanding, type ChannelState, type ChannelStates, type Standing } from './channel-states.ts'
import type { Database, Operations } from './database.ts'
import { EMPTY, expiryKey, seqKey, seqOfKey, seqRange, setChannelNo, Tag } from './keys.ts'
import { decodeRecord, expiryOf, idKeyOf, numberKeyOf } from './record.ts'
import type { Writer } from './writer.ts'

export interface RemovalsOptions {
  readonly database: Database
  readonly writer: Writer
  readonly states: ChannelStates
}

/** Messages removed with one batch. */
const PIECE_COUNT = 500

/** Takes messages away with everything that leads to them. The caller holds the channel's lock. */
export class Removals {
  readonly #database: Database
  readonly #writer: Writer
  readonly #states: ChannelStates

  constructor({ database, writer, states }: RemovalsOptions) {
    this.#database = database
    this.#writer = writer
    this.#states = states
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
      const floorSeq = Math.min(lastSeq, first + PIECE_COUNT - 1)
      const found = await this.#database.entries({ ...seqRange(Tag.Message, state.no, first, floorSeq), limit: PIECE_COUNT })
      const holes = await this.#holes(state, first, floorSeq)
      const next = await this.#timestampAt(state, floorSeq + 1)
      const operations = found.flatMap(([at, bytes]) => this.#without(state, seqOfKey(at), bytes))
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
        batch.push(...operations)
        putStanding(state, batch)
      })
      removedCount += found.length
    }
    return removedCount
  }

  /** One message in the middle: its number stays used. */
  async one(state: ChannelState, messageSeq: number, alsoDelete: Buffer): Promise<boolean> {
    const at = seqKey(Tag.Message, state.no, messageSeq)
    const bytes = await this.#database.get(at)
    if (bytes === undefined || messageSeq <= state.committed.floorSeq) {
      await this.#writer.write([alsoDelete, undefined])
      return false
    }
    const hole = seqKey(Tag.Hole, state.no, messageSeq)
    const isHole = (await this.#database.get(hole)) !== undefined // it had been recalled
    const operations: Operations = [...this.#without(state, messageSeq, bytes), alsoDelete, undefined]
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
      const found = await this.#database.entries({ ...seqRange(Tag.Message, state.no, first, numberFloorSeq), limit: PIECE_COUNT })
      const next = await this.#timestampAt(state, numberFloorSeq + 1)
      const operations = found.flatMap(([at, bytes]): Operations => {
        decodeRecord(bytes, state.key, seqOfKey(at)) // a damaged one could name another message's number
        const number = this.#numberOf(state, seqOfKey(at), bytes)
        return number === undefined ? [] : [number, undefined]
      })
      await this.change(state, (batch) => {
        state.planned = { ...state.planned, numberFloorSeq, oldestNumberMs: next ?? state.planned.oldestNumberMs }
        batch.push(...operations)
        putStanding(state, batch)
      })
    }
  }

  /** The message at `seq`, or the next one there is, was sent then; undefined when there is none. */
  async #timestampAt(state: ChannelState, seq: number): Promise<number | undefined> {
    if (seq > state.committed.lastSeq) return undefined
    const [next] = await this.#database.entries({ ...seqRange(Tag.Message, state.no, seq, state.committed.lastSeq), limit: 1 })
    return next && decodeRecord(next[1], state.key, seqOfKey(next[0])).message.timestampMs
  }

  async #holes(state: ChannelState, first: number, last: number): Promise<Buffer[]> {
    const holes: Buffer[] = []
    if (state.committed.holeCount === 0) return holes
    for await (const stride of this.#database.keyStrides(seqRange(Tag.Hole, state.no, first, last))) holes.push(...stride)
    return holes
  }

  #without(state: ChannelState, messageSeq: number, bytes: Buffer): Operations {
    const { message } = decodeRecord(bytes, state.key, messageSeq)
    const operations: Operations = [seqKey(Tag.Message, state.no, messageSeq), undefined, idKeyOf(bytes), undefined]
    const number = this.#numberOf(state, messageSeq, bytes)
    if (number !== undefined) operations.push(number, undefined)
    const expiresAtMs = expiryOf(message)
    if (expiresAtMs > 0) operations.push(expiryKey(expiresAtMs, state.no, messageSeq), undefined)
    return operations
  }

  /** The key that recognises the message's repeats, while there is one: a later message may have it since. */
  #numberOf(state: ChannelState, messageSeq: number, bytes: Buffer): Buffer | undefined {
    if (messageSeq <= state.committed.numberFloorSeq) return undefined
    const number = numberKeyOf(bytes)
    return number && setChannelNo(number, state.no)
  }
}
