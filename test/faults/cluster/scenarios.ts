import { connect as connectSocket } from 'node:net'
import { connect } from '@nats-io/transport-node'
import { seededRandom, TestClient } from 'imengine/testing'
import { encodeEntry } from '../../../src/adapters/nats/log-entry.ts'
import { partitionOf } from '../../../src/adapters/nats/partitions.ts'
import { until } from '../../adapters/nats/servers.ts'
import { inTime, NODE_COUNT, READY_LIMIT_MS } from './cluster.ts'
import type { Stage } from './stage.ts'

export interface Scenario {
  readonly name: string
  /** it runs where not everything does */
  readonly isDefault?: boolean
  /** servers fail, which they have to be able to agree after: see `SERVERS_AGREE` */
  readonly failsServers?: boolean
  play(stage: Stage): Promise<void>
}

/** The longest time without any SENDACK while every stream has its leader. */
const PAUSE_BOUND_MS = 6_000
/** The same when a leader has gone, which may have led all streams: servers look for another one after four to nine seconds. */
const ELECTION_BOUND_MS = 12_000
const others = (index: number): number[] => [0, 1, 2].filter((each) => each !== index)

async function killServer(stage: Stage, index: number): Promise<void> {
  stage.fault(`kill -9 of server ${index}`)
  await stage.cluster.servers.kill(index)
}

async function startServer(stage: Stage, index: number): Promise<void> {
  stage.note(`server ${index} starts`)
  await stage.cluster.servers.start(index)
  await stage.cluster.servers.ready(READY_LIMIT_MS)
}

async function startNode(stage: Stage, index: number): Promise<void> {
  stage.note(`node ${index + 1} starts`)
  await stage.cluster.startNode(index)
}

/** A server that leads none of the streams, or fewest. */
async function followerOf(stage: Stage, partition: number): Promise<number> {
  const leader = await stage.cluster.leaderOf(partition)
  return stage.random.pick(others(leader))
}

async function freezeServer(stage: Stage, index: number, ms: number): Promise<void> {
  stage.fault(`SIGSTOP of server ${index}`)
  stage.cluster.servers.freeze(index)
  await stage.hold(ms)
  stage.note(`SIGCONT of server ${index}`)
  stage.cluster.servers.thaw(index)
}

async function partLeaderOf(stage: Stage, partition: number, ms: number): Promise<void> {
  const leader = await stage.cluster.leaderOf(partition)
  stage.fault(`server ${leader}, which leads stream ${partition}, is cut off from the others`)
  stage.cluster.cutServer(leader)
  await stage.hold(ms)
  stage.note(`server ${leader} is back among the others`)
  stage.cluster.healServer(leader)
}

/** Users who are connected to one node only and go nowhere else. @returns what ends their connections */
async function stayAt(stage: Stage, index: number, uids: readonly string[]): Promise<() => void> {
  const sockets = await Promise.all(uids.map(async (uid) => {
    const socket = connectSocket({ port: stage.cluster.ports()[index]!, host: '127.0.0.1' })
    const closed = new Promise<void>((resolve) => socket.on('error', () => undefined).on('close', () => resolve()))
    const client = new TestClient({ write: (bytes) => void socket.write(bytes), onData: (listener) => void socket.on('data', listener), closed })
    await client.connect({ uid, plaintext: true })
    return socket
  }))
  return () => {
    for (const socket of sockets) socket.destroy()
  }
}

