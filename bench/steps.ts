/**
 * Where the time of one message goes, step by step: W1 with window 64 and the server under Node's sampling profiler, whose samples
 * are counted for the step that was under way. The profiler costs some time itself, so shares are what counts; microseconds
 * are the shares of what the process used. `npm run bench -- steps`, or with what `options.ts` says.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cpuMicros, runTraffic } from './measure.ts'
import { nameOf, readOptions } from './options.ts'
import { printHead, printTable, writeJSON } from './report.ts'
import type { ServerSpec } from './wire.ts'

interface Profile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { readonly functionName: string }; readonly children?: readonly number[] }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** By function: what its time is counted for, with everything it calls. */
const STEPS: Readonly<Record<string, string>> = {
  '(garbage collector)': 'collecting garbage',
  decodeBody: 'decode SEND',
  openPayload: 'open the payload',
  receiveSend: 'EventOnSend: receive, queue',
  checkPermission: 'EventOnSend: permission',
  callWebhook: 'EventOnSend: webhook',
  acceptSend: 'EventOnSend: number it, hand it on',
  preCheck: 'EventChannelDistribute: preCheck',
  store: 'EventChannelDistribute: store',
  acknowledge: 'EventChannelDistribute: SENDACK',
  postProcess: 'EventChannelDistribute: postProcess',
  filterOnline: 'EventPushOnline: filterOnline',
  encode: 'EventPushOnline: encode, write',
  write: 'EventPushOnline: encode, write',
  'Connection.#onRecvack': 'RECVACK: settle, count the delivery',
  '#onRecvack': 'RECVACK: settle, count the delivery',
}
/** What holds steps: its own time is counted for it, but not that of a step inside. */
const AROUND: Readonly<Record<string, string>> = {
  feed: 'split and read frames',
  onStreamRead: 'node:net, reading',
  'Turn.#run': 'queues and chains',
  '#run': 'queues and chains',
  flush: 'node:net, writing',
}

const options = readOptions([
  { transport: 'tcp', encryption: 'off', storage: 'memory' },
  { transport: 'tcp', encryption: 'off', storage: 'level' },
  { transport: 'tcp', encryption: 'on', storage: 'memory' },
])
const rows: { server: string; step: string; share: number; micros: number }[] = []
printHead(`100 pairs, window 64, payload 100 bytes, one profile of ${options.measureMs / 1000} s each`)
for (const choice of options.engines) {
  const server: ServerSpec = { kind: 'engine', ...choice }
  const folder = mkdtempSync(join(tmpdir(), 'imengine-profile-'))
  try {
    const job = { topology: 'pairs', senderCount: 100, receiverCount: 100, payloadBytes: 100, window: 64, warmUpMs: options.warmUpMs, measureMs: options.measureMs, drainMs: 15_000 } as const
    const run = await runTraffic(server, job, ['--cpu-prof', `--cpu-prof-dir=${folder}`])
    const micros = cpuMicros(run, run.result.messagesPerSecond)
    const profile = JSON.parse(readFileSync(join(folder, readdirSync(folder)[0]!), 'utf8')) as Profile
    for (const [step, share] of sharesOf(profile)) rows.push({ server: nameOf(server), step, share, micros: share * micros })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
const names = [...new Set(rows.map(({ server }) => server))]
const steps = [...new Set(rows.map(({ step }) => step))]
const cell = (step: string, server: string): string => {
  const row = rows.find((each) => each.step === step && each.server === server)
  return row === undefined ? '' : `${(100 * row.share).toFixed(1)} % (${row.micros.toFixed(1)})`
}
printTable(['step', ...names.map((name) => `${name}: share (CPU µs/message)`)], steps.map((step) => [step, ...names.map((name) => cell(step, name))]))
writeJSON('steps', { rows })

/** Of the time the main thread was busy with messages. */
function sharesOf({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const byID = new Map(nodes.map((node) => [node.id, node]))
  const stepOf = new Map<number, string | undefined>()
  const visit = (id: number, around: string | undefined, isInStep: boolean): void => {
    const { callFrame, children = [] } = byID.get(id)!
    const { functionName } = callFrame
    const step = isInStep ? around : (own(STEPS, functionName) ?? own(AROUND, functionName) ?? around)
    const isStep = isInStep || own(STEPS, functionName) !== undefined
    stepOf.set(id, step)
    for (const child of children) visit(child, step, isStep)
  }
  visit(nodes[0]!.id, undefined, false)
  const micros = new Map<string, number>()
  let sum = 0
  samples.forEach((id, index) => {
    const step = stepOf.get(id)
    if (step === undefined) return // idle, or starting up
    micros.set(step, (micros.get(step) ?? 0) + timeDeltas[index]!)
    sum += timeDeltas[index]!
  })
  return new Map([...micros].map(([step, time]): [string, number] => [step, time / sum]).sort((a, b) => b[1] - a[1]))
}

/** Functions may be called like members of every object. */
function own(names: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(names, name) ? names[name] : undefined
}
