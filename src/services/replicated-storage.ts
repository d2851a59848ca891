import type { ChannelDirectory, ChannelList } from '../contracts/channel-directory.ts'
import type { Clock } from '../contracts/clock.ts'
import type { CursorStore, CursorUpdate } from '../contracts/cursor-store.ts'
import type { AppendBatch, AppendResult, LogPosition, MessageStore, SweepResult } from '../contracts/message-store.ts'
import type { Outbox } from '../contracts/outbox.ts'
import type { Storage } from '../contracts/storage.ts'
import type { TokenStore } from '../contracts/token-store.ts'
import type { UserWrite } from '../contracts/user-write.ts'
import { IMError } from '../errors.ts'
import { channelKeyString, sourceKey, type ChannelKey } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'
import { LatePositions } from './late-positions.ts'
import { decodeWrite, encodeWrite, type StorageWrite } from './storage-write.ts'

type Applied = ((result: unknown) => void) | undefined

export interface ReplicatedStorageOptions {
  /** this node's own */
  readonly storage: Storage
  readonly clock: Clock
  readonly propose: (lane: string, operation: Uint8Array) => Promise<unknown>
  /** Looked at before a write is carried out here, whoever has proposed it. @returns what to do behind it; must not throw */
  readonly applying: (write: StorageWrite) => MaybePromise<Applied>
  /** which log a channel's messages go through; absent: perhaps one of its own */
  readonly logOf?: ((key: ChannelKey) => string) | undefined
  /** End the connections of this node that the write was proposed against. @returns how many there were; must not throw */
  readonly ending: (write: UserWrite, reason: string) => number
}

/** What users have acknowledged only grows, and is gathered over all channels: it needs no order with anything. */
const ARRIVALS_LANE = 'cursors'
/** Flags and tokens have no order with a channel, but with each other. */
const USERS_LANE = 'users'

/** About how many messages are removed at one place of the log: what is behind it waits. */
const SWEEP_COUNT = 200

/** A write of many goes through the log in pieces of about so many bytes. */
const PIECE_BYTES = 64 * 1024

/**
 * A storage whose writes go through the log, so that the storages of all nodes stay alike: each is proposed, and carried out
 * on every node in one order. Questions are answered by this node's own storage, which knows what this node has written as soon
 * as the write has resolved, and what others have written a little later. Messages are appended from the log anyway, and what
 * is to be told to the webhook is each node's own matter. What is due to be removed one node finds, and all remove it at the same
 * place of the log: nodes that forgot a `clientMsgNo` at different times would number a repeat differently.
 */
export class ReplicatedStorage implements Storage {
  readonly messages: MessageStore
  readonly channels: ChannelDirectory
  readonly cursors: CursorStore
  declare readonly tokens?: TokenStore
  declare readonly outbox?: Outbox
  declare readonly description?: string
  readonly #options: ReplicatedStorageOptions
  /** logs whose last write has not ended, or has failed: nobody knows whether it is there all the same, as one is whose file could not be synced */
  readonly #doubtful = new Map<string, 'under way' | 'failed'>()
  /** by log: what the operation whose try has failed is to do behind it. By then the storage may show what it has changed */
  readonly #unfinished = new Map<string, Applied>()
  /** by log: how many connections that operation has ended. Those that have come since were let in by what it has written */
  readonly #ended = new Map<string, number>()
  readonly #late: LatePositions

  constructor(options: ReplicatedStorageOptions) {
    this.#options = options
    const { storage, clock } = options
    this.#late = new LatePositions({ messages: storage.messages, clock })
    if (storage.description !== undefined) this.description = storage.description
    this.messages = this.#messages(storage.messages)
    this.channels = this.#channels(storage.channels)
    this.cursors = this.#cursors(storage.cursors)
    if (storage.tokens !== undefined) this.tokens = this.#tokens(storage.tokens)
    if (storage.outbox !== undefined) this.outbox = withPrecedes(storage.outbox, storage.messages, this.messages)
  }

  open(): MaybePromise<void> {
    return this.#options.storage.open?.()
  }

  async close(): Promise<void> {
    await this.#late.end()
    await this.#options.storage.close?.()
  }

