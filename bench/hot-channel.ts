/**
 * W7, hot channel: 64 senders write into one group of 100 at the same time; every message goes to the 99 others.
 * `npm run bench -- hot-channel`, or with `--window 1` and what `options.ts` says.
 */
import { cpuMicros, interleave, runTraffic, type Run } from './measure.ts'
import { nameOf, positive, readOptions } from './options.ts'
import { mid, percent, printHead, printTable, range, writeJSON } from './report.ts'
import { GROUP_ID, receiverUID, senderUID, type Result, type ServerSpec } from './wire.ts'

const SENDER_COUNT = 64
const MEMBER_COUNT = 100
const receiverCount = MEMBER_COUNT - SENDER_COUNT
const options = readOptions(
  [
    { transport: 'tcp', encryption: 'off', storage: 'memory' },
    { transport: 'tcp', encryption: 'on', storage: 'memory' },
    { transport: 'tcp', encryption: 'off', storage: 'level' },
  ],
  { window: '1' },
)
const window = positive('window', options.more['window']!)
const names = (count: number, nameAt: (index: number) => string): string[] => Array.from({ length: count }, (_, index) => nameAt(index))
const subscribers = [...names(SENDER_COUNT, senderUID), ...names(receiverCount, receiverUID)]
const rows = options.engines.map((choice) => {
  const server: ServerSpec = { kind: 'engine', ...choice, groups: [{ channelID: GROUP_ID, subscribers }] }
  return { name: nameOf(server), server, runs: [] as Run<Result>[] }
})

printHead(`${SENDER_COUNT} senders in one group of ${MEMBER_COUNT}, window ${window}, payload 100 bytes, ${options.runs} runs of ${options.measureMs / 1000} s`)
const measured = await interleave(rows, options.runs, ({ server }) =>
  runTraffic(server, {
    topology: 'group', senderCount: SENDER_COUNT, receiverCount, payloadBytes: 100, window,
    warmUpMs: options.warmUpMs, measureMs: options.measureMs, drainMs: 15_000,
  }),
)
const columns = ['server', 'messages/s', 'deliveries/s', 'server CPU µs/message', 'ack p50 ms', 'ack p99 ms', 'delivery p99 ms', 'load generator CPU']
printTable(columns, measured.map(({ name, runs }) => [
  name,
  range(runs.map(({ result }) => result.messagesPerSecond)),
  range(runs.map(({ result }) => result.deliveriesPerSecond)),
  range(runs.map((run) => cpuMicros(run, run.result.messagesPerSecond)), 1),
  mid(runs.map(({ result }) => result.ackMs.p50), 1),
  range(runs.map(({ result }) => result.ackMs.p99), 1),
  mid(runs.map(({ result }) => result.deliveryMs.p99), 1),
  percent(runs.map(({ result }) => result.loadCPU)),
]))
writeJSON('hot-channel', { runs: options.runs, window, rows: measured.map(({ name, runs }) => ({ name, runs })) })
