/**
 * Channels, members, lists and user flags in this process's memory. Power loss, and the end of the process, lose
 * everything. There is no peer to be slow: every answer is synchronous. Nothing has to be closed.
 */
import type { ChannelDirectory, ChannelList, PageQuery } from '../../contracts/channel-directory.ts'
import { badOption } from '../../errors.ts'
import {
  channelInfo,
  channelKeyString,
  type ChannelInfo,
  type ChannelKey,
  type Member,
  type Page,
  type UserFlags,
} from '../../model/channel.ts'
import { ChannelMap } from './channel-map.ts'
import { checkPageQuery, PagedMap } from './paged-map.ts'

const NO_FLAGS: UserFlags = Object.freeze({ banned: false, sendBanned: false })

/**
 * A ChannelDirectory for tests, for development and for hosts that write their own database's content into it at start.
 * Answers are plain values, never promises, and frozen where they are the directory's own objects. It holds what it is
 * given, without a bound. A listing shows members and list entries in the order in which they were added.
 */
export function memoryChannelDirectory(): Required<ChannelDirectory> {
  return new MemoryChannelDirectory()
}

/** What is known of one channel. A record without any content is removed. */
interface ChannelRecord {
  info: ChannelInfo | undefined
  readonly members: PagedMap<Member>
  readonly lists: Readonly<Record<ChannelList, PagedMap<string>>>
}

class MemoryChannelDirectory implements Required<ChannelDirectory> {
  #changeCount = 0
  readonly #channels = new ChannelMap<ChannelRecord>()
  readonly #channelsOf = new Map<string, PagedMap<ChannelKey>>()
  readonly #userFlags = new Map<string, UserFlags>()
  #lastNumber = 0
  readonly #nextNumber = (): number => ++this.#lastNumber
  readonly #systemUIDs = new PagedMap<string>(this.#nextNumber)

  changeCount(): number {
    return this.#changeCount
  }

  channel(key: ChannelKey): ChannelInfo | undefined {
    return this.#channels.get(key)?.info
  }

  putChannel(info: ChannelInfo): void {
    this.#changeCount++
    this.#recordFor(info).info = Object.freeze(channelInfo(info, info))
  }

  removeChannel(key: ChannelKey): void {
    this.#changeCount++
    const name = channelKeyString(key)
    for (const uid of this.#channels.get(key)?.members.keys() ?? []) this.#leave(uid, name)
    this.#channels.delete(key)
  }

  member(key: ChannelKey, uid: string): Member | undefined {
    return this.#channels.get(key)?.members.get(uid)
  }

  putMembers(key: ChannelKey, members: readonly Member[]): void {
    this.#changeCount++
    const name = channelKeyString(key)
    const joined = Object.freeze({ channelID: key.channelID, channelType: key.channelType })
    const record = this.#recordFor(key)
    for (const { uid, role, mutedUntilMs } of members) {
      record.members.set(uid, Object.freeze(mutedUntilMs === undefined ? { uid, role } : { uid, role, mutedUntilMs }))
      this.#channelsFor(uid).set(name, joined)
    }
    this.#dropIfEmpty(key, record)
  }

  removeMembers(key: ChannelKey, uids: readonly string[]): void {
    this.#changeCount++
    const name = channelKeyString(key)
    const record = this.#channels.get(key)
    if (record === undefined) return
    for (const uid of uids) {
      if (!record.members.has(uid)) continue
      record.members.delete(uid)
      this.#leave(uid, name)
    }
    this.#dropIfEmpty(key, record)
  }

  members(key: ChannelKey, query: PageQuery = {}): Page<Member> {
    return pageOf(this.#channels.get(key)?.members, query)
  }

  channelsOf(uid: string, query: PageQuery = {}): Page<ChannelKey> {
    return pageOf(this.#channelsOf.get(uid), query)
  }

  isListed(key: ChannelKey, list: ChannelList, uid: string): boolean {
    return this.#list(key, list)?.has(uid) ?? false
  }

  isListEmpty(key: ChannelKey, list: ChannelList): boolean {
    return (this.#list(key, list)?.size ?? 0) === 0
  }

  addToList(key: ChannelKey, list: ChannelList, uids: readonly string[]): void {
    this.#changeCount++
    const record = this.#recordFor(key)
    for (const uid of uids) record.lists[checkList(list)].set(uid, uid)
    this.#dropIfEmpty(key, record)
  }

  removeFromList(key: ChannelKey, list: ChannelList, uids: readonly string[]): void {
    this.#changeCount++
    const record = this.#channels.get(key)
    if (record === undefined) return
    for (const uid of uids) record.lists[checkList(list)].delete(uid)
    this.#dropIfEmpty(key, record)
  }

  listed(key: ChannelKey, list: ChannelList, query: PageQuery = {}): Page<string> {
    return pageOf(this.#list(key, list), query)
  }

  userFlags(uid: string): UserFlags {
    return this.#userFlags.get(uid) ?? NO_FLAGS
  }

  setUserFlags(uid: string, flags: Partial<UserFlags>): void {
    this.#changeCount++
    const current = this.userFlags(uid)
    const banned = flags.banned ?? current.banned
    const sendBanned = flags.sendBanned ?? current.sendBanned
    const system = flags.system ?? current.system ?? false
    if (banned || sendBanned || system) this.#userFlags.set(uid, Object.freeze({ banned, sendBanned, ...(system ? { system } : {}) }))
    else this.#userFlags.delete(uid)
    if (!system) this.#systemUIDs.delete(uid)
    else if (!this.#systemUIDs.has(uid)) this.#systemUIDs.set(uid, uid)
  }

  systemUIDs(query: PageQuery = {}): Page<string> {
    return pageOf(this.#systemUIDs, query)
  }

  #recordFor(key: ChannelKey): ChannelRecord {
    let record = this.#channels.get(key)
    if (record === undefined) {
      record = {
        info: undefined,
        members: new PagedMap<Member>(this.#nextNumber),
        lists: { deny: new PagedMap<string>(this.#nextNumber), allow: new PagedMap<string>(this.#nextNumber) },
      }
      this.#channels.set(key, record)
    }
    return record
  }

  #dropIfEmpty(key: ChannelKey, { info, members, lists }: ChannelRecord): void {
    if (info === undefined && members.size + lists.deny.size + lists.allow.size === 0) this.#channels.delete(key)
  }

  #list(key: ChannelKey, list: ChannelList): PagedMap<string> | undefined {
    return this.#channels.get(key)?.lists[checkList(list)]
  }

  #channelsFor(uid: string): PagedMap<ChannelKey> {
    let channels = this.#channelsOf.get(uid)
    if (channels === undefined) this.#channelsOf.set(uid, (channels = new PagedMap<ChannelKey>(this.#nextNumber)))
    return channels
  }

  #leave(uid: string, name: string): void {
    const channels = this.#channelsOf.get(uid)
    channels?.delete(name)
    if (channels?.size === 0) this.#channelsOf.delete(uid)
  }
}

function pageOf<V>(map: PagedMap<V> | undefined, query: PageQuery): Page<V> {
  if (map !== undefined) return map.page(query)
  checkPageQuery(query)
  return { items: [] }
}

function checkList(list: ChannelList): ChannelList {
  if (list !== 'deny' && list !== 'allow') badOption('list', "'deny' or 'allow'", list)
  return list
}