  /**
   * For a copy of the storage: what has been applied is in it, with how far that is.
   * @throws IM_STORE_UNAVAILABLE while a write that has failed has not been made again
   */
  async settle(): Promise<void> {
    await this.#late.keep()
    if ([...this.#doubtful.values()].includes('failed')) throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'a write of what has been applied has failed, and is tried again' })
  }

  /** The storage is to be another one. */
  async leave(): Promise<void> {
    await this.#late.drop()
  }

  /**
   * Make a write that takes back what a user was let in by: every node ends their connections in carrying it out. A kick alone may
   * reach a node before the write does, which then lets them in again by what it still knows.
   * @returns how many this node had
   */
  async takeBack(write: UserWrite, endReason: string): Promise<number> {
    const endedCount = await this.#propose({ ...write, endReason })
    return typeof endedCount === 'number' ? endedCount : 0
  }

  /**
   * Carry out what has come through the log. @returns what the storage answered, or how many connections the write has ended here
   * @throws IM_LOG_FORMAT, IM_LOG_CORRUPT  a write that this version does not know: to leave it out would make the nodes differ
   */
  async apply(operation: Uint8Array, position: LogPosition | undefined): Promise<unknown> {
    const write = decodeWrite(operation)
    if (position === undefined) return this.#apply(write, undefined, false)
    if (write.call !== 'advance') await this.#late.keep() // it may keep its own position in a way of its own, and none may come behind it
    const isDone = (await this.#isDone(position)) === true
    this.#doubtful.set(position.log, this.#doubtful.get(position.log) ?? 'under way')
    const result = await this.#apply(write, position, isDone).catch((error: unknown) => {
      this.#doubtful.set(position.log, 'failed')
      throw error
    })
    this.#doubtful.delete(position.log)
    this.#unfinished.delete(position.log)
    this.#ended.delete(position.log)
    return result
  }

  /** @param isDone  an earlier try has carried it out and kept the position, though it has failed */
  async #apply(write: StorageWrite, position: LogPosition | undefined, isDone: boolean): Promise<unknown> {
    const { storage } = this.#options
    const { messages } = storage
    let applied: Applied
    let result: unknown
    try {
      applied = await this.#applying(write, position)
      // An edit made twice would be two versions, here and nowhere else.
      result = isDone && write.call === 'revise' ? await messageAt(messages, write.args[0], write.args[1]) : await carryOut(storage, write, position)
      // In the same turn: who logs in from here on is judged by what has just been written, with the new token for one, and stays.
      if (write.endReason !== undefined && !(result instanceof Failed)) result = this.#end(write as UserWrite, write.endReason, position)
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
      result = new Failed(error)
    }
    if (position !== undefined) await this.#keep(write, position)
    if (!(result instanceof Failed)) applied?.(result)
    return result
  }

