import type { ChannelDirectory, PageQuery } from '../contracts/channel-directory.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { badOption, IMError } from '../errors.ts'
import { commandKey, keepsConversations, MemberRole, type ChannelKey, type Member, type Page } from '../model/channel.ts'
import { checkKey, checkUID, checkUIDs } from './check.ts'
import { inPieces, pagesOf, type Pause } from './pieces.ts'

/** A member as a host names one: a uid alone joins as an ordinary member, or keeps the role it has. */
export type MemberInput = string | { readonly uid: string; readonly role?: MemberRole }

/** Uids with the role they are given; undefined for those named by their uid alone. */
export type MemberRoles = ReadonlyMap<string, MemberRole | undefined>

/**
 * A channel's members; at most `maxMembersPerCall` at once. Changes hold for the next message. Who joins has a conversation that
 * is read up to the last message; who leaves has none. Large calls are made in pieces: one that fails has done its first ones,
 * and may be repeated.
 */
export interface SubscribersAPI {
  add(key: ChannelKey, members: readonly MemberInput[]): Promise<void>
  /** These and no others. Who is in already stays as they are, but for a role that is given. */
  set(key: ChannelKey, members: readonly MemberInput[]): Promise<void>
  remove(key: ChannelKey, uids: readonly string[]): Promise<void>
  clear(key: ChannelKey): Promise<void>
  has(key: ChannelKey, uid: string): Promise<boolean>
  get(key: ChannelKey, uid: string): Promise<Member | undefined>
  /** Another role; a mute stays. @throws IM_MEMBER_NOT_FOUND */
  setRole(key: ChannelKey, uid: string, role: MemberRole): Promise<void>
  list(key: ChannelKey, query?: PageQuery): Promise<Page<Member>>
}

export interface ChannelMembersOptions {
  readonly directory: ChannelDirectory
  readonly cursors: CursorStore
  readonly messages: MessageStore
  readonly maxCount: number
  readonly pause: Pause
  readonly inTurn: (key: ChannelKey, action: () => Promise<void>) => Promise<void>
  readonly changed: (key: ChannelKey) => void
  readonly moved: (key: ChannelKey, uids: readonly string[]) => void
}

/** `engine.channels.subscribers`, and the parts of it that other calls need within a turn of their own. */
export class ChannelMembers implements SubscribersAPI {
  readonly #options: ChannelMembersOptions

  constructor(options: ChannelMembersOptions) {
    this.#options = options
  }

  async add(key: ChannelKey, members: readonly MemberInput[]): Promise<void> {
    const [checked, roles] = [checkKey(key), this.check(members)]
    return this.#options.inTurn(checked, () => this.addNow(checked, roles))
  }

  async set(key: ChannelKey, members: readonly MemberInput[]): Promise<void> {
    const [checked, roles] = [checkKey(key), this.check(members)]
    return this.#options.inTurn(checked, () => this.setNow(checked, roles))
  }

