import type { PresenceEntry } from '../../contracts/presence.ts'

/** An entry that is to be written, and who waits for that; nobody when it was written before, to a Redis that has lost it. */
export interface Unwritten {
  readonly entry: PresenceEntry
  readonly waiting: readonly { readonly resolve: () => void; readonly reject: (reason: Error) => void }[]
}

/** A node that announces its connections through this object: as a rule, the one engine that has been given it. */
export class NodeRecord {
  readonly id: string
  readonly entries = new Map<string, PresenceEntry>()
  /** by connection: what the next batches hold */
  readonly unwritten = new Map<string, Unwritten>()
  /** one batch after the other is on its way; ends when nothing is unwritten */
  writing: Promise<void> | undefined
  /** the life of the node that Redis has been told of last */
  epoch = ''
  /** Redis does not know this life, or perhaps not all of its entries */
  isStale = true
  intervalMs = 0
  /** of the last call of `heartbeat`, whatever has become of it */
  beatAtMs: number | undefined

  constructor(id: string) {
    this.id = id
  }

  /** The next batch, in the order of the calls. */
  takeUnwritten(maxCount: number): Unwritten[] {
    const batch: Unwritten[] = []
    for (const [connectionID, one] of this.unwritten) {
      batch.push(one)
      this.unwritten.delete(connectionID)
      if (batch.length === maxCount) break
    }
    return batch
  }

  /** Redis has not taken the batch: it is written again, but for what has been said anew of a connection meanwhile. */
  putBack(batch: readonly Unwritten[]): void {
    for (const one of batch) {
      const { connectionID } = one.entry
      const isCurrent = this.entries.get(connectionID) === one.entry && !this.unwritten.has(connectionID)
      if (isCurrent) this.unwritten.set(connectionID, one)
      else for (const { resolve } of one.waiting) resolve()
    }
  }

  /** Nothing more can be written now. What nobody waits for is written with the next life. */
  rejectAll(reason: Error): void {
    const all = [...this.unwritten.values()]
    this.unwritten.clear()
    for (const { waiting } of all) for (const { reject } of waiting) reject(reason)
  }

  /** The node was silent: what it had announced until then is over. */
  forget(): void {
    this.entries.clear()
    for (const [connectionID, { entry, waiting }] of this.unwritten) {
      if (waiting.length === 0) this.unwritten.delete(connectionID)
      else this.entries.set(connectionID, entry) // it has been announced after the silence
    }
    this.beatAtMs = undefined
    this.isStale = true
  }
}