  async #keep(write: StorageWrite, position: LogPosition): Promise<void> {
    const { messages, cursors } = this.#options.storage
    if (write.call === 'advance') {
      // It is written behind. With a position that is durable before it, it would be lost with a crash: the log would not bring it again.
      if (cursors.precedes === messages) return this.#late.add(position)
      await cursors.flush()
    }
    const isKept = write.call === 'revise' && (await messages.logPosition!(position.log)) >= position.index
    if (!isKept) await messages.append([], position)
  }

  #end(write: UserWrite, reason: string, position: LogPosition | undefined): number {
    const endedBefore = position === undefined ? undefined : this.#ended.get(position.log)
    if (endedBefore !== undefined) return endedBefore
    const endedCount = this.#options.ending(write, reason)
    if (position !== undefined) this.#ended.set(position.log, endedCount)
    return endedCount
  }

  async #applying(write: StorageWrite, position: LogPosition | undefined): Promise<Applied> {
    const { applying } = this.#options
    if (position === undefined) return applying(write)
    if (!this.#unfinished.has(position.log)) this.#unfinished.set(position.log, await applying(write))
    return this.#unfinished.get(position.log)
  }

  /** Has a write that has failed been made nevertheless? undefined: none has failed. */
  async #isDone({ log, index }: LogPosition): Promise<boolean | undefined> {
    if (!this.#doubtful.has(log)) return undefined
    const { messages } = this.#options.storage
    await messages.append([]) // a store that has to be brought back tells only then what it holds
    return (await messages.logPosition!(log)) >= index
  }

  /** The same messages are given again when it has failed, and those without a clientMsgNo would be there twice. */
  #append(batches: readonly AppendBatch[], position: LogPosition): ReturnType<MessageStore['append']> {
    const { messages } = this.#options.storage
    this.#late.passed(position)
    if (this.#doubtful.has(position.log)) return this.#appendAgain(batches, position)
    const appended = messages.append(batches, position)
    if (!isPromise(appended)) return appended
    return appended.catch((error: unknown) => {
      this.#doubtful.set(position.log, 'failed')
      throw error
    })
  }

  async #appendAgain(batches: readonly AppendBatch[], position: LogPosition): Promise<readonly (readonly AppendResult[])[]> {
    const { messages } = this.#options.storage
    const isDone = await this.#isDone(position)
    const results = isDone === true ? await resultsOf(messages, batches) : await messages.append(batches, position)
    this.#doubtful.delete(position.log)
    return results
  }

  async #propose(write: StorageWrite): Promise<unknown> {
    const result = await this.#options.propose(laneOf(write), encodeWrite(write))
    if (result instanceof Failed) throw result.error
    return result
  }

  async #sweep(nowMs: number): Promise<SweepResult> {
    const { storage, logOf = channelKeyString } = this.#options
    const { removals, isDone } = await storage.messages.due!(nowMs, SWEEP_COUNT)
    const pieces = piecesBy(({ key }) => logOf(key), removals)
    // One after the other a log that takes nothing would keep the others from being asked, every time.
    const outcomes = await Promise.allSettled(pieces.map((piece) => this.#propose({ part: 'messages', call: 'discard', args: [piece] }) as Promise<number>))
    let removedCount = 0
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') throw outcome.reason
      removedCount += outcome.value
    }
    // Of what had expired nothing was there any more: another node is at it, and both would find the same to the end.
    const isOthers = removedCount === 0 && removals.every(({ throughSeq, forgottenThroughSeq }) => throughSeq === undefined && forgottenThroughSeq === undefined)
    return { removedCount, isDone: isDone || (isOthers && removals.length > 0) }
  }

  async #write(...writes: readonly StorageWrite[]): Promise<void> {
    for (const write of writes) await this.#propose(write)
  }

  #messages(local: MessageStore): MessageStore {
    return {
      ...(local.knowsRepeats !== undefined && { knowsRepeats: local.knowsRepeats }),
      ...(local.keepsRecords !== undefined && { keepsRecords: local.keepsRecords }),
      ...(local.logPosition !== undefined && { logPosition: (log) => local.logPosition!(log) }),
      append: (batches, position) => (position === undefined ? local.append(batches) : this.#append(batches, position)),
      range: (key, query) => local.range(key, query),
      lastSeq: (key) => local.lastSeq(key),
      findByClientMsgNo: (key, fromUID, clientMsgNo) => local.findByClientMsgNo(key, fromUID, clientMsgNo),
      get: (messageIDs) => local.get(messageIDs),
      summaries: (uid, keys) => local.summaries(uid, keys),
      countAfter: (key, afterSeq) => local.countAfter(key, afterSeq),
      personChannelsOf: (uid, query) => local.personChannelsOf(uid, query),
      truncate: (key, beforeSeq) =>
        this.#propose({ part: 'messages', call: 'truncate', args: [keyOf(key), beforeSeq] }) as ReturnType<MessageStore['truncate']>,
      ...(local.due !== undefined && local.discard !== undefined && { sweep: (nowMs) => this.#sweep(nowMs) }),
      revise: (key, messageSeq, change) =>
        this.#propose({ part: 'messages', call: 'revise', args: [keyOf(key), messageSeq, change] }) as ReturnType<MessageStore['revise']>,
    }
  }

  #channels(local: ChannelDirectory): ChannelDirectory {
    const part = 'channels'
    const list = (call: 'addToList' | 'removeFromList') => (key: ChannelKey, name: ChannelList, uids: readonly string[]) =>
      this.#write(...piecesOf(uids).map((piece): StorageWrite => ({ part, call, args: [keyOf(key), name, piece] })))
    return {
      ...(local.changeCount !== undefined && { changeCount: () => local.changeCount!() }),
      ...(local.systemUIDs !== undefined && { systemUIDs: (query) => local.systemUIDs!(query) }),
      channel: (key) => local.channel(key),
      member: (key, uid) => local.member(key, uid),
      members: (key, query) => local.members(key, query),
      channelsOf: (uid, query) => local.channelsOf(uid, query),
      isListed: (key, name, uid) => local.isListed(key, name, uid),
      isListEmpty: (key, name) => local.isListEmpty(key, name),
      listed: (key, name, query) => local.listed(key, name, query),
      userFlags: (uid) => local.userFlags(uid),
      putChannel: (info) => this.#write({ part, call: 'putChannel', args: [info] }),
      removeChannel: (key) => this.#write({ part, call: 'removeChannel', args: [keyOf(key)] }),
      putMembers: (key, members) =>
        this.#write(...piecesOf(members).map((piece): StorageWrite => ({ part, call: 'putMembers', args: [keyOf(key), piece] }))),
      removeMembers: (key, uids) =>
        this.#write(...piecesOf(uids).map((piece): StorageWrite => ({ part, call: 'removeMembers', args: [keyOf(key), piece] }))),
      addToList: list('addToList'),
      removeFromList: list('removeFromList'),
      setUserFlags: (uid, flags) => this.#write({ part, call: 'setUserFlags', args: [uid, flags] }),
    }
  }

  #cursors(local: CursorStore): CursorStore {
    const part = 'cursors'
    return {
      cursor: (uid, key) => local.cursor(uid, key),
      cursors: (uid, keys) => local.cursors(uid, keys),
      hidden: (uid, key, afterSeq, throughSeq) => local.hidden(uid, key, afterSeq, throughSeq),
      advance: (updates) => this.#write(...piecesBy(laneOfAdvance, updates).map((piece): StorageWrite => ({ part, call: 'advance', args: [piece] }))),
      put: (updates) => this.#write(...piecesBy(laneOfPut, updates).map((piece): StorageWrite => ({ part, call: 'put', args: [piece] }))),
      remove: (key, uids) => this.#write(...piecesOf(uids).map((piece): StorageWrite => ({ part, call: 'remove', args: [keyOf(key), piece] }))),
      hide: (uid, key, seqs) => this.#write(...piecesOf(seqs).map((piece): StorageWrite => ({ part, call: 'hide', args: [uid, keyOf(key), piece] }))),
      flush: () => local.flush(),
    }
  }

  #tokens(local: TokenStore): TokenStore {
    const part = 'tokens'
    return {
      token: (uid, deviceFlag) => local.token(uid, deviceFlag),
      putToken: (uid, token) => this.#write({ part, call: 'putToken', args: [uid, token] }),
      removeToken: (uid, deviceFlag) => this.#write({ part, call: 'removeToken', args: [uid, deviceFlag] }),
    }
  }
}

