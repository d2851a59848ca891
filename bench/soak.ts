/**
 * A load that the server can bear, for long, with clients that come and go all the while: does anything grow, is anything lost?
 * `npm run soak -- --minutes 30 --fraction 0.6`, and `--transport`, `--encryption`, `--storage` as for the other benchmarks. What the
 * server can do is measured first, for `--capacity-seconds 30`; `--rate 20000` is a rate without asking. It fails when a message is
 * lost, comes twice or out of order, when the heap grows by more than `--max-growth 0.1` MiB a minute (two standard errors
 * above it), or when handles grow.
 */
import { Child, runTraffic } from './measure.ts'
import { nameOf, positive, readOptions } from './options.ts'
import { printTable, writeJSON } from './report.ts'
import { machine } from './sample.ts'
import { grows, isAbove, trendOf, type Trend } from './trend.ts'
import type { FromLoad, FromServer, Inspection, ServerSpec, SoakProgress, SoakResult, ToServer } from './wire.ts'

const PAIR_COUNT = 100
const CHURN_COUNT = 20
const PAYLOAD_BYTES = 100
const BATCH_COUNT = 8
const SAMPLE_EVERY_MS = 10_000
const NEWCOMERS_PER_SECOND = 20
/** What is bounded by count is full when so many newcomers have been there: in the first half, so that the second shows growth alone. */
const CACHED_COUNT = 1_000
const MIB = 1_048_576

type Sample = SoakProgress & Inspection

const options = readOptions([{ transport: 'tcp', encryption: 'off', storage: 'memory' }], { minutes: '30', fraction: '0.6', 'capacity-seconds': '30', rate: '', 'max-growth': '0.1' })
const [choice] = options.engines
const { more } = options
const minutes = positive('minutes', more['minutes']!)
const fraction = positive('fraction', more['fraction']!)
const maxGrowth = positive('max-growth', more['max-growth']!)
// The store is full soon, and holds little: what is asked about is everything else. Who is away for a while must find what was missed.
const server: ServerSpec = {
  kind: 'engine', ...choice!, maxMessagesPerChannel: 250,
  limits: { maxRecentMessages: CACHED_COUNT, maxCachedPermissions: CACHED_COUNT, maxCachedChannels: CACHED_COUNT, maxTrackedDeliveries: CACHED_COUNT },
}
const startedAt = new Date()

const capacity = more['rate'] === '' ? await measureCapacity() : undefined
const ratePerSecond = capacity === undefined ? positive('rate', more['rate']!) : Math.round(capacity * fraction)
console.log(`${startedAt.toISOString().slice(0, 16).replace('T', ' ')} UTC, ${machine()}: ${nameOf(server)}, ${minutes} minutes at ${ratePerSecond.toLocaleString('en')} messages/s${capacity === undefined ? '' : `, ${fraction} of ${Math.round(capacity).toLocaleString('en')}`}, ${PAIR_COUNT} pairs that stay, ${CHURN_COUNT} that come and go, ${NEWCOMERS_PER_SECOND} new users a second\n`)

const samples: Sample[] = []
const problems: string[] = []
const result = await soak()
const half = samples.slice(Math.floor(samples.length / 2))
const trends = { heapUsed: trend(half, ({ heapUsedBytes }) => heapUsedBytes), rss: trend(half, ({ rssBytes }) => rssBytes), external: trend(half, ({ externalBytes }) => externalBytes) }
if (half.length > 0 && half[0]!.newcomerCount < CACHED_COUNT) {
  console.log(`Too short to say whether the heap grows: after ${half[0]!.newcomerCount} new users the caches, of ${CACHED_COUNT} entries each, were still filling.\n`)
} else if (isAbove(trends.heapUsed, maxGrowth)) {
  problems.push(`the heap grows by ${show(trends.heapUsed)} MiB a minute, which is more than ${maxGrowth}`)
}
for (const kind of new Set(samples.flatMap(({ handles }) => Object.keys(handles)))) {
  if (grows(samples.map((sample) => handlesOf(sample, kind)))) problems.push(`${kind} handles grow: ${samples.map((sample) => handlesOf(sample, kind)).join(', ')}`)
}
printSamples()
if (result !== undefined) printResult(result)
writeJSON('soak', { startedAt: startedAt.toISOString(), server, minutes, fraction, capacity, ratePerSecond, maxGrowth, samples, trends, result, problems })
for (const problem of problems) console.error(`soak: ${problem}`)
if (problems.length > 0) process.exitCode = 1

