/** One node of a cluster without clients, in a process of its own: an engine with a level store that is given messages by its host. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allowAnyToken, ChannelType, IMEngine, personChannelID } from 'imengine'
import { levelStorage } from 'imengine/level'
import { natsCluster } from 'imengine/nats'
import type { FromMachine, MachineSpec, ToMachine } from './wire.ts'
import { Histogram } from './load/histogram.ts'

const { nodeID, servers, replicas, partitions, window, ratePerSecond, pairCount } = JSON.parse(process.argv[2]!) as MachineSpec
const folder = mkdtempSync(join(tmpdir(), 'imengine-bench-'))
const storage = levelStorage({ path: folder })
const cluster = natsCluster({ servers, replicas, partitions, name: 'bench' })
const engine = new IMEngine({ nodeID, storage, tokenVerifier: allowAnyToken(), ...cluster, limits: { replicateTimeoutMs: 30_000 } })
engine.on('error', (error) => console.error('engine:', error))
await engine.start()
const tell = (message: FromMachine): void => void process.send!(message)

const payload = Buffer.alloc(100, 'm')
/** by channel the last number that was told, which every node's store must come to */
const acked = new Map<string, number>()
const latencies = new Histogram()
let isMeasuring = false
let isOver = false
let underWayCount = 0
let becameIdle: () => void = () => undefined

async function send(pair: number, sinceMs: number): Promise<void> {
  const [sender, receiver] = [`s${nodeID}-${pair}`, `r${nodeID}-${pair}`]
  const channelID = personChannelID(sender, receiver)
  underWayCount++
  const { messageSeq } = await engine.messages.send({ channelID: receiver, channelType: ChannelType.Person, fromUID: sender, payload })
  underWayCount--
  acked.set(channelID, Math.max(acked.get(channelID) ?? 0, messageSeq))
  if (isMeasuring) latencies.add(performance.now() - sinceMs)
  if (underWayCount === 0) becameIdle()
}

async function sendOneAfterTheOther(worker: number): Promise<void> {
  for (let n = worker; !isOver; n += window) await send(n % pairCount, performance.now())
}

/** At fixed times: what could not be sent in time is sent at once, and its time counts from when it was due. */
function sendAtFixedTimes(perSecond: number): void {
  const fromMs = performance.now()
  let sentCount = 0
  const timer = setInterval(() => {
    if (isOver) return clearInterval(timer)
    const dueCount = ((performance.now() - fromMs) * perSecond) / 1_000
    for (; sentCount < dueCount; sentCount++) void send(sentCount % pairCount, fromMs + (sentCount * 1_000) / perSecond)
  }, 1)
}

process.on('message', (message: ToMachine) => {
  switch (message.type) {
    case 'begin':
      if (ratePerSecond > 0) sendAtFixedTimes(ratePerSecond)
      else for (let worker = 0; worker < window; worker++) void sendOneAfterTheOther(worker)
      break
    case 'measure':
      isMeasuring = true
      latencies.clear()
      tell({ type: 'measuring', cpuMs: cpuMs(), entryCount: entryCount() })
      break
    case 'end':
      isMeasuring = false
      isOver = true
      tell({ type: 'measured', cpuMs: cpuMs(), entryCount: entryCount(), count: latencies.count, latencyMs: latencies.quantiles() })
      void (underWayCount === 0 ? Promise.resolve() : new Promise<void>((resolve) => (becameIdle = resolve))).then(() => tell({ type: 'idle', acked: [...acked] }))
      break
    case 'look':
      void Promise.all(message.channelIDs.map(async (channelID) => storage.messages.lastSeq({ channelID, channelType: ChannelType.Person }))).then((lastSeqs) => tell({ type: 'stored', lastSeqs }))
      break
    case 'close':
      void close()
  }
})
process.on('disconnect', () => void close())
process.on('SIGINT', () => undefined) // the parent ends us, and what we have in a temporary folder
tell({ type: 'ready' })

function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}

/** applied here, of all partitions and nodes */
function entryCount(): number {
  return cluster.replicator.status().partitions.reduce((sum, { appliedIndex }) => sum + appliedIndex, 0)
}

async function close(): Promise<void> {
  await engine.close()
  rmSync(folder, { recursive: true, force: true })
  process.exit(0)
}