async function carryOut(storage: Storage, write: StorageWrite, position: LogPosition | undefined): Promise<unknown> {
  const part = storage[write.part] as Record<string, (...args: unknown[]) => unknown> | undefined
  if (part === undefined) return new Failed(new IMError('IM_NOT_SUPPORTED', { detail: `the storage keeps no ${write.part}` }))
  const method = part[write.call]
  if (typeof method !== 'function') throw new IMError('IM_LOG_FORMAT', { detail: `the store has no ${write.call}, and another node's has` })
  return method.call(part, ...write.args, ...(write.call === 'revise' ? [position] : []))
}

async function messageAt(messages: MessageStore, key: ChannelKey, messageSeq: number): Promise<Message | undefined> {
  const [message] = await messages.range(key, { startSeq: messageSeq, endSeq: messageSeq })
  return message
}

/** What an append came to whose answer was lost. */
async function resultsOf(messages: MessageStore, batches: readonly AppendBatch[]): Promise<AppendResult[][]> {
  return Promise.all(
    batches.map(async ({ key, messages: given }) => {
      const stored = await messages.get(given.map(({ messageID }) => messageID))
      return Promise.all(given.map(async ({ messageID, fromUID, clientMsgNo, payload }, index): Promise<AppendResult> => {
        const own = stored[index]
        if (own !== undefined) return { status: 'stored', messageID, messageSeq: own.messageSeq }
        const first = await messages.findByClientMsgNo(key, fromUID, clientMsgNo)
        if (first === undefined) return { status: 'duplicate', messageID, messageSeq: 0 } // it has expired: whoever waits is told that it failed
        const isConflict = first.revision === undefined && Buffer.compare(first.payload, payload) !== 0
        return { status: isConflict ? 'conflict' : 'duplicate', messageID: first.messageID, messageSeq: first.messageSeq }
      }))
    }),
  )
}

