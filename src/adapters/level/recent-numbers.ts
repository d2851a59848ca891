import type { Entry } from './append-entry.ts'
import { isSameNumber } from './number-index.ts'

interface RecentBatch {
  readonly batchNumber: number
  readonly entries: Entry[]
  /** the first `indexedCount` of them by the hash of their number; equal ones in a chain */
  readonly byHash: Map<number, Entry>
  indexedCount: number
}

/**
 * The numbers of messages that have been written so lately that an answer of the database may not know them: it was asked
 * while their batch was gathering or on its way to the disk. Kept batch by batch, and only as long as somebody holds such an
 * answer, so there are never more than a few batches of them. Indexed when somebody looks for one, which is seldom: what the
 * filter says no to is not here either.
 */
export class RecentNumbers {
  /** oldest first; the last one is the batch that gathers */
  #batches: RecentBatch[] = []
  readonly #gatheringNumber: () => number

  /** `gatheringNumber` counts the batches: the one that gathers has a number above every one that is durable. */
  constructor(gatheringNumber: () => number) {
    this.#gatheringNumber = gatheringNumber
  }

  /**
   * Messages ask in the order in which the database was asked for them: what the answer for the first of them knows is of no
   * use to those behind it.
   */
  drop(askedAt: number): void {
    while (this.#batches.length > 0 && this.#batches[0]!.batchNumber <= askedAt) this.#batches.shift()
  }

  /** What is here under the number of this message. */
  find(message: Entry): Entry | undefined {
    for (const batch of this.#batches) {
      for (let entry = indexed(batch).get(message.numberHash); entry !== undefined; entry = entry.sameHash) {
        if (isSameNumber(entry, message)) return entry
      }
    }
    return undefined
  }

  add(entry: Entry): void {
    const batchNumber = this.#gatheringNumber()
    let last = this.#batches.at(-1)
    if (last?.batchNumber !== batchNumber) this.#batches.push((last = { batchNumber, entries: [], byHash: new Map(), indexedCount: 0 }))
    last.entries.push(entry)
  }

  forget(): void {
    this.#batches = []
  }
}

function indexed(batch: RecentBatch): Map<number, Entry> {
  const { entries, byHash } = batch
  for (; batch.indexedCount < entries.length; batch.indexedCount++) {
    const entry = entries[batch.indexedCount]!
    entry.sameHash = byHash.get(entry.numberHash)
    byHash.set(entry.numberHash, entry)
  }
  return byHash
}
