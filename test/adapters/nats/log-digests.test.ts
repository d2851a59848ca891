import { connect, type Msg, type NatsConnection, type Subscription, type SubscriptionOptions } from '@nats-io/transport-node'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import { decodeEntry, encodeBatch, encodeEntry } from '../../../src/adapters/nats/log-entry.ts'
import { prefixedBytes } from '../../../src/contracts/message-records.ts'
import { NatsReplicator } from '../../../src/adapters/nats/replicator.ts'
import type { Message } from '../../../src/model/message.ts'
import { connectionTo, expectEqualStores, LogNode, logName, message, room, settled, type LogNodeOptions } from './log.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

const BEAT_MS = 50
const ROOM = room('a')
const TOLD = 'what the others read'
const READ = 'what this one read'

let servers: NatsServers
const nodes: LogNode[] = []

beforeAll(async () => {
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.close()))
})

afterAll(() => servers?.close())

/** As from a server that has another entry where the others have one with `TOLD` in it; everything else is what it is. */
class OtherServer extends ClusterConnection {
  override async acquire(): Promise<NatsConnection> {
    const nats = await super.acquire()
    const subscribe = (subject: string, options: SubscriptionOptions = {}): Subscription => {
      const { callback } = options
      if (callback === undefined || !subject.includes('_log_')) return nats.subscribe(subject, options)
      return nats.subscribe(subject, { ...options, callback: (error, arrived) => callback(error, altered(arrived)) })
    }
    return new Proxy(nats, {
      get: (target, name) => {
        if (name === 'subscribe') return subscribe
        const value: unknown = Reflect.get(target, name)
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      },
    })
  }
}

function altered(arrived: Msg): Msg {
  if (!Buffer.from(arrived.data ?? []).includes(TOLD)) return arrived
  const entry = decodeEntry(arrived.data)
  const batches = entry.batches.map(({ key, messages }) => {
    const changed = messages.map((each): Message => ({ ...each, payload: Buffer.from(READ) }))
    return encodeBatch(key, changed, changed.map(prefixedBytes))
  })
  const data = encodeEntry(entry, batches)
  return new Proxy(arrived, { get: (target, name) => (name === 'data' ? data : (Reflect.get(target, name) as unknown)) })
}

/** A node; `isMisled`: it reads from `OtherServer`. */
function made({ isMisled = false, ...options }: Omit<LogNodeOptions, 'servers'> & { readonly isMisled?: boolean }): LogNode {
  const node: LogNode = new LogNode({ servers: servers.urls, startTimeoutMs: 10_000, partitions: 1, ...options })
  const { options: how } = connectionTo(servers.urls)
  const connection = isMisled ? new OtherServer(how) : new ClusterConnection(how)
  const replicator = new NatsReplicator(connection, { startTimeoutMs: 10_000, partitions: 1, onProblem: (problem) => void node.problems.push(problem), ...options }, BEAT_MS)
  nodes.push(Object.assign(node, { replicator }))
  return node
}

const started = (options: Parameters<typeof made>[0]): Promise<LogNode> => made(options).start()

const send = (node: LogNode, text: string): Promise<unknown> => node.propose(ROOM, [message(ROOM, undefined, Buffer.from(text))])

const stopOf = (node: LogNode): string | undefined => node.replicator.status().partitions[0]?.stopped?.code

/** The log keeps its last entry only: whoever has not applied those before it cannot catch up from it. */
async function forget(name: string): Promise<void> {
  const nats = await connect({ servers: servers.urls })
  const log = `${name}_log_0`
  const ask = async (what: string, body: object): Promise<{ config: object; state: { first_seq: number; last_seq: number } }> =>
    (await nats.request(`$JS.API.STREAM.${what}.${log}`, JSON.stringify(body))).json()
  const { config } = await ask('INFO', {})
  await ask('UPDATE', { ...config, max_msgs: 1 })
  await until(async () => (({ first_seq, last_seq }) => first_seq === last_seq)((await ask('INFO', {})).state), 25_000, 'it keeps more')
  await nats.close()
}

const divergences = (node: LogNode): boolean[] => node.problems.filter(({ error }) => error.code === 'IM_LOG_DIVERGED').map(({ isStopped }) => isStopped)

