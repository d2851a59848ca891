import type { Cursor, CursorUpdate } from '../../contracts/cursor-store.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'

/** In the order of the table. */
export const POSITIONS: readonly (keyof Cursor)[] = ['deliveredSeq', 'readSeq', 'joinSeq', 'deletedToSeq', 'unreadMarkSeq']

/** What is to happen to one user's place in one channel: calls put together, in their order. */
export class CursorChange {
  readonly uid: string
  readonly key: ChannelKey
  /** what has been advanced, before and after what is set */
  readonly raised = [0, 0, 0, 0, 0]
  /** where a position is to be, with what was advanced after that; undefined while it is only raised */
  readonly set: (number | undefined)[] = [undefined, undefined, undefined, undefined, undefined]
  /** everything that is hidden is to be shown again, before what follows is hidden */
  showsAll = false
  readonly hides = new Set<number>()

  constructor(uid: string, { channelID, channelType }: ChannelKey) {
    this.uid = uid
    this.key = { channelID, channelType }
  }

  raise(update: Partial<Cursor>): void {
    for (const [index, name] of POSITIONS.entries()) this.#raiseOne(index, update[name] ?? 0)
  }

  put(update: Partial<Cursor>): void {
    for (const [index, name] of POSITIONS.entries()) this.set[index] = update[name] ?? this.set[index]
  }

  remove(): void {
    this.set.fill(0)
    this.showsAll = true
    this.hides.clear()
  }

  /** The raises of a change that was not written, which came before this one. */
  giveBack(earlier: CursorChange): void {
    for (const [index, seq] of earlier.raised.entries()) this.raised[index] = Math.max(this.raised[index]!, seq)
  }

  /** Nothing is left of the row. */
  get isRemoved(): boolean {
    return this.set.every((seq) => seq === 0)
  }

  /** There is something to write in the row. */
  get movesPositions(): boolean {
    return !this.isRemoved && (this.raised.some((seq) => seq > 0) || this.set.some((seq) => seq !== undefined))
  }

  /** a bit for each position that is set rather than raised */
  get setMask(): number {
    return this.set.reduce<number>((mask, seq, index) => (seq === undefined ? mask : mask | (1 << index)), 0)
  }

  #raiseOne(index: number, seq: number): void {
    this.raised[index] = Math.max(this.raised[index]!, seq)
    const set = this.set[index]
    if (set !== undefined) this.set[index] = Math.max(set, seq)
  }
}

/** What becomes durable together. */
export class CursorBatch {
  readonly changes = new Map<string, CursorChange>()

  changeOf(uid: string, key: ChannelKey): CursorChange {
    const name = rowName(uid, key)
    let change = this.changes.get(name)
    if (change === undefined) this.changes.set(name, (change = new CursorChange(uid, key)))
    return change
  }

  find(uid: string, key: ChannelKey): CursorChange | undefined {
    return this.changes.get(rowName(uid, key))
  }

  advance(update: CursorUpdate): void {
    this.changeOf(update.uid, update.key).raise(update)
  }
}

/** Unambiguous: the uid's length says where it ends. */
function rowName(uid: string, key: ChannelKey): string {
  return `${uid.length}:${uid}${channelKeyString(key)}`
}
