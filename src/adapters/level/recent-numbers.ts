import type { Entry } from './append-entry.ts'

/**
 * The numbers of messages that have been written so lately that an answer of the database may not know them: it was asked
 * while their batch was gathering or on its way to the disk. Kept batch by batch, and only as long as somebody holds such an
 * answer, so there are never more than a few batches of them.
 */
export class RecentNumbers {
  /** oldest first; the last one is the batch that gathers. By the hash of their number; equal ones in a chain */
  #batches: { readonly batchNumber: number; readonly entries: Map<number, Entry> }[] = []
  readonly #gatheringNumber: () => number

  /** `gatheringNumber` counts the batches: the one that gathers has a number above every one that is durable. */
  constructor(gatheringNumber: () => number) {
    this.#gatheringNumber = gatheringNumber
  }

  /**
   * What a batch after number `askedAt` has under the number of this message. Messages ask in the order in which the
   * database was asked for them, so what is older than this one's answer is of no use to those behind it.
   */
  find({ numberKey, numberHash }: Entry, askedAt: number): Entry | undefined {
    while (this.#batches.length > 0 && this.#batches[0]!.batchNumber <= askedAt) this.#batches.shift()
    for (const { entries } of this.#batches) {
      for (let entry = entries.get(numberHash); entry !== undefined; entry = entry.sameHash) {
        if (entry.numberKey!.equals(numberKey!)) return entry
      }
    }
    return undefined
  }

  add(entry: Entry): void {
    const batchNumber = this.#gatheringNumber()
    let last = this.#batches.at(-1)
    if (last?.batchNumber !== batchNumber) this.#batches.push((last = { batchNumber, entries: new Map<number, Entry>() }))
    const hash = entry.numberHash
    entry.sameHash = last.entries.get(hash)
    last.entries.set(hash, entry)
  }

  forget(): void {
    this.#batches = []
  }
}