describe.skipIf(NATS_SERVER === undefined)('a node that has read something else than the others', () => {
  it('stops that partition, is isolated and applies nothing more; the others say so and go on', async () => {
    const name = logName()
    const [one, two, misled] = await Promise.all([started({ nodeID: 1, name }), started({ nodeID: 2, name }), started({ nodeID: 3, name, isMisled: true })])
    await send(one, 'first')
    await send(one, TOLD)
    await settled([one, two, misled])
    await until(() => stopOf(misled) !== undefined, 25_000, 'it goes on')
    expect(stopOf(misled)).toBe('IM_LOG_DIVERGED')
    expect(misled.replicator.status().partitions[0]!.stopped?.detail).toMatch(/_log_0: nodes 1, 2 read something else in entry 2, more than .* a backup of another node/)
    expect(misled.isolations).toEqual([true])
    await expect(send(misled, 'no')).rejects.toMatchObject({ code: 'IM_LOG_DIVERGED' })
    await until(() => [one, two].every((node) => divergences(node).length > 0), 25_000, 'the others do not say so')
    for (const node of [one, two]) {
      expect(divergences(node)).toEqual([false])
      expect(node.problems.find(({ error }) => error.code === 'IM_LOG_DIVERGED')!.error.detail).toMatch(/node 3 read something else in entry 2, fewer/)
    }
    const { applyCount } = misled
    await send(two, 'goes on')
    await settled([one, two])
    expect([stopOf(one), stopOf(two), misled.applyCount, misled.appliedIndexes]).toEqual([undefined, undefined, applyCount, [2]])
    expect([one.isolations, two.isolations]).toEqual([[], []])
  })

  it('of two: both stop, because nobody knows which', async () => {
    const name = logName()
    const [one, misled] = await Promise.all([started({ nodeID: 1, name }), started({ nodeID: 2, name, isMisled: true })])
    await send(one, TOLD)
    await until(() => stopOf(one) !== undefined && stopOf(misled) !== undefined, 25_000, 'one goes on')
    expect([stopOf(one), stopOf(misled)]).toEqual(['IM_LOG_DIVERGED', 'IM_LOG_DIVERGED'])
    expect(one.replicator.status().partitions[0]!.stopped?.detail).toMatch(/node 2 read something else in entry 1, and as many read what this node did: all stop/)
  })

  it('of one partition goes on with the others', async () => {
    const name = logName()
    const [one, misled] = await Promise.all([started({ nodeID: 1, name, partitions: 3 }), started({ nodeID: 2, name, partitions: 3, isMisled: true })])
    await send(one, TOLD)
    const stoppedCount = (node: LogNode): number => node.replicator.status().partitions.filter(({ stopped }) => stopped !== undefined).length
    await until(() => stoppedCount(one) > 0 && stoppedCount(misled) > 0, 25_000, 'one goes on')
    expect([stoppedCount(one), stoppedCount(misled)]).toEqual([1, 1])
  })

  it('while it starts does not start', async () => {
    const name = logName()
    const [one, two] = await Promise.all([started({ nodeID: 1, name }), started({ nodeID: 2, name })])
    await send(one, TOLD)
    await settled([one, two])
    // It goes into the store by itself, so that there is a moment at which the one before it has been applied and this not.
    await one.replicator.operate('lane', Buffer.from('later'), AbortSignal.timeout(5_000))
    await settled([one, two])
    const store = memoryMessageStore()
    const append = store.append.bind(store)
    let release = (): void => undefined
    const held = new Promise<void>((resolve) => (release = resolve))
    store.append = async (batches, position) => {
      if (position!.index > 1) await held
      return append(batches, position)
    }
    const misled = made({ nodeID: 3, name, isMisled: true, store })
    const outcome = misled.start().catch((error: unknown) => error)
    await until(() => stopOf(misled) !== undefined, 25_000, 'it goes on')
    expect(misled.appliedIndexes).toEqual([1])
    release()
    expect(await outcome).toMatchObject({ code: 'IM_LOG_DIVERGED' })
  })
})

