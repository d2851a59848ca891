/** One run of a cluster: servers, engines and the load, each a process of its own, and the CPU time of each kind over the span that counts. */
import { loadavg } from 'node:os'
import { startNatsServers, type NatsServers } from '../test/adapters/nats/servers.ts'
import { Child } from './measure.ts'
import { positive } from './options.ts'
import { sampleOf } from './sample-process.ts'
import type { FromLoad, FromServer, Job, Result, ServerSpec, ToServer } from './wire.ts'

export interface Topology {
  readonly name: string
  readonly engineCount: number
  /** 0: an engine without the option of a cluster */
  readonly natsCount: 0 | 1 | 3 | 5
  readonly replicas: number
  /** streams of the log */
  readonly partitions: number
}

const TOPOLOGIES: readonly Topology[] = [
  { name: 'alone', engineCount: 1, natsCount: 0, replicas: 0, partitions: 0 },
  { name: '1', engineCount: 1, natsCount: 1, replicas: 1, partitions: 1 },
  { name: '3', engineCount: 3, natsCount: 3, replicas: 3, partitions: 1 },
  { name: '5', engineCount: 5, natsCount: 5, replicas: 3, partitions: 1 },
]

/** Those that were asked for, each with every number of partitions that was. @throws TypeError for another name */
export function topologiesOf(names: string, partitions: string): Topology[] {
  return names.split(',').flatMap((name) => {
    const topology = TOPOLOGIES.find((each) => each.name === name)
    if (topology === undefined) throw new TypeError(`--topologies takes ${TOPOLOGIES.map((each) => each.name).join(', ')}, got ${name}`)
    return topology.natsCount === 0 ? [topology] : partitions.split(',').map((count) => ({ ...topology, partitions: positive('partitions', count) }))
  })
}

export interface ClusterRun {
  readonly result: Result
  readonly spanMs: number
  /** over the span, of all processes of a kind */
  readonly cpuMs: { readonly engines: number; readonly nats: number; readonly load: number }
  /** of the whole machine, over the minute before */
  readonly loadAverage: number
}

export type ClusterJob = Pick<Job, 'window' | 'ratePerSecond' | 'warmUpMs' | 'measureMs'>

const PAIR_COUNT = 100
/** Its stream is the one whose leader is killed. */
const STREAM = 'bench_log_0'

/**
 * @param killAfterMs  in the span, when to kill the server that leads a stream
 * @param nodeOptions  for the first engine
 * @throws when a process ends early, or the load has seen anything but every message once, in order
 */
export async function runCluster({ engineCount, natsCount, replicas, partitions }: Topology, job: ClusterJob, killAfterMs?: number, nodeOptions: readonly string[] = []): Promise<ClusterRun> {
  const [loadAverage] = loadavg() as [number]
  let nats: NatsServers | undefined
  const engines: Child<FromServer, ToServer>[] = []
  let load: Child<FromLoad, 'done'> | undefined
  let killing: Promise<void> | undefined
  try {
    nats = natsCount === 0 ? undefined : await startNatsServers({ count: natsCount })
    for (let index = 0; index < engineCount; index++) {
      const cluster = nats && { nodeID: index + 1, servers: nats.urls, replicas, partitions }
      const spec: ServerSpec = { kind: 'engine', transport: 'tcp', encryption: 'off', storage: 'level', ...(cluster && { cluster }) }
      engines.push(new Child('server-process.js', spec, index === 0 ? nodeOptions : []))
    }
    const ports = await Promise.all(engines.map(async (engine) => (await engine.next('listening')).port))
    const shared = { kind: 'engine', transport: 'tcp', encryption: 'off', topology: 'pairs', senderCount: PAIR_COUNT, receiverCount: PAIR_COUNT, payloadBytes: 100, drainMs: 30_000 } as const
    load = new Child('load-process.js', { task: 'traffic', job: { ...shared, ...job, port: ports[0]!, ports } })
    const cpuMs = async (): Promise<{ engines: number; nats: number }> => {
      const samples = await Promise.all(engines.map((engine) => (engine.send({ type: 'sample' }), engine.next('sample'))))
      return { engines: sumOf(samples), nats: sumOf((nats?.pids ?? []).map(sampleOf)) }
    }
    await load.next('begin')
    const fromMs = performance.now()
    const before = await cpuMs()
    if (killAfterMs !== undefined) killing = killLeader(nats!, killAfterMs)
    await load.next('end')
    const spanMs = performance.now() - fromMs
    const after = await cpuMs()
    const { result } = (await load.next('result')) as { result: Result }
    return {
      result,
      spanMs,
      cpuMs: { engines: after.engines - before.engines, nats: after.nats - before.nats, load: 1_000 * result.loadCPU * result.seconds },
      loadAverage,
    }
  } finally {
    await load?.end('done')
    await Promise.all(engines.map((engine) => engine.end({ type: 'close' })))
    await killing?.catch(() => undefined)
    await nats?.close()
  }
}

async function killLeader(nats: NatsServers, afterMs: number): Promise<void> {
  const leader = await nats.leaderOf(STREAM)
  await new Promise((resolve) => setTimeout(resolve, afterMs))
  await nats.kill(leader)
}

function sumOf(samples: readonly { readonly cpuMs: number }[]): number {
  return samples.reduce((sum, { cpuMs }) => sum + cpuMs, 0)
}
