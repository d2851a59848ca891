import { describe, expect, it } from 'vitest'
import {
  memoryChannelDirectory,
  memoryCursorStore,
  memoryOutbox,
  memoryPeerHub,
  memoryPresence,
  memoryReplicatorHub,
  memoryTokenStore,
  staticTokenVerifier,
} from '../../src/adapters/memory/index.ts'
import type { ChannelDirectory } from '../../src/contracts/channel-directory.ts'
import type { Clock } from '../../src/contracts/clock.ts'
import type { CursorStore } from '../../src/contracts/cursor-store.ts'
import type { Outbox } from '../../src/contracts/outbox.ts'
import type { PeerPush } from '../../src/contracts/peer-push.ts'
import type { Presence, PresenceEntry } from '../../src/contracts/presence.ts'
import type { Random } from '../../src/contracts/random.ts'
import type { Replicator, ReplicatorHost } from '../../src/contracts/replicator.ts'
import type { Socket } from '../../src/contracts/socket.ts'
import type { TokenStore } from '../../src/contracts/token-store.ts'
import type { TokenVerifier } from '../../src/contracts/token-verifier.ts'
import type { ChannelInfo } from '../../src/model/channel.ts'
import type { MaybePromise } from '../../src/model/maybe-promise.ts'
import {
  channelDirectoryContract,
  clockContract,
  cursorStoreContract,
  FakeClock,
  loggerContract,
  outboxContract,
  peerPushContract,
  presenceContract,
  randomContract,
  recordingLogger,
  replicatorContract,
  seededRandom,
  socketContract,
  socketPair,
  tokenStoreContract,
  tokenVerifierContract,
  webhookContract,
  type ContractCase,
  type WebhookFarEnd,
} from '../../src/testing/index.ts'
import { failedCases, firstFailure } from './failed-cases.ts'

