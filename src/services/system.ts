import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Clock } from '../contracts/clock.ts'
import type { Logger } from '../contracts/logger.ts'
import type { Random } from '../contracts/random.ts'

/** The machine's own time. */
export function systemClock(): Clock {
  return {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer: (delayMs, fire) => setTimeout(fire, delayMs),
    clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
    // After the sockets that are readable now have been read: the engine's turn sees the input of all of them.
    defer: (run) => void setImmediate(run),
  }
}

const RANDOM_BYTES = 4_096

/** The machine's own chance. Drawn in advance, because asking for 32 bytes costs as much as for thousands. */
export function systemRandom(): Random {
  let drawn = Buffer.alloc(0)
  let at = 0
  return {
    bytes(count) {
      if (count > RANDOM_BYTES / 16) return randomBytes(count)
      if (at + count > drawn.length) {
        drawn = randomBytes(RANDOM_BYTES)
        at = 0
      }
      const bytes = new Uint8Array(count)
      bytes.set(drawn.subarray(at, at + count))
      drawn.fill(0, at, at + count) // what becomes a key is nowhere else
      at += count
      return bytes
    },
  }
}

/**
 * The host's logger, or silence: the engine writes nowhere unless it is given one. A logger that throws must not stop what
 * was about to happen after the line. Texts of a line are `printable`: uids and channel ids are what strangers have chosen, and
 * a logger that writes them as they are would let them write lines of their own, or steer the terminal of whoever reads it.
 */
export function safeLogger(logger: Logger | undefined): Logger {
  const guarded = (level: keyof Logger): Logger['info'] => (fields, message) => {
    if (logger === undefined) return
    try {
      logger[level](printableFields(fields), printable(message))
    } catch {
      // There is nowhere left to say so.
    }
  }
  return { debug: guarded('debug'), info: guarded('info'), warn: guarded('warn'), error: guarded('error') }
}

/** Longer texts are cut in a log line. */
const MAX_PRINTED_LENGTH = 1_000

/** Controls of both sets, line and paragraph separators, what turns the direction of writing, what cannot be seen, and halves of pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u
const ALL_UNPRINTABLE = new RegExp(UNPRINTABLE, 'gu')

/** The text as it may be shown: on one line, of a bounded length, and made of nothing that does anything. */
export function printable(text: string): string {
  const shown = text.length <= MAX_PRINTED_LENGTH ? text : `${text.slice(0, MAX_PRINTED_LENGTH)}… (${text.length} characters)`
  return UNPRINTABLE.test(shown) ? shown.replace(ALL_UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`) : shown
}

function printableFields(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const shown = Object.entries(fields).map(([name, value]) => [printable(name), typeof value === 'string' ? printable(value) : value] as const)
  return Object.fromEntries(shown)
}
