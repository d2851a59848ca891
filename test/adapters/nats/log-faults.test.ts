import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { levelStorage, type LevelStorage } from 'imengine/level'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AppendResult } from '../../../src/contracts/message-store.ts'
import type { ChannelKey } from '../../../src/model/channel.ts'
import type { Message } from '../../../src/model/message.ts'
import { expectEqualStores, LogNode, logName, message, room, settled } from './log.ts'
import { NATS_SERVER, SERVERS_AGREE, startNatsServers, until, type NatsServers } from './servers.ts'

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f'].map(room)

/** Clients that send one message after the other, each again and again, also through other nodes, until it is acknowledged. */
class Load {
  readonly acked: { readonly key: ChannelKey; readonly message: Message; readonly result: AppendResult }[] = []
  failedCount = 0
  readonly #nodes: readonly LogNode[]
  readonly #clients: Promise<void>[]
  #isOver = false

  constructor(nodes: readonly LogNode[], clientCount: number) {
    this.#nodes = nodes
    this.#clients = Array.from({ length: clientCount }, (_, i) => this.#send(i))
  }

  /** Resolves when so many more have been acknowledged. */
  async goesOn(count = 300, timeoutMs = 45_000): Promise<void> {
    const wanted = this.acked.length + count
    await until(() => this.acked.length >= wanted, timeoutMs, 'nothing is acknowledged any more')
  }

  async end(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#clients)
  }

  async #send(client: number): Promise<void> {
    for (let n = 0; !this.#isOver; n++) {
      const key = KEYS[(client + n) % KEYS.length]!
      const sent = message(key, `${client}-${n}`)
      for (let attempt = client; ; attempt++) {
        try {
          const [result] = await this.#nodes[attempt % this.#nodes.length]!.propose(key, [sent], 1_500)
          this.acked.push({ key, message: sent, result: result! })
          break
        } catch {
          this.failedCount++
          await new Promise((resolve) => setTimeout(resolve, 20)) // a client pauses before it repeats
        }
      }
    }
  }
}

const isWanted = SERVERS_AGREE || process.env['CLUSTER_FULL'] === '1'

describe.skipIf(NATS_SERVER === undefined || !isWanted)('under load on three servers with three replicas', () => {
  let servers: NatsServers
  let folder: string
  let storage: LevelStorage
  const nodes: LogNode[] = []
  const name = logName()

  beforeAll(async () => {
    servers = await startNatsServers({ count: 3 })
    folder = await mkdtemp(join(tmpdir(), 'imengine-log-'))
    storage = levelStorage({ path: folder, durability: 'os' })
    await storage.open()
    for (const nodeID of [1, 2, 3]) {
      const urls = [servers.url(nodeID - 1), ...servers.urls]
      nodes.push(await new LogNode({ nodeID, name, servers: urls, replicas: 3, partitions: 2, ...(nodeID === 3 ? { store: storage.messages } : {}) }).start())
    }
  })

  afterAll(async () => {
    await Promise.all(nodes.map((node) => node.close()))
    await storage.close()
    await servers.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** What was acknowledged is in every store, once, where it was told; no store has a gap, and all are equal. */
  async function expectNothingLost({ acked }: Load): Promise<void> {
    await settled(nodes)
    const found = await expectEqualStores(nodes, KEYS)
    expect(acked.length).toBeGreaterThan(0)
    for (const { key, message: sent, result } of acked) {
      expect(found.get(`2:${key.channelID}`)?.[result.messageSeq - 1]).toBe(sent.clientMsgNo)
    }
  }

  it.each([
    ['the leader of a stream', async () => [await servers.leaderOf(`${name}_log_0`)]],
    ['a follower', async () => [((await servers.leaderOf(`${name}_log_0`)) + 1) % 3]],
    ['all of them', () => Promise.resolve([0, 1, 2])],
  ] as const)('kill -9 of %s, and its return, loses, repeats and reorders nothing, and it goes on', async (what, chosen) => {
    const load = new Load(nodes, 12)
    await load.goesOn()
    const victims = await chosen()
    await Promise.all(victims.map((index) => servers.kill(index)))
    if (victims.length < 3) await load.goesOn()
    await Promise.all(victims.map((index) => servers.start(index)))
    await load.goesOn()
    await load.end()
    await expectNothingLost(load)
    for (const { replicator } of nodes) for (const { stopped } of replicator.status().partitions) expect(stopped).toBeUndefined()
    if (what === 'all of them') expect(nodes.flatMap(({ problems }) => problems).map(({ error }) => error.code)).toContain('IM_CLUSTER_UNAVAILABLE')
  }, 120_000)

  it('a leader that hangs holds nobody up for good, and comes back to the others', async () => {
    const load = new Load(nodes, 12)
    await load.goesOn()
    const leader = await servers.leaderOf(`${name}_log_1`)
    servers.freeze(leader)
    await load.goesOn()
    servers.thaw(leader)
    await load.goesOn()
    await load.end()
    await expectNothingLost(load)
  }, 120_000)
})
