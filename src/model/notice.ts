import type { Message } from './message.ts'

/** What clients are told of a message that has changed, by EVENT: the type of the event. */
export type NoticeType =
  /** its content is another one */
  | 'message.edited'
  /** nobody can see its content any more */
  | 'message.recalled'
  /** this user has deleted it, on another device */
  | 'message.deleted'

/** A message that has changed, and how. */
export interface Notice {
  readonly type: NoticeType
  /** as it is now */
  readonly message: Message
  readonly timestampMs: number
}
