import {
  IMError,
  memoryStorage,
  type AppendBatch,
  type AppendResult,
  type ChannelDirectory,
  type ChannelKey,
  type Cursor,
  type CursorStore,
  type CursorUpdate,
  type LogPosition,
  type Message,
  type MaybePromise,
  type MemoryStorage,
  type MessageStore,
  type Outbox,
  type Storage,
  type TokenStore,
} from 'imengine'
import type { Chance } from './chance.ts'
import type { SimTime, SimTimer } from './time.ts'

/** How a disk does at the moment. */
export interface DiskWeather {
  /** 'within the call': answers are no promises */
  readonly mostMs: number | 'within the call'
  /** of the calls; nothing of a call that fails is written */
  readonly failing: number
  /** questions are answered as usual */
  readonly isForWrites: boolean
}

/** What was written, told when it is durable. */
export interface DiskWitness {
  appended(disk: Disk, nodeID: number, batch: AppendBatch, results: readonly AppendResult[]): void
  revised(disk: Disk, message: Message): void
  /** a node writes although its engine says that it is closed, and that it has not given up on anything */
  writesAfterClose(nodeID: number, call: string): void
}

/** What an engine writes by itself; the rest is the host's, who may call when they like, and questions of steps that nobody waits for. */
const ENGINE_WRITES: readonly string[] = ['append', 'advance', 'flush', 'outbox.add', 'outbox.remove']

/** A write that has been asked for and is not durable. */
interface Pending {
  readonly isWrite: boolean
  readonly timer: SimTimer
  readonly perform: () => void
}

/**
 * A disk, or a database that nodes share. What is in `held` is durable. A write comes there after its time, and writes of one
 * node in the order in which they were asked for; before that a crash loses it.
 */
export class Disk {
  readonly name: string
  readonly held: MemoryStorage
  readonly usual: DiskWeather
  weather: DiskWeather
  readonly #time: SimTime
  readonly #chance: Chance
  readonly #witness: DiskWitness
  /** every node that has this disk changes what it holds: then nobody may rely on what it knew before */
  readonly isShared: boolean

  constructor(options: { name: string; time: SimTime; chance: Chance; witness: DiskWitness; weather: DiskWeather; isShared: boolean; held?: MemoryStorage }) {
    this.name = options.name
    this.#time = options.time
    this.#chance = options.chance
    this.#witness = options.witness
    this.usual = this.weather = options.weather
    this.isShared = options.isShared
    this.held = options.held ?? memoryStorage({ nowMs: () => options.time.nowMs })
  }

