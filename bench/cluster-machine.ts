/**
 * The replicated state machine by itself: engines without clients, each a process of its own with a level store, whose hosts send
 * messages from one user to another. Accepted, proposed, agreed on by the servers, read and stored by every node, told to the
 * host. First as many as a window lets through, then at fixed times. Checked: every node has stored every acknowledged number, and no more.
 * `npm run bench -- cluster-machine --topologies 3 --window 1000 --rates 2000 --runs 3 --seconds 4 --partitions 1`; `--window none`, `--rates none`.
 */
import { startNatsServers } from '../test/adapters/nats/servers.ts'
import { topologiesOf, type Topology } from './cluster-run.ts'
import { Child, interleave } from './measure.ts'
import { readOptions } from './options.ts'
import { mid, printHead, printTable, range, writeJSON } from './report.ts'
import { sampleOf } from './sample-process.ts'
import type { FromMachine, MachineSpec, Quantiles, ToMachine } from './wire.ts'

interface MachineRun {
  readonly messagesPerSecond: number
  readonly engineMicros: number
  readonly serverMicros: number
  readonly messagesPerEntry: number
  /** of the node that did worst */
  readonly latencyMs: Quantiles
}

interface Row {
  readonly name: string
  readonly topology: Topology
  readonly job: Pick<MachineSpec, 'window' | 'ratePerSecond'>
  readonly runs: MachineRun[]
}

const PAIR_COUNT = 100
const SETTLE_LIMIT_MS = 10_000

const options = readOptions([], { runs: '3', seconds: '4', 'warm-up': '8', topologies: '1,3', window: '1000', rates: '2000', partitions: '1' })
const numbers = (option: string): number[] => (options.more[option] === 'none' ? [] : options.more[option]!.split(',').map(Number))
const topologies = topologiesOf(options.more['topologies']!, options.more['partitions']!).filter(({ natsCount }) => natsCount > 0)
const rows = topologies.flatMap((topology): Row[] => [
  ...numbers('window').map((window) => ({ name: `${topology.name}, window ${window}`, topology, job: { window, ratePerSecond: 0 }, runs: [] })),
  ...numbers('rates').map((ratePerSecond) => ({ name: `${topology.name}, ${ratePerSecond}/s`, topology, job: { window: 0, ratePerSecond }, runs: [] })),
])

printHead(`${PAIR_COUNT} channels a node, payload 100 bytes, level, ${options.runs} runs of ${options.measureMs / 1_000} s`)
const measured = await interleave(rows, options.runs, ({ topology, job }) => measure(topology, job))
printTable(
  ['engines', 'nats-servers', 'partitions', 'under way, or a second, on each', 'messages/s', 'p50 ms', 'p99 ms', 'p99.9 ms', 'engines CPU µs/message', 'nats-servers CPU µs/message', 'messages an entry'],
  measured.map(({ topology, job, runs }) => [
    String(topology.engineCount),
    `${topology.natsCount}, R${topology.replicas}`,
    String(topology.partitions),
    job.ratePerSecond > 0 ? `${job.ratePerSecond}/s` : String(job.window),
    range(runs.map(({ messagesPerSecond }) => messagesPerSecond)),
    ...(['p50', 'p99', 'p999'] as const).map((quantile) => range(runs.map(({ latencyMs }) => latencyMs[quantile]), 1)),
    mid(runs.map(({ engineMicros }) => engineMicros)),
    mid(runs.map(({ serverMicros }) => serverMicros)),
    mid(runs.map(({ messagesPerEntry }) => messagesPerEntry)),
  ]),
)
writeJSON('cluster-machine', { runs: options.runs, rows: measured })

/** @throws when a node's store is not what was acknowledged */
async function measure({ engineCount, natsCount, replicas, partitions }: Topology, job: Row['job']): Promise<MachineRun> {
  const nats = await startNatsServers({ count: natsCount as 1 | 3 | 5 })
  const nodes: Child<FromMachine, ToMachine>[] = []
  const all = <T extends FromMachine['type']>(type: T): Promise<Extract<FromMachine, { type: T }>[]> => Promise.all(nodes.map((node) => node.next(type)))
  const tell = (message: ToMachine): void => nodes.forEach((node) => node.send(message))
  const serversMs = (): number => nats.pids.reduce((sum, pid) => sum + sampleOf(pid).cpuMs, 0)
  try {
    for (let nodeID = 1; nodeID <= engineCount; nodeID++) {
      const spec: MachineSpec = { nodeID, servers: nats.urls, replicas, partitions, pairCount: PAIR_COUNT, ...job }
      nodes.push(new Child('machine-process.js', spec))
    }
    await all('ready')
    tell({ type: 'begin' })
    await new Promise((resolve) => setTimeout(resolve, options.warmUpMs))
    tell({ type: 'measure' })
    const before = await all('measuring')
    const [fromMs, serversFromMs] = [performance.now(), serversMs()]
    await new Promise((resolve) => setTimeout(resolve, options.measureMs))
    tell({ type: 'end' })
    const after = await all('measured')
    const spanMs = performance.now() - fromMs
    const serversCPUMs = serversMs() - serversFromMs
    const count = after.reduce((sum, each) => sum + each.count, 0)
    const enginesCPUMs = after.reduce((sum, each, index) => sum + each.cpuMs - before[index]!.cpuMs, 0)
    await check(nodes, (await all('idle')).flatMap(({ acked }) => acked))
    return {
      messagesPerSecond: (count / spanMs) * 1_000,
      engineMicros: (enginesCPUMs / count) * 1_000,
      serverMicros: (serversCPUMs / count) * 1_000,
      messagesPerEntry: count / (after[0]!.entryCount - before[0]!.entryCount),
      latencyMs: after.map(({ latencyMs }) => latencyMs).reduce((worst, each) => (each.p99 > worst.p99 ? each : worst)),
    }
  } finally {
    await Promise.all(nodes.map((node) => node.end({ type: 'close' })))
    await nats.close()
  }
}

async function check(nodes: readonly Child<FromMachine, ToMachine>[], acked: readonly (readonly [channelID: string, messageSeq: number])[]): Promise<void> {
  const channelIDs = acked.map(([channelID]) => channelID)
  const wanted = acked.map(([, messageSeq]) => messageSeq).join()
  for (const [index, node] of nodes.entries()) {
    for (const sinceMs = performance.now(); ; ) {
      node.send({ type: 'look', channelIDs })
      const { lastSeqs } = await node.next('stored')
      if (lastSeqs.join() === wanted) break
      if (performance.now() - sinceMs > SETTLE_LIMIT_MS) throw new Error(`node ${index + 1} has not stored what was acknowledged`)
    }
  }
}
