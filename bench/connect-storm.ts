/**
 * W3, connect storm: 10,000 connections at fixed times, 5,000 a second, each opened, told CONNECT on, and answered by CONNACK;
 * with a key agreement and without. The time of a CONNACK counts from when its connection was due.
 * `npm run bench -- connect-storm`, or with `--connections 10000 --rate 5000`, `--transport` and `--encryption`.
 */
import { interleave, runStorm, type Run } from './measure.ts'
import { nameOf, positive, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import type { ServerSpec, StormResult } from './wire.ts'

const options = readOptions(
  [
    { transport: 'tcp', encryption: 'off', storage: 'memory' },
    { transport: 'tcp', encryption: 'on', storage: 'memory' },
    { transport: 'ws', encryption: 'on', storage: 'memory' },
  ],
  { connections: '10000', rate: '5000' },
)
const connectCount = positive('connections', options.more['connections']!)
const connectsPerSecond = positive('rate', options.more['rate']!)
const rows = options.engines.map((choice) => {
  const server: ServerSpec = { kind: 'engine', ...choice }
  return { name: nameOf(server), server, runs: [] as Run<StormResult>[] }
})

printHead(`${connectCount} connections offered at ${connectsPerSecond} a second, ${options.runs} runs`)
const measured = await interleave(rows, options.runs, ({ server }) => runStorm(server, { connectCount, connectsPerSecond }))
const columns = ['server', 'CONNACKs/s', 'server CPU µs/connection', 'p50 ms', 'p99 ms', 'p99.9 ms', 'most ms', 'load generator CPU']
printTable(columns, measured.map(({ name, runs }) => [
  name,
  range(runs.map(({ result }) => result.connectsPerSecond)),
  range(runs.map(({ serverCPUMs }) => (serverCPUMs * 1000) / connectCount), 1),
  ...(['p50', 'p99', 'p999', 'max'] as const).map((quantile) => mid(runs.map(({ result }) => result.connackMs[quantile]), 1)),
  percent(runs.map(({ result }) => result.loadCPU)),
]))
writeJSON('connect-storm', { runs: options.runs, connectCount, connectsPerSecond, rows: measured })