  /** What one life of a node has of it. */
  open(nodeID: number, outboxPrecedes: boolean, hasGivenUp: () => boolean): DiskHandle {
    return new DiskHandle(this, { nodeID, outboxPrecedes, hasGivenUp, time: this.#time, chance: this.#chance.of(String(nodeID)), witness: this.#witness })
  }
}

interface HandleOptions {
  readonly nodeID: number
  readonly outboxPrecedes: boolean
  readonly hasGivenUp: () => boolean
  readonly time: SimTime
  readonly chance: Chance
  readonly witness: DiskWitness
}

export class DiskHandle {
  readonly storage: Storage
  readonly #disk: Disk
  readonly #options: HandleOptions
  readonly #pending = new Set<Pending>()
  /** positions that are written behind: the next flush makes them durable */
  #behind: CursorUpdate[] = []
  #lastWriteMs = 0
  #changeCount = 0
  #state: 'open' | 'closed' | 'dead' = 'open'

  constructor(disk: Disk, options: HandleOptions) {
    this.#disk = disk
    this.#options = options
    const { channels, tokens, outbox } = disk.held
    const messages = this.#messages(disk.held.messages)
    this.storage = {
      messages,
      channels: this.#channels(channels),
      cursors: this.#cursors(disk.held.cursors),
      tokens: this.#tokens(tokens),
      outbox: this.#outbox(outbox, options.outboxPrecedes ? messages : undefined),
      description: disk.name,
    }
  }

  /** positions that a flush would have made durable */
  get behindCount(): number {
    return this.#behind.length
  }

  /** The engine says that it has closed. */
  close(): void {
    this.#state = 'closed'
  }

  /** The process dies: of what is on its way some is written all the same, the oldest first, and nobody is answered. */
  crash(): void {
    this.#state = 'dead'
    const writes = [...this.#pending].filter(({ isWrite }) => isWrite)
    for (const { timer } of this.#pending) this.#options.time.cancel(timer)
    const landing = this.#options.chance.below(writes.length + 1)
    for (const { perform } of writes.slice(0, landing)) perform()
    this.#pending.clear()
  }

  #ask<T>(call: string, isWrite: boolean, perform: () => T): MaybePromise<T> {
    const { chance, time, witness, nodeID, hasGivenUp } = this.#options
    if (this.#state === 'dead') return new Promise(() => {})
    if (this.#state === 'closed' && ENGINE_WRITES.includes(call) && !hasGivenUp()) witness.writesAfterClose(nodeID, call)
    const { weather, usual } = this.#disk
    const { mostMs, failing } = weather.isForWrites && !isWrite ? usual : weather
    const fails = chance.happens(failing)
    const failure = (): IMError => new IMError('IM_STORE_UNAVAILABLE', { detail: 'bad weather' })
    if (mostMs === 'within the call' && this.#pending.size === 0) {
      if (fails) throw failure()
      return perform()
    }
    const delayMs = mostMs === 'within the call' ? 0 : chance.between(0, mostMs)
    const dueMs = isWrite ? Math.max(this.#lastWriteMs, time.nowMs + delayMs) : time.nowMs + delayMs
    if (isWrite) this.#lastWriteMs = dueMs
    return new Promise((resolve, reject) => {
      const timer = time.after(dueMs - time.nowMs, () => {
        this.#pending.delete(pending)
        if (fails) return reject(failure())
        try {
          resolve(perform())
        } catch (thrown) {
          reject(thrown instanceof Error ? thrown : new Error(String(thrown)))
        }
      })
      const pending: Pending = { isWrite: isWrite && !fails, timer, perform }
      this.#pending.add(pending)
    })
  }

  #read<T>(call: string, perform: () => T): MaybePromise<T> {
    return this.#ask(call, false, perform)
  }

  #write<T>(call: string, perform: () => T): MaybePromise<T> {
    return this.#ask(call, true, perform)
  }

  #messages(held: MessageStore): MessageStore {
    const { nodeID, witness } = this.#options
    const append = (batches: readonly AppendBatch[], position?: LogPosition): readonly (readonly AppendResult[])[] => {
      const results = held.append(batches, position) as readonly (readonly AppendResult[])[]
      batches.forEach((batch, index) => witness.appended(this.#disk, nodeID, batch, results[index]!))
      return results
    }
    return {
      // The store keeps nothing of what it is given, and it is written later.
      append: (batches, position) => {
        const copies = batches.map(({ key, messages }) => ({ key, messages: messages.map((message) => ({ ...message, payload: message.payload.slice() })) }))
        return this.#write('append', () => append(copies, position))
      },
      logPosition: (log) => this.#read('logPosition', () => held.logPosition!(log) as number),
      range: (key, query) => this.#read('range', () => held.range(key, query) as never),
      lastSeq: (key) => this.#read('lastSeq', () => held.lastSeq(key) as number),
      findByClientMsgNo: (key, fromUID, no) => this.#read('findByClientMsgNo', () => held.findByClientMsgNo(key, fromUID, no) as never),
      get: (ids) => this.#read('get', () => held.get(ids) as never),
      truncate: (key, beforeSeq) => this.#write('truncate', () => held.truncate(key, beforeSeq) as never),
      summaries: (uid, keys) => this.#read('summaries', () => held.summaries(uid, keys) as never),
      countAfter: (key, afterSeq) => this.#read('countAfter', () => held.countAfter(key, afterSeq) as number),
      personChannelsOf: (uid, query) => this.#read('personChannelsOf', () => held.personChannelsOf(uid, query) as never),
      revise: (key, seq, change, position) =>
        this.#write('revise', () => {
          const message = held.revise(key, seq, change, position) as Message | undefined
          if (message !== undefined) witness.revised(this.#disk, message)
          return message
        }),
    }
  }

  #channels(held: Required<ChannelDirectory>): ChannelDirectory {
    const change = <T>(call: string, perform: () => T): MaybePromise<T> => {
      this.#changeCount++
      return this.#write(call, () => {
        this.#changeCount++
        return perform()
      })
    }
    return {
      ...(this.#disk.isShared ? {} : { changeCount: () => this.#changeCount }),
      channel: (key) => this.#read('channel', () => held.channel(key) as never),
      putChannel: (info) => change('putChannel', () => held.putChannel(info) as never),
      removeChannel: (key) => change('removeChannel', () => held.removeChannel(key) as never),
      member: (key, uid) => this.#read('member', () => held.member(key, uid) as never),
      putMembers: (key, members) => change('putMembers', () => held.putMembers(key, members) as never),
      removeMembers: (key, uids) => change('removeMembers', () => held.removeMembers(key, uids) as never),
      members: (key, query) => this.#read('members', () => held.members(key, query) as never),
      channelsOf: (uid, query) => this.#read('channelsOf', () => held.channelsOf(uid, query) as never),
      isListed: (key, list, uid) => this.#read('isListed', () => held.isListed(key, list, uid) as never),
      isListEmpty: (key, list) => this.#read('isListEmpty', () => held.isListEmpty(key, list) as never),
      addToList: (key, list, uids) => change('addToList', () => held.addToList(key, list, uids) as never),
      removeFromList: (key, list, uids) => change('removeFromList', () => held.removeFromList(key, list, uids) as never),
      listed: (key, list, query) => this.#read('listed', () => held.listed(key, list, query) as never),
      userFlags: (uid) => this.#read('userFlags', () => held.userFlags(uid) as never),
      setUserFlags: (uid, flags) => change('setUserFlags', () => held.setUserFlags(uid, flags) as never),
    }
  }

  #cursors(held: CursorStore): CursorStore {
    const cursor = (uid: string, key: ChannelKey): Cursor => {
      const found = { ...(held.cursor(uid, key) as Cursor) } as { -readonly [K in keyof Cursor]: number }
      for (const update of this.#behind) {
        if (update.uid !== uid || update.key.channelID !== key.channelID || update.key.channelType !== key.channelType) continue
        for (const name of Object.keys(found) as (keyof Cursor)[]) found[name] = Math.max(found[name], update[name] ?? 0)
      }
      return found
    }
    const settle = (): void => {
      const updates = this.#behind
      this.#behind = []
      void held.advance(updates)
    }
    return {
      cursor: (uid, key) => this.#read('cursor', () => cursor(uid, key)),
      cursors: (uid, keys) => this.#read('cursors', () => keys.map((key) => cursor(uid, key))),
      // Written behind. A failure is told here, so that the one of `flush` is that of what is there already.
      advance: (updates) => {
        const copies = updates.map((update) => ({ ...update }))
        return this.#read('advance', () => void this.#behind.push(...copies))
      },
      put: (updates) =>
        this.#write('put', () => {
          settle()
          void held.put(updates)
        }),
      remove: (key, uids) =>
        this.#write('remove', () => {
          settle()
          void held.remove(key, uids)
        }),
      flush: () => this.#write('flush', settle),
      hide: (uid, key, seqs) => this.#write('hide', () => held.hide(uid, key, seqs) as never),
      hidden: (uid, key, afterSeq, throughSeq) => this.#read('hidden', () => held.hidden(uid, key, afterSeq, throughSeq) as never),
    }
  }

  #tokens(held: TokenStore): TokenStore {
    return {
      token: (uid, deviceFlag) => this.#read('token', () => held.token(uid, deviceFlag) as never),
      putToken: (uid, token) => this.#write('putToken', () => held.putToken(uid, token) as never),
      removeToken: (uid, deviceFlag) => this.#write('removeToken', () => held.removeToken(uid, deviceFlag) as never),
    }
  }

  #outbox(held: Outbox, precedes: MessageStore | undefined): Outbox {
    return {
      ...(precedes === undefined ? {} : { precedes }),
      add: (lane, entries) => {
        const copies = entries.map((bytes) => bytes.slice())
        return this.#write('outbox.add', () => held.add(lane, copies) as never)
      },
      list: (lane, query) => this.#read('outbox.list', () => held.list(lane, query) as never),
      remove: (lane, ids) => this.#write('outbox.remove', () => held.remove(lane, [...ids]) as never),
      count: () => this.#read('outbox.count', () => held.count() as number),
    }
  }
}
