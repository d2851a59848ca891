import { LRUCache } from 'lru-cache'
import type { ChannelDirectory, ChannelList, PageQuery } from '../contracts/channel-directory.ts'
import type { Clock } from '../contracts/clock.ts'
import { channelKeyString, type ChannelInfo, type ChannelKey, type Member, type Page, type UserFlags } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'

export interface CachedDirectoryOptions {
  readonly directory: ChannelDirectory
  readonly clock: Clock
  /** how long an answer may be used without asking again; 0 never */
  readonly cacheMs: number
  /** answers kept at most */
  readonly maxCount: number
  /** users who have the flag `system` whatever the directory says */
  readonly systemUIDs: ReadonlySet<string>
}

/** About longer names nothing is kept: who invents channels with long names must not fill the memory with them. */
const MAX_NAME_LENGTH = 512

interface Answer {
  readonly value: unknown
  /** how many changes there had been when it was asked for */
  readonly askedAt: number
  readonly expiresAtMs: number
}

/**
 * The directory as the checks of a SEND ask it. What it answers by a promise is kept for `cacheMs`, because
 * the next SEND of the same user asks the same; what it answers at once costs nothing and is asked every time. Whatever is
 * written through here is forgotten when the write has ended, so that it holds for the next question.
 */
export class CachedDirectory implements ChannelDirectory {
  /** the same directory without the memory, for those who decide by what they read; writes are seen here all the same */
  readonly fresh: ChannelDirectory
  declare readonly systemUIDs?: (query?: PageQuery) => MaybePromise<Page<string>>
  readonly #options: CachedDirectoryOptions
  readonly #directory: ChannelDirectory
  readonly #answers: LRUCache<string, Answer>
  /** the last change of a channel or user, by its name: what was asked before it is worth nothing */
  readonly #changes: LRUCache<string, number>
  /** the last change among those that are not in there any more */
  #forgottenChange = 0
  #changeCount = 0
  #asksPromises = false

