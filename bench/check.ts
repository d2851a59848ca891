/**
 * `npm run bench:check`: has the engine become slower against a raw relay in the same run? The ratios are compared with those of
 * `expected.json`; a machine's own speed falls out of them, the number of its cores and its load do not. `--update` writes
 * what was measured instead.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { measureOneToOne, type OneToOneRow } from './pairs.ts'
import { nameOf } from './options.ts'
import { percent, printHead, printTable, writeJSON } from './report.ts'
import { median } from './sample.ts'
import type { ServerSpec } from './wire.ts'

interface Expected {
  readonly note: string
  /** how far below its expectation a ratio may be, as a share of it */
  readonly tolerance: number
  /** by server: messages per second over those of the relay in the same run */
  readonly ratios: Readonly<Record<string, number>>
}

const FILE = 'bench/expected.json'
const { values } = parseArgs({ options: { update: { type: 'boolean', default: false } } })
const expected = JSON.parse(readFileSync(FILE, 'utf8')) as Expected
const plain = { encryption: 'off', storage: 'memory' } as const
const servers: ServerSpec[] = [
  { kind: 'relay', transport: 'tcp', ...plain },
  { kind: 'engine', transport: 'tcp', ...plain },
  { kind: 'engine', transport: 'tcp', encryption: 'on', storage: 'memory' },
]
const rows = servers.map((server): OneToOneRow => ({ name: nameOf(server), server, window: 64, runs: [] }))

printHead('100 pairs, window 64, payload 100 bytes, 5 runs of 1.2 s')
const counted = await measureOneToOne(rows, { runs: 5, warmUpMs: 500, measureMs: 1_200 })

if (counted.length < rows.length) process.exit(1) // there is nothing to compare

const rateOf = (row: OneToOneRow): number => median(row.runs.map(({ result }) => result.messagesPerSecond))
const [relay, ...engines] = rows as [OneToOneRow, ...OneToOneRow[]]
const measured = engines.map((row) => ({ name: row.name, ratio: rateOf(row) / rateOf(relay), row }))
printTable(['server', 'messages/s', 'ratio to relay', 'expected', 'load generator CPU'], [
  [relay.name, Math.round(rateOf(relay)).toLocaleString('en'), '1', '', percent(relay.runs.map(({ result }) => result.loadCPU))],
  ...measured.map(({ name, ratio, row }) => [
    name, Math.round(rateOf(row)).toLocaleString('en'), ratio.toFixed(3), String(expected.ratios[name] ?? 'none'), percent(row.runs.map(({ result }) => result.loadCPU)),
  ]),
])
const loadAverage = median(rows.flatMap((row) => row.runs.map((run) => run.loadAverage)))
console.log(`load average before the runs: ${loadAverage.toFixed(1)} (median)`)
// The check itself keeps two cores busy.
if (loadAverage > Math.max(3, cpus().length)) console.error('bench: the machine is busy with other things, and what follows says little')
writeJSON('check', { rows })

if (values.update) {
  const ratios = Object.fromEntries(measured.map(({ name, ratio }) => [name, Number(ratio.toFixed(3))]))
  writeFileSync(FILE, `${JSON.stringify({ ...expected, ratios }, undefined, 2)}\n`)
} else {
  for (const { name, ratio } of measured) {
    const due = expected.ratios[name]
    const least = (due ?? Infinity) * (1 - expected.tolerance)
    if (ratio >= least) continue
    console.error(due === undefined ? `${FILE} says nothing of "${name}"` : `${name}: ${ratio.toFixed(3)} of the relay, ${least.toFixed(3)} at least was expected`)
    process.exitCode = 1
  }
}