/** What a write came to that no node can carry out: the same on all of them, and no reason to stop the log. */
class Failed {
  readonly error: Error

  constructor(error: Error) {
    this.error = error
  }
}

function laneOf(write: StorageWrite): string {
  if (write.call === 'discard') return channelKeyString(write.args[0][0]!.key)
  if (write.part === 'tokens' || write.call === 'setUserFlags') return USERS_LANE
  if (write.part !== 'cursors') return channelKeyString(write.args[0])
  switch (write.call) {
    case 'advance':
      return laneOfAdvance(write.args[0][0]!)
    case 'put':
      return laneOfPut(write.args[0][0]!)
    case 'remove':
      return membersLane(write.args[0])
    case 'hide':
      return membersLane(write.args[1])
  }
}

/**
 * Where a user begins in a channel is written before they are a member of it, and forgotten behind that: a node that knew of the
 * one and not yet of the other would replay them everything that was said before they came. With it goes whatever else is set
 * there, and all of it for commands, whose channel is another one with the same members.
 */
function membersLane(key: ChannelKey): string {
  return channelKeyString(sourceKey(key))
}

function laneOfPut({ key }: CursorUpdate): string {
  return membersLane(key)
}

/** An acknowledgement that comes late, behind the end of a membership, does nothing to the next one, which sets its beginning anew. */
function laneOfAdvance({ key, readSeq, joinSeq, deletedToSeq, unreadMarkSeq }: CursorUpdate): string {
  const isArrival = readSeq === undefined && joinSeq === undefined && deletedToSeq === undefined && unreadMarkSeq === undefined
  return isArrival ? ARRIVALS_LANE : membersLane(key)
}

/** In pieces, those of one lane, or of one log, together. */
function piecesBy<T>(nameOf: (each: T) => string, all: readonly T[]): readonly (readonly T[])[] {
  const groups = new Map<string, T[]>()
  for (const each of all) {
    const name = nameOf(each)
    const group = groups.get(name)
    if (group === undefined) groups.set(name, [each])
    else group.push(each)
  }
  return [...groups.values()].flatMap((group) => piecesOf(group))
}

/** The outbox goes on knowing that nothing overtakes it in the store beside it, whatever that is called now. */
function withPrecedes(outbox: Outbox, local: MessageStore, wrapped: MessageStore): Outbox {
  return {
    ...(outbox.precedes !== undefined && { precedes: outbox.precedes === local ? wrapped : outbox.precedes }),
    add: (lane, entries) => outbox.add(lane, entries),
    list: (lane, query) => outbox.list(lane, query),
    remove: (lane, entryIDs) => outbox.remove(lane, entryIDs),
    count: () => outbox.count(),
  }
}

function keyOf({ channelID, channelType }: ChannelKey): ChannelKey {
  return { channelID, channelType }
}

function piecesOf<T>(all: readonly T[]): readonly (readonly T[])[] {
  const pieces: T[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const each of all) {
    const size = Buffer.byteLength(JSON.stringify(each))
    if (bytes + size > PIECE_BYTES) {
      pieces.push([])
      bytes = 0
    }
    pieces[pieces.length - 1]!.push(each)
    bytes += size
  }
  return pieces
}
