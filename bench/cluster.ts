/**
 * A cluster on one machine: engines with level stores and nats-servers, each a process of its own, beside one engine alone. The
 * two ends of a pair are on different engines. W1 with a window, then at fixed rates for each engine, then what happens when the
 * leader of a stream is killed. The warm-up is long, because several engines share the time to have their code compiled.
 * `npm run bench -- cluster --topologies alone,1,3,5 --window 64,16 --rates 2000 --runs 3
 * --seconds 3 --partitions 1,3`; `--window none`, `--rates none` and `--kill no` leave a part out; `--node-flags='--cpu-prof --cpu-prof-dir=FOLDER'`
 * are for the process of the first engine.
 */
import { interleave } from './measure.ts'
import { runCluster, topologiesOf, type ClusterRun, type Topology } from './cluster-run.ts'
import { readOptions } from './options.ts'
import { mid, printHead, printTable, range, writeJSON } from './report.ts'
import { median } from './sample.ts'

interface Row {
  readonly name: string
  readonly topology: Topology
  /** a closed loop with so many messages of each sender under way, or an open one with so many a second on each engine */
  readonly job: { readonly window: number } | { readonly window: 0; readonly ratePerEngine: number }
  readonly killsLeader: boolean
  readonly runs: ClusterRun[]
}

/** From when a leader is killed to the last that can be told of it. */
const KILL = { afterMs: 1_500, spanMs: 10_000, window: 16 }
const MAX_PAUSE_MS = 6_000

const options = readOptions([], { runs: '3', 'warm-up': '10', topologies: 'alone,1,3,5', window: '64,16', rates: '2000', partitions: '1', kill: 'yes', 'node-flags': '' })
const { more } = options
const topologies = topologiesOf(more['topologies']!, more['partitions']!)
const numbers = (option: string): number[] => (more[option] === 'none' ? [] : more[option]!.split(',').map(Number))
const rowOf = (topology: Topology, what: string, job: Row['job'], killsLeader = false): Row => ({ name: `${nameOf(topology)}, ${what}`, topology, job, killsLeader, runs: [] })
const closedRows = numbers('window').flatMap((window) => topologies.map((topology) => rowOf(topology, `window ${window}`, { window })))
const openRows = numbers('rates').flatMap((ratePerEngine) => topologies.map((topology) => rowOf(topology, `${ratePerEngine}/s`, { window: 0, ratePerEngine })))
const killRows = more['kill'] === 'no' ? [] : topologies.filter(({ replicas }) => replicas > 1).map((topology) => rowOf(topology, 'leader killed', KILL, true))

printHead(`100 pairs, payload 100 bytes, level, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await interleave([...closedRows, ...openRows, ...killRows], options.runs, ({ topology, job, killsLeader }) => {
  const ratePerSecond = 'ratePerEngine' in job ? job.ratePerEngine * topology.engineCount : undefined
  return runCluster(
    topology,
    { window: job.window, ...(ratePerSecond !== undefined && { ratePerSecond }), warmUpMs: options.warmUpMs, measureMs: killsLeader ? KILL.spanMs : options.measureMs },
    killsLeader ? KILL.afterMs : undefined,
    more['node-flags']!.split(' ').filter(Boolean),
  )
})
const of = (rows: readonly Row[]): Row[] => rows.filter((row) => measured.includes(row))
const micros = (run: ClusterRun, role: keyof ClusterRun['cpuMs']): number => ((run.cpuMs[role] / run.spanMs) * 1e6) / run.result.messagesPerSecond
const cpuColumns = ['engines CPU µs/message', 'nats-servers CPU µs/message', 'load generator CPU µs/message']
const cpuCells = ({ runs }: Row): string[] => (['engines', 'nats', 'load'] as const).map((role) => mid(runs.map((run) => micros(run, role)), 1))

if (closedRows.length > 0) {
  printTable(['window', 'topology', 'messages/s', 'to one engine alone', ...cpuColumns, 'ack p50 ms', 'ack p99 ms', 'delivery p99 ms'], of(closedRows).map((row) => [
    String(row.job.window),
    nameOf(row.topology),
    range(row.runs.map(({ result }) => result.messagesPerSecond)),
    ratio(row),
    ...cpuCells(row),
    mid(row.runs.map(({ result }) => result.ackMs.p50)),
    mid(row.runs.map(({ result }) => result.ackMs.p99)),
    mid(row.runs.map(({ result }) => result.deliveryMs.p99)),
  ]))
}
if (openRows.length > 0) {
  const quantiles = ['p50', 'p99', 'p999'] as const
  printTable(['topology', 'offered/s', 'messages/s', 'refused', 'ack p50 ms', 'ack p99 ms', 'ack p99.9 ms', 'delivery p50 ms', 'delivery p99 ms', 'delivery p99.9 ms', 'generator late p99 ms', ...cpuColumns], of(openRows).map((row) => [
    nameOf(row.topology),
    mid(row.runs.map(({ result }) => result.offeredPerSecond), 0),
    range(row.runs.map(({ result }) => result.messagesPerSecond)),
    mid(row.runs.map(({ result }) => result.refusedCount), 0),
    ...quantiles.map((quantile) => range(row.runs.map(({ result }) => result.ackMs[quantile]), 1)),
    ...quantiles.map((quantile) => range(row.runs.map(({ result }) => result.deliveryMs[quantile]), 1)),
    mid(row.runs.map(({ result }) => result.lateMs.p99)),
    ...cpuCells(row),
  ]))
}
if (killRows.length > 0) {
  console.log(`The server that leads a stream is killed with SIGKILL, ${KILL.afterMs / 1_000} s into a span of ${KILL.spanMs / 1_000} s, window ${KILL.window}:\n`)
  printTable(['topology', 'longest pause of a sender, s', 'messages/s over the whole span'], of(killRows).map((row) => {
    const pauses = row.runs.map(({ result }) => result.longestPauseMs)
    if (Math.max(...pauses) > MAX_PAUSE_MS) {
      console.error(`bench: "${row.name}": a sender waited for ${(Math.max(...pauses) / 1_000).toFixed(1)} s, ${MAX_PAUSE_MS / 1_000} s is the most`)
      process.exitCode = 1
    }
    return [nameOf(row.topology), range(pauses.map((ms) => ms / 1_000), 2), range(row.runs.map(({ result }) => result.messagesPerSecond))]
  }))
}
writeJSON('cluster', { runs: options.runs, rows: measured })

function nameOf({ engineCount, natsCount, replicas, partitions }: Topology): string {
  const engines = engineCount === 1 ? '1 engine' : `${engineCount} engines`
  return natsCount === 0 ? `${engines} alone` : `${engines}, ${natsCount} nats-server${natsCount === 1 ? '' : 's'}, R${replicas}${partitions === 1 ? '' : `, ${partitions} partitions`}`
}

function ratio(row: Row): string {
  const alone = measured.find((each) => closedRows.includes(each) && each.job.window === row.job.window && each.topology.natsCount === 0)
  return alone === undefined ? '' : (rateOf(row) / rateOf(alone)).toFixed(2)
}

function rateOf({ runs }: Row): number {
  return median(runs.map(({ result }) => result.messagesPerSecond))
}
