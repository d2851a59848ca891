import { channelIDSeenBy, ChannelType } from './channel.ts'
import type { Message } from './message.ts'

/** The channel id of a RECV as `uid` must see it: in a person channel the other one's uid, elsewhere unchanged. */
export function receivedChannelID(message: Message, uid: string): string {
  return message.channelType === ChannelType.Person ? channelIDSeenBy(uid, message) : message.channelID
}

/** A message never counts as unread on the sender's own other devices. Source: wkproto, what a receiver sees. */
export function receivedRedDot(message: Message, uid: string): boolean {
  return message.redDot && message.fromUID !== uid
}
