import { Kind, MAX_ENTRIES_COUNT, type Testimony } from './digest-wire.ts'

/** What one peer has said of one stream beyond where this node has come: 33 KiB at most, and a few bytes when it is not in doubt. */
const MAX_KEPT_COUNT = 32
const MAX_EQUAL_COUNT = 8
/** A life that has been silent for so many beats may have ended: only then another one of the same node is heard. */
const LIFE_BEATS = 5

interface Range {
  readonly from: number
  readonly to: number
}

/**
 * What another node has said of one stream, in one of its lives, as far as it is of use to this one. Lives have no order, and
 * what comes late of one that has ended must not be taken for the present one, nor ever keep that out.
 */
export class DigestPeer {
  #boot: string
  #heardBeat: number
  #kept: Testimony[] = []
  /** where it has read the same, ascending and apart from each other */
  #equal: Range[] = []
  #lastSeq = 0
  #heardCount = 0

  constructor(boot: string, beat: number) {
    this.#boot = boot
    this.#heardBeat = beat
  }

  get boot(): string {
    return this.#boot
  }

  /** the furthest that it has spoken of */
  get lastSeq(): number {
    return this.#lastSeq
  }

  /** how often it has been heard */
  get heardCount(): number {
    return this.#heardCount
  }

  /** the least position at which something that is kept can be compared */
  get dueSeq(): number {
    return this.#kept.reduce((least, { to }) => Math.min(least, to), Infinity)
  }

  /** @param beat  of the node that hears, counted @returns false: it is to be passed over, as of a life that may have ended */
  heard(boot: string, { to }: Testimony, beat: number): boolean {
    if (boot !== this.#boot) {
      if (beat - this.#heardBeat < LIFE_BEATS) return false
      this.#boot = boot
      this.#kept = []
      this.#equal = []
      this.#lastSeq = 0
    }
    this.#heardBeat = beat
    this.#heardCount++
    this.#lastSeq = Math.max(this.#lastSeq, to)
    return true
  }

  /** For when this node has come there; what is said again takes the place of what it repeats, and the oldest goes first. */
  keep(testimony: Testimony): void {
    const others = this.#kept.filter((each) => !repeats(testimony, each))
    this.#kept = [...others, testimony].slice(-MAX_KEPT_COUNT)
  }

  /** What is due now that this node has come so far. It is not kept any longer. */
  take(lastSeq: number): Testimony[] {
    const due = this.#kept.filter(({ to }) => to <= lastSeq)
    this.#kept = this.#kept.filter(({ to }) => to > lastSeq)
    return due
  }

  isEqual(from: number, to: number): void {
    const near = this.#equal.filter((each) => each.from <= to + 1 && from <= each.to + 1)
    const apart = this.#equal.filter((each) => !near.includes(each))
    const joined = { from: Math.min(from, ...near.map((each) => each.from)), to: Math.max(to, ...near.map((each) => each.to)) }
    this.#equal = [...apart, joined].sort((a, b) => a.from - b.from).slice(-MAX_EQUAL_COUNT)
  }

  hasEqual(from: number, to: number): boolean {
    return this.#equal.some((each) => each.from <= from && to <= each.to)
  }
}

function repeats(newer: Testimony, older: Testimony): boolean {
  if (newer.kind !== older.kind) return false
  return newer.kind === Kind.Range ? newer.from === older.from && newer.to === older.to : blockOf(newer.from) === blockOf(older.from)
}

/** Entries are spoken of in blocks, which begin at the same positions on every node. */
export function blockOf(seq: number): number {
  return Math.floor(seq / MAX_ENTRIES_COUNT)
}
