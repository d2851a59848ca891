/**
 * W2, fan-out: a group of 1,000 members on 1,000 connections, one of them sends with 8 messages under way, the 999 others
 * acknowledge each. `npm run bench -- fan-out`, or with `--members 1000 --window 8` and what `options.ts` says.
 */
import { cpuMicros, interleave, runTraffic, type Run } from './measure.ts'
import { nameOf, positive, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import { GROUP_ID, receiverUID, senderUID, type Result, type ServerSpec } from './wire.ts'

const options = readOptions(
  [
    { transport: 'tcp', encryption: 'off', storage: 'memory' },
    { transport: 'tcp', encryption: 'on', storage: 'memory' },
    { transport: 'ws', encryption: 'off', storage: 'memory' },
  ],
  { members: '1000', window: '8' },
)
const receiverCount = positive('members', options.more['members']!) - 1
const window = positive('window', options.more['window']!)
const subscribers = [senderUID(0), ...Array.from({ length: receiverCount }, (_, index) => receiverUID(index))]
const rows = options.engines.map((choice) => {
  const server: ServerSpec = { kind: 'engine', ...choice, groups: [{ channelID: GROUP_ID, subscribers }] }
  return { name: nameOf(server), server, runs: [] as Run<Result>[] }
})

printHead(`one sender, ${receiverCount} receivers, window ${window}, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await interleave(rows, options.runs, ({ server }) =>
  runTraffic(server, {
    topology: 'group', senderCount: 1, receiverCount, payloadBytes: 100, window,
    warmUpMs: options.warmUpMs, measureMs: options.measureMs, drainMs: 15_000,
  }),
)
const columns = ['server', 'deliveries/s', 'messages/s', 'server CPU µs/delivery', 'ack p50 ms', 'delivery p50 ms', 'delivery p99 ms', 'load generator CPU']
printTable(columns, measured.map(({ name, runs }) => [
  name,
  range(runs.map(({ result }) => result.deliveriesPerSecond)),
  mid(runs.map(({ result }) => result.messagesPerSecond)),
  range(runs.map((run) => cpuMicros(run, run.result.deliveriesPerSecond)), 2),
  mid(runs.map(({ result }) => result.ackMs.p50), 2),
  mid(runs.map(({ result }) => result.deliveryMs.p50), 2),
  mid(runs.map(({ result }) => result.deliveryMs.p99), 2),
  percent(runs.map(({ result }) => result.loadCPU)),
]))
// The names of the members are all alike.
writeJSON('fan-out', { runs: options.runs, members: receiverCount + 1, window, rows: measured.map(({ name, runs }) => ({ name, runs })) })
