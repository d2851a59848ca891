import type { Message, Revision } from './message.ts'

/**
 * What a message has or has not, in one byte, and what became of it, in another: so they are in stores, in the log, and in what
 * nodes say to each other. They have been written down: none may get another number.
 */
export const MessageFlag = { NoPersist: 1, RedDot: 2, SyncOnce: 4, Topic: 8, Revised: 16 } as const

export const REVISION_KINDS: readonly Revision['kind'][] = ['edited', 'recalled']

export function messageFlags({ noPersist, redDot, syncOnce, topic, revision }: Message): number {
  return (
    (noPersist ? MessageFlag.NoPersist : 0) |
    (redDot ? MessageFlag.RedDot : 0) |
    (syncOnce ? MessageFlag.SyncOnce : 0) |
    (topic === '' ? 0 : MessageFlag.Topic) |
    (revision === undefined ? 0 : MessageFlag.Revised)
  )
}

/** Those that are fields of a message. */
export function flagFields(flags: number): Pick<Message, 'noPersist' | 'redDot' | 'syncOnce'> {
  return {
    noPersist: (flags & MessageFlag.NoPersist) !== 0,
    redDot: (flags & MessageFlag.RedDot) !== 0,
    syncOnce: (flags & MessageFlag.SyncOnce) !== 0,
  }
}