describe.skipIf(NATS_SERVER === undefined)('a node that the log cannot help any more', () => {
  it('begins with the storage of another one, never of one that has stopped', async () => {
    const name = logName()
    const asked: number[] = []
    const giver = (nodeID: number, isMisled = false): LogNode => {
      const node = made({ nodeID, name, isMisled })
      node.snapshot = async function* () {
        asked.push(nodeID)
        yield Buffer.from(await Promise.resolve(`storage of ${nodeID}`))
      }
      return node
    }
    const [misled, one, two] = await Promise.all([giver(1, true).start(), giver(2).start(), giver(3).start()])
    await send(one, TOLD)
    await until(() => stopOf(misled) !== undefined && divergences(one).length > 0 && divergences(two).length > 0, 25_000, 'nobody notices')
    await send(one, 'goes on')
    await settled([one, two])
    await forget(name)
    const emptied = made({ nodeID: 4, name })
    const restored: string[] = []
    emptied.restore = async (chunks) => {
      for await (const chunk of chunks) restored.push(Buffer.from(chunk).toString())
      await emptied.store.append([], { log: `${name}_log_0`, index: one.appliedIndexes.at(-1)! })
    }
    await emptied.start()
    expect(asked).toHaveLength(1)
    expect([['storage of 2'], ['storage of 3']]).toContainEqual(restored)
    expect(emptied.applyCount).toBe(0)
    await one.close()
    await two.close()
    await emptied.close()
    // Nobody is left but the one that has stopped: it is not asked.
    const alone = made({ nodeID: 5, name })
    alone.restore = () => Promise.reject(new Error('it is asked for'))
    await expect(alone.start()).rejects.toMatchObject({ code: 'IM_LOG_GAP' })
    expect(asked).toHaveLength(1)
  })

  it('does not end a copy of what has come to be in doubt meanwhile', async () => {
    const name = logName()
    let go = (): void => undefined
    const isHeld = new Promise<void>((resolve) => (go = resolve))
    const misled = made({ nodeID: 1, name, isMisled: true })
    misled.snapshot = async function* () {
      yield Buffer.from('half')
      await isHeld
    }
    const one = made({ nodeID: 2, name })
    await Promise.all([misled.start(), one.start()])
    await send(one, 'first')
    await send(one, 'second')
    await settled([misled, one])
    await forget(name)
    const emptied = made({ nodeID: 3, name })
    let chunkCount = 0
    let isWhole = false
    emptied.restore = async (chunks) => {
      for await (const _ of chunks) chunkCount++
      isWhole = true
    }
    const outcome = emptied.start().catch((error: unknown) => error)
    await until(() => chunkCount === 1, 25_000, 'nothing is given')
    await send(one, TOLD)
    await until(() => stopOf(misled) !== undefined, 25_000, 'it goes on')
    go()
    expect(await outcome).toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    expect(isWhole).toBe(false)
  })
})

describe.skipIf(NATS_SERVER === undefined)('nodes that have read the same', () => {
  it('leave the storage of one alone that joins with what no log has brought, as long as the log is all there', async () => {
    const name = logName()
    const one = made({ nodeID: 1, name })
    one.snapshot = async function* () {
      yield Buffer.from(await Promise.resolve('storage of 1'))
    }
    await one.start()
    await send(one, 'first')
    const joining = made({ nodeID: 2, name })
    joining.restore = () => Promise.reject(new Error('what it has is thrown away'))
    await joining.start()
    expect(await joining.numbersIn(ROOM)).toHaveLength(1)
  })

  it('never say that they differ, under load, while one of them ends and comes back, and one begins in the middle', async () => {
    const name = logName()
    const three = await Promise.all([1, 2, 3].map((nodeID) => started({ nodeID, name, partitions: 2 })))
    const rooms = ['a', 'b', 'c', 'd'].map(room)
    const load = async (from: readonly LogNode[]): Promise<void> => {
      for (let round = 0; round < 15; round++) await Promise.all(rooms.flatMap((key) => from.map((node) => node.propose(key, [message(key)]))))
    }
    await load(three)
    await three[2]!.close()
    await load(three.slice(0, 2))
    const back = await started({ nodeID: 3, name, partitions: 2, store: three[2]!.store })
    const fourth = await started({ nodeID: 4, name, partitions: 2 })
    await load([three[0]!, back, fourth])
    const running = [three[0]!, three[1]!, back, fourth]
    await settled(running)
    await expectEqualStores(running, rooms)
    expect(nodes.flatMap(divergences)).toEqual([])
    expect(nodes.flatMap((node) => node.replicator.status().partitions.filter(({ stopped }) => stopped !== undefined))).toEqual([])
  })

  it('pass over bytes that no node has sent, tell them, and compare as before', async () => {
    const name = logName()
    const [one, misled] = await Promise.all([started({ nodeID: 1, name }), started({ nodeID: 2, name, isMisled: true })])
    const stranger = connectionTo(servers.urls)
    const nats = await stranger.acquire()
    for (const bytes of [Buffer.alloc(0), Buffer.from([9]), Buffer.alloc(1_000, 1), Buffer.alloc(23, 1), Buffer.from('{"json":true}')]) nats.publish(`${name}.digests`, bytes)
    // Of a partition that there is not.
    nats.publish(`${name}.digests`, Buffer.from('0101000007000000000000000100ff00000000000100010000002a', 'hex'))
    await nats.flush()
    await until(() => one.problems.length > 0, 25_000, 'it tells nobody')
    expect(one.problems.map(({ error, log, isStopped }) => [error.code, log, isStopped])).toEqual([['IM_PEER_UNREACHABLE', undefined, false]])
    expect(one.problems[0]!.error.detail).toMatch(/what another node says of its log could not be read/)
    expect([stopOf(one), stopOf(misled)]).toEqual([undefined, undefined])
    await send(one, TOLD)
    await until(() => stopOf(one) !== undefined && stopOf(misled) !== undefined, 25_000, 'they do not compare any more')
    await stranger.release()
  })
})
