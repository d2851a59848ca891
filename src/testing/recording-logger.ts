import type { Logger } from '../contracts/logger.ts'

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

/** A Logger that keeps what it is told, in order. */
export interface RecordingLogger extends Logger {
  readonly lines: readonly LogLine[]
  /** the lines of one level */
  at(level: LogLine['level']): readonly LogLine[]
}

/** For tests that want to see what was logged, or that nothing was. Fields are kept as they were at the call. */
export function recordingLogger(): RecordingLogger {
  const lines: LogLine[] = []
  const record =
    (level: LogLine['level']) =>
    (fields: Readonly<Record<string, unknown>>, message: string): void => {
      lines.push({ level, fields: { ...fields }, message })
    }
  return {
    lines,
    at: (level) => lines.filter((line) => line.level === level),
    debug: record('debug'),
    info: record('info'),
    warn: record('warn'),
    error: record('error'),
  }
}
