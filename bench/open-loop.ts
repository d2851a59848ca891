/**
 * W5, open loop: messages at fixed times whatever has become of those before, so that a time counts from when a message was
 * due and nothing that the server holds up is left out. 20,000 a second one by one, 100,000 a second in runs of 8.
 * `npm run bench -- open-loop`, or with `--rates 20000x1,100000x8` and what `options.ts` says.
 */
import { cpuMicros, interleave, runTraffic, type Run } from './measure.ts'
import { nameOf, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import type { Result, ServerSpec } from './wire.ts'

const PAIR_COUNT = 100
const options = readOptions(
  [
    { transport: 'tcp', encryption: 'off', storage: 'memory' },
    { transport: 'tcp', encryption: 'off', storage: 'level' },
  ],
  { rates: '20000x1,100000x8' },
)
// What the sockets alone and the protocol alone leave over at the same rate, on the same machine, in the same run.
const ceilings = (['relay', 'codec'] as const).filter((kind) => options.isPeer(kind))
const servers: readonly ServerSpec[] = [
  ...ceilings.map((kind): ServerSpec => ({ kind, transport: 'tcp', encryption: 'off', storage: 'memory' })),
  ...options.engines.map((choice): ServerSpec => ({ kind: 'engine', ...choice })),
]
const rows = options.more['rates']!.split(',').flatMap((rate) => {
  const [ratePerSecond = Number.NaN, batchCount = 1] = rate.split('x').map(Number)
  return servers.map((server) => ({ name: `${nameOf(server)}, ${rate}`, server, ratePerSecond, batchCount, runs: [] as Run<Result>[] }))
})

printHead(`${PAIR_COUNT} pairs, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await interleave(rows, options.runs, ({ server, ratePerSecond, batchCount }) =>
  runTraffic(server, {
    topology: 'pairs', senderCount: PAIR_COUNT, receiverCount: PAIR_COUNT, payloadBytes: 100, window: 0, ratePerSecond, batchCount,
    warmUpMs: options.warmUpMs, measureMs: options.measureMs, drainMs: 30_000,
  }),
)
const quantiles = ['p50', 'p99', 'p999'] as const
const columns = ['server', 'offered/s', 'in runs of', 'messages/s', 'refused', 'ack p50 ms', 'ack p99 ms', 'ack p99.9 ms', 'delivery p50 ms', 'delivery p99 ms', 'delivery p99.9 ms', 'generator late p99 ms', 'server CPU µs/message', 'load generator CPU']
printTable(columns, measured.map(({ server, ratePerSecond, batchCount, runs }) => [
  nameOf(server),
  ratePerSecond.toLocaleString('en'),
  String(batchCount),
  range(runs.map(({ result }) => result.messagesPerSecond)),
  mid(runs.map(({ result }) => result.refusedCount), 0),
  ...quantiles.map((quantile) => range(runs.map(({ result }) => result.ackMs[quantile]), 1)),
  ...quantiles.map((quantile) => range(runs.map(({ result }) => result.deliveryMs[quantile]), 1)),
  mid(runs.map(({ result }) => result.lateMs.p99), 1),
  mid(runs.map((run) => cpuMicros(run, run.result.messagesPerSecond)), 1),
  percent(runs.map(({ result }) => result.loadCPU)),
]))
writeJSON('open-loop', { runs: options.runs, rows: measured })
