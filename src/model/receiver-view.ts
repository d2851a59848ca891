import { channelIDSeenBy } from './channel.ts'
import type { Message } from './message.ts'

/** The channel id of a RECV as `uid` must see it. */
export function receivedChannelID(message: Message, uid: string): string {
  return channelIDSeenBy(uid, message)
}

/** A message never counts as unread on the sender's own other devices. Source: wkproto, what a receiver sees. */
export function receivedRedDot(message: Message, uid: string): boolean {
  return message.redDot && message.fromUID !== uid
}
