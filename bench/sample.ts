/** What the storage benchmarks write, and how they say what they measured. */
import { randomBytes } from 'node:crypto'
import { cpus } from 'node:os'
import type { ChannelKey, Message } from 'imengine'

const PAYLOAD_BYTES = 100
/** What cannot be compressed: payloads are pieces of it. */
const noise = randomBytes(65_536)
let lastNumber = 1_000_000_000

/** A message with a payload of 100 bytes, and ids as long as those of the engine and the client SDKs. Cheap to make: it is part of what is measured. */
export function sampleMessage({ channelID, channelType }: ChannelKey, sender: number): Message {
  const number = String(++lastNumber)
  const offset = (lastNumber * 7_919) % (noise.length - PAYLOAD_BYTES)
  return {
    channelID,
    channelType,
    messageID: `190000000${number}`,
    messageSeq: 0,
    clientMsgNo: `4f1d2a6b8c0e4d5f9a7b3c${number}`,
    fromUID: `user-${sender}`,
    payload: noise.subarray(offset, offset + PAYLOAD_BYTES),
    timestampMs: 1_780_000_000_000 + lastNumber,
    expireSec: 0,
    topic: '',
    setting: 0,
    noPersist: false,
    redDot: true,
    syncOnce: false,
  }
}

export function machine(): string {
  return `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}`
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}

export function spread(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  const text = (value: number): string => Math.round(value).toLocaleString('en')
  return `${text(median(values))} (${text(sorted[0]!)} – ${text(sorted.at(-1)!)})`
}

/** CPU and wall time of one action. */
export async function timed(action: () => Promise<void>): Promise<{ seconds: number; cpuMicros: number }> {
  const cpu = process.cpuUsage()
  const from = performance.now()
  await action()
  const seconds = (performance.now() - from) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { seconds, cpuMicros: user + system }
}
