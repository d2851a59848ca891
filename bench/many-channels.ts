/**
 * W6, many channels: the same 200 connections, once with a channel per pair (100), once with every sender writing to every
 * receiver (10,000 person channels), chosen evenly or by Zipf's law (exponent 1, among each sender's 100). The growth is the
 * CPU time of a message at 10,000 channels over that at 100. With window 64 it holds what is lost because less waits for any
 * one channel, and with window 1, where nothing ever waits together, only what the number of channels costs.
 * `npm run bench -- many-channels`, or with `--window 64` and what `options.ts` says.
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

const options = readOptions([{ transport: 'tcp', encryption: 'off', storage: 'memory' }], { window: '64,1' })
const windows = options.more['window']!.split(',').map((window) => positive('window', window))
const rows = windows.flatMap((window) =>
  options.engines.flatMap((choice) => {
    const server: ServerSpec = { kind: 'engine', ...choice }
    return SHAPES.map(({ shape, spread }) => ({ name: `${nameOf(server)}, ${shape}, window ${window}`, server, window, shape, spread, runs: [] as Run<Result>[] }))
  }),
)

printHead(`${SIDE_COUNT} senders, ${SIDE_COUNT} receivers, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await interleave(rows, options.runs, ({ server, spread, window }) =>
  runTraffic(server, {
    topology: 'matrix', senderCount: SIDE_COUNT, receiverCount: SIDE_COUNT, spread, payloadBytes: 100, window,
    warmUpMs: options.warmUpMs, warmUpCount: WARM_UP_COUNT, measureMs: options.measureMs, drainMs: 15_000,
  }),
)
const microsOf = (run: Run<Result>): number => cpuMicros(run, run.result.messagesPerSecond)
printTable(['window', 'server', 'channels', 'messages/s', 'server CPU µs/message', 'growth', 'ack p50 ms', 'ack p99 ms', 'server RSS MB', 'load generator CPU'], measured.map((row) => {
  const few = measured.find(({ server, window, spread }) => server === row.server && window === row.window && spread === 'own')
  return [
    String(row.window),
    nameOf(row.server),
    row.shape,
    range(row.runs.map(({ result }) => result.messagesPerSecond)),
    range(row.runs.map(microsOf), 1),
    few === undefined ? '–' : (median(row.runs.map(microsOf)) / median(few.runs.map(microsOf))).toFixed(2),
    mid(row.runs.map(({ result }) => result.ackMs.p50), 2),
    mid(row.runs.map(({ result }) => result.ackMs.p99), 2),
    mid(row.runs.map(({ after }) => after.rssBytes / 1e6), 0),
    percent(row.runs.map(({ result }) => result.loadCPU)),
  ]
}))
writeJSON('many-channels', { runs: options.runs, rows: measured })
