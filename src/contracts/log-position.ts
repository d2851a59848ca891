import { badOption, integerBetween } from '../errors.ts'
import type { LogPosition } from './message-store.ts'

const MAX_LOG_CHARACTERS = 100
/** six bytes of it are kept */
const MAX_INDEX = 2 ** 48 - 1

/** @throws TypeError for a position that no log has */
export function checkLogPosition({ log, index }: LogPosition): void {
  if (typeof log !== 'string' || log.length === 0 || log.length > MAX_LOG_CHARACTERS) {
    badOption('position.log', `text of 1 to ${MAX_LOG_CHARACTERS} characters`, log)
  }
  integerBetween('position.index', index, 1, MAX_INDEX)
}
