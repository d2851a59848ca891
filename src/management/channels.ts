import type { ChannelDirectory, PageQuery } from '../contracts/channel-directory.ts'
import type { Clock } from '../contracts/clock.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { badOption, IMError, integerBetween, onlyKnown } from '../errors.ts'
import {
  channelInfo, channelKeyString, CHANNEL_MODES, ChannelType, commandKey, keepsConversations, personChannelUIDs,
  type ChannelFlags, type ChannelInfo, type ChannelKey, type ChannelMode, type Page,
} from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import { Turns } from '../model/turns.ts'
import { checkKey, checkLogKey, checkUID, checkUIDs } from './check.ts'
import { listAPI, type ListAPI } from './lists.ts'
import type { Pause } from './pieces.ts'
import { ChannelMembers, type MemberInput, type SubscribersAPI } from './subscribers.ts'

export interface CreateOptions {
  /** at most `maxMembersPerCall` */
  readonly subscribers?: readonly MemberInput[]
  /** these are all the members from now on; default false: they come to those who are in already */
  readonly reset?: boolean
}

export interface ChannelsAPIOptions {
  readonly directory: ChannelDirectory
  readonly cursors: CursorStore
  readonly messages: MessageStore
  readonly clock: Clock
  readonly maxMembersPerCall: number
  readonly pause: Pause
  /** the members of a channel have changed */
  readonly changed: (key: ChannelKey) => void
  /** what is in memory about where these users stand in the channel is worth nothing any more */
  readonly moved: (key: ChannelKey, uids: readonly string[]) => void
  /** the user does not want what is there up to `seq` */
  readonly settled: (uid: string, key: ChannelKey, seq: number) => void
}

/**
 * `engine.channels`: the host's hand on channels. Every call checks its arguments (TypeError) and may be repeated. Calls about
 * one channel take effect one after the other, in the order they were made: two at once cannot undo each other.
 */
export class ChannelsAPI {
  readonly subscribers: SubscribersAPI
  /**
   * Who may not send; a person's own list hangs on (uid, person). Who comes on the list of a channel that they are a member of
   * loses the conversation, as `conversations.delete` takes it away: a new message brings it back.
   */
  readonly denylist: ListAPI
  /** when not empty: who may send */
  readonly allowlist: ListAPI
  readonly #options: ChannelsAPIOptions
  readonly #members: ChannelMembers
  readonly #turns = new Turns()

