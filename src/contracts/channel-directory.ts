import type { ChannelInfo, ChannelKey, Member, Page, UserFlags } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

/** Two lists every channel may have. A person's own lists hang on the channel (uid, person). */
export type ChannelList = 'deny' | 'allow'

export interface PageQuery {
  /** from the page before; absent for the first */
  readonly cursor?: string
  /** 1 .. 10000, default 1000; anything else is a TypeError, thrown or as a rejection */
  readonly limit?: number
}

/**
 * Channels, their members and lists, and the standing of users: what the permission checks and the fan-out ask.
 * Questions about what is not there are answered, not thrown: undefined, false, an empty page. Writing the same thing
 * twice is not an error. A write is visible to every read that starts after it has resolved.
 */
export interface ChannelDirectory {
  channel(key: ChannelKey): MaybePromise<ChannelInfo | undefined>
  /** Create the channel or replace its info. Members and lists stay. */
  putChannel(info: ChannelInfo): MaybePromise<void>
  /** Remove the channel with its members and lists. */
  removeChannel(key: ChannelKey): MaybePromise<void>

  member(key: ChannelKey, uid: string): MaybePromise<Member | undefined>
  /** Add members, or replace role and mute of those who are in already. The channel need not exist. */
  putMembers(key: ChannelKey, members: readonly Member[]): MaybePromise<void>
  removeMembers(key: ChannelKey, uids: readonly string[]): MaybePromise<void>
  /** Everyone who stays a member throughout the listing is on exactly one page. */
  members(key: ChannelKey, query?: PageQuery): MaybePromise<Page<Member>>
  /** The channels a user is a member of. */
  channelsOf(uid: string, query?: PageQuery): MaybePromise<Page<ChannelKey>>

  isListed(key: ChannelKey, list: ChannelList, uid: string): MaybePromise<boolean>
  /** True when the list has nobody: an empty allow list allows everyone. */
  isListEmpty(key: ChannelKey, list: ChannelList): MaybePromise<boolean>
  addToList(key: ChannelKey, list: ChannelList, uids: readonly string[]): MaybePromise<void>
  removeFromList(key: ChannelKey, list: ChannelList, uids: readonly string[]): MaybePromise<void>
  listed(key: ChannelKey, list: ChannelList, query?: PageQuery): MaybePromise<Page<string>>

  /** All false for a user nobody has said anything about. */
  userFlags(uid: string): MaybePromise<UserFlags>
  /** Change what is given, leave the rest. */
  setUserFlags(uid: string, flags: Partial<UserFlags>): MaybePromise<void>
  /**
   * A number, at once, that grows with every change: when the change begins, and again when it can be read. As long as it stays the same, the engine
   * does not ask again whether a user who may send to a channel may. Leave it out where anybody else can change the answers, as
   * in a database that several processes write to.
   */
  changeCount?(): number
  /** The users whose flag `system` is set. Without it `users.system.list` has nothing to ask. */
  systemUIDs?(query?: PageQuery): MaybePromise<Page<string>>
}
