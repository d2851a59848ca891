/**
 * W6, many channels: the same 200 connections, once with a channel per pair (100), once with every sender writing to every
 * receiver (10,000 person channels), chosen evenly or by Zipf's law (exponent 1, among each sender's 100). The growth is the
 * CPU time of a message at 10,000 channels over that at 100.
 * `npm run bench -- many-channels`, or with `--window 16` and what `options.ts` says.
 */
import { cpuMicros, interleave, runTraffic, type Run } from './measure.ts'
import { nameOf, positive, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import { median } from './sample.ts'
import type { Job, Result, ServerSpec } from './wire.ts'

const SIDE_COUNT = 100
/** So many before anything counts: three for each of 10,000 channels, because a channel's first message costs more. */
const WARM_UP_COUNT = 30_000
const SHAPES = [
  { shape: '100', spread: 'own' },
  { shape: '10,000, even', spread: 'uniform' },
  { shape: '10,000, Zipf', spread: 'zipf' },
] as const satisfies readonly { shape: string; spread: Job['spread'] }[]

const options = readOptions([{ transport: 'tcp', encryption: 'off', storage: 'memory' }, { transport: 'tcp', encryption: 'off', storage: 'level' }], { window: '64' })
const window = positive('window', options.more['window']!)
const rows = options.engines.flatMap((choice) =>
  SHAPES.map(({ shape, spread }) => {
    const server: ServerSpec = { kind: 'engine', ...choice }
    return { name: `${nameOf(server)}, ${shape}`, server, shape, spread, runs: [] as Run<Result>[] }
  }),
)

printHead(`${SIDE_COUNT} senders, ${SIDE_COUNT} receivers, window ${window}, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
await interleave(rows, options.runs, ({ server, spread }) =>
  runTraffic(server, {
    topology: 'matrix', senderCount: SIDE_COUNT, receiverCount: SIDE_COUNT, spread, payloadBytes: 100, window,
    warmUpMs: options.warmUpMs, warmUpCount: WARM_UP_COUNT, measureMs: options.measureMs, drainMs: 15_000,
  }),
)
const microsOf = (run: Run<Result>): number => cpuMicros(run, run.result.messagesPerSecond)
printTable(['server', 'channels', 'messages/s', 'server CPU µs/message', 'growth', 'ack p50 ms', 'ack p99 ms', 'server RSS MB', 'load generator CPU'], rows.map((row) => {
  const few = rows.find(({ server, spread }) => nameOf(server) === nameOf(row.server) && spread === 'own')!
  return [
    nameOf(row.server),
    row.shape,
    range(row.runs.map(({ result }) => result.messagesPerSecond)),
    range(row.runs.map(microsOf), 1),
    (median(row.runs.map(microsOf)) / median(few.runs.map(microsOf))).toFixed(2),
    mid(row.runs.map(({ result }) => result.ackMs.p50), 2),
    mid(row.runs.map(({ result }) => result.ackMs.p99), 2),
    mid(row.runs.map(({ after }) => after.rssBytes / 1e6), 0),
    percent(row.runs.map(({ result }) => result.loadCPU)),
  ]
}))
writeJSON('many-channels', { runs: options.runs, window, rows })
