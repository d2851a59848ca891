/**
 * One to one over TCP: how many messages a second one engine process acknowledges and delivers, beside a raw relay in the
 * same run. `npm run bench -- one-to-one`, or with `--runs 3 --seconds 2`.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { FromServer, Job, Result } from './wire.ts'

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, seconds: { type: 'string', default: '4' } },
})
const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

interface Row {
  readonly kind: Job['kind']
  readonly window: number
  readonly runs: (Result & { readonly serverMicros: number })[]
}

const rows: Row[] = []
for (const window of [64, 1]) for (const kind of ['relay', 'plain', 'encrypted'] as const) rows.push({ kind, window, runs: [] })
// Interleaved, so that a slow minute of the machine does not fall on one kind alone.
for (let round = 0; round < Number(values.runs); round++) for (const row of rows) row.runs.push(await measure(row))

console.log(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}, ${values.runs} runs of ${values.seconds} s, median (least – most)\n`)
console.log('| window | server | messages/s | ratio to relay | server CPU µs/message | p50 ms | p99 ms | load generator CPU |')
console.log('| --- | --- | --- | --- | --- | --- | --- | --- |')
for (const row of rows) {
  const relay = rows.find((other) => other.kind === 'relay' && other.window === row.window)!
  const rate = of(row, 'messagesPerSecond')
  const spread = row.runs.map((run) => Math.round(run.messagesPerSecond).toLocaleString('en')).sort((a, b) => Number(a.replaceAll(',', '')) - Number(b.replaceAll(',', '')))
  console.log(
    `| ${row.window} | ${row.kind} | ${Math.round(rate).toLocaleString('en')} (${spread[0]} – ${spread.at(-1)}) | ${(rate / of(relay, 'messagesPerSecond')).toFixed(2)} ` +
      `| ${of(row, 'serverMicros').toFixed(1)} | ${of(row, 'p50Ms').toFixed(2)} | ${of(row, 'p99Ms').toFixed(2)} | ${Math.round(of(row, 'loadCPU') * 100)} % |`,
  )
}

function of(row: Row, field: keyof Row['runs'][number]): number {
  const sorted = row.runs.map((run) => run[field]).sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}

async function measure({ kind, window }: Row): Promise<Row['runs'][number]> {
  const server = fork(file('server.ts'), [kind])
  const { port } = (await message(server)) as { port: number }
  const measureMs = Number(values.seconds) * 1000
  const job: Job = { kind, port, pairCount: 100, window, payloadBytes: 100, warmUpMs: 1_000, measureMs }
  const load = fork(file('load.ts'), [JSON.stringify(job)])
  const done = message(load)
  // The server's share is taken over the same span, give or take the start of the load.
  await new Promise((resolve) => setTimeout(resolve, measureMs / 2))
  server.send('reset')
  const from = performance.now()
  const result = (await done) as Result
  const spanMs = performance.now() - from
  server.send('cpu')
  const { cpuMs } = (await message(server)) as Extract<FromServer, { cpuMs: number }>
  server.kill()
  await once(server, 'exit')
  return { ...result, serverMicros: ((cpuMs / spanMs) * 1e6) / result.messagesPerSecond }
}

async function message(child: ChildProcess): Promise<unknown> {
  const failed = once(child, 'exit').then(() => {
    throw new Error('a process of the benchmark has ended early')
  })
  const [arrived] = (await Promise.race([once(child, 'message'), failed])) as unknown[]
  failed.catch(() => undefined)
  return arrived
}
