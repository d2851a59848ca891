import { createHash } from 'node:crypto'
import type { SimTime } from './time.ts'

/** A promise of the engine, by its number. */
export type PromiseName = 'P1' | 'P2' | 'P3' | 'P4' | 'P5' | 'P6' | 'P7' | 'P8'

export interface Violation {
  readonly promise: PromiseName
  readonly atMs: number
  readonly what: string
}

/** All that was seen of a run, line by line. Two runs are the same when their hashes are. */
export class History {
  readonly lines: string[] = []
  readonly violations: Violation[] = []
  readonly #time: SimTime

  constructor(time: SimTime) {
    this.#time = time
  }

  add(line: string): void {
    this.lines.push(`${this.#time.nowMs} ${line}`)
  }

  /** A promise is broken. Does not throw: who finds it is often called from within the engine. */
  broken(promise: PromiseName, what: string): void {
    this.violations.push({ promise, atMs: this.#time.nowMs, what })
    this.add(`${promise} BROKEN ${what}`)
  }

  get hash(): string {
    return createHash('sha256').update(this.lines.join('\n')).digest('hex')
  }
}
