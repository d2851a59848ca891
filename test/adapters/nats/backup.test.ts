import { createReadStream, createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ChannelType, DeviceFlag, IMEngine, ReasonCode, staticTokenVerifier } from 'imengine'
import { levelStorage, type LevelStorage } from 'imengine/level'
import { natsCluster, type NatsCluster } from 'imengine/nats'
import { connectTestClient } from 'imengine/testing'
import { logName } from './log.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

const report = (): void => undefined

// #region node
interface NodeOptions {
  readonly nodeID: number // another one for every node
  readonly folder: string // this node's own, on a disk of its own
  readonly servers: readonly string[] // the same for all: nats://nats-1.internal:4222 and so on
  readonly name: string // the cluster's
}

async function startNode({ nodeID, folder, servers, name }: NodeOptions): Promise<Node> {
  const storage = levelStorage({ path: folder })
  const cluster = natsCluster({ servers, name, onError: report })
  const engine = new IMEngine({ nodeID, storage, tokenVerifier: staticTokenVerifier(storage.tokens), ...cluster })
  engine.on('error', report)
  await engine.start() // it has everything now that was in the log
  return { engine, storage, cluster }
}
// #endregion

interface Node {
  readonly engine: IMEngine
  readonly storage: LevelStorage
  readonly cluster: NatsCluster
}

// #region health
/** For the load balancer, asked every few seconds: should clients come to this node? */
function isFit({ engine, cluster }: Node): boolean {
  const { isConnected, partitions } = cluster.replicator.status()
  if (engine.state !== 'running' || !isConnected) return false
  return partitions.every(({ stopped, appliedIndex, lastIndex }) => stopped === undefined && lastIndex - appliedIndex < 1_000)
}
// #endregion

// #region backup
/** Of a node that is running: all it has at this moment, in one file. */
async function backUp({ storage }: Node, file: string): Promise<void> {
  await pipeline(Readable.from(storage.snapshot()), createWriteStream(file))
}

/** Into the folder of a node that is not running. What was in it is gone. */
async function restore(file: string, folder: string): Promise<void> {
  const storage = levelStorage({ path: folder })
  await storage.open()
  await storage.restore(createReadStream(file))
  await storage.close()
}
// #endregion

let servers: NatsServers
let root: string
const nodes: Node[] = []

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'imengine-backup-'))
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(nodes.splice(0).map(({ engine }) => engine.close({ drainMs: 0 })))
})

afterAll(async () => {
  await servers?.close()
  await rm(root, { recursive: true, force: true })
})

async function started(name: string, nodeID: number): Promise<Node> {
  const node = await startNode({ nodeID, folder: folderOf(name, nodeID), servers: servers.urls, name })
  nodes.push(node)
  return node
}

const folderOf = (name: string, nodeID: number): string => join(root, `${name}-${nodeID}`)

async function say(node: Node, text: string): Promise<number> {
  return (await node.engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: text, payload: Buffer.from(text) })).messageSeq
}

async function historyOf({ engine }: Node): Promise<string[]> {
  const found: string[] = []
  for await (const { messageSeq, clientMsgNo } of engine.messages.range(TEAM)) found.push(`${messageSeq} ${clientMsgNo}`)
  return found
}

/** A cluster of one with two messages and a token; a backup of it; a third message. */
async function backedUp(name: string): Promise<{ node: Node; file: string }> {
  const node = await started(name, 1)
  await node.engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
  await node.engine.users.setToken('bob', { deviceFlag: DeviceFlag.App, token: 'token-of-bob' })
  await say(node, 'one')
  await say(node, 'two')
  const file = join(root, `${name}.backup`)
  await backUp(node, file)
  await say(node, 'three')
  return { node, file }
}

describe.skipIf(NATS_SERVER === undefined)('a backup', () => {
  it('put in the folder of a node is brought up to date by the log', async () => {
    const name = logName()
    const { file } = await backedUp(name)
    await restore(file, folderOf(name, 2))
    expect(await historyOf(await started(name, 2))).toEqual(['1 one', '2 two', '3 three'])
  })

  it('put in the folders of all nodes is where a cluster of another name begins, when the log is lost as well', async () => {
    const name = logName()
    const { node, file } = await backedUp(name)
    await node.engine.close()
    const [anew, both] = [logName(), [1, 2]]
    for (const nodeID of both) await restore(file, folderOf(anew, nodeID))
    const [one, two] = [await started(anew, 1), await started(anew, 2)]
    for (const each of [one, two]) expect(await historyOf(each)).toEqual(['1 one', '2 two'])
    expect(await say(two, 'one')).toBe(1) // a repeat is one
    expect(await say(two, 'next')).toBe(3)
    await until(async () => (await historyOf(one)).length === 3, 25_000, 'the other node has not applied it')
    const { connack } = await connectTestClient(one.engine, { uid: 'bob', token: 'token-of-bob' })
    expect(connack.reasonCode).toBe(ReasonCode.Success)
  })
})

describe.skipIf(NATS_SERVER === undefined)('a node', () => {
  it('is fit for clients while it runs and has the servers', async () => {
    const own = await startNatsServers()
    try {
      const node = await startNode({ nodeID: 1, folder: folderOf('fit', 1), servers: own.urls, name: 'fit' })
      nodes.push(node)
      expect(isFit(node)).toBe(true)
      await own.kill(0)
      await until(() => !isFit(node), 25_000, 'it is fit without a server')
      await own.start(0)
      await own.ready()
      await until(() => isFit(node), 25_000, 'it is not fit again')
      await node.engine.close()
      expect(isFit(node)).toBe(false)
    } finally {
      await own.close()
    }
  })
})