  constructor(options: CachedDirectoryOptions) {
    const { directory, maxCount } = options
    this.#options = options
    this.#directory = directory
    // Bounded by a size of one each: `max` would make room for all of them now, which takes longer than all the rest of an engine.
    const bound = { maxSize: maxCount, sizeCalculation: () => 1 }
    this.#answers = new LRUCache(bound)
    this.#changes = new LRUCache({
      ...bound,
      dispose: (change, _subject, reason) => {
        if (reason === 'evict') this.#forgottenChange = Math.max(this.#forgottenChange, change)
      },
    })
    if (directory.systemUIDs !== undefined) this.systemUIDs = (query) => directory.systemUIDs!(query)
    this.fresh = this.#makeFresh()
  }

  /** Of the directory, and of what its owner has said has changed; NaN, which equals nothing, when it does not count. */
  changeCount(): number {
    const count: unknown = this.#directory.changeCount?.() // whoever wraps a directory may have made a promise of it
    if (isPromise(count)) count.then(undefined, () => undefined) // nobody waits for it, and it may be a rejection
    return typeof count === 'number' ? count + this.#changeCount : Number.NaN
  }

  channel(key: ChannelKey): MaybePromise<ChannelInfo | undefined> {
    const kept = this.#kept<ChannelInfo | undefined>(key, 'info', '')
    return kept === undefined ? this.#keep(key, 'info', '', this.#changeCount, this.#directory.channel(key)) : kept.value
  }

  member(key: ChannelKey, uid: string): MaybePromise<Member | undefined> {
    const kept = this.#kept<Member | undefined>(key, 'member', uid)
    return kept === undefined ? this.#keep(key, 'member', uid, this.#changeCount, this.#directory.member(key, uid)) : kept.value
  }

  isListed(key: ChannelKey, list: ChannelList, uid: string): MaybePromise<boolean> {
    const kept = this.#kept<boolean>(key, list, uid)
    return kept === undefined ? this.#keep(key, list, uid, this.#changeCount, this.#directory.isListed(key, list, uid)) : kept.value
  }

  isListEmpty(key: ChannelKey, list: ChannelList): MaybePromise<boolean> {
    const question = list === 'deny' ? 'deny-empty' : 'allow-empty'
    const kept = this.#kept<boolean>(key, question, '')
    return kept === undefined ? this.#keep(key, question, '', this.#changeCount, this.#directory.isListEmpty(key, list)) : kept.value
  }

  userFlags(uid: string): MaybePromise<UserFlags> {
    const kept = this.#kept<UserFlags>(undefined, 'flags', uid)
    const flags = kept === undefined ? this.#keep(undefined, 'flags', uid, this.#changeCount, this.#directory.userFlags(uid)) : kept.value
    return this.#withOption(uid, flags)
  }

  /** Who is named by the option is a system user, whatever the directory says. */
  #withOption(uid: string, flags: MaybePromise<UserFlags>): MaybePromise<UserFlags> {
    const { systemUIDs } = this.#options
    if (systemUIDs.size === 0 || !systemUIDs.has(uid)) return flags
    return isPromise(flags) ? flags.then(asSystem) : asSystem(flags)
  }

  members(key: ChannelKey, query?: PageQuery): MaybePromise<Page<Member>> {
    return this.#directory.members(key, query)
  }

  channelsOf(uid: string, query?: PageQuery): MaybePromise<Page<ChannelKey>> {
    return this.#directory.channelsOf(uid, query)
  }

  listed(key: ChannelKey, list: ChannelList, query?: PageQuery): MaybePromise<Page<string>> {
    return this.#directory.listed(key, list, query)
  }

  putChannel(info: ChannelInfo): MaybePromise<void> {
    return this.#write(channelKeyString(info), () => this.#directory.putChannel(info))
  }

  removeChannel(key: ChannelKey): MaybePromise<void> {
    return this.#write(channelKeyString(key), () => this.#directory.removeChannel(key))
  }

  putMembers(key: ChannelKey, members: readonly Member[]): MaybePromise<void> {
    return this.#write(channelKeyString(key), () => this.#directory.putMembers(key, members))
  }

  removeMembers(key: ChannelKey, uids: readonly string[]): MaybePromise<void> {
    return this.#write(channelKeyString(key), () => this.#directory.removeMembers(key, uids))
  }

  addToList(key: ChannelKey, list: ChannelList, uids: readonly string[]): MaybePromise<void> {
    return this.#write(channelKeyString(key), () => this.#directory.addToList(key, list, uids))
  }

  removeFromList(key: ChannelKey, list: ChannelList, uids: readonly string[]): MaybePromise<void> {
    return this.#write(channelKeyString(key), () => this.#directory.removeFromList(key, list, uids))
  }

  setUserFlags(uid: string, flags: Partial<UserFlags>): MaybePromise<void> {
    return this.#write(userName(uid), () => this.#directory.setUserFlags(uid, flags))
  }

  /** The directory has been changed behind the engine's back. */
  forgetChannel(key: ChannelKey): void {
    this.#changed(channelKeyString(key))
  }

  forgetUser(uid: string): void {
    this.#changed(userName(uid))
  }

  /** No name is put together, and nothing looked up, for a directory that has always answered at once. */
  #kept<T>(key: ChannelKey | undefined, question: string, uid: string): { readonly value: T } | undefined {
    if (!this.#asksPromises || isLong(key, uid)) return undefined
    const subject = subjectOf(key, uid)
    const kept = this.#answers.get(nameOf(subject, question, uid))
    if (kept === undefined || kept.expiresAtMs <= this.#options.clock.monotonicMs() || !this.#isCurrent(subject, kept.askedAt)) return undefined
    return kept as { readonly value: T }
  }

  /**
   * @param askedAt  changes before it was asked for. An answer that is under way is not shared: one call that hangs must not
   *                 hold up who would have been answered
   */
  #keep<T>(key: ChannelKey | undefined, question: string, uid: string, askedAt: number, answer: MaybePromise<T>): MaybePromise<T> {
    const { cacheMs, clock } = this.#options
    if (!isPromise(answer) || cacheMs === 0) return answer
    this.#asksPromises = true
    if (isLong(key, uid)) return answer
    const expiresAtMs = clock.monotonicMs() + cacheMs // from the question: the answer may be as old as that
    return answer.then((value) => {
      const subject = subjectOf(key, uid)
      if (this.#isCurrent(subject, askedAt)) {
        this.#answers.set(nameOf(subject, question, uid), { value, askedAt, expiresAtMs })
      }
      return value
    })
  }

  #isCurrent(subject: string, askedAt: number): boolean {
    return askedAt >= Math.max(this.#changes.get(subject) ?? 0, this.#forgottenChange)
  }

  /** What was asked while it was being written may be the old state: only questions that start now are worth keeping. */
  #changed(subject: string): void {
    this.#changes.set(subject, ++this.#changeCount)
  }

  #write(subject: string, action: () => MaybePromise<void>): MaybePromise<void> {
    let written: MaybePromise<void>
    try {
      written = action()
    } finally {
      this.#changed(subject)
    }
    // Also when it rejects: it may have been written all the same.
    return isPromise(written) ? written.finally(() => this.#changed(subject)) : written
  }

  #makeFresh(): ChannelDirectory {
    const directory = this.#directory
    const { systemUIDs } = this
    return {
      channel: (key) => directory.channel(key),
      member: (key, uid) => directory.member(key, uid),
      members: (key, query) => directory.members(key, query),
      channelsOf: (uid, query) => directory.channelsOf(uid, query),
      isListed: (key, list, uid) => directory.isListed(key, list, uid),
      isListEmpty: (key, list) => directory.isListEmpty(key, list),
      listed: (key, list, query) => directory.listed(key, list, query),
      // Kept for the checks of a SEND all the same: a login asks here, and the SEND behind it would ask again.
      userFlags: (uid) => this.#withOption(uid, this.#keep(undefined, 'flags', uid, this.#changeCount, directory.userFlags(uid))),
      ...(systemUIDs === undefined ? {} : { systemUIDs }),
      putChannel: (info) => this.putChannel(info),
      removeChannel: (key) => this.removeChannel(key),
      putMembers: (key, members) => this.putMembers(key, members),
      removeMembers: (key, uids) => this.removeMembers(key, uids),
      addToList: (key, list, uids) => this.addToList(key, list, uids),
      removeFromList: (key, list, uids) => this.removeFromList(key, list, uids),
      setUserFlags: (uid, flags) => this.setUserFlags(uid, flags),
    }
  }
}

/** Whom or what an answer is about: a channel, or a user. */
function subjectOf(key: ChannelKey | undefined, uid: string): string {
  return key === undefined ? userName(uid) : channelKeyString(key)
}

function isLong(key: ChannelKey | undefined, uid: string): boolean {
  return (key?.channelID.length ?? 0) + uid.length > MAX_NAME_LENGTH
}

/** The length in front, so that no id can be taken for another one with a question behind it. */
function nameOf(subject: string, question: string, uid: string): string {
  return `${subject.length}:${subject}${question} ${uid}`
}

/** No channel is called so: their names begin with a number. */
function userName(uid: string): string {
  return `u:${uid}`
}

function asSystem(flags: UserFlags): UserFlags {
  return { ...flags, system: true }
}
