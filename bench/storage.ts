/**
 * Durable appends of `levelStorage`, beside classic-level writing the very same bytes in the very same batches, in one run.
 * `npm run bench -- storage`, or with `--runs 3 --messages 200000`.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ClassicLevel } from 'classic-level'
import { ChannelType, type AppendBatch } from 'imengine'
import { levelStorage, type AnyLevel, type LevelStorage } from 'imengine/level'
import { writeJSON } from './report.ts'
import { machine, median, sampleMessage, spread, timed } from './sample.ts'

const { values } = parseArgs({ options: { runs: { type: 'string', default: '5' }, messages: { type: 'string', default: '200000' } } })
const runs = Number(values.runs)
const messageCount = Number(values.messages)

/** As the engine calls a store: each channel has one call under way, with what has gathered for it meanwhile. */
interface Load {
  readonly name: string
  readonly channelCount: number
  readonly messagesPerCall: number
}

const loads: readonly Load[] = [
  { name: '100 channels, 64 a call', channelCount: 100, messagesPerCall: 64 },
  { name: '100 channels, 8 a call', channelCount: 100, messagesPerCall: 8 },
  { name: '2000 channels, 1 a call', channelCount: 2000, messagesPerCall: 1 },
]
const SIZES = { cacheSize: 64 << 20, writeBufferSize: 32 << 20 } // those of levelStorage

type Operations = (Buffer | undefined)[]
type Result = Awaited<ReturnType<typeof timed>>

const rows: { readonly load: string; readonly writer: string; readonly runs: readonly Result[] }[] = []
const folder = mkdtempSync(join(tmpdir(), 'imengine-bench-'))
console.log(`${machine()}, ${runs} runs of ${messageCount.toLocaleString('en')} messages, median (least – most)\n`)
console.log('| load | writer | messages/s | ratio to batch([…]) | ratio to chained batch | CPU µs/message | messages a batch |')
console.log('| --- | --- | --- | --- | --- | --- | --- |')
try {
  for (const load of loads) await compare(load)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
writeJSON('storage', { runs, messageCount, rows })

async function compare(load: Load): Promise<void> {
  const writers = new Map<string, Result[]>([['levelStorage', []], ['classic-level, chained batch', []], ['classic-level, batch([…])', []]])
  let batchCount = 0
  // Interleaved, so that a slow minute of the machine does not fall on one of them alone.
  for (let run = 0; run < runs; run++) {
    const [adapter, chained, objects] = [...writers.values()]
    const calls = callsOf(load)
    adapter!.push(await onFolder((path) => levelStorage({ path }), (storage) => append(storage, calls)))
    const recorded = await record(calls)
    batchCount = recorded.length
    chained!.push(await onFolder(openRaw, (level) => writeChained(level, recorded)))
    objects!.push(await onFolder(openRaw, (level) => writeObjects(level, recorded)))
  }
  const rates = (results: readonly Result[]): number[] => results.map(({ seconds }) => messageCount / seconds)
  const rateOf = (name: string): number => median(rates(writers.get(name)!))
  for (const [name, results] of writers) {
    rows.push({ load: load.name, writer: name, runs: results })
    const cpu = median(results.map(({ cpuMicros }) => cpuMicros / messageCount)).toFixed(1)
    const ratioTo = (other: string): string => (rateOf(name) / rateOf(other)).toFixed(2)
    const ratios = `${ratioTo('classic-level, batch([…])')} | ${ratioTo('classic-level, chained batch')}`
    console.log(`| ${load.name} | ${name} | ${spread(rates(results))} | ${ratios} | ${cpu} | ${Math.round(messageCount / batchCount)} |`)
  }
}

/** Calls of one channel, made before anything is measured: what is raced against has its bytes at hand, too. */
type Calls = readonly (readonly [AppendBatch])[]

function callsOf({ channelCount, messagesPerCall }: Load): Calls[] {
  const callCount = Math.ceil(messageCount / channelCount / messagesPerCall)
  return Array.from({ length: channelCount }, (_, index) => {
    const key = { channelID: `room-${index}`, channelType: ChannelType.Group }
    return Array.from({ length: callCount }, () => [{ key, messages: Array.from({ length: messagesPerCall }, () => sampleMessage(key, index)) }])
  })
}

async function append({ messages }: LevelStorage, channels: readonly Calls[]): Promise<void> {
  const run = async (calls: Calls): Promise<void> => {
    for (const call of calls) await messages.append(call)
  }
  // Two groups that start one after the other: while one waits for the disk, the other one has something to say.
  await Promise.all(channels.map((calls, index) => (index % 2 === 1 ? new Promise(setImmediate).then(() => run(calls)) : run(calls))))
}

/** What levelStorage writes under this load, batch by batch. */
async function record(calls: readonly Calls[]): Promise<Operations[]> {
  const recorded: Operations[] = []
  await onFolder(
    (path) => {
      const level = openRaw(path)
      const batch: AnyLevel['batch'] = () => {
        const operations: Operations = []
        const content = level.batch()
        return {
          put: (key, value) => (operations.push(key, value), content.put(key, value)),
          del: (key) => (operations.push(key, undefined), content.del(key)),
          write: async (options) => {
            recorded.push(operations)
            await content.write(options ?? {})
          },
        }
      }
      const storage = levelStorage({ db: withBatch(level, batch) })
      return { ...storage, close: async () => (await storage.close(), level.close()) }
    },
    (storage) => append(storage, calls),
  )
  return recorded
}

/** `level` with another way to write. */
function withBatch(level: ClassicLevel<Buffer, Buffer>, batch: AnyLevel['batch']): AnyLevel {
  return {
    status: 'open',
    batch,
    open: () => level.open(),
    close: () => level.close(),
    get: (key, options) => level.get(key, options),
    getMany: (keys, options) => level.getMany(keys, options),
    iterator: (options) => level.iterator(options),
    keys: (options) => level.keys(options),
  }
}

async function onFolder<T extends { open(): Promise<void>; close(): Promise<unknown> }>(make: (path: string) => T, action: (opened: T) => Promise<void>): Promise<Result> {
  const path = mkdtempSync(join(folder, 'db-'))
  const opened = make(path)
  await opened.open()
  try {
    return await timed(() => action(opened))
  } finally {
    await opened.close()
    rmSync(path, { recursive: true, force: true })
  }
}

function openRaw(path: string): ClassicLevel<Buffer, Buffer> {
  return new ClassicLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer', ...SIZES })
}

async function writeChained(level: ClassicLevel<Buffer, Buffer>, batches: readonly Operations[]): Promise<void> {
  for (const operations of batches) {
    const batch = level.batch()
    for (let index = 0; index < operations.length; index += 2) batch.put(operations[index]!, operations[index + 1]!)
    await batch.write({ sync: true })
  }
}

async function writeObjects(level: ClassicLevel<Buffer, Buffer>, batches: readonly Operations[]): Promise<void> {
  for (const operations of batches) {
    const list: { type: 'put'; key: Buffer; value: Buffer }[] = []
    for (let index = 0; index < operations.length; index += 2) list.push({ type: 'put', key: operations[index]!, value: operations[index + 1]! })
    await level.batch(list, { sync: true })
  }
}
