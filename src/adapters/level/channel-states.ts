import { crc32 } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import { IMError } from '../../errors.ts'
import { channelKeyString, ChannelType, personChannelUIDs, sourceKey, type ChannelKey } from '../../model/channel.ts'
import type { Database, Operations } from './database.ts'
import { channelName, channelNoKey, channelOfName, EMPTY, kept, Tag, textKey, textPrefix } from './keys.ts'

/** Where a channel stands. Immutable: a change is a new object. */
export interface Standing {
  readonly lastSeq: number
  /** everything up to here is removed */
  readonly floorSeq: number
  /** of the last message */
  readonly lastTimestampMs: number
  /** no message that is left is older than this */
  readonly oldestTimestampMs: number
  /** messages above the floor that are recalled or removed */
  readonly holeCount: number
  /** the numbers of messages up to here are forgotten, so that their repeats are new */
  readonly numberFloorSeq: number
  /** no message whose number is remembered is older than this */
  readonly oldestNumberMs: number
  /** who sent the last message, in UTF-8: where they stand in the channel is not in a row of its own. Empty: where everybody stands is */
  readonly lastSender: Buffer
}

export const NEW_CHANNEL: Standing = Object.freeze({
  lastSeq: 0,
  floorSeq: 0,
  lastTimestampMs: 0,
  oldestTimestampMs: 0,
  holeCount: 0,
  numberFloorSeq: 0,
  oldestNumberMs: 0,
  lastSender: EMPTY,
})

const VERSION = 2
/** of this version there are records without a last sender */
const WITHOUT_SENDER = 1
/** then comes the last sender, and a CRC-32 of everything: a wrong standing would give numbers out a second time */
const FIXED_BYTES = 39

/** One channel in memory. While anybody has it pinned there is only one of it. */
export class ChannelState {
  readonly key: ChannelKey
  /** `channelKeyString(key)` */
  readonly name: string
  /** `Tag.Channel` and the channel's name */
  readonly recordKey: Buffer
  readonly epoch: number
  /** 0 while the channel has never been written to */
  no = 0
  isLoaded = false
  /** durable: what readers see */
  committed: Standing = NEW_CHANNEL
  /** with what the batches on their way to the disk will have done */
  planned: Standing = NEW_CHANNEL
  pinCount = 0

  constructor(key: ChannelKey, name: string, epoch: number) {
    this.key = { channelID: key.channelID, channelType: key.channelType }
    this.name = name
    this.recordKey = textKey(Tag.Channel, channelName(this.key))
    this.epoch = epoch
  }

  load(record: Buffer | undefined): void {
    if (this.isLoaded) return
    if (record !== undefined) {
      const { no, standing } = decodeStanding(record, this.key)
      this.no = no
      this.committed = this.planned = standing
    }
    this.isLoaded = true // not before: a channel whose record cannot be read is not a new one
  }
}

export interface ChannelStatesOptions {
  readonly database: Database
  readonly maxCachedChannels: number
}

/** The channels that are in use, their numbers, and where each stands. Numbers are short names for keys. */
export class ChannelStates {
  readonly #database: Database
  readonly #recent: LRUCache<string, ChannelState>
  /** that had to leave `#recent` while they were pinned; as a rule none */
  readonly #pinned = new Map<string, ChannelState>()
  readonly #names: LRUCache<number, ChannelKey>
  #nextNo = 1
  #epoch = 0

  constructor({ database, maxCachedChannels }: ChannelStatesOptions) {
    this.#database = database
    const dispose = (state: ChannelState, name: string, reason: LRUCache.DisposeReason): void => {
      if (reason === 'evict' && state.pinCount > 0) this.#pinned.set(name, state)
    }
    this.#recent = new LRUCache({ max: maxCachedChannels, dispose })
    this.#names = new LRUCache({ max: maxCachedChannels })
  }

  async open(): Promise<void> {
    const [last] = await this.#database.entries({ ...noRange, reverse: true, limit: 1 })
    this.#nextNo = last === undefined ? 1 : last[0].readUInt32BE(1) + 1
  }

  /** After a failed write: what is known may be wrong, and those who still hold a state must not use it (`check`). */
  forget(): void {
    this.#epoch++
    this.#recent.clear()
    this.#pinned.clear()
    this.#names.clear()
  }

  /** The state of a channel, loaded or not, that stays the only one until `unpin`. */
  pin(key: ChannelKey): ChannelState {
    const name = channelKeyString(key)
    let state = this.#recent.get(name) ?? this.#pinned.get(name)
    if (state === undefined) this.#recent.set(name, (state = new ChannelState(key, name, this.#epoch)))
    state.pinCount++
    return state
  }