  constructor(options: ChannelsAPIOptions) {
    const { directory, cursors, messages, maxMembersPerCall: maxCount, pause, changed, moved } = options
    this.#options = options
    const inTurn = (key: ChannelKey, action: () => Promise<void>): Promise<void> => this.#inTurn(key, action)
    this.subscribers = this.#members = new ChannelMembers({ directory, cursors, messages, maxCount, pause, inTurn, changed, moved })
    const lists = { directory, maxCount, pause, inTurn }
    this.denylist = listAPI({ ...lists, list: 'deny', added: (key, uids) => this.#denied(key, uids) })
    this.allowlist = listAPI({ ...lists, list: 'allow', added: () => Promise.resolve() })
  }

  /**
   * Create a channel, or change its flags and add members: calling it at every start does no harm. The two in the id of an
   * agent's channel are its members, so that it is a conversation of theirs.
   */
  async create(channel: ChannelKey & ChannelFlags, options: CreateOptions = {}): Promise<Required<ChannelInfo>> {
    const key = checkKey(channel)
    onlyKnown('options', options, ['reset', 'subscribers'])
    const { reset = false, subscribers = [] } = options
    if (typeof reset !== 'boolean') badOption('reset', 'true or false', reset)
    if (reset && options.subscribers === undefined) badOption('subscribers', 'given with reset', undefined)
    const pair = (key.channelType === ChannelType.Agent && personChannelUIDs(key.channelID)) || []
    const members = new Map([...pair.map((uid) => [uid, undefined] as const), ...this.#members.check(subscribers)])
    const flags = checkFlags(channel)
    return this.#inTurn(key, async () => {
      const info = channelInfo(key, { ...(await this.#options.directory.channel(key)), ...flags })
      await this.#options.directory.putChannel(info)
      if (reset) await this.#members.setNow(key, members)
      else await this.#members.addNow(key, members)
      return info
    })
  }

  /** Change the flags that are given, of a channel that exists. @throws IM_CHANNEL_NOT_FOUND */
  async update(key: ChannelKey, flags: ChannelFlags): Promise<Required<ChannelInfo>> {
    const checked = checkKey(key)
    if (typeof flags !== 'object' || flags === null) badOption('flags', 'an object', flags)
    const wanted = checkFlags(flags)
    return this.#inTurn(checked, async () => {
      const old = await this.#options.directory.channel(checked)
      if (old === undefined) throw new IMError('IM_CHANNEL_NOT_FOUND', { context: checked })
      const info = channelInfo(checked, { ...old, ...wanted })
      await this.#options.directory.putChannel(info)
      return info
    })
  }

  /** Nobody may send any more, the host included; members and messages stay. @throws IM_CHANNEL_NOT_FOUND */
  async disband(key: ChannelKey): Promise<void> {
    await this.update(key, { disband: true })
  }

  /** Who may speak. @throws IM_CHANNEL_NOT_FOUND */
  async setMode(key: ChannelKey, mode: ChannelMode): Promise<void> {
    await this.update(key, { mode: checkMode(mode) })
  }

  /** What is known of a channel; undefined when it does not exist. */
  async get(key: ChannelKey): Promise<Required<ChannelInfo> | undefined> {
    const info = await this.#options.directory.channel(checkKey(key))
    return info && channelInfo(info, info)
  }

  /**
   * Remove a channel with its members and lists. Its messages and commands stay, unless `messages` says that they go, too;
   * either way its numbers go on should it come back. A message that was accepted before may still be stored behind those
   * that went.
   */
  async delete(key: ChannelKey, options: { readonly messages?: boolean } = {}): Promise<void> {
    const checked = checkKey(key)
    const { messages: withMessages = false } = options
    if (typeof withMessages !== 'boolean') badOption('messages', 'true or false', withMessages)
    const { directory, messages, changed } = this.#options
    await this.#inTurn(checked, async () => {
      await this.#members.removeBut(checked, new Set())
      await directory.removeChannel(checked)
      changed(checked)
      if (!withMessages) return
      for (const log of [checked, commandKey(checked)]) await messages.truncate(log, (await messages.lastSeq(log)) + 1)
    })
  }

  /** The channels a user is a member of. */
  async of(uid: string, query?: PageQuery): Promise<Page<ChannelKey>> {
    return this.#options.directory.channelsOf(checkUID('uid', uid), query)
  }

  /**
   * A member may receive and not send until then: `untilMs` since 1970, or `forMs` from now on. Their role stays.
   * @throws IM_MEMBER_NOT_FOUND
   */
  async mute(key: ChannelKey, uid: string, time: { readonly untilMs: number } | { readonly forMs: number }): Promise<void> {
    if (typeof time !== 'object' || time === null || 'untilMs' in time === 'forMs' in time) badOption('time', '{ untilMs } or { forMs }', time)
    const mutedUntilMs =
      'untilMs' in time
        ? integerBetween('untilMs', time.untilMs, 0, Number.MAX_SAFE_INTEGER)
        : this.#options.clock.nowMs() + integerBetween('forMs', time.forMs, 1, MAX_MUTE_MS)
    return this.#members.change(key, uid, (member) => ({ ...member, mutedUntilMs }))
  }

  /** @throws IM_MEMBER_NOT_FOUND */
  async unmute(key: ChannelKey, uid: string): Promise<void> {
    return this.#members.change(key, uid, ({ role }) => ({ uid, role }))
  }

  /** A temporary channel for exactly these users. Nothing in it is listed, counted or replayed. */
  async setTemporary(channelID: string, uids: readonly string[]): Promise<void> {
    const key = checkKey({ channelID, channelType: ChannelType.Temp })
    await this.create(key, { subscribers: checkUIDs('uids', uids, this.#options.maxMembersPerCall), reset: true })
  }

  /** The highest number given in a channel, 0 for none. */
  async lastSeq(key: ChannelKey): Promise<number> {
    return this.#options.messages.lastSeq(checkLogKey(key))
  }

  /** The newest message that is there. */
  async lastMessage(key: ChannelKey): Promise<Message | undefined> {
    const [message] = await this.#options.messages.range(checkLogKey(key), { direction: 'backward', limit: 1 })
    return message
  }

  /** The directory has been changed behind the engine's back: read this channel's members again. */
  invalidate(key: ChannelKey): void {
    this.#options.changed(checkKey(key))
  }

  async #denied(key: ChannelKey, uids: readonly string[]): Promise<void> {
    if (key.channelType === ChannelType.Person || !keepsConversations(key.channelType)) return
    const { directory, cursors, messages, settled } = this.#options
    const members = await Promise.all(uids.map(async (uid) => directory.member(key, uid)))
    const leaving = uids.filter((_uid, index) => members[index] !== undefined)
    if (leaving.length === 0) return
    const lastSeq = await messages.lastSeq(key)
    await cursors.put(leaving.map((uid) => ({ uid, key, readSeq: lastSeq, deletedToSeq: lastSeq })))
    for (const uid of leaving) settled(uid, key, lastSeq)
  }

  #inTurn<T>(key: ChannelKey, action: () => Promise<T>): Promise<T> {
    return this.#turns.take(channelKeyString(key), action)
  }
}

/** A hundred years. */
const MAX_MUTE_MS = 3_155_760_000_000

/** The flags that are given. */
function checkFlags(given: ChannelFlags): ChannelFlags {
  const flags: Record<string, unknown> = {}
  for (const name of ['ban', 'disband', 'sendBan', 'allowStranger'] as const) {
    const flag: unknown = given[name]
    if (flag === undefined) continue
    if (typeof flag !== 'boolean') badOption(name, 'true or false', flag)
    flags[name] = flag
  }
  if (given.mode !== undefined) flags['mode'] = checkMode(given.mode)
  return flags
}

function checkMode(mode: ChannelMode): ChannelMode {
  if (!CHANNEL_MODES.includes(mode)) badOption('mode', CHANNEL_MODES.map((name) => `'${name}'`).join(' or '), mode)
  return mode
}
