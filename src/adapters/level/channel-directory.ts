/**
 * Channels, members, lists and user flags in the database. Power loss loses nothing that has resolved. A slow disk makes
 * writes wait, and reads of what is not known; the questions of a SEND are answered at once when they have been asked
 * lately. Nothing has to be closed.
 */
import type { ChannelDirectory, ChannelList, PageQuery } from '../../contracts/channel-directory.ts'
import { badOption } from '../../errors.ts'
import type { ChannelInfo, ChannelKey, Member, Page, UserFlags } from '../../model/channel.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { isPromise } from '../../model/maybe-promise.ts'
import type { Database, Operations } from './database.ts'
import { decodeFlags, decodeInfo, decodeMember, encodeFlags, encodeInfo, encodeMember } from './directory-row.ts'
import { channelName, channelOfName, EMPTY, Tag, textKey, textPrefix, within } from './keys.ts'
import { KnownValues } from './known-values.ts'
import { pageOfKeys } from './paging.ts'
import { Turns } from '../../model/turns.ts'
import type { Writer } from './writer.ts'

export interface LevelChannelDirectoryOptions {
  readonly database: Database
  readonly writer: Writer
  /** answers that are kept in memory, and as many about whether lists are empty */
  readonly maxCachedValues: number
}

const lists: Readonly<Record<ChannelList, Buffer>> = { deny: Buffer.from('d'), allow: Buffer.from('a') }

const SOMEBODY = Buffer.alloc(1, 1)

/** Keys and values that are written at once while a large channel is removed. */
const PIECE_LENGTH = 10_000

/** A listing is in the order of the bytes of what it lists. */
export class LevelChannelDirectory implements Required<ChannelDirectory> {
  #changeCount = 0
  readonly #database: Database
  readonly #writer: Writer
  readonly #values: KnownValues
  /** of lists, by their prefix: is somebody there? */
  readonly #somebody: KnownValues
  readonly #removals = new Turns()
  readonly #flagChanges = new Turns()

  constructor({ database, writer, maxCachedValues }: LevelChannelDirectoryOptions) {
    this.#database = database
    this.#writer = writer
    this.#values = new KnownValues({ read: (keys) => database.getMany(keys), maxCount: maxCachedValues })
    this.#somebody = new KnownValues({
      read: (prefixes) => Promise.all(prefixes.map((prefix) => this.#somebodyIn(prefix))),
      maxCount: maxCachedValues,
    })
  }

  /** The database may hold something else than was known. */
  forget(): void {
    this.#changeCount++
    this.#values.forget()
    this.#somebody.forget()
  }

  changeCount(): number {
    return this.#changeCount
  }