  unpin(state: ChannelState): void {
    if (--state.pinCount > 0 || state.epoch !== this.#epoch) return
    if (this.#pinned.delete(state.name) && state.isLoaded) this.#recent.set(state.name, state)
    else if (!state.isLoaded) this.#recent.delete(state.name)
  }

  /** @throws IM_STORE_UNAVAILABLE when a write has failed since the state was pinned */
  check(state: ChannelState): void {
    if (state.epoch !== this.#epoch) throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'a write before this one has failed' })
  }

  /** Run `action` with the channel's state, loaded. */
  async with<T>(key: ChannelKey, action: (state: ChannelState) => Promise<T>): Promise<T> {
    const state = this.pin(key)
    try {
      if (!state.isLoaded) state.load(await this.#database.get(state.recordKey))
      return await action(state)
    } finally {
      this.unpin(state)
    }
  }

  async loadAll(states: readonly ChannelState[]): Promise<void> {
    const missing = states.filter((state) => !state.isLoaded)
    if (missing.length === 0) return
    const records = await this.#database.getMany(missing.map((state) => state.recordKey))
    missing.forEach((state, index) => state.load(records[index]))
  }

  /** Where the channel's record is, for who reads many of them. */
  recordKeyOf(key: ChannelKey): Buffer {
    return textKey(Tag.Channel, channelName(key))
  }

  /** What is committed of a channel that is in memory; undefined: ask the database. */
  known(key: ChannelKey): ChannelState | undefined {
    const name = channelKeyString(key)
    const state = this.#recent.get(name) ?? this.#pinned.get(name)
    return state?.isLoaded === true ? state : undefined
  }

  /** Give a channel its number, with what finds it by number and by the people in it. */
  create(state: ChannelState, operations: Operations): void {
    state.no = this.#nextNo++
    const name = channelName(state.key)
    operations.push(channelNoKey(Tag.Name, state.no), name)
    const source = sourceKey(state.key) // two people who have only sent each other commands have a channel, too
    for (const uid of pairOf(source)) operations.push(personKey(uid, source.channelID), EMPTY)
  }

  /** The channel of a number that is in use. */
  async keyOf(no: number): Promise<ChannelKey | undefined> {
    const known = this.#names.get(no)
    if (known !== undefined) return known
    const name = await this.#database.get(channelNoKey(Tag.Name, no))
    if (name === undefined) return undefined
    const key = channelOfName(name)
    this.#names.set(no, key)
    return key
  }
}

const noRange = { gte: channelNoKey(Tag.Name, 0), lt: Buffer.from([Tag.Name + 1]) }

export function personKey(uid: string, channelID: string): Buffer {
  return textKey(Tag.Person, Buffer.from(uid), Buffer.from(channelID))
}

export function personPrefix(uid: string): Buffer {
  return textPrefix(Tag.Person, Buffer.from(uid))
}

function pairOf({ channelID, channelType }: ChannelKey): readonly string[] {
  const pair = channelType === ChannelType.Person ? personChannelUIDs(channelID) : undefined
  if (pair === undefined) return []
  return pair[0] === pair[1] ? [pair[0]] : pair
}

export function putStanding(state: ChannelState, operations: Operations): void {
  const { no, planned } = state
  const { lastSender } = planned
  const record = Buffer.allocUnsafe(FIXED_BYTES + lastSender.length + 4)
  record[0] = VERSION
  record.writeUInt32BE(no, 1)
  record.writeUInt32BE(planned.lastSeq, 5)
  record.writeUInt32BE(planned.floorSeq, 9)
  record.writeUIntBE(planned.lastTimestampMs, 13, 6)
  record.writeUIntBE(planned.oldestTimestampMs, 19, 6)
  record.writeUInt32BE(planned.holeCount, 25)
  record.writeUInt32BE(planned.numberFloorSeq, 29)
  record.writeUIntBE(planned.oldestNumberMs, 33, 6)
  lastSender.copy(record, FIXED_BYTES)
  record.writeUInt32BE(crc32(record.subarray(0, -4)), record.length - 4)
  operations.push(state.recordKey, record)
}

export function decodeStanding(record: Buffer, key: ChannelKey): { no: number; standing: Standing } {
  // First, because every version ends with the sum: a damaged record is none of later days.
  if (record.length < 5 || record.readUInt32BE(record.length - 4) !== crc32(record.subarray(0, -4))) {
    throw new IMError('IM_STORE_CORRUPT', { detail: 'the standing of a channel is not what was written', context: key })
  }
  if (record[0] !== VERSION && record[0] !== WITHOUT_SENDER) throw new IMError('IM_STORE_FORMAT', { detail: `a channel of version ${record[0]}`, context: key })
  return {
    no: record.readUInt32BE(1),
    standing: {
      lastSeq: record.readUInt32BE(5),
      floorSeq: record.readUInt32BE(9),
      lastTimestampMs: record.readUIntBE(13, 6),
      oldestTimestampMs: record.readUIntBE(19, 6),
      holeCount: record.readUInt32BE(25),
      numberFloorSeq: record.readUInt32BE(29),
      oldestNumberMs: record.readUIntBE(33, 6),
      lastSender: kept(record.subarray(FIXED_BYTES, -4)),
    },
  }
}