  async remove(key: ChannelKey, uids: readonly string[]): Promise<void> {
    const [checked, leaving] = [checkKey(key), checkUIDs('uids', uids, this.#options.maxCount)]
    return this.#options.inTurn(checked, () => inPieces(leaving, this.#options.pause, (piece) => this.#remove(checked, piece)))
  }

  async clear(key: ChannelKey): Promise<void> {
    const checked = checkKey(key)
    return this.#options.inTurn(checked, () => this.removeBut(checked, new Set()))
  }

  async has(key: ChannelKey, uid: string): Promise<boolean> {
    return (await this.get(key, uid)) !== undefined
  }

  async get(key: ChannelKey, uid: string): Promise<Member | undefined> {
    return this.#options.directory.member(checkKey(key), checkUID('uid', uid))
  }

  async setRole(key: ChannelKey, uid: string, role: MemberRole): Promise<void> {
    return this.change(key, uid, (member) => ({ ...member, role: checkRole('role', role) }))
  }

  async list(key: ChannelKey, query?: PageQuery): Promise<Page<Member>> {
    return this.#options.directory.members(checkKey(key), query)
  }

  /** One member, as `change` says, in a turn: what else is said about them at the same time is not lost. */
  async change(key: ChannelKey, uid: string, change: (member: Member) => Member): Promise<void> {
    const { directory, inTurn, changed } = this.#options
    const checked = checkKey(key)
    change({ uid: checkUID('uid', uid), role: MemberRole.Member }) // a mistake in what is wanted is one whoever it is about
    return inTurn(checked, async () => {
      const member = await directory.member(checked, uid)
      if (member === undefined) throw new IMError('IM_MEMBER_NOT_FOUND', { context: { ...checked, uid } })
      await directory.putMembers(checked, [change(member)])
      changed(checked)
    })
  }

  /** @throws TypeError unless these may be members */
  check(inputs: readonly MemberInput[], name = 'subscribers'): MemberRoles {
    const { maxCount } = this.#options
    if (!Array.isArray(inputs) || inputs.length > maxCount) badOption(name, `an array of at most ${maxCount} uids or { uid, role }`, inputs)
    const roles = new Map<string, MemberRole | undefined>()
    for (const [index, input] of (inputs as readonly MemberInput[]).entries()) {
      const uid = checkUID(`${name}[${index}]`, typeof input === 'string' ? input : input?.uid)
      const role = typeof input === 'string' ? undefined : input.role
      if (role !== undefined) checkRole(`${name}[${index}].role`, role)
      roles.set(uid, role ?? roles.get(uid))
    }
    return roles
  }

  async addNow(key: ChannelKey, roles: MemberRoles): Promise<void> {
    const { directory, pause, changed } = this.#options
    await inPieces([...roles], pause, async (piece) => {
      const known = await Promise.all(piece.map(async ([uid]) => directory.member(key, uid)))
      const members: Member[] = []
      const joining: string[] = []
      for (const [index, [uid, role]] of piece.entries()) {
        const member = known[index]
        if (member === undefined) joining.push(uid)
        if (member === undefined || role !== undefined) members.push({ ...member, uid, role: role ?? MemberRole.Member })
      }
      // Before they are members: a message that comes in between is then one of theirs.
      if (joining.length > 0) await this.#joined(key, joining)
      try {
        if (members.length > 0) await directory.putMembers(key, members)
      } finally {
        changed(key) // also when it rejects: it may have been written all the same
      }
    })
  }

  async setNow(key: ChannelKey, roles: MemberRoles): Promise<void> {
    await this.removeBut(key, roles)
    await this.addNow(key, roles)
  }

  async removeBut(key: ChannelKey, kept: { has(uid: string): boolean }): Promise<void> {
    const { directory, pause } = this.#options
    for await (const page of pagesOf((query) => directory.members(key, query), pause)) {
      await this.#remove(key, page.flatMap(({ uid }) => (kept.has(uid) ? [] : [uid])))
    }
  }

  /** What was said before they came is there to be read, but neither new to them nor missed. */
  async #joined(key: ChannelKey, uids: readonly string[]): Promise<void> {
    if (!keepsConversations(key.channelType)) return
    const { cursors, messages, moved } = this.#options
    for (const log of [key, commandKey(key)]) {
      const lastSeq = await messages.lastSeq(log)
      if (lastSeq === 0 && log !== key) continue // no commands yet: whatever comes concerns them
      const position = { deliveredSeq: lastSeq, readSeq: lastSeq, joinSeq: lastSeq + 1, deletedToSeq: 0, unreadMarkSeq: 0 }
      await cursors.put(uids.map((uid) => ({ uid, key: log, ...position })))
      moved(log, uids)
    }
  }

  /** First the membership, then where they stood: who is still a member stands where they did. */
  async #remove(key: ChannelKey, uids: readonly string[]): Promise<void> {
    if (uids.length === 0) return
    const { directory, cursors, messages, changed, moved } = this.#options
    try {
      await directory.removeMembers(key, uids)
    } finally {
      changed(key)
      moved(key, uids) // now, and not when the positions are gone: what is said from here on is not for them
    }
    if (!keepsConversations(key.channelType)) return
    for (const log of [key, commandKey(key)]) {
      if (log !== key && (await messages.lastSeq(log)) === 0) continue
      await cursors.remove(log, uids)
      moved(log, uids)
    }
  }
}

function checkRole(name: string, role: MemberRole): MemberRole {
  if (!Object.values(MemberRole).includes(role)) badOption(name, 'a MemberRole', role)
  return role
}
