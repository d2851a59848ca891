import type { MaybePromise } from '../../model/maybe-promise.ts'

/** Something durable has happened to entries of a lane. */
interface Change {
  readonly lane: number
  readonly entryIDs: readonly number[]
  readonly isRemoval: boolean
}

/** Where an entry is. */
export interface EntryPlace {
  readonly lane: number
  readonly entryID: number
}

type Lanes = Map<number, Set<number>>

/**
 * The ids that are in the database, in memory: for their count, and to begin a listing behind what has been removed, which
 * the driver would have to pass over every time. They are read once, and again when a failed write has made them doubtful.
 *
 * Invariant: an id is added once, and removed after that, if at all. So a change that becomes durable while the ids are
 * being read may be in what is read or not: made once more afterwards, it gives the same.
 */
export class OutboxIDs {
  readonly #walk: () => AsyncIterable<readonly EntryPlace[]>
  #lanes: Lanes | undefined
  #loading: Promise<number> | undefined
  /** since the reading began */
  #changes: Change[] = []
  #epoch = 0

  /** `walk` gives what is in the database, the ids of each lane ascending. */
  constructor(walk: () => AsyncIterable<readonly EntryPlace[]>) {
    this.#walk = walk
  }

  /** At once when it is known. */
  count(): MaybePromise<number> {
    if (this.#lanes !== undefined) return countOf(this.#lanes)
    return (this.#loading ??= this.#load())
  }

  /** The first id of the lane; undefined when there is none. Unless it is known, it is the first there can be. */
  first(lane: number): number | undefined {
    if (this.#lanes === undefined) return 1
    return this.#lanes.get(lane)?.values().next().value
  }

  added(lane: number, entryIDs: readonly number[]): void {
    this.#note({ lane, entryIDs, isRemoval: false })
  }

  removed(lane: number, entryIDs: readonly number[]): void {
    this.#note({ lane, entryIDs, isRemoval: true })
  }

  /** The database may hold something else than was known. */
  forget(): void {
    this.#epoch++
    this.#lanes = undefined
    this.#changes = []
  }

  #note(change: Change): void {
    if (this.#lanes !== undefined) apply(this.#lanes, change)
    else if (this.#loading !== undefined) this.#changes.push(change)
  }

  async #load(): Promise<number> {
    try {
      let epoch: number
      let lanes: Lanes
      do {
        epoch = this.#epoch
        lanes = new Map()
        for await (const places of this.#walk()) {
          for (const { lane, entryID } of places) apply(lanes, { lane, entryIDs: [entryID], isRemoval: false })
        }
      } while (epoch !== this.#epoch)
      for (const change of this.#changes) apply(lanes, change)
      this.#lanes = lanes
      return countOf(lanes)
    } finally {
      this.#changes = []
      this.#loading = undefined
    }
  }
}

function apply(lanes: Lanes, { lane, entryIDs, isRemoval }: Change): void {
  let held = lanes.get(lane)
  if (held === undefined) {
    if (isRemoval) return
    lanes.set(lane, (held = new Set<number>()))
  }
  for (const entryID of entryIDs) {
    if (isRemoval) held.delete(entryID)
    else held.add(entryID)
  }
  if (held.size === 0) lanes.delete(lane)
}

function countOf(lanes: Lanes): number {
  let count = 0
  for (const held of lanes.values()) count += held.size
  return count
}