/** Or is the connection ended before it is answered? */
async function isLetIn(port: number, uid: string): Promise<boolean> {
  const socket = connectSocket({ port, host: '127.0.0.1' })
  const closed = new Promise<void>((resolve) => socket.on('error', () => undefined).on('close', () => resolve()))
  const client = new TestClient({ write: (bytes) => void socket.write(bytes), onData: (listener) => void socket.on('data', listener), closed })
  try {
    await inTime(client.connect({ uid, deviceID: `asks ${port}`, plaintext: true }), 10_000, 'no CONNACK and no end')
    return true
  } catch {
    return client.isClosed ? false : Promise.reject(new Error('a login that is neither answered nor ended'))
  } finally {
    socket.destroy()
  }
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'kill -9 of a leader',
    isDefault: true,
    failsServers: true,
    async play(stage) {
      const leader = await stage.cluster.leaderOf(0)
      await killServer(stage, leader)
      await stage.acks(600)
      await startServer(stage, leader)
      await stage.finish({ pauseMs: ELECTION_BOUND_MS })
    },
  },
  {
    name: 'SIGSTOP of a leader',
    async play(stage) {
      await freezeServer(stage, await stage.cluster.leaderOf(0), 10_000)
      await stage.finish()
    },
  },
  {
    name: 'kill -9 of a follower',
    async play(stage) {
      const follower = await followerOf(stage, 0)
      await killServer(stage, follower)
      await stage.acks(600)
      await startServer(stage, follower)
      await stage.finish()
    },
  },
  {
    name: 'SIGSTOP of a follower',
    async play(stage) {
      await freezeServer(stage, await followerOf(stage, 0), 5_000)
      await stage.finish()
    },
  },
  {
    name: 'kill -9 of an engine, whose users are offline within 10 s',
    isDefault: true,
    async play(stage) {
      const ghosts = ['ghost1', 'ghost2']
      const end = await stayAt(stage, 0, ghosts)
      const seen = async (): Promise<number[]> => (await stage.cluster.ask(1, { kind: 'online', uids: ghosts })).flat()
      await until(async () => (await seen()).length === ghosts.length, 20_000, 'the users are not online elsewhere')
      stage.fault('kill -9 of node 1')
      await stage.cluster.killNode(0)
      end()
      const sinceMs = performance.now()
      await until(async () => (await seen()).length === 0, process.env['CLUSTER_FULL'] === '1' ? 10_000 : 40_000, 'users of a killed node are still online')
      stage.note(`its users were offline after ${Math.round(performance.now() - sinceMs)} ms`)
      process.stdout.write(`cluster.test.ts: users of a killed node were offline after ${Math.round(performance.now() - sinceMs)} ms\n`)
      await startNode(stage, 0)
      await stage.finish({ pauseMs: PAUSE_BOUND_MS })
    },
  },
  {
    name: 'kill -9 of an engine together with its server',
    async play(stage) {
      stage.fault('kill -9 of node 2 and server 1')
      await Promise.all([stage.cluster.killNode(1), stage.cluster.servers.kill(1)])
      await stage.acks(600)
      await startServer(stage, 1)
      await startNode(stage, 1)
      await stage.finish()
    },
  },
  {
    name: 'kill -9 of all servers, and their restart',
    isDefault: true,
    failsServers: true,
    async play(stage) {
      stage.fault('kill -9 of all servers')
      await stage.cluster.servers.end()
      await stage.hold(1_500)
      stage.note('all servers start')
      await Promise.all([0, 1, 2].map((index) => stage.cluster.servers.start(index)))
      await stage.cluster.servers.ready(READY_LIMIT_MS)
      await stage.finish()
    },
  },
  {
    name: 'SIGSTOP of an engine, and SIGCONT',
    async play(stage) {
      stage.fault('SIGSTOP of node 3')
      stage.cluster.freezeNode(2)
      await stage.hold(8_000)
      stage.note('SIGCONT of node 3')
      stage.cluster.thawNode(2)
      await stage.finish()
    },
  },
  {
    name: 'a leader that is parted from the other servers, and healing',
    isDefault: true,
    failsServers: true,
    play: (stage) => stage.whileParted(async () => {
      await partLeaderOf(stage, 0, 12_000)
      await stage.finish()
    }),
  },
  {
    name: 'the leader of one stream after the other cut off for a while',
    play: (stage) => stage.whileParted(async () => {
      for (let partition = 0; partition < stage.cluster.partitionCount; partition++) {
        await partLeaderOf(stage, partition, 7_000)
        await stage.acks(300)
      }
      await stage.finish()
    }),
  },
  {
    name: 'rolling restart of everything',
    async play(stage) {
      for (let index = 0; index < NODE_COUNT; index++) {
        stage.fault(`node ${index + 1} ends`)
        await stage.cluster.closeNode(index)
        await startNode(stage, index)
        await stage.acks(100)
      }
      for (let index = 0; index < NODE_COUNT; index++) {
        await killServer(stage, index)
        await startServer(stage, index)
        await stage.acks(100)
      }
      await stage.finish()
    },
  },
  {
    name: 'no quorum: SENDs get 18 in time, the history can be read, and all goes on by itself',
    async play(stage) {
      const { cluster, history } = stage
      stage.fault('kill -9 of servers 0 and 1')
      await Promise.all([cluster.servers.kill(0), cluster.servers.kill(1)])
      const [room] = history.rooms
      await stage.hold(1_000)
      const logs = await cluster.logs(history.rooms)
      if (logs.some((log) => log[0]!.messages.length === 0)) history.violate('a node has no history to show')
      await stage.hold(8_000)
      const after = await cluster.logs([room!])
      await stage.hold(500)
      const later = await cluster.logs([room!])
      if (JSON.stringify(after) !== JSON.stringify(later)) history.violate('something was stored without a majority')
      stage.note('the servers start')
      await Promise.all([cluster.servers.start(0), cluster.servers.start(1)])
      await cluster.servers.ready(READY_LIMIT_MS)
      const told18 = stage.clients.reduce((sum, { moves }) => sum + (moves['SENDACK 18'] ?? 0), 0)
      if (told18 === 0) history.violate('nobody was told 18')
      const unanswered = stage.clients.reduce((sum, { moves }) => sum + (moves['no SENDACK'] ?? 0), 0)
      if (unanswered > 0) history.violate(`${unanswered} clients had no answer within replicateTimeoutMs and 2 s`)
      await stage.finish()
    },
  },
  {
    name: 'clocks that differ by minutes',
    isDefault: true,
    async play(stage) {
      for (const [index, offsetMs] of [[0, -7 * 60_000], [2, 11 * 60_000]] as const) {
        stage.fault(`node ${index + 1} ends, and comes back with a clock that is ${offsetMs} ms ahead`)
        await stage.cluster.killNode(index)
        await stage.cluster.startNode(index, offsetMs)
        await stage.acks(200)
      }
      for (const index of [0, 2]) {
        await stage.cluster.closeNode(index)
        await startNode(stage, index)
        await stage.acks(100)
      }
      await stage.finish()
    },
  },
  {
    name: 'a full disk on one node',
    isDefault: true,
    async play(stage) {
      const { cluster, history } = stage
      stage.fault('the disk of node 2 is full')
      await cluster.ask(1, { kind: 'disk', isFull: true })
      await stage.acks(400) // through the others
      const { partitions, errors } = await cluster.ask(1, { kind: 'status' })
      if ((errors['IM_STORE_FULL'] ?? 0) === 0) history.violate('node 2 says nothing of its disk')
      if (partitions.every(({ appliedIndex, lastIndex }) => appliedIndex >= lastIndex)) history.violate('node 2 is not behind')
      stage.note('there is room again')
      await cluster.ask(1, { kind: 'disk', isFull: false })
      await stage.finish({ pauseMs: PAUSE_BOUND_MS })
    },
  },
  {
    name: 'an entry of a later version: nobody goes on behind it, and all say so',
    async play(stage) {
      const { cluster, history } = stage
      await cluster.settled()
      const nats = await connect({ servers: cluster.servers.urls })
      const bytes = Buffer.from(encodeEntry({ nodeID: 9, boot: '0'.repeat(16), number: 1 }, []))
      bytes[0] = 99
      stage.fault('an entry of a later version')
      await nats.request(`${cluster.name}.log.0`, bytes, { timeout: 5_000 })
      await nats.close()
      const stopped = async (): Promise<boolean> => (await cluster.statuses()).every(({ partitions }) => partitions[0]!.stopped === 'IM_LOG_FORMAT')
      await until(stopped, 25_000, 'not every node has stopped')
      const through0 = history.rooms.filter(({ key }) => partitionOf(key, cluster.partitionCount) === 0)
      const before = await cluster.logs(through0)
      await stage.leave()
      // A node that misses a part of what the others know lets nobody believe that it does not: `whenIsolated` is as it is by default.
      for (const port of cluster.ports()) if (await isLetIn(port!, through0[0]!.uids[0]!)) history.violate('a node that has stopped lets clients in')
      const after = await cluster.logs(through0)
      if (JSON.stringify(before) !== JSON.stringify(after)) history.violate('something was applied behind it')
      const told = (await cluster.statuses()).filter(({ errors }) => (errors['IM_LOG_FORMAT'] ?? 0) > 0).length
      if (told < NODE_COUNT) history.violate(`only ${told} nodes say so`)
      history.checkAcked(after, through0)
      process.stdout.write(`cluster.test.ts: an entry of a later version: ${history.ackedCount} acknowledged\n`)
      if (history.violationCount > 0) throw new Error(stage.report(`${history.violationCount} violations`))
      stage.isSpent = true
    },
  },
]

