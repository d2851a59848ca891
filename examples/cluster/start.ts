import { mkdtemp, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeResult, runChaos } from './chaos.ts'
import { Cluster, type ClusterOptions } from './cluster.ts'

const PORTS = [5001, 5002, 5003] as const
const TCP_PORTS = [5101, 5102, 5103] as const

const rounds = roundsFrom(process.argv.slice(2))
const folder = rounds === undefined ? (process.env.DATA_DIR ?? './data/cluster') : await mkdtemp(join(tmpdir(), 'imengine-chaos-'))

console.log('Starting three nats-servers and three nodes …')
let cluster: Cluster | undefined
let stopping = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stopping) return
    stopping = true
    console.log('Closing …')
    if (cluster !== undefined) void close(cluster, 0)
  })
}

try {
  cluster = await Cluster.start(rounds === undefined ? { dataDir: folder, ports: PORTS, tcpPorts: TCP_PORTS } : chaosOptions(folder))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  if (rounds !== undefined) await rmdir(folder).catch(() => undefined) // what is in it says why
  process.exit(1)
}
if (stopping) await close(cluster, 0)
else if (rounds === undefined) welcome(cluster)
else await chaos(cluster, rounds)

function welcome({ ports, tcpPorts }: Cluster): void {
  const line = (port: number, index: number): string => `    Node ${index + 1}     http://localhost:${port}    TCP localhost:${tcpPorts[index]}`
  console.log(`
  imengine chat is running on three nodes

${ports.map(line).join('\n')}
    Data       ${folder}

  Open the pages of two nodes under two names. Ctrl+C ends everything; what was said is there at the next start.
`)
}

async function chaos(running: Cluster, count: number): Promise<void> {
  try {
    const result = await runChaos(running, { rounds: count, say: (text) => console.log(text) })
    console.log(`\n${describeResult(result)}`)
    await close(running, result.lostCount === 0 ? 0 : 1)
  } catch (error) {
    if (stopping) return // it is being closed under its feet
    console.error(error)
    await close(running, 1)
  }
}

async function close(running: Cluster, exitCode: number): Promise<void> {
  stopping = true
  await running.close()
  if (rounds !== undefined) await rm(folder, { recursive: true, force: true })
  process.exit(exitCode)
}

function chaosOptions(dataDir: string): ClusterOptions {
  return { dataDir, ports: [0, 0, 0], offline: 'push' }
}

/** `--chaos` or `--chaos 10`; undefined without it */
function roundsFrom(args: readonly string[]): number | undefined {
  if (args[0] !== '--chaos') return undefined
  const count = Number(args[1] ?? 3)
  if (Number.isInteger(count) && count >= 1) return count
  console.error(`--chaos takes a number of rounds, and not "${args[1]}".`)
  process.exit(1)
}
