/**
 * The parts by themselves: nanoseconds of one operation. The codec is that of `dist`; queue, chain and registry, which no entry
 * exports, are compiled from the sources in the same way. `npm run bench -- micro`, or with `--runs 9`.
 */
import { parseArgs } from 'node:util'
import { ChannelType, memoryPresence } from 'imengine'
import { ClientKeyAgreement, acceptKeyAgreement, encode, FrameDecoder, FrameType, openSend, RecvEncoder, SealModule, sealSend, SessionCipher, type Message, type SendPacket } from 'imengine/protocol'
import { ConnectionRegistry } from '../src/connection/connection-registry.ts'
import type { Connection } from '../src/connection/connection.ts'
import type { Timers } from '../src/contracts/clock.ts'
import { KeyedQueue } from '../src/events/keyed-queue.ts'
import { ChainRunner, type Runnable, type Step } from '../src/events/run-chain.ts'
import { positive } from './options.ts'
import { printHead, printTable, range, writeJSON } from './report.ts'
import { sampleMessage } from './sample.ts'
import { randomBytes } from 'node:crypto'

const { values } = parseArgs({ options: { runs: { type: 'string', default: '7' } } })
const runs = positive('runs', values.runs)
const RUN_MS = 100
const VERSION = 5
const COUNT = 64

/** @returns how many operations it has done */
type Round = () => number | Promise<number>
const benchmarks: { readonly name: string; readonly round: Round; readonly nanos: number[] }[] = []
const add = (name: string, round: Round): void => void benchmarks.push({ name, round, nanos: [] })

const send: SendPacket = {
  type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 1, clientMsgNo: '4f1d2a6b8c0e4d5f9a7b3c1000000000', streamNo: '', channelID: 'r00001',
  channelType: ChannelType.Person, expireSec: 0, msgKey: '', topic: '', payload: randomBytes(100),
}
const message: Message = { ...sampleMessage({ channelID: 'r00001', channelType: ChannelType.Person }, 1), messageSeq: 7 }
const client = new ClientKeyAgreement()
const secret = { key: '0b22f4bd70f1bd5e', iv: 'A1b2C3d4E5f6G7h8' }
const ciphers = { 'node:crypto': new SessionCipher(secret), WebAssembly: new SessionCipher({ ...secret, module: SealModule.load() }) }

addDecoding('decode SEND, 100 bytes', encode(send, VERSION))
addDecoding('decode RECVACK', encode({ type: FrameType.RECVACK, flags: 0, messageID: message.messageID, messageSeq: 7 }, VERSION))
const sendack = { type: FrameType.SENDACK, flags: 0, messageID: message.messageID, clientSeq: 1, messageSeq: 7, reasonCode: 1 } as const
add('encode SENDACK', () => repeat(() => encode(sendack, VERSION)))
add('encode RECV, first receiver', () => repeat(() => new RecvEncoder(message).encode({ version: VERSION, channelID: 's00001', redDot: true })))
const encoder = new RecvEncoder(message)
add('encode RECV, further plain receiver', () => repeat(() => encoder.encode({ version: VERSION, channelID: 's00001', redDot: true })))
for (const [name, cipher] of Object.entries(ciphers)) {
  const sealed = sealSend(send, cipher)
  add(`encode and seal RECV, further receiver, ${name}`, () => repeat(() => encoder.encode({ version: VERSION, channelID: 's00001', redDot: true, cipher })))
  add(`seal SEND, ${name}`, () => repeat(() => sealSend(send, cipher)))
  add(`open SEND, ${name}`, () => repeat(() => openSend(sealed, cipher)))
}
add('key agreement, server', () => {
  acceptKeyAgreement(client.clientKey, randomBytes)
  return 1
})

addQueue('keyed queue, 64 keys, 1 event each', COUNT)
addQueue('keyed queue, 1 key, 64 events', 1)
addChain('chain of 4 synchronous steps', () => undefined)
addChain('chain of 4 asynchronous steps', async () => undefined)

const uids = Array.from({ length: 1_000 }, (_, index) => `user-${index}`)
const presence = memoryPresence()
const registry = new ConnectionRegistry()
for (let index = 0; index < 100_000; index++) {
  const uid = `user-${index}`
  const connectionID = String(index)
  void presence.online({ uid, nodeID: 1, connectionID, deviceFlag: 0, deviceLevel: 1 })
  registry.register({ uid, connectionID } as Connection)
}
add('memory presence, of a uid among 100,000', async () => {
  await presence.locate(uids)
  return uids.length
})
add('registry, of a uid among 100,000', () => {
  let count = 0
  for (const uid of uids) count += registry.of(uid).length
  return count
})

printHead(`${runs} runs of ${RUN_MS} ms`)
for (const { round } of benchmarks) await nanosOf(round) // warm-up
for (let run = 0; run < runs; run++) for (const each of benchmarks) each.nanos.push(await nanosOf(each.round))
printTable(['operation', 'ns'], benchmarks.map(({ name, nanos }) => [name, range(nanos)]))
writeJSON('micro', { runs, rows: benchmarks.map(({ name, nanos }) => ({ name, nanos })) })

async function nanosOf(round: Round): Promise<number> {
  let count = 0
  const from = performance.now()
  let elapsedMs = 0
  while (elapsedMs < RUN_MS) {
    const done = round()
    count += typeof done === 'number' ? done : await done
    elapsedMs = performance.now() - from
  }
  return (elapsedMs * 1e6) / count
}

function repeat(action: () => unknown): number {
  for (let index = 0; index < COUNT; index++) action()
  return COUNT
}

/** Of a chunk with many frames in it, as a socket delivers them under load. */
function addDecoding(name: string, frame: Uint8Array): void {
  const chunk = Buffer.concat(Array.from({ length: COUNT }, () => frame))
  const decoder = new FrameDecoder({ version: VERSION })
  add(name, () => {
    let count = 0
    decoder.feed(chunk, () => void count++)
    return count
  })
}

function addQueue(name: string, keyCount: number): void {
  let handledCount = 0
  const queue = new KeyedQueue<number>({
    run: (_key, batch) => void (handledCount += batch.length),
    report: (defect) => {
      throw defect
    },
    schedule: () => undefined,
    bytesOf: (event) => event,
    maxEventsPerKey: 10_000, maxBytesPerKey: 1e9, maxEvents: 100_000, maxBytes: 1e9, maxBatchCount: 512,
  })
  const keys = Array.from({ length: keyCount }, (_, index) => `user-${index}`)
  add(name, () => {
    handledCount = 0
    for (let index = 0; index < COUNT; index++) queue.submit(keys[index % keyCount]!, 200)
    queue.drain()
    return handledCount
  })
}

function addChain(name: string, handler: () => undefined | Promise<undefined>): void {
  const entry = { dueMs: 0 }
  const timers: Timers = { after: () => entry, cancel: () => undefined }
  const runner = new ChainRunner({
    timers,
    report: (error) => {
      throw error
    },
  })
  const step = (stepName: string): Step<Runnable> => ({ name: stepName, handler, timeoutMs: 5_000, failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_FAILED', onError: 'fail' })
  const steps = ['a', 'b', 'c', 'd'].map(step)
  const context: Runnable = { event: 'EventOnSend', describe: () => ({}), abort: () => undefined }
  add(name, async () => {
    for (let index = 0; index < COUNT; index++) {
      const ended = runner.run(steps, context)
      if (ended !== undefined) await ended
    }
    return COUNT
  })
}
