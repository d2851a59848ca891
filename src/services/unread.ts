import type { Cursor } from '../contracts/cursor-store.ts'
import type { ChannelSummary } from '../contracts/message-store.ts'

/**
 * How far a user has read a channel, whatever they have marked: nothing before they joined, before they deleted the
 * conversation, or that has been removed counts, and whoever writes has read what is above. Source: the unread formula of
 * the reference server's third version; that a mark as unread outlives older messages of one's own is ours.
 */
export function effectiveReadSeq({ floorSeq, sentSeq }: ChannelSummary, cursor: Cursor): number {
  const { joinSeq, readSeq, deletedToSeq, unreadMarkSeq } = cursor
  return Math.max(joinSeq - 1, deletedToSeq, floorSeq, readSeq, sentSeq > unreadMarkSeq ? sentSeq : 0)
}
