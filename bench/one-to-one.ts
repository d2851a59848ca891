/**
 * W1, one to one: 100 pairs of connections, one sends to the other, so many messages under way each. A message counts when it
 * is acknowledged to its sender and delivered, and the receiver acknowledges it, too. Beside the engine, in the same run, others
 * that do the same job. `npm run bench -- one-to-one`, or with `--window 64 --peers relay` and what `options.ts` says.
 */
import { cpuMicros } from './measure.ts'
import { measureOneToOne, ONE_TO_ONE_ENGINES, type OneToOneRow } from './pairs.ts'
import { nameOf, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import { median } from './sample.ts'
import { hasMosquitto } from './servers/brokers.ts'
import type { ServerSpec } from './wire.ts'

const options = readOptions(ONE_TO_ONE_ENGINES, { window: '64,1' })
const engines = options.engines.map((choice): ServerSpec => ({ kind: 'engine', ...choice }))
const peers = peerServers()
const rows: OneToOneRow[] = options.more['window']!.split(',').flatMap((window) =>
  [...peers, ...engines].map((server) => ({ name: nameOf(server), server, window: Number(window), runs: [] })),
)

printHead(`100 pairs, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await measureOneToOne(rows, options)

const columns = ['window', 'server', 'messages/s', 'to relay', 'to codec', 'server CPU µs/message', 'ack p50 ms', 'ack p99 ms', 'delivery p99 ms', 'server RSS MB', 'load generator CPU']
printTable(columns, measured.map((row) => {
  const of = (value: (run: OneToOneRow['runs'][number]) => number): number[] => row.runs.map(value)
  return [
    String(row.window),
    row.name,
    range(of(({ result }) => result.messagesPerSecond)),
    ratio(row, (other) => other.server.kind === 'relay' && other.server.transport === row.server.transport),
    ratio(row, (other) => other.server.kind === 'codec'),
    range(of((run) => cpuMicros(run, run.result.messagesPerSecond)), 1),
    mid(of(({ result }) => result.ackMs.p50), 2),
    mid(of(({ result }) => result.ackMs.p99), 2),
    mid(of(({ result }) => result.deliveryMs.p99), 2),
    mid(of(({ after }) => after.rssBytes / 1e6), 0),
    percent(of(({ result }) => result.loadCPU)),
  ]
}))

const others = [...new Set(peers.filter(({ kind }) => kind !== 'relay' && kind !== 'codec').map(nameOf))]
if (others.length > 0 && engines.length > 0) {
  console.log('Messages per second, as a multiple of what the others do in the same run:\n')
  const ours = measured.filter(({ server }) => server.kind === 'engine')
  printTable(['window', 'server', ...others.map((other) => `× ${other}`)], ours.map((row) => [String(row.window), row.name, ...others.map((other) => ratio(row, ({ name }) => name === other))]))
}
writeJSON('one-to-one', { runs: options.runs, rows: measured })

function ratio(row: OneToOneRow, matches: (other: OneToOneRow) => boolean): string {
  const other = measured.find((each) => each.window === row.window && matches(each))
  return other === undefined ? '' : (rateOf(row) / rateOf(other)).toFixed(2)
}

function rateOf(row: OneToOneRow): number {
  return median(row.runs.map(({ result }) => result.messagesPerSecond))
}

/** The relays over the transports that the engine uses here, and the others that are installed. */
function peerServers(): ServerSpec[] {
  const plain = { encryption: 'off', storage: 'memory' } as const
  const servers: ServerSpec[] = []
  const transports = new Set(engines.map(({ transport }) => transport))
  if (options.isPeer('relay')) servers.push(...[...transports].map((transport): ServerSpec => ({ kind: 'relay', transport, ...plain })))
  if (options.isPeer('codec')) servers.push({ kind: 'codec', transport: 'tcp', ...plain })
  if (options.isPeer('aedes')) servers.push({ kind: 'aedes', transport: 'tcp', ...plain })
  if (options.isPeer('socket.io')) servers.push({ kind: 'socket.io', transport: 'ws', ...plain })
  if (options.isPeer('mosquitto')) {
    if (hasMosquitto()) servers.push({ kind: 'mosquitto', transport: 'tcp', ...plain })
    else console.error('bench: mosquitto IS NOT INSTALLED AND IS LEFT OUT (Debian: apt-get install mosquitto)')
  }
  return servers
}
