import type { ChannelDirectory, ChannelList, PageQuery } from '../contracts/channel-directory.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { badOption } from '../errors.ts'
import { channelInfo, channelKeyString, CHANNEL_MODES, commandKey, MemberRole, type ChannelFlags, type ChannelInfo, type ChannelKey, type Member, type Page } from '../model/channel.ts'
import { Turns } from '../model/turns.ts'
import { checkKey, checkUID, checkUIDs } from './check.ts'

/** A member as a host names one: a uid alone joins as an ordinary member, or keeps the role it has. */
export type MemberInput = string | { readonly uid: string; readonly role?: MemberRole }

/** One of a channel's two lists. Changes hold for the next SEND. */
export interface ListAPI {
  add(key: ChannelKey, uids: readonly string[]): Promise<void>
  remove(key: ChannelKey, uids: readonly string[]): Promise<void>
  list(key: ChannelKey, query?: PageQuery): Promise<Page<string>>
}

/** A channel's members. Changes hold for the next message. */
export interface SubscribersAPI {
  add(key: ChannelKey, members: readonly MemberInput[]): Promise<void>
  remove(key: ChannelKey, uids: readonly string[]): Promise<void>
  list(key: ChannelKey, query?: PageQuery): Promise<Page<Member>>
}

export interface ChannelsAPIOptions {
  readonly directory: ChannelDirectory
  readonly cursors: CursorStore
  readonly messages: MessageStore
  /** the members of a channel have changed */
  readonly changed: (key: ChannelKey) => void
  /** what is in memory about where these users stand in the channel is worth nothing any more */
  readonly moved: (key: ChannelKey, uids: readonly string[]) => void
}

/** Members whose positions are forgotten at once. */
const PAGE_COUNT = 1_000

/** `engine.channels`: the host's hand on channels. Every call checks its arguments (TypeError) and may be repeated. */
export class ChannelsAPI {
  readonly subscribers: SubscribersAPI
  /** who may not send; a person's own list hangs on (uid, person) */
  readonly denylist: ListAPI
  /** when not empty: who may send */
  readonly allowlist: ListAPI
  readonly #options: ChannelsAPIOptions
  readonly #turns = new Turns()
  readonly #directory: ChannelDirectory
  readonly #changed: (key: ChannelKey) => void

  constructor(options: ChannelsAPIOptions) {
    const { directory, changed } = options
    this.#options = options
    this.#directory = directory
    this.#changed = changed
    this.subscribers = {
      add: async (key, members) => {
        const [checked, roles] = [checkKey(key), checkMembers(members)]
        return this.#inTurn(checked, () => this.#addMembers(checked, roles))
      },
      remove: async (key, uids) => {
        const checked = checkKey(key)
        checkUIDs('uids', uids)
        return this.#inTurn(checked, () => this.#removeMembers(checked, uids))
      },
      list: async (key, query) => directory.members(checkKey(key), query),
    }
    this.denylist = this.#listAPI('deny')
    this.allowlist = this.#listAPI('allow')
  }

  /** Create a channel, or change its flags and add members: calling it at every start does no harm. */
  async create(
    channel: ChannelKey & ChannelFlags,
    options: { readonly subscribers?: readonly MemberInput[] } = {},
  ): Promise<Required<ChannelInfo>> {
    const key = checkKey(channel)
    const members = checkMembers(options.subscribers ?? [])
    const flags = checkFlags(channel)
    const old = await this.#directory.channel(key)
    const info = channelInfo(key, { ...old, ...flags })
    await this.#directory.putChannel(info)
    if (members.size > 0) await this.#inTurn(key, () => this.#addMembers(key, members))
    return info
  }

  /** What is known of a channel; undefined when it does not exist. */
  async get(key: ChannelKey): Promise<Required<ChannelInfo> | undefined> {
    const info = await this.#directory.channel(checkKey(key))
    return info && channelInfo(info, info)
  }