type Fault = 'kill server' | 'freeze server' | 'kill node' | 'freeze node' | 'close node' | 'kill node and server' | 'kill all servers' | 'full disk'
/** Servers that are parted have scenarios of their own. */
const FAULTS: readonly Fault[] = ['kill server', 'kill server', 'freeze server', 'kill node', 'kill node', 'freeze node', 'close node', 'kill node and server', 'kill all servers', 'full disk']

/** Five faults drawn by the seed, one after the other or overlapping, each healed before the end. */
export function randomMix(seed: number): Scenario {
  return {
    name: `mix ${seed}`,
    async play(stage) {
      const random = seededRandom(seed)
      const plan = Array.from({ length: 5 }, () => ({
        fault: random.pick(FAULTS),
        index: random.below(3),
        ms: 500 + random.below(4_500),
        /** until the next one begins; it may begin before this one is healed */
        nextMs: random.below(4_000),
      }))
      stage.note(`seed ${seed}: ${JSON.stringify(plan)}`)
      const busy = new Set<string>()
      const running: Promise<void>[] = []
      for (const { fault, index, ms, nextMs } of plan) {
        const inflicted = inflict(stage, fault, index, ms, busy)
        inflicted.catch(() => undefined) // heard below
        running.push(inflicted)
        await stage.hold(nextMs)
      }
      await Promise.all(running)
      await stage.finish()
    },
  }
}

