import type { Clock } from '../contracts/clock.ts'
import type { IDSource } from '../contracts/id-source.ts'
import { decimalFromHalves } from '../model/int64.ts'

/** 2023-01-01T00:00:00Z. 41 bits of milliseconds from here reach into 2092. */
const EPOCH_MS = 1_672_531_200_000
const SEQUENCE_COUNT = 4096

/**
 * Snowflake ids: 41 bits of milliseconds, 10 bits of node, 12 bits of sequence, as decimal strings; they grow with every
 * call. A clock that goes back does not repeat an id: the generator stays on its last millisecond. More than 4096 ids in
 * a millisecond borrow from the next one. Node 1023 is not used: a client SDK rounds its ids wrongly.
 * Source: wkproto, node ids; `docs/limits.md`.
 */
export function snowflake(nodeID: number, clock: Clock): IDSource {
  let millisecond = -1
  let sequence = 0
  return {
    next(): string {
      // From 1 on: the id 0 means "none" on the wire. A clock with fractions must not start its millisecond twice.
      const now = Math.max(1, Math.floor(clock.nowMs()) - EPOCH_MS)
      if (now > millisecond) {
        millisecond = now
        sequence = 0
      } else if (++sequence === SEQUENCE_COUNT) {
        millisecond++
        sequence = 0
      }
      // id = millisecond << 22 | node << 12 | sequence, in halves: the lower 10 bits of the millisecond share the low one.
      const low = (((millisecond & 0x3ff) << 22) | (nodeID << 12) | sequence) >>> 0
      return decimalFromHalves(Math.floor(millisecond / 1024), low)
    },
  }
}