  /** Remove a channel with its members and lists. Its messages stay, and its numbers go on should it come back. */
  async remove(key: ChannelKey): Promise<void> {
    const checked = checkKey(key)
    await this.#inTurn(checked, async () => {
      let page: Page<Member> | undefined
      do {
        page = await this.#directory.members(checked, { limit: PAGE_COUNT, ...(page?.cursor === undefined ? {} : { cursor: page.cursor }) })
        if (page.items.length > 0) await this.#removeMembers(checked, page.items.map(({ uid }) => uid))
      } while (page.cursor !== undefined)
      await this.#directory.removeChannel(checked)
      this.#changed(checked)
    })
  }

  /** The channels a user is a member of. */
  async of(uid: string, query?: PageQuery): Promise<Page<ChannelKey>> {
    return this.#directory.channelsOf(checkUID('uid', uid), query)
  }

  /** The directory has been changed behind the engine's back: read this channel's members again. */
  invalidate(key: ChannelKey): void {
    this.#changed(checkKey(key))
  }

  async #addMembers(key: ChannelKey, roles: ReadonlyMap<string, MemberRole | undefined>): Promise<void> {
    const members: Member[] = []
    const joining: string[] = []
    for (const [uid, role] of roles) {
      const isMember = (await this.#directory.member(key, uid)) !== undefined
      if (role !== undefined || !isMember) members.push({ uid, role: role ?? MemberRole.Member })
      if (!isMember) joining.push(uid)
    }
    // Before they are members: a message that comes in between is then one of theirs.
    if (joining.length > 0) await this.#joined(key, joining)
    if (members.length > 0) await this.#directory.putMembers(key, members)
    this.#changed(key)
  }

  /** What was said before they came is there to be read, but neither new to them nor missed. */
  async #joined(key: ChannelKey, uids: readonly string[]): Promise<void> {
    for (const log of [key, commandKey(key)]) {
      const lastSeq = await this.#options.messages.lastSeq(log)
      if (lastSeq === 0 && log !== key) continue // no commands yet: whatever comes concerns them
      const position = { deliveredSeq: lastSeq, readSeq: lastSeq, joinSeq: lastSeq + 1, deletedToSeq: 0, unreadMarkSeq: 0 }
      await this.#options.cursors.put(uids.map((uid) => ({ uid, key: log, ...position })))
      this.#options.moved(log, uids)
    }
  }

  /** First the membership, then where they stood: who is still a member stands where they did. */
  async #removeMembers(key: ChannelKey, uids: readonly string[]): Promise<void> {
    await this.#directory.removeMembers(key, uids)
    this.#changed(key)
    if (uids.length === 0) return
    for (const log of [key, commandKey(key)]) {
      if (log !== key && (await this.#options.messages.lastSeq(log)) === 0) continue
      await this.#options.cursors.remove(log, uids)
      this.#options.moved(log, uids)
    }
  }

  /** Changes of one channel's membership one after the other: who is new is found out before anything is written. */
  #inTurn(key: ChannelKey, action: () => Promise<void>): Promise<void> {
    return this.#turns.take(channelKeyString(key), action)
  }

  #listAPI(list: ChannelList): ListAPI {
    const directory = this.#directory
    return {
      add: async (key, uids) => directory.addToList(checkKey(key), list, checkUIDs('uids', uids)),
      remove: async (key, uids) => directory.removeFromList(checkKey(key), list, checkUIDs('uids', uids)),
      list: async (key, query) => directory.listed(checkKey(key), list, query),
    }
  }
}

/** Uids with the role they are given; undefined for those named by their uid alone. */
function checkMembers(inputs: readonly MemberInput[]): ReadonlyMap<string, MemberRole | undefined> {
  if (!Array.isArray(inputs)) badOption('subscribers', 'an array of uids or { uid, role }', inputs)
  const roles = new Map<string, MemberRole | undefined>()
  for (const [index, input] of (inputs as readonly MemberInput[]).entries()) {
    const uid = checkUID(`subscribers[${index}]`, typeof input === 'string' ? input : input?.uid)
    const role = typeof input === 'string' ? undefined : input.role
    if (role !== undefined && !Object.values(MemberRole).includes(role)) badOption(`subscribers[${index}].role`, 'a MemberRole', role)
    roles.set(uid, role ?? roles.get(uid))
  }
  return roles
}

/** The flags that are given. */
function checkFlags(given: ChannelFlags): ChannelFlags {
  const flags: Record<string, unknown> = {}
  for (const name of ['ban', 'disband', 'sendBan', 'allowStranger'] as const) {
    const flag: unknown = given[name]
    if (flag === undefined) continue
    if (typeof flag !== 'boolean') badOption(name, 'true or false', flag)
    flags[name] = flag
  }
  if (given.mode !== undefined) {
    if (!CHANNEL_MODES.includes(given.mode)) badOption('mode', CHANNEL_MODES.map((mode) => `'${mode}'`).join(' or '), given.mode)
    flags['mode'] = given.mode
  }
  return flags
}