async function measureCapacity(): Promise<number> {
  const { result: measured } = await runTraffic(server, {
    topology: 'pairs', senderCount: PAIR_COUNT, receiverCount: PAIR_COUNT, payloadBytes: PAYLOAD_BYTES, window: 64, warmUpMs: 3_000,
    measureMs: positive('capacity-seconds', more['capacity-seconds']!) * 1_000, drainMs: 30_000,
  })
  return measured.messagesPerSecond
}

async function soak(): Promise<SoakResult | undefined> {
  const serving = new Child<FromServer, ToServer>('server-process.js', server)
  let loading: Child<FromLoad, 'done'> | undefined
  let isOver = false
  try {
    const { port } = await serving.next('listening')
    const { transport, encryption } = server
    loading = new Child<FromLoad, 'done'>('load-process.js', {
      task: 'soak',
      job: {
        transport, encryption, port, pairCount: PAIR_COUNT, churnCount: CHURN_COUNT, newcomersPerSecond: NEWCOMERS_PER_SECOND, ratePerSecond, batchCount: BATCH_COUNT, payloadBytes: PAYLOAD_BYTES,
        lastsMs: minutes * 60_000, tellEveryMs: SAMPLE_EVERY_MS, drainMs: 30_000,
      },
    })
    const ended = loading.next('result').finally(() => {
      isOver = true
    })
    ended.catch(() => undefined)
    const watching = watch(loading, serving, () => isOver)
    watching.catch(() => undefined) // with the server gone; what the load has to say comes first
    const { result: ending } = await ended
    await watching
    return ending as SoakResult
  } catch (error) {
    problems.push((error as Error).message)
    return undefined
  } finally {
    await loading?.end('done')
    await serving.end({ type: 'close' })
  }
}

async function watch(loading: Child<FromLoad, 'done'>, serving: Child<FromServer, ToServer>, isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    const progress = await loading.nextUnless('progress', isOver)
    if (progress === undefined) return
    serving.send({ type: 'inspect' })
    const { type: _, ...inspection } = await serving.next('inspection')
    const { type: __, ...told } = progress
    samples.push({ ...told, ...inspection })
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${Math.round(told.atSeconds)} s, heap ${mib(inspection.heapUsedBytes)} MiB`)
  }
}

/** In MiB a minute. */
function trend(of: readonly Sample[], bytes: (sample: Sample) => number): Trend {
  return trendOf(of.map((sample) => [sample.atSeconds / 60, bytes(sample) / MIB]))
}

/** A connection has a handle, and how many there are goes up and down by itself. */
function handlesOf({ handles, connectionCount }: Sample, kind: string): number {
  return (handles[kind] ?? 0) - (kind === 'TCPSocketWrap' ? connectionCount : 0)
}

function printSamples(): void {
  const everyNth = Math.max(1, Math.ceil(samples.length / 20))
  const shown = samples.filter((_, index) => index % everyNth === everyNth - 1)
  printTable(['s', 'heap MiB', 'RSS MiB', 'external MiB', 'connections', 'handles', 'under way', 'messages sent', 'logins', 'new users'], shown.map((sample) => [
    String(Math.round(sample.atSeconds)), mib(sample.heapUsedBytes), mib(sample.rssBytes), mib(sample.externalBytes), String(sample.connectionCount),
    Object.entries(sample.handles).map(([kind, count]) => `${kind} ${count}`).join(', '), String(sample.underWayCount), sample.sentCount.toLocaleString('en'), sample.loginCount.toLocaleString('en'), sample.newcomerCount.toLocaleString('en'),
  ]))
}

function printResult({ sentCount, refusedCount, deliveredCount, repeatedCount, loginCount, ackMs, deliveryMs }: SoakResult): void {
  printTable(['minutes', 'messages/s', 'messages', 'refused', 'delivered', 'again after a login', 'logins', 'heap MiB a minute', 'RSS MiB a minute', 'ack p50 / p99 / max ms', 'delivery p50 / p99 / max ms'], [[
    String(minutes), ratePerSecond.toLocaleString('en'), sentCount.toLocaleString('en'), String(refusedCount), deliveredCount.toLocaleString('en'), String(repeatedCount), loginCount.toLocaleString('en'),
    show(trends.heapUsed), show(trends.rss), ...[ackMs, deliveryMs].map(({ p50, p99, max }) => [p50, p99, max].map((ms) => ms.toFixed(1)).join(' / ')),
  ]])
}

function show({ slope, standardError }: Trend): string {
  return `${slope.toFixed(3)} ± ${standardError.toFixed(3)}`
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1)
}
