/**
 * W4, idle memory: what a connection that does nothing costs, once over TCP and once with sockets that are objects of this
 * process, less what the bare socket costs. After collections of garbage.
 * `npm run bench -- idle-memory`, or with `--connections 10000 --in-process 100000`, `--transport` and `--encryption`.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { InProcessSample } from './idle-memory-process.ts'
import { interleave, runIdle } from './measure.ts'
import { positive, readOptions } from './options.ts'
import { printHead, printTable, range, writeJSON } from './report.ts'
import { median } from './sample.ts'
import type { Sample, Transport } from './wire.ts'

type Memory = Omit<Sample, 'cpuMs'>
const FIELDS = ['rssBytes', 'heapUsedBytes', 'externalBytes'] as const

interface Row {
  readonly name: string
  readonly measure: () => Promise<Memory>
  /** what it is compared to */
  readonly bare: string | undefined
  readonly runs: Memory[]
}

const options = readOptions(
  [
    { transport: 'tcp', encryption: 'off', storage: 'memory' },
    { transport: 'tcp', encryption: 'on', storage: 'memory' },
  ],
  { connections: '10000', 'in-process': '100000' },
)
const connectionCount = positive('connections', options.more['connections']!)
const inProcessCount = positive('in-process', options.more['in-process']!)

const rows: Row[] = []
for (const transport of new Set(options.engines.map((choice) => choice.transport))) {
  rows.push({ name: `bare ${transport}`, bare: undefined, runs: [], measure: () => overNetwork('bare', transport, 'off') })
  for (const choice of options.engines.filter((each) => each.transport === transport)) {
    const name = `engine, ${transport}${choice.encryption === 'on' ? ', encrypted' : ''}`
    rows.push({ name, bare: `bare ${transport}`, runs: [], measure: () => overNetwork('engine', transport, choice.encryption) })
  }
}
rows.push({ name: 'bare objects', bare: undefined, runs: [], measure: async () => inProcess('bare') })
for (const encryption of new Set(options.engines.map((choice) => choice.encryption))) {
  const name = `engine, in process${encryption === 'on' ? ', encrypted' : ''}`
  rows.push({ name, bare: 'bare objects', runs: [], measure: async () => inProcess(encryption) })
}

printHead(`${connectionCount} connections over the network, ${inProcessCount} in process, ${options.runs} runs, KB per connection`)
const measured = await interleave(rows, options.runs, (row) => row.measure())
printTable(['connections', 'RSS', 'heap used', 'external', 'RSS less bare', 'heap less bare', 'external less bare'], measured.map((row) => {
  const bare = measured.find(({ name }) => name === row.bare)
  const kilobytes = (field: (typeof FIELDS)[number]): string => range(row.runs.map((run) => run[field] / 1000), 2)
  const less = (field: (typeof FIELDS)[number]): string =>
    bare === undefined ? '' : ((median(row.runs.map((run) => run[field])) - median(bare.runs.map((run) => run[field]))) / 1000).toFixed(2).replace(/^-(?=0\.00$)/, '')
  return [row.name, ...FIELDS.map(kilobytes), ...FIELDS.map(less)]
}))
writeJSON('idle-memory', { runs: options.runs, connectionCount, inProcessCount, rows: measured.map(({ name, bare, runs }) => ({ name, bare, runs })) })

async function overNetwork(server: 'bare' | 'engine', transport: Transport, encryption: 'on' | 'off'): Promise<Memory> {
  const spec = server === 'bare' ? server : ({ kind: 'engine', transport, encryption, storage: 'memory' } as const)
  const { before, after } = await runIdle(spec, { transport, encryption, connectionCount })
  return difference(before, after, connectionCount)
}

function inProcess(what: 'bare' | 'on' | 'off'): Memory {
  const file = fileURLToPath(new URL('idle-memory-process.js', import.meta.url))
  const { stdout, status } = spawnSync(process.execPath, ['--expose-gc', file, what, String(inProcessCount)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  if (status !== 0) throw new Error('the process with the connections has failed')
  const { before, after } = JSON.parse(stdout) as InProcessSample
  return difference(before, after, inProcessCount)
}

function difference(before: Memory, after: Memory, count: number): Memory {
  const per = (field: (typeof FIELDS)[number]): number => (after[field] - before[field]) / count
  return { rssBytes: per('rssBytes'), heapUsedBytes: per('heapUsedBytes'), externalBytes: per('externalBytes') }
}
