/**
 * What a store of many messages costs: `npm run bench -- large-store`, or with `--messages 5000000 --channels 10000`. Takes some
 * minutes and about 300 bytes of disk a message in the temporary folder, or in `--folder`.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ChannelType, type ChannelKey } from 'imengine'
import { levelStorage, type LevelStorage } from 'imengine/level'
import { writeJSON } from './report.ts'
import { machine, sampleMessage } from './sample.ts'

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '5000000' },
    channels: { type: 'string', default: '10000' },
    folder: { type: 'string', default: tmpdir() },
  },
})
const messageCount = Number(values.messages)
const channelCount = Number(values.channels)
/** Appends under way at any time, each of some messages for one channel, as an engine with that many busy channels makes them. */
const CONCURRENCY = 256
const MESSAGES_PER_CALL = 4
const PARTS = 10
const READ_COUNT = 2_000

const keys: readonly ChannelKey[] = Array.from({ length: channelCount }, (_, index) => ({ channelID: `room-${index}`, channelType: ChannelType.Group }))
let state = 42
/** Mulberry32: the same channels in every run. */
function random(): number {
  state = (state + 0x6d2b_79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), state | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
const anyKey = (): ChannelKey => keys[Math.floor(random() * channelCount)]!

const path = mkdtempSync(join(values.folder, 'imengine-large-'))
console.log(`${machine()}\n${messageCount.toLocaleString('en')} messages of 100 bytes in ${channelCount.toLocaleString('en')} channels, synced\n`)
try {
  const storage = levelStorage({ path })
  await storage.open()
  const rates: number[] = []
  for (let part = 0; part < PARTS; part++) {
    const from = performance.now()
    await append(storage, messageCount / PARTS)
    rates.push(messageCount / PARTS / ((performance.now() - from) / 1000))
    console.log(`append ${(part + 1) * (100 / PARTS)} %: ${Math.round(rates.at(-1)!).toLocaleString('en')} messages/s, RSS ${megabytes()} MB`)
  }
  writeJSON('large-store', { messageCount, channelCount, appendsPerSecond: rates })
  console.log(`\nthe last part at ${Math.round((rates.at(-1)! / rates[0]!) * 100)} % of the first one's rate`)
  await storage.close()
  console.log(`on disk: ${(diskBytes() / messageCount).toFixed(0)} bytes a message`)

  const again = levelStorage({ path })
  const opening = performance.now()
  await again.open()
  console.log(`\nopen: ${Math.round(performance.now() - opening)} ms`)
  console.log(`newest 50, right after: ${await readLatency(again)}`)
  await again.ready()
  console.log(`ready (numbers known): ${Math.round(performance.now() - opening)} ms, RSS ${megabytes()} MB`)
  console.log(`newest 50, later:       ${await readLatency(again)}`)
  const from = performance.now()
  await append(again, messageCount / PARTS)
  console.log(`append after a restart: ${Math.round(messageCount / PARTS / ((performance.now() - from) / 1000)).toLocaleString('en')} messages/s, RSS ${megabytes()} MB`)
  await again.close()
} finally {
  rmSync(path, { recursive: true, force: true })
}

async function append({ messages }: LevelStorage, count: number): Promise<void> {
  let left = Math.ceil(count / MESSAGES_PER_CALL)
  const run = async (sender: number): Promise<void> => {
    while (left-- > 0) {
      const key = anyKey()
      await messages.append([{ key, messages: Array.from({ length: MESSAGES_PER_CALL }, () => sampleMessage(key, sender)) }])
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, (_, sender) => run(sender)))
}

async function readLatency({ messages }: LevelStorage): Promise<string> {
  const times: number[] = []
  for (let read = 0; read < READ_COUNT; read++) {
    const key = anyKey()
    const from = performance.now()
    await messages.range(key, { direction: 'backward', limit: 50 })
    times.push(performance.now() - from)
  }
  times.sort((a, b) => a - b)
  const at = (share: number): string => times[Math.floor((times.length - 1) * share)]!.toFixed(2)
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, of ${READ_COUNT.toLocaleString('en')} channels`
}

function megabytes(): number {
  return Math.round(process.memoryUsage.rss() / 1e6)
}

function diskBytes(): number {
  return Number(execFileSync('du', ['-sb', path], { encoding: 'utf8' }).split('\t')[0])
}
