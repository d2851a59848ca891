import type { AppendBatch, AppendResult } from '../../contracts/message-store.ts'
import { IMError } from '../../errors.ts'
import { Entry, type Original } from './append-entry.ts'
import { putStanding, type ChannelState, type ChannelStates, type Standing } from './channel-states.ts'
import type { Operations } from './database.ts'
import { EMPTY, expiryKey, sentKey, seqKey, Tag, uint32 } from './keys.ts'
import type { NumberFilter } from './number-filter.ts'
import type { RecentNumbers } from './recent-numbers.ts'
import type { WriteTask } from './writer.ts'

interface Part {
  state: ChannelState
  readonly entries: readonly Entry[]
}

/** What all appends of a store share. */
export interface AppendHost {
  readonly states: ChannelStates
  readonly numbers: RecentNumbers
  readonly filter: NumberFilter
  /** what it has learnt is worth nothing: have it looked up and submitted once more */
  readonly askAgain: (task: AppendTask) => void
}

/** Who waits for the results of one call. */
export interface Waiter {
  readonly resolve: (results: AppendResult[][]) => void
  readonly reject: (error: IMError) => void
}

/** What the wire has room for. */
const MAX_SEQ = 0xffff_ffff

/** Some bytes per message besides its record: keys, and what it is in memory. */
const ENTRY_BYTES = 300

/** One call of `append`. */
export class AppendTask implements WriteTask {
  readonly parts: readonly Part[]
  readonly bytes: number
  /** batches that were durable when the database was asked: what came later is among the recent numbers */
  askedAt = 0
  readonly #host: AppendHost
  readonly #waiter: Waiter
  #results: AppendResult[][] = []
  #standings: Standing[] = []

  /** @throws TypeError for a message that cannot be stored */
  constructor(batches: readonly AppendBatch[], host: AppendHost, waiter: Waiter) {
    this.#host = host
    this.#waiter = waiter
    const parts: Part[] = (this.parts = [])
    let bytes = 0
    try {
      for (const { key, messages } of batches) {
        const entries = messages.map((message) => new Entry(message))
        for (const { record } of entries) bytes += record.length + ENTRY_BYTES
        parts.push({ state: host.states.pin(key), entries })
      }
      this.bytes = bytes
    } catch (error) {
      this.#leave()
      throw error
    }
  }

  /** @throws IM_STORE_UNAVAILABLE */
  check(): void {
    for (const { state } of this.parts) this.#host.states.check(state)
  }

  plan(operations: Operations): void {
    this.check()
    for (const { state, entries } of this.parts) {
      if (state.planned.lastSeq + entries.length > MAX_SEQ) {
        throw new IMError('IM_STORE_FULL', { detail: 'the channel has given out its last number', context: state.key })
      }
    }
    this.#results = this.parts.map((part) => this.#planPart(part, operations))
    this.#standings = this.parts.map(({ state }) => state.planned)
  }

  done(): void {
    this.parts.forEach(({ state }, index) => (state.committed = this.#standings[index]!))
    this.#leave()
    this.#waiter.resolve(this.#results)
  }

  failed(error: IMError): void {
    this.#leave()
    this.#waiter.reject(error)
  }

  askAgain(): void {
    this.#leave()
    for (const part of this.parts) {
      part.state = this.#host.states.pin(part.state.key)
      for (const entry of part.entries) entry.forget()
    }
    this.#host.askAgain(this)
  }

  #planPart({ state, entries }: Part, operations: Operations): AppendResult[] {
    if (state.no === 0) this.#host.states.create(state, operations)
    const { planned } = state
    let sent: Map<string, number> | undefined
    let { lastSeq, lastTimestampMs } = planned
    let first: Entry | undefined
    const results: AppendResult[] = []
    for (const entry of entries) {
      const original = this.#originalOf(entry, state.no)
      if (original !== undefined) {
        const status = original.hasPayload(entry.payload) ? 'duplicate' : 'conflict'
        results.push({ status, messageID: original.messageID, messageSeq: original.messageSeq })
        continue
      }
      entry.messageSeq = ++lastSeq
      first ??= entry
      lastTimestampMs = entry.timestampMs
      if (entries.length > 1) (sent ??= new Map<string, number>()).set(entry.fromUID, lastSeq)
      this.#planEntry(entry, state.no, operations)
      results.push({ status: 'stored', messageID: entry.messageID, messageSeq: lastSeq })
    }
    if (first === undefined) return results
    if (sent === undefined) operations.push(sentKey(state.no, first.fromUID), uint32(lastSeq))
    else for (const [uid, messageSeq] of sent) operations.push(sentKey(state.no, uid), uint32(messageSeq))
    state.planned = {
      ...planned,
      lastSeq,
      lastTimestampMs,
      oldestTimestampMs: planned.lastSeq === planned.floorSeq ? first.timestampMs : planned.oldestTimestampMs,
      oldestNumberMs: planned.lastSeq === planned.numberFloorSeq ? first.timestampMs : planned.oldestNumberMs,
    }
    putStanding(state, operations)
    return results
  }

  #originalOf(entry: Entry, no: number): Original | undefined {
    if (!entry.takeChannelNo(no, this.#host.filter)) return undefined
    return this.#host.numbers.find(entry, this.askedAt) ?? entry.found
  }

  #planEntry(entry: Entry, no: number, operations: Operations): void {
    const key = seqKey(Tag.Message, no, entry.messageSeq)
    operations.push(key, entry.record, entry.idKey, key)
    if (entry.numberKey !== undefined) {
      operations.push(entry.numberKey, key)
      this.#host.filter.add(entry.numberHash)
      this.#host.numbers.add(entry)
    }
    if (entry.expiresAtMs > 0) operations.push(expiryKey(entry.expiresAtMs, no, entry.messageSeq), EMPTY)
  }

  #leave(): void {
    for (const { state } of this.parts) this.#host.states.unpin(state)
  }
}