/** `subject` with some of its methods replaced; what replaces them gets the original. */
function broken<T extends object>(subject: T, replace: (original: T) => Partial<T>): T {
  const replaced = replace(subject)
  return new Proxy(subject, {
    get: (target, name): unknown => {
      const value: unknown = name in replaced ? Reflect.get(replaced, name) : Reflect.get(target, name)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

type Row = readonly [defect: string, cases: readonly ContractCase[]]

const directory = (defect: string, replace: (original: ChannelDirectory) => Partial<ChannelDirectory>): Row => [
  `ChannelDirectory: ${defect}`,
  channelDirectoryContract({ open: () => ({ subject: broken(memoryChannelDirectory(), replace) }) }),
]

const cursors = (defect: string, replace: (original: CursorStore) => Partial<CursorStore>): Row => [
  `CursorStore: ${defect}`,
  cursorStoreContract({ open: () => ({ subject: broken(memoryCursorStore(), replace) }) }),
]

/** A cursor store whose next life is everything it was told, told again: all but the calls of one method. */
function durableCursors(forgotten?: keyof CursorStore): ContractCase[] {
  type Call = (store: CursorStore) => MaybePromise<void>
  const open = () => {
    const calls: Call[] = []
    const note = (method: keyof CursorStore, call: Call, original: CursorStore): MaybePromise<void> => {
      if (method !== forgotten) calls.push(call)
      return call(original)
    }
    const subject = broken(memoryCursorStore(), (original) => ({
      advance: (updates) => note('advance', (store) => store.advance(updates), original),
      put: (updates) => note('put', (store) => store.put(updates), original),
      remove: (key, uids) => note('remove', (store) => store.remove(key, uids), original),
      hide: (uid, key, seqs) => note('hide', (store) => store.hide(uid, key, seqs), original),
    }))
    return { subject, calls }
  }
  return cursorStoreContract({
    open,
    reopen: async ({ calls }) => {
      const next = open()
      for (const call of calls) await call(next.subject)
      return next
    },
  })
}

const tokenStore = (defect: string, replace: (original: TokenStore) => Partial<TokenStore>): Row => [
  `TokenStore: ${defect}`,
  tokenStoreContract({ open: () => ({ subject: broken(memoryTokenStore(), replace) }) }),
]

const outbox = (defect: string, replace: (original: Outbox) => Partial<Outbox>): Row => [
  `Outbox: ${defect}`,
  outboxContract({ open: () => ({ subject: broken(memoryOutbox(), replace) }) }),
]

interface Life<T> {
  readonly subject: T
  readonly calls: ((next: T) => unknown)[]
}

/** Something whose next life is everything that was done to it, done again: all but the calls of one method. */
function remembering<T extends object>(make: () => T, methods: readonly (keyof T)[], forgotten?: keyof T) {
  const open = (): Life<T> => {
    const calls: ((next: T) => unknown)[] = []
    const noted = (original: T, method: keyof T) => (...args: unknown[]) => {
      const call = (next: T): unknown => (next[method] as (...given: unknown[]) => unknown).apply(next, args)
      if (method !== forgotten) calls.push(call)
      return call(original)
    }
    const subject = broken(make(), (original) => Object.fromEntries(methods.map((method) => [method, noted(original, method)])) as Partial<T>)
    return { subject, calls }
  }
  const reopen = async ({ calls }: Life<T>): Promise<Life<T>> => {
    const next = open()
    for (const call of calls) await call(next.subject)
    return next
  }
  return { open, reopen }
}

const durableDirectory = (forgotten?: keyof ChannelDirectory): ContractCase[] => {
  const methods = ['putChannel', 'removeChannel', 'putMembers', 'removeMembers', 'addToList', 'removeFromList', 'setUserFlags'] as const
  return channelDirectoryContract<Life<ChannelDirectory>>(remembering<ChannelDirectory>(memoryChannelDirectory, methods, forgotten))
}
const durableTokens = (forgotten?: keyof TokenStore): ContractCase[] =>
  tokenStoreContract<Life<TokenStore>>(remembering(memoryTokenStore, ['putToken', 'removeToken'], forgotten))
const durableOutbox = (forgotten?: keyof Outbox): ContractCase[] =>
  outboxContract<Life<Outbox>>(remembering(memoryOutbox, ['add', 'remove'], forgotten))

/** An outbox that, opened anew, holds what it held, and begins with its ids behind the last one that is there. */
function outboxWithoutFloor(): ContractCase[] {
  const LANES = [0, 1, 255]
  const open = () => ({ subject: memoryOutbox() })
  return outboxContract({
    open,
    reopen: async ({ subject }) => {
      const next = open()
      for (const lane of LANES) {
        for (const { entryID, bytes } of await subject.list(lane, { limit: 10_000 })) {
          let added = 0
          while (added < entryID) {
            const [id = 0] = await next.subject.add(lane, [bytes])
            added = id
            if (added < entryID) await next.subject.remove(lane, [added])
          }
        }
      }
      return next
    },
  })
}

const presence = (defect: string, replace: (original: Presence) => Partial<Presence>): Row => [
  `Presence: ${defect}`,
  presenceContract({
    open: () => {
      const clock = new FakeClock()
      return { subject: broken(memoryPresence({ nowMs: () => clock.monotonicMs() }), replace), clock }
    },
    advance: ({ clock }, ms) => clock.advance(ms),
  }),
]

const tokens = (defect: string, verifier: TokenVerifier): Row => [
  `TokenVerifier: ${defect}`,
  tokenVerifierContract({
    open: () => ({ subject: verifier }),
    accepted: [{ uid: 'ann', token: 'secret', deviceLevel: 0 }, { uid: 'bob', token: 'hidden' }],
  }),
]

const webhook = (defect: string, replace: (far: WebhookFarEnd) => Partial<WebhookFarEnd>): Row => [
  `Webhook: ${defect}`,
  webhookContract({ open: (far) => ({ subject: broken(far, replace) }) }),
]

const replicator = (defect: string, replace: (original: Replicator) => Partial<Replicator>): Row => [
  `Replicator: ${defect}`,
  replicatorContract({
    open: () => {
      const hub = memoryReplicatorHub({ retryDelayMs: 1 })
      const subject = [1, 2, 3].map(() => broken(hub.replicator(), replace))
      return {
        subject,
        close: async () => {
          for (const one of subject) await one.close()
        },
      }
    },
  }),
]

const peers = (defect: string, replace: (original: PeerPush) => Partial<PeerPush>): Row => [
  `PeerPush: ${defect}`,
  peerPushContract({
    open: () => {
      const hub = memoryPeerHub()
      return { subject: [1, 2, 3].map(() => broken(hub.peer(), replace)) }
    },
  }),
]

const socket = (defect: string, replace: (original: Socket) => Partial<Socket>): Row => [
  `Socket: ${defect}`,
  socketContract({
    open: (acceptor) => {
      const pair = socketPair({ framing: 'message' })
      pair.attach(acceptor.accept(broken(pair.server, replace)))
      return { subject: pair.client }
    },
  }),
]

const clock = (defect: string, replace: (original: FakeClock) => Partial<Clock>): Row => [
  `Clock: ${defect}`,
  clockContract({
    open: () => {
      const original = new FakeClock()
      return { subject: broken<Clock>(original, () => replace(original)), original }
    },
    advance: ({ original }, ms) => original.advance(ms),
  }),
]

const random = (defect: string, bytes: Random['bytes']): Row => [
  `Random: ${defect}`,
  randomContract({ open: () => ({ subject: { bytes } }) }),
]

/** A host that is given what `change` makes of every call. */
function withHost(host: ReplicatorHost, apply: (original: ReplicatorHost) => ReplicatorHost['apply']): ReplicatorHost {
  return { nodeID: host.nodeID, apply: apply(host), operate: (operation, position) => host.operate(operation, position), isolated: () => undefined }
}

const onlineOf = (entry: PresenceEntry, over: Partial<PresenceEntry>): PresenceEntry => ({ ...entry, ...over })

const rows: readonly Row[] = [
  directory('pages count from the start of what is there now', (original) => ({
    members: async (key, query = {}) => {
      const { items } = await original.members(key, { ...query, limit: 10_000, cursor: '0' })
      const start = Number(query.cursor ?? 0)
      const end = start + (query.limit ?? 1000)
      return { items: items.slice(start, end), ...(end < items.length && { cursor: String(end) }) }
    },
  })),
  directory('the last page has a cursor', (original) => ({
    listed: async (key, list, query) => {
      const page = await original.listed(key, list, query)
      return page.items.length === 0 ? page : { cursor: '999999', ...page }
    },
  })),
  directory('a limit is not looked at', (original) => ({
    members: (key, query = {}) => original.members(key, { ...query, limit: Math.min(Math.max(1, Math.trunc(query.limit ?? 1000) || 1), 10_000) }),
  })),
  directory('a role does not change', (original) => ({
    putMembers: async (key, members) => {
      for (const member of members) if ((await original.member(key, member.uid)) === undefined) await original.putMembers(key, [member])
    },
  })),
  directory('members bring a channel into being', (original) => ({
    putMembers: async (key, members) => {
      await original.putChannel({ ...key, ban: false, disband: false })
      await original.putMembers(key, members)
    },
  })),
  directory('both lists are one', (original) => ({ isListed: (key, _list, uid) => original.isListed(key, 'deny', uid) })),
  directory('flags that are not named are cleared', (original) => ({
    setUserFlags: (uid, flags) => original.setUserFlags(uid, { banned: false, sendBanned: false, ...flags }),
  })),
  directory('removing a channel leaves its members', () => ({ removeChannel: () => {} })),
  directory('a flag of a channel is not kept', (original) => ({
    putChannel: ({ sendBan: _lost, ...info }) => original.putChannel(info),
  })),
  directory('a mode is not kept', (original) => ({ putChannel: ({ mode: _lost, ...info }) => original.putChannel(info) })),
  directory('a flag that is not named stays', (original) => ({
    putChannel: async (info) => original.putChannel({ ...(await original.channel(info)), ...info }),
  })),
  directory('a mute is not kept', (original) => ({
    putMembers: (key, members) => original.putMembers(key, members.map(({ uid, role }) => ({ uid, role }))),
  })),
  directory('a mute stays until it has passed', (original) => ({
    putMembers: async (key, members) => {
      for (const member of members) await original.putMembers(key, [{ ...(await original.member(key, member.uid)), ...member }])
    },
  })),
  directory('a mute is not listed', (original) => ({
    members: async (key, query) => {
      const page = await original.members(key, query)
      return { ...page, items: page.items.map(({ uid, role }) => ({ uid, role })) }
    },
  })),
  directory('who is no system user is said to be none', (original) => ({
    userFlags: async (uid) => ({ system: false, ...(await original.userFlags(uid)) }),
  })),
  directory('a ban ends the standing of a system user', (original) => ({
    setUserFlags: (uid, flags) => original.setUserFlags(uid, { ...(flags.banned === true ? { system: false } : {}), ...flags }),
  })),
  directory('system users are listed that are none any more', (original) => {
    const everSystem = new Set<string>()
    return {
      setUserFlags: (uid, flags) => {
        if (flags.system === true) everSystem.add(uid)
        return original.setUserFlags(uid, flags)
      },
      systemUIDs: () => ({ items: [...everSystem] }),
    }
  }),
  directory('everybody with a flag is listed as a system user', (original) => {
    const flagged = new Set<string>()
    return {
      setUserFlags: (uid, flags) => {
        flagged.add(uid)
        return original.setUserFlags(uid, flags)
      },
      systemUIDs: async () => {
        const uids = await Promise.all([...flagged].map(async (uid) => [uid, await original.userFlags(uid)] as const))
        return { items: uids.filter(([, flags]) => Object.values(flags).includes(true)).map(([uid]) => uid) }
      },
    }
  }),
  directory('system users fit one page', (original) => ({
    systemUIDs: async (query) => ({ items: (await original.systemUIDs!({ ...query, limit: 10_000 })).items }),
  })),
  ...(['putChannel', 'putMembers', 'setUserFlags'] as const).map(
    (forgotten): Row => [`ChannelDirectory: a restart forgets what ${forgotten} did`, durableDirectory(forgotten)],
  ),
  directory('what is not there is an error', () => ({
    channel: () => {
      throw new Error('no such channel')
    },
  })),
  cursors('an advance lowers a position', (original) => ({ advance: (updates) => original.put(updates) })),
  cursors('only what was flushed is seen', (original) => {
    let waiting: Parameters<CursorStore['advance']>[0] = []
    return { advance: (updates) => void (waiting = [...waiting, ...updates]), flush: () => original.advance(waiting) }
  }),
  cursors('two positions are one', (original) => ({
    cursor: async (uid, key) => {
      const cursor = await original.cursor(uid, key)
      return { ...cursor, deliveredSeq: Math.max(cursor.deliveredSeq, cursor.readSeq) }
    },
  })),
  cursors('a position is not kept', (original) => ({
    advance: (updates) => original.advance(updates.map(({ unreadMarkSeq: _lost, ...update }) => update)),
  })),
  cursors('a put only raises', (original) => ({ put: (updates) => original.advance(updates) })),
  cursors('a put takes back what it does not name', (original) => ({
    put: (updates) =>
      original.put(updates.map((update) => ({ deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0, ...update }))),
  })),
  cursors('a flush brings back what was put or removed since', (original) => {
    let waiting: Parameters<CursorStore['advance']>[0] = []
    return {
      advance: (updates) => {
        waiting = [...waiting, ...updates.map((update) => ({ ...update, key: { ...update.key } }))]
        return original.advance(updates)
      },
      flush: () => original.advance(waiting),
    }
  }),
  cursors('overlapping updates of one cursor are written over each other', (original) => ({
    put: async (updates) => {
      const [first] = updates
      if (first === undefined) return
      const before = await original.cursor(first.uid, first.key)
      await Promise.resolve()
      await original.put([{ ...first, ...before }, ...updates])
    },
  })),
  cursors('cursors answers once for a channel', (original) => ({
    cursors: (uid, keys) => original.cursors(uid, [...new Map(keys.map((key) => [JSON.stringify(key), key])).values()]),
  })),
  cursors('cursors leaves out who has no position', (original) => ({
    cursors: async (uid, keys) => (await original.cursors(uid, keys)).filter((cursor) => Object.values(cursor).some((seq) => seq !== 0)),
  })),
  cursors('remove does nothing', () => ({ remove: () => {} })),
  cursors('remove keeps what was hidden', (original) => ({
    remove: (key, uids) =>
      original.put(uids.map((uid) => ({ uid, key, deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0 }))),
  })),
  cursors('remove takes the whole user', (original) => ({
    remove: async (key, uids) => {
      for (const channelType of [2, 4]) await original.remove({ ...key, channelType }, uids)
    },
  })),
  cursors('what one user hides is hidden from all', (original) => ({
    hide: (_uid, key, seqs) => original.hide('', key, seqs),
    hidden: (_uid, key, afterSeq, throughSeq) => original.hidden('', key, afterSeq, throughSeq),
  })),
  cursors('what is hidden is hidden under every type', (original) => ({
    hide: (uid, { channelID }, seqs) => original.hide(uid, { channelID, channelType: 1 }, seqs),
    hidden: (uid, { channelID }, afterSeq, throughSeq) => original.hidden(uid, { channelID, channelType: 1 }, afterSeq, throughSeq),
  })),
  cursors('both bounds of hidden are inclusive', (original) => ({
    hidden: (uid, key, afterSeq, throughSeq) => original.hidden(uid, key, Math.max(0, afterSeq - 1), throughSeq),
  })),
  cursors('both bounds of hidden are exclusive', (original) => ({
    hidden: (uid, key, afterSeq, throughSeq) => original.hidden(uid, key, afterSeq, Math.max(0, throughSeq - 1)),
  })),
  cursors('hidden seqs are in the order of text', (original) => ({
    hidden: async (uid, key, afterSeq, throughSeq) => [...(await original.hidden(uid, key, afterSeq, throughSeq))].map(String).sort().map(Number),
  })),
  cursors('only what was hidden last is hidden', (original) => ({
    hide: async (uid, key, seqs) => {
      const cursor = await original.cursor(uid, key)
      await original.remove(key, [uid])
      await original.put([{ uid, key, ...cursor }])
      await original.hide(uid, key, seqs)
    },
  })),
  cursors('hiding a message is reading it', (original) => ({
    hide: async (uid, key, seqs) => {
      await original.hide(uid, key, seqs)
      await original.advance([{ uid, key, readSeq: Math.max(0, ...seqs) }])
    },
  })),
  ...(['advance', 'put', 'remove', 'hide'] as const).map(
    (forgotten): Row => [`CursorStore: a restart forgets what ${forgotten} did`, durableCursors(forgotten)],
  ),
  tokenStore('a user has one token', (original) => ({
    token: (uid, deviceFlag) => [deviceFlag, 0, 1].map((flag) => original.token(uid, flag)).find((found) => found !== undefined),
  })),
  tokenStore('what a token is worth is lost', (original) => ({
    putToken: (uid, token) => original.putToken(uid, { ...token, deviceLevel: 0 }),
  })),
  tokenStore('the first token stays', (original) => ({
    putToken: async (uid, token) => {
      if ((await original.token(uid, token.deviceFlag)) === undefined) await original.putToken(uid, token)
    },
  })),
  tokenStore('a removal takes all of a user', (original) => ({
    removeToken: async (uid) => {
      for (const deviceFlag of [0, 1, 2]) await original.removeToken(uid, deviceFlag)
    },
  })),
  tokenStore('a removal does nothing', () => ({ removeToken: () => {} })),
  tokenStore('uid and kind of device run together', (original) => ({
    token: async (uid, deviceFlag) => {
      const found = await original.token(`${uid}${deviceFlag}`, 0)
      return found && { ...found, deviceFlag }
    },
    putToken: (uid, token) => original.putToken(`${uid}${token.deviceFlag}`, { ...token, deviceFlag: 0 }),
    removeToken: (uid, deviceFlag) => original.removeToken(`${uid}${deviceFlag}`, 0),
  })),
  tokenStore('a digest is cut short', (original) => ({
    putToken: (uid, token) => original.putToken(uid, { ...token, digest: token.digest.subarray(0, 31) }),
  })),
  tokenStore('a token is read late', (original) => ({
    putToken: async (uid, token) => {
      await Promise.resolve()
      await original.putToken(uid, token)
    },
  })),
  tokenStore('who has no token is an error', (original) => ({
    token: async (uid, deviceFlag) => (await original.token(uid, deviceFlag)) ?? Promise.reject(new Error('no such token')),
  })),
  ...(['putToken', 'removeToken'] as const).map(
    (forgotten): Row => [`TokenStore: a restart forgets what ${forgotten} did`, durableTokens(forgotten)],
  ),
  outbox('entries are listed newest first', (original) => ({
    list: async (lane, query) => [...(await original.list(lane, query))].reverse(),
  })),
  outbox('all lanes are one', (original) => ({
    add: (_lane, entries) => original.add(0, entries),
    list: (_lane, query) => original.list(0, query),
    remove: (_lane, entryIDs) => original.remove(0, entryIDs),
  })),
  outbox('a removal goes through all lanes', (original) => ({
    remove: async (lane, entryIDs) => {
      await original.remove(lane, entryIDs)
      for (const other of [0, 4, 5, 6]) await original.remove(other, entryIDs)
    },
  })),
  outbox('ids of calls that overlap are out of order', (original) => {
    let number = 0
    return {
      add: async (lane, entries) => {
        if (number++ % 3 === 0) await new Promise((resolve) => setImmediate(resolve))
        return original.add(lane, entries.map((bytes) => new Uint8Array(bytes)))
      },
    }
  }),
  outbox('ids begin again when nothing is left', () => {
    let inner = memoryOutbox()
    return {
      add: (lane, entries) => inner.add(lane, entries),
      list: (lane, query) => inner.list(lane, query),
      remove: async (lane, entryIDs) => {
        await inner.remove(lane, entryIDs)
        if ((await inner.count()) === 0) inner = memoryOutbox()
      },
      count: () => inner.count(),
    }
  }),
  outbox('afterID is one of the page', (original) => ({
    list: (lane, { afterID, limit }) => original.list(lane, afterID === undefined ? { limit } : { limit, afterID: afterID - 1 }),
  })),
  outbox('a page is one short', (original) => ({ list: async (lane, query) => (await original.list(lane, query)).slice(0, 124) })),
  outbox('a limit is not looked at', (original) => ({
    list: (lane, query) => original.list(lane, { ...query, limit: Math.min(Math.max(1, Math.trunc(query.limit) || 1), 10_000) }),
  })),
  outbox('a lane is taken as it comes', (original) => ({ add: (lane, entries) => original.add(lane & 255, entries) })),
  outbox('an entry is kept that is not copied', () => {
    const held: { entryID: number; bytes: Uint8Array }[] = []
    const checked = memoryOutbox()
    return {
      add: (lane, entries) => {
        const [first] = checked.add(lane, entries) as number[]
        const entryIDs = entries.map((_, i) => first! + i)
        held.push(...entries.map((bytes, i) => ({ entryID: entryIDs[i]!, bytes })))
        return entryIDs
      },
      list: async (lane, query) =>
        (await checked.list(lane, query)).map(({ entryID }) => held.find((entry) => entry.entryID === entryID)!),
      remove: (lane, entryIDs) => checked.remove(lane, entryIDs),
      count: () => checked.count(),
    }
  }),
  outbox('an empty entry is left out', (original) => ({
    add: (lane, entries) => original.add(lane, entries.filter((bytes) => bytes.length > 0)),
  })),
  outbox('a removal of what is not there is an error', (original) => ({
    remove: async (lane, entryIDs) => {
      const there = (await original.list(lane, { limit: 10_000 })).map(({ entryID }) => entryID)
      if (!entryIDs.every((entryID) => there.includes(entryID))) throw new Error('no such entry')
      await original.remove(lane, entryIDs)
    },
  })),
  outbox('a removal takes the oldest ones', (original) => ({
    remove: async (lane, entryIDs) => {
      const oldest = entryIDs.length === 0 ? [] : await original.list(lane, { limit: entryIDs.length })
      await original.remove(lane, oldest.map(({ entryID }) => entryID))
    },
  })),
  outbox('what is removed twice counts twice', (original) => {
    let count = 0
    return {
      add: async (lane, entries) => {
        const entryIDs = await original.add(lane, entries)
        count += entryIDs.length
        return entryIDs
      },
      remove: async (lane, entryIDs) => {
        await original.remove(lane, entryIDs)
        count -= entryIDs.length
      },
      count: () => count,
    }
  }),
  outbox('one lane is counted', (original) => ({ count: async () => (await original.list(0, { limit: 10_000 })).length })),
  ...(['add', 'remove'] as const).map((forgotten): Row => [`Outbox: a restart forgets what ${forgotten} did`, durableOutbox(forgotten)]),
  ['Outbox: a restart gives the ids behind the last entry again', outboxWithoutFloor()],
  presence('one offline ends all connections of the user on the node', (original) => ({
    offline: async (entry) => {
      for (const one of await original.devices(entry.uid)) if (one.nodeID === entry.nodeID) await original.offline(one)
    },
  })),
  presence('nodes are not in order', (original) => ({
    locate: async (uids) => new Map([...(await original.locate(uids))].map(([uid, nodeIDs]) => [uid, [...nodeIDs].reverse()])),
  })),
  presence('who is offline is in the map', (original) => ({
    locate: async (uids) => new Map([...uids.map((uid) => [uid, []] as const), ...(await original.locate(uids))]),
  })),
  presence('connections are told apart by their id alone', (original) => ({
    online: (entry) => original.online(onlineOf(entry, { nodeID: 1 })),
  })),
  presence('silent nodes stay', () => ({ heartbeat: () => {} })),
  presence('leave does nothing', () => ({ leave: () => {} })),
  tokens('a refusal is a throw', ({ token }) => {
    if (token !== 'secret' && token !== 'hidden') throw new Error('wrong')
    return { ok: true }
  }),
  tokens('the start of a token will do', ({ uid, token }) => ({ ok: ({ ann: 'secret', bob: 'hidden' }[uid] ?? '-').startsWith(token) })),
  tokens('any known token will do', ({ token }) => ({ ok: token === 'secret' || token === 'hidden' })),
  tokens('everybody is a master', ({ uid, token }) =>
    ({ ann: 'secret', bob: 'hidden' })[uid] === token ? { ok: true, deviceLevel: 1 } : { ok: false },
  ),
  tokens('a refusal says success', (request) => {
    const result = staticTokenVerifier({ ann: 'secret', bob: 'hidden' })(request)
    return 'ok' in result && !result.ok ? { ok: false, reason: 1 } : result
  }),
  webhook('payloads are text', (far) => ({
    beforeSend: (request, signal) => far.beforeSend({ ...request, payload: Buffer.from(Buffer.from(request.payload).toString()) }, signal),
  })),
  webhook('a new payload is lost', (far) => ({
    beforeSend: async (request, signal) => {
      const { newPayload: _lost, ...answer } = await far.beforeSend(request, signal)
      return answer
    },
  })),
  webhook('a failure lets the message through', (far) => ({
    beforeSend: async (request, signal) => {
      try {
        return await far.beforeSend(request, signal)
      } catch {
        return { code: 0 }
      }
    },
  })),
  webhook('only the first event is told', (far) => ({ notify: (events, signal) => far.notify(events.slice(0, 1), signal) })),
  webhook('a failure to notify is hidden', (far) => ({
    notify: async (events, signal) => {
      try {
        await far.notify(events, signal)
      } catch {
        // swallowed
      }
    },
  })),
  replicator('an entry that failed is skipped', (original) => ({
    start: (host) =>
      original.start(
        withHost(host, (node) => async (entries) => {
          try {
            return await node.apply(entries)
          } catch {
            return entries.map(() => [])
          }
        }),
      ),
  })),
  replicator('one node is given only what it proposed', (original) => ({
    start: (host) => original.start(withHost(host, (node) => (entries) => (entries.every((entry) => entry.nodeID === node.nodeID) ? node.apply(entries) : entries.map(() => [])))),
  })),
  replicator('an entry is applied twice', (original) => ({
    start: (host) =>
      original.start(
        withHost(host, (node) => async (entries) => {
          await node.apply(entries)
          return await node.apply(entries)
        }),
      ),
  })),
  replicator('a wait has no end', (original) => ({
    propose: (key, messages) => Promise.race([original.propose(key, messages, new AbortController().signal), soonFailing()]),
  })),
  replicator('close changes nothing', () => ({ close: () => {} })),
  peers('pushes overtake each other', (original) => ({
    start: (host) => {
      let callCount = 0
      return original.start({
        ...host,
        nodeID: host.nodeID,
        kicked: (request) => host.kicked(request),
        pushed: (request) => {
          const delayed = callCount++ % 2 === 0
          if (delayed) setImmediate(() => void Promise.resolve(host.pushed(request)).catch(() => {}))
          else return host.pushed(request)
        },
      })
    },
  })),
  peers('a failure is told as success', (original) => ({
    push: async (nodeID, request, signal) => {
      try {
        await original.push(nodeID, request, signal)
      } catch {
        // swallowed
      }
    },
  })),
  peers('a failure has no code', (original) => ({
    push: async (nodeID, request, signal) => {
      try {
        await original.push(nodeID, request, signal)
      } catch {
        throw new Error('failed')
      }
    },
  })),
  peers('a kick goes nowhere', () => ({ kick: () => {} })),
  peers('a kick names the node that is asked', (original) => ({
    start: (host) => original.start({ nodeID: host.nodeID, pushed: (request) => host.pushed(request), kicked: (request) => host.kicked({ ...request, nodeID: host.nodeID }) }),
  })),
  peers('uids are lost', (original) => ({ push: (nodeID, request, signal) => original.push(nodeID, { ...request, uids: [] }, signal) })),
  socket('nothing is ever buffered', () => ({ bufferedBytes: 0 })),
  socket('what was sent is lost on close', (original) => ({ close: () => original.destroy?.() })),
  socket('pause does nothing', () => ({ pause: () => {} })),
  socket('messages are cut in two', (original) => ({
    send: (bytes) => {
      original.send(bytes.subarray(0, 1))
      return original.send(bytes.subarray(1))
    },
  })),
  socket('a byte is changed', (original) => ({
    send: (bytes) => original.send(Uint8Array.from(bytes, (byte, i) => (i === 70_000 ? byte ^ 1 : byte))),
  })),
  clock('a timer is early', (original) => ({ setTimer: (delayMs, fire) => original.setTimer(delayMs / 2, fire) })),
  clock('a timer fires twice', (original) => ({
    setTimer: (delayMs, fire) => {
      original.setTimer(delayMs + 5, fire)
      return original.setTimer(delayMs, fire)
    },
  })),
  clock('a timer cannot be cleared', () => ({ clearTimer: () => {} })),
  clock('time is in seconds', (original) => ({ nowMs: () => original.nowMs() / 1000 })),
  clock('monotonic time stands still', () => ({ monotonicMs: () => 0 })),
  clock('what is deferred runs at once', () => ({ defer: (run) => run() })),
  clock('what is deferred runs with the promises', () => ({ defer: (run) => queueMicrotask(run) })),
  random('it is always the same', (count) => new Uint8Array(count).fill(4)),
  random('it is one byte short', (count) => seededRandom(count).bytes(Math.max(0, count - 1))),
  random('it is text', (() => {
    const source = seededRandom(1)
    return (count: number) => source.bytes(count).map((byte) => byte & 0x7f)
  })()),
  [
    'Logger: circular fields throw',
    loggerContract({
      open: () => {
        const print = (fields: object): void => void JSON.stringify(fields)
        return { subject: { debug: print, info: print, warn: print, error: print } }
      },
    }),
  ],
  [
    'Logger: a level is lost',
    loggerContract({
      open: () => {
        const logger = recordingLogger()
        return { subject: broken(logger, () => ({ warn: () => {} })), logger }
      },
      messages: ({ logger }) => logger.lines.map((line) => line.message),
    }),
  ],
]

async function soonFailing(): Promise<never> {
  for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve))
  throw new Error('still waiting')
}

it.each([
  ['a cursor store', durableCursors()],
  ['a channel directory', durableDirectory()],
  ['a token store', durableTokens()],
  ['an outbox', durableOutbox()],
])('%s that forgets nothing passes', async (_what, cases) => {
  expect(await failedCases(cases)).toEqual([])
})

it('a channel directory that does not list system users passes, and so does one that leaves out what is false', async () => {
  const open = () => ({
    subject: broken<ChannelDirectory>(memoryChannelDirectory(), (original) => ({
      channel: async (key) => {
        const { channelID, channelType, ...flags } = (await original.channel(key)) ?? {}
        if (channelID === undefined) return undefined
        const isSaid = ([, flag]: readonly [string, unknown]): boolean => flag !== false && flag !== 'normal'
        return { channelID, channelType, ...Object.fromEntries(Object.entries(flags).filter(isSaid)) } as ChannelInfo
      },
      systemUIDs: undefined as never,
    })),
  })
  expect(await failedCases(channelDirectoryContract({ open }))).toEqual([])
})

describe('a suite sees that', () => {
  it.each(rows)('%s', async (_defect, cases) => {
    expect(await firstFailure(cases)).toBeDefined()
  })
})
