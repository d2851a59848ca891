/**
 * What one stream of the log carries, with three nodes in this process that propose and apply.
 * `node --import tsx bench/cluster-log.ts [seconds]` needs a nats-server in the path.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { levelStorage } from 'imengine/level'
import { memoryMessageStore } from '../src/adapters/memory/index.ts'
import { ClusterConnection } from '../src/adapters/nats/connection.ts'
import { NatsReplicator } from '../src/adapters/nats/replicator.ts'
import type { MessageStore } from '../src/contracts/message-store.ts'
import { startNatsServers } from '../test/adapters/nats/servers.ts'

const seconds = Number(process.argv[2] ?? 5)
let lastID = 1n

async function measure(replicas: 1 | 3, kind: 'memory' | 'level', perProposal: number, channelCount: number): Promise<void> {
  const servers = await startNatsServers({ count: replicas })
  const folder = await mkdtemp(join(tmpdir(), 'imengine-bench-'))
  const closers: (() => Promise<void>)[] = []
  const replicators: NatsReplicator[] = []
  for (const nodeID of [1, 2, 3]) {
    let store: MessageStore = memoryMessageStore()
    if (kind === 'level') {
      const storage = levelStorage({ path: join(folder, String(nodeID)) })
      await storage.open()
      store = storage.messages
      closers.unshift(() => storage.close())
    }
    const options = { servers: servers.urls, clientName: 'bench', connectTimeoutMs: 2_000, reconnectPauseMs: 100, pingIntervalMs: 3_000 }
    const replicator = new NatsReplicator(new ClusterConnection(options), { name: 'bench', partitions: 1, replicas })
    closers.unshift(() => replicator.close())
    replicators.push(replicator)
    await replicator.start({ nodeID, logPosition: (log) => store.logPosition!(log), apply: (entries, position) => store.append(entries, position), operate: () => undefined, isolated: () => undefined })
  }
  const payload = Buffer.alloc(100, 1)
  const latencies: number[] = []
  let messageCount = 0
  let isOver = false
  const propose = async (replicator: NatsReplicator, channel: number): Promise<void> => {
    const key = { channelID: `c${channel}`, channelType: 2 }
    while (!isOver) {
      const messages = Array.from({ length: perProposal }, () => {
        const messageID = String(++lastID)
        const rest = { messageSeq: 0, fromUID: 'ann', timestampMs: Date.now(), expireSec: 0, topic: '', setting: 0 }
        return { messageID, clientMsgNo: `n${messageID}`, payload, ...key, ...rest, noPersist: false, redDot: true, syncOnce: false }
      })
      const sinceMs = performance.now()
      await replicator.propose(key, messages, AbortSignal.timeout(30_000))
      latencies.push(performance.now() - sinceMs)
      messageCount += perProposal
    }
  }
  const cpuFrom = process.cpuUsage()
  const fromMs = performance.now()
  const entriesFrom = replicators[0]!.status().partitions[0]!.appliedIndex
  const running = replicators.flatMap((replicator, i) => Array.from({ length: channelCount }, (_, j) => propose(replicator, 3 * j + i)))
  await new Promise((resolve) => setTimeout(resolve, 1_000 * seconds))
  isOver = true
  await Promise.all(running)
  const spanSec = (performance.now() - fromMs) / 1_000
  const entryCount = replicators[0]!.status().partitions[0]!.appliedIndex - entriesFrom
  const { user, system } = process.cpuUsage(cpuFrom)
  latencies.sort((a, b) => a - b)
  const at = (share: number): string => (latencies[Math.floor(latencies.length * share)] ?? 0).toFixed(1)
  const rate = (count: number): string => Math.round(count / spanSec).toLocaleString('en')
  process.stdout.write(
    `R${replicas} ${kind}, ${channelCount} channels a node, ${perProposal} a proposal: ${rate(entryCount)} entries/s, ${rate(messageCount)} messages/s, ` +
      `${((user + system) / messageCount).toFixed(0)} µs of this process each, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, load ${loadavg()[0]!.toFixed(1)}\n`,
  )
  for (const close of closers) await close()
  await servers.close()
  await rm(folder, { recursive: true, force: true })
}

for (const replicas of [1, 3] as const) {
  for (const kind of ['memory', 'level'] as const) {
    await measure(replicas, kind, 1, 30)
    await measure(replicas, kind, 1, 1_000)
    await measure(replicas, kind, 16, 200)
  }
}