/** One fault and its end. What is in another one's hands already is left to it. */
async function inflict(stage: Stage, fault: Fault, index: number, ms: number, busy: Set<string>): Promise<void> {
  const { cluster } = stage
  const needsServer = /server/.test(fault)
  const needsNode = /node|disk/.test(fault)
  const servers = fault === 'kill all servers' ? [0, 1, 2] : needsServer ? [index] : []
  const wanted = [...servers.map((each) => `server ${each}`), ...(needsNode ? [`node ${index}`] : [])]
  if (wanted.some((each) => busy.has(each))) return stage.note(`${fault} ${index}: passed over`)
  for (const each of wanted) busy.add(each)
  stage.fault(`${fault}, ${index}, for ${ms} ms`)
  if (fault === 'freeze server') cluster.servers.freeze(index)
  else if (needsServer) await Promise.all(servers.map((each) => cluster.servers.kill(each)))
  if (fault === 'freeze node') cluster.freezeNode(index)
  else if (fault === 'full disk') await cluster.ask(index, { kind: 'disk', isFull: true })
  else if (fault === 'close node') await cluster.closeNode(index)
  else if (needsNode) await cluster.killNode(index)
  await stage.hold(ms)
  stage.note(`${fault}, ${index}: ends`)
  if (fault === 'freeze server') cluster.servers.thaw(index)
  else if (needsServer) await Promise.all(servers.map((each) => cluster.servers.start(each)))
  if (fault === 'freeze node') cluster.thawNode(index)
  else if (fault === 'full disk') await cluster.ask(index, { kind: 'disk', isFull: false })
  else if (needsNode) await cluster.startNode(index)
  for (const each of wanted) busy.delete(each)
}
