import { Gathering } from './gathering.ts'
import { LogPace } from './log-pace.ts'

/** What waits to leave, and what has left, for the one who says when. */
export interface DeparturesOptions {
  readonly nodeID: number
  /** 0: entries are never held */
  readonly entryPeriodMs: number
  /** of messages in one entry */
  readonly maxEntryCount: number
  readonly maxEntryBytes: number
  /** about how many messages and operations can go with the next entry: calls, of which few have more than one message */
  readonly readyCount: () => number
  /** Would they be an entry that nothing can be added to? */
  readonly fillsOne: () => boolean
  /** Is an entry on its way that others wait for? */
  readonly isUnderWay: () => boolean
  /** Has the first try of an entry that is on its way told nothing? */
  readonly isInTrouble: () => boolean
  /** Are as many on their way as may be? */
  readonly isFull: () => boolean
  /** One entry leaves. */
  readonly launch: () => void
}

/** For fewer messages an entry leaves as soon as the one before it is answered, and for so many it is worth what it costs. */
const MIN_PACED_COUNT = 4
const MAX_PACED_COUNT = 256
/** Besides the period: the time within which a sender is answered begins when their message is proposed, and an answer may be long in coming. */
const MAX_GATHER_MS = 250

/**
 * When the next entry of a partition leaves. Each wakes every server and every node, so it waits for more as long as another one is on
 * its way, and then, where entries take long, until it is this node's turn.
 */
export class Departures {
  readonly #options: DeparturesOptions
  readonly #pace: LogPace
  readonly #gathering = new Gathering()
  #next: NodeJS.Immediate | undefined
  #paced: NodeJS.Timeout | undefined
  /** channels that have been let go and have not proposed yet: their handlers take their time */
  #owedCount = 0
  #isOver = false

  constructor(options: DeparturesOptions) {
    this.#options = options
    this.#pace = new LogPace(options.nodeID, options.entryPeriodMs)
  }

  /**
   * More of a channel's messages may come before they are proposed. Not while a try has told nothing: the time within which their
   * senders are answered begins when they are.
   * @returns resolves when the next entry is made; undefined: now
   */
  gather(count: number, bytes: number): Promise<void> | undefined {
    const { isInTrouble, isUnderWay, entryPeriodMs } = this.#options
    if (this.#isOver || !this.#pace.isHeld || isInTrouble()) return undefined
    if (!isUnderWay() && this.#pace.leftMs === 0) return undefined
    const over = this.#gathering.join(count, bytes, entryPeriodMs + MAX_GATHER_MS)
    this.request()
    return over
  }

  /** Nobody is held any longer. */
  letGo(): void {
    this.#gathering.letGo()
  }

  /** Something is ready, or may leave now: at the end of the turn, so that everything that comes in it goes together. */
  request(): void {
    if (this.#next !== undefined || this.#waitingCount === 0 || this.#isOver || this.#options.isFull()) return
    this.#next = setImmediate(() => {
      const isDue = !this.#hasTime
      if (!isDue || this.#gathering.count === 0) return this.#leave(isDue)
      this.#owedCount = this.#gathering.letGo()
      this.#next = setImmediate(() => this.#leave(isDue)) // most have been proposed by then
    })
  }

  /** Messages have left. */
  launched(): void {
    this.#pace.launched()
  }

  /** They have been applied here so long after that. */
  landed(flightMs: number): void {
    this.#pace.landed(flightMs)
  }

  /** Nothing leaves any more, and nobody is held. */
  end(): void {
    this.#isOver = true
    clearImmediate(this.#next)
    clearTimeout(this.#paced)
    this.#gathering.letGo()
  }

  #leave(isDue: boolean): void {
    const { isFull, isUnderWay, fillsOne, launch, readyCount } = this.#options
    this.#next = undefined
    const beforeCount = readyCount()
    if (isDue) launch()
    while (!isFull() && fillsOne()) launch()
    this.#owedCount = Math.max(0, this.#owedCount - (beforeCount - readyCount()))
    if (this.#waitingCount === 0 || isUnderWay()) return // who is answered asks
    this.#paced ??= setTimeout(() => {
      this.#paced = undefined
      this.request()
    }, this.#pace.leftMs)
  }

  get #hasTime(): boolean {
    const { maxEntryCount, maxEntryBytes, isUnderWay, readyCount } = this.#options
    const count = this.#waitingCount
    if (this.#gathering.bytes >= maxEntryBytes) return false
    if (isUnderWay()) return count < maxEntryCount
    if (this.#owedCount > 0 && readyCount() > 0) return false // they have waited for one turn, and do not for another
    return count >= MIN_PACED_COUNT && count < MAX_PACED_COUNT && this.#pace.leftMs > 0
  }

  get #waitingCount(): number {
    return this.#options.readyCount() + this.#gathering.count
  }
}
