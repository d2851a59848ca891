import { prefixedBytes } from '../../contracts/message-records.ts'
import { IMError } from '../../errors.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { batchHeadBytes, encodeBatch } from './log-entry.ts'
import type { LogLimits } from './log-options.ts'
import type { Wake } from './wake.ts'

/** Messages of one channel that go in one entry, or an operation, which has one of its own, and who waits for them. */
export interface Part {
  /** for an operation its lane */
  readonly channel: string
  readonly bytes: Uint8Array
  readonly count: number
  readonly isOperation: boolean
  readonly call: Call
  /** once it is in one */
  entry: Entry | undefined
  /** what has come of it: of messages one each, of an operation the only one */
  results: readonly unknown[] | undefined
}

/** One call. Its parts are in the log one after the other. */
export interface Call {
  parts: readonly Part[]
  isSettled: boolean
  settle(outcome: readonly unknown[] | IMError): void
}

export interface Entry {
  readonly number: number
  readonly bytes: Buffer
  readonly parts: readonly Part[]
  readonly launchedMs: number
  /** parts that somebody waits for */
  liveCount: number
  /** it is known to be in the log, or known never to be */
  isDecided: boolean
  /** its first try has told nothing: others do not wait for it */
  isLate: boolean
  /** where it is, as the stream's leader says */
  confirmedSeq: number | undefined
  /** where it was when it came back */
  appliedSeq: number | undefined
  /** for the try, or the pause, that is under way: the next try is made now */
  readonly waiting: Wake
}

export interface PartLimits extends Pick<LogLimits, 'maxEntryBytes' | 'maxEntryCount'> {
  /** what the servers take, in bytes of a body */
  readonly hardLimit: number
}

/** As few as may be; encoded now, because arrays and objects are the caller's. @throws IM_ENTRY_TOO_LARGE, TypeError */
export function messageParts(call: Call, key: ChannelKey, messages: readonly Message[], limits: PartLimits): Part[] {
  const { hardLimit, maxEntryCount } = limits
  const channel = channelKeyString(key)
  const headBytes = batchHeadBytes(key)
  const softLimit = Math.min(limits.maxEntryBytes, hardLimit)
  const parts: Part[] = []
  const lengths = messages.map(prefixedBytes)
  let first = 0
  let bytes = headBytes
  const cut = (end: number): void => {
    const encoded = encodeBatch(key, messages.slice(first, end), lengths.slice(first, end))
    parts.push({ channel, bytes: encoded, count: end - first, isOperation: false, call, entry: undefined, results: undefined })
    first = end
    bytes = headBytes
  }
  for (const [index, size] of lengths.entries()) {
    if (headBytes + size > hardLimit) throw tooLarge(headBytes + size, hardLimit)
    if (index > first && (bytes + size > softLimit || index - first === maxEntryCount)) cut(index)
    bytes += size
  }
  cut(messages.length)
  return parts
}

/** @throws IM_ENTRY_TOO_LARGE */
export function operationPart(call: Call, lane: string, operation: Uint8Array, { hardLimit }: Pick<PartLimits, 'hardLimit'>): Part {
  if (operation.length > hardLimit) throw tooLarge(operation.length, hardLimit)
  return { channel: lane, bytes: operation.slice(), count: 1, isOperation: true, call, entry: undefined, results: undefined }
}

/** It is an entry by itself. */
export function isOperation(parts: readonly Part[]): boolean {
  return parts[0]!.isOperation
}

function tooLarge(bytes: number, hardLimit: number): IMError {
  return new IMError('IM_ENTRY_TOO_LARGE', { detail: `${bytes} of ${hardLimit} bytes` })
}