  channel({ channelID, channelType }: ChannelKey): MaybePromise<Required<ChannelInfo> | undefined> {
    const key = infoKey(channelName({ channelID, channelType }))
    return map(this.#values.get(key), (info) => info && decodeInfo({ channelID, channelType }, info))
  }

  putChannel(info: ChannelInfo): Promise<void> {
    const name = channelName(info)
    return this.#write(name, [infoKey(name), encodeInfo(info)])
  }

  /**
   * A channel of some thousand members at most goes at once. A larger one goes piece by piece: its members, each from both
   * listings at once, then its lists, and its info last, so that a crash in between leaves a channel that still is there
   * with fewer members, and can be removed again. What is written to the channel meanwhile waits.
   */
  removeChannel(key: ChannelKey): Promise<void> {
    const name = channelName(key)
    this.#changeCount++
    return this.#removals.take(nameOf(name), () => this.#remove(name))
  }

  member(key: ChannelKey, uid: string): MaybePromise<Member | undefined> {
    return map(this.#values.get(memberKey(channelName(key), Buffer.from(uid))), (row) => row && decodeMember(uid, row))
  }

  putMembers(key: ChannelKey, members: readonly Member[]): Promise<void> {
    const name = channelName(key)
    const operations: Operations = []
    for (const member of members) {
      const uidBytes = Buffer.from(member.uid)
      operations.push(memberKey(name, uidBytes), encodeMember(member))
      operations.push(membershipKey(uidBytes, name), EMPTY)
    }
    return this.#write(name, operations)
  }

  removeMembers(key: ChannelKey, uids: readonly string[]): Promise<void> {
    const name = channelName(key)
    const operations: Operations = []
    for (const uid of uids) {
      const uidBytes = Buffer.from(uid)
      operations.push(memberKey(name, uidBytes), undefined, membershipKey(uidBytes, name), undefined)
    }
    return this.#write(name, operations)
  }

  members(key: ChannelKey, query: PageQuery = {}): Promise<Page<Member>> {
    const prefix = textPrefix(Tag.Member, channelName(key))
    return pageOfKeys(this.#database, prefix, query, (uid, row) => decodeMember(uid.toString(), row))
  }

  channelsOf(uid: string, query: PageQuery = {}): Promise<Page<ChannelKey>> {
    return pageOfKeys(this.#database, textPrefix(Tag.Membership, Buffer.from(uid)), query, channelOfName)
  }

  isListed(key: ChannelKey, list: ChannelList, uid: string): MaybePromise<boolean> {
    return map(this.#values.get(listedKey(list, channelName(key), Buffer.from(uid))), (found) => found !== undefined)
  }

  isListEmpty(key: ChannelKey, list: ChannelList): MaybePromise<boolean> {
    return map(this.#somebody.get(listPrefix(list, channelName(key))), (found) => found === undefined)
  }

  addToList(key: ChannelKey, list: ChannelList, uids: readonly string[]): Promise<void> {
    return this.#writeListed(key, list, uids, SOMEBODY)
  }

  removeFromList(key: ChannelKey, list: ChannelList, uids: readonly string[]): Promise<void> {
    return this.#writeListed(key, list, uids, undefined)
  }

  listed(key: ChannelKey, list: ChannelList, query: PageQuery = {}): Promise<Page<string>> {
    return pageOfKeys(this.#database, listPrefix(list, channelName(key)), query, (uid) => uid.toString())
  }

  userFlags(uid: string): MaybePromise<UserFlags> {
    return map(this.#values.get(userKey(uid)), decodeFlags)
  }

  setUserFlags(uid: string, { banned, sendBanned, system }: Partial<UserFlags>): Promise<void> {
    const key = userKey(uid)
    this.#changeCount++
    // One after the other for each user: what a call does not name must still be there when it writes.
    return this.#flagChanges.take(uid, async () => {
      const current = decodeFlags(await this.#values.get(key))
      const isSystem = system ?? current.system ?? false
      const flags = encodeFlags({ banned: banned ?? current.banned, sendBanned: sendBanned ?? current.sendBanned, system: isSystem })
      // The listing is written whatever was there before: should that not be known rightly, the two agree nevertheless.
      await this.#apply([key, flags, systemKey(uid), isSystem ? EMPTY : undefined])
    })
  }

  systemUIDs(query: PageQuery = {}): Promise<Page<string>> {
    return pageOfKeys(this.#database, Buffer.from([Tag.System]), query, (uid) => uid.toString())
  }

  #writeListed(key: ChannelKey, list: ChannelList, uids: readonly string[], value: Buffer | undefined): Promise<void> {
    const name = channelName(key)
    const operations: Operations = []
    for (const uid of uids) operations.push(listedKey(list, name, Buffer.from(uid)), value)
    return this.#write(name, operations, [listPrefix(list, name)])
  }

  /** Write to a channel, when no removal of it that was asked for earlier is under way. */
  #write(name: Buffer, operations: Operations, changedLists: readonly Buffer[] = []): Promise<void> {
    this.#changeCount++
    return this.#removals.after(nameOf(name), () => this.#apply(operations, changedLists))
  }

  #apply(operations: Operations, changedLists: readonly Buffer[] = []): Promise<void> {
    return this.#writer.write(operations, () => {
      this.#changeCount++
      for (let index = 0; index < operations.length; index += 2) {
        const key = operations[index]!
        if (key[0] === Tag.Membership || key[0] === Tag.System) continue // those are only listed
        this.#values.wrote(key, operations[index + 1])
      }
      for (const prefix of changedLists) this.#somebody.changed(prefix)
    })
  }

  async #remove(name: Buffer): Promise<void> {
    await this.#writer.write([]) // what was to be written before is there to be found now
    const prefixes = [listPrefix('deny', name), listPrefix('allow', name)]
    let operations: Operations = []
    const makeRoom = async (): Promise<void> => {
      if (operations.length < PIECE_LENGTH) return
      await this.#apply(operations, prefixes)
      operations = []
    }
    const memberPrefix = textPrefix(Tag.Member, name)
    for await (const stride of this.#database.keyStrides(within(memberPrefix))) {
      for (const key of stride) {
        operations.push(key, undefined, membershipKey(key.subarray(memberPrefix.length), name), undefined)
      }
      await makeRoom()
    }
    for (const prefix of prefixes) {
      for await (const stride of this.#database.keyStrides(within(prefix))) {
        for (const key of stride) operations.push(key, undefined)
        await makeRoom()
      }
    }
    operations.push(infoKey(name), undefined)
    await this.#apply(operations, prefixes)
  }

  async #somebodyIn(prefix: Buffer): Promise<Buffer | undefined> {
    const found = await this.#database.entries({ ...within(prefix), limit: 1 })
    return found.length > 0 ? SOMEBODY : undefined
  }
}

function infoKey(name: Buffer): Buffer {
  return textKey(Tag.Info, name)
}

function memberKey(name: Buffer, uid: Buffer): Buffer {
  return textKey(Tag.Member, name, uid)
}

function membershipKey(uid: Buffer, name: Buffer): Buffer {
  return textKey(Tag.Membership, uid, name)
}

function listPrefix(list: ChannelList, name: Buffer): Buffer {
  return textPrefix(Tag.Listed, listByte(list), name)
}

function listedKey(list: ChannelList, name: Buffer, uid: Buffer): Buffer {
  return textKey(Tag.Listed, listByte(list), name, uid)
}

function listByte(list: ChannelList): Buffer {
  if (list !== 'deny' && list !== 'allow') badOption('list', "'deny' or 'allow'", list)
  return lists[list]
}

function userKey(uid: string): Buffer {
  return textKey(Tag.User, Buffer.from(uid))
}

function systemKey(uid: string): Buffer {
  return textKey(Tag.System, Buffer.from(uid))
}

function nameOf(name: Buffer): string {
  return name.toString('latin1')
}

function map<T, U>(value: MaybePromise<T>, change: (value: T) => U): MaybePromise<U> {
  return isPromise(value) ? (value).then(change) : change(value)
}
