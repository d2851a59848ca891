import { badOption, integerBetween } from '../errors.ts'
import type { Removal } from './message-store.ts'

/** What the wire has room for. */
const MAX_SEQ = 0xffff_ffff

/** For stores, before they remove the first. @throws TypeError naming what no store can have found */
export function checkRemoval({ key, throughSeq = 0, expired = [], forgottenThroughSeq = 0 }: Removal): void {
  if (typeof key?.channelID !== 'string' || !Number.isInteger(key.channelType)) badOption('key', 'a channel', key)
  integerBetween('throughSeq', throughSeq, 0, MAX_SEQ)
  integerBetween('forgottenThroughSeq', forgottenThroughSeq, 0, MAX_SEQ)
  for (const { messageSeq, expiresAtMs } of expired) {
    integerBetween('messageSeq', messageSeq, 1, MAX_SEQ)
    integerBetween('expiresAtMs', expiresAtMs, 1, Number.MAX_SAFE_INTEGER)
  }
}
