import type { TimerEntry, Timers } from '../../src/contracts/clock.ts'

interface ManualEntry extends TimerEntry {
  readonly fire: () => void
}

/** Timers that end when the test says so. */
export class ManualTimers implements Timers {
  readonly entries = new Set<ManualEntry>()

  after(delayMs: number, fire: () => void): TimerEntry {
    const entry: ManualEntry = { dueMs: delayMs, fire }
    this.entries.add(entry)
    return entry
  }

  cancel(entry: TimerEntry): void {
    this.entries.delete(entry as ManualEntry)
  }

  /** End all that are armed now. */
  fireAll(): void {
    for (const entry of [...this.entries]) {
      this.entries.delete(entry)
      entry.fire()
    }
  }
}
