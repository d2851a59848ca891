/** The load, in a process of its own: pairs of connections, one sends to the other with a window, both count what comes. */
import { connect, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { ClientKeyAgreement, encode, FrameDecoder, FrameType, openRecv, sealSend, type PayloadCipher, type SendPacket } from 'imengine/protocol'
import { RELAY_ACK_BYTES, RELAY_MESSAGE_BYTES, type Job, type Result } from './wire.ts'

const job = JSON.parse(process.argv[2]!) as Job
const latencies: number[] = []
let acked = 0
let delivered = 0
let measuring = false

const pairs: (() => void)[] = []
// One after the other: the relay makes pairs of those that come next to each other.
for (let index = 0; index < job.pairCount; index++) pairs.push(await (job.kind === 'relay' ? relayPair() : enginePair(index)))
for (const start of pairs) start()
await new Promise((resolve) => setTimeout(resolve, job.warmUpMs))
;[acked, delivered, measuring] = [0, 0, true]
const cpu = process.cpuUsage()
const startedAt = performance.now()
await new Promise((resolve) => setTimeout(resolve, job.measureMs))
const seconds = (performance.now() - startedAt) / 1000
const { user, system } = process.cpuUsage(cpu)
latencies.sort((a, b) => a - b)
const at = (share: number): number => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN
const result: Result = {
  messagesPerSecond: Math.min(acked, delivered) / seconds,
  loadCPU: (user + system) / 1e6 / seconds,
  p50Ms: at(0.5),
  p99Ms: at(0.99),
}
process.send?.(result)
process.exit(0)

function count(sentAt: number): void {
  acked++
  if (measuring && acked % 16 === 0) latencies.push(performance.now() - sentAt)
}

async function relayPair(): Promise<() => void> {
  const receiver = await open()
  const sender = await open()
  const message = Buffer.alloc(RELAY_MESSAGE_BYTES)
  const sentAt: number[] = []
  let received = 0
  let rest = 0
  receiver.on('data', (chunk) => {
    received += chunk.length
    delivered += Math.floor(received / RELAY_MESSAGE_BYTES)
    received %= RELAY_MESSAGE_BYTES
  })
  const send = (messageCount: number): void => {
    for (let index = 0; index < messageCount; index++) sentAt.push(performance.now())
    sender.write(messageCount === 1 ? message : Buffer.alloc(messageCount * RELAY_MESSAGE_BYTES))
  }
  sender.on('data', (chunk) => {
    rest += chunk.length
    const ackCount = Math.floor(rest / RELAY_ACK_BYTES)
    rest %= RELAY_ACK_BYTES
    if (ackCount === 0) return
    for (const time of sentAt.splice(0, ackCount)) count(time)
    send(ackCount)
  })
  return () => send(job.window)
}

async function enginePair(index: number): Promise<() => void> {
  const receiver = await login(`r${index}`)
  const sender = await login(`s${index}`)
  const payload = Buffer.alloc(job.payloadBytes, 0x61)
  const sentAt = new Map<number, number>()
  let clientSeq = 0
  let lastSeq = 0
  receiver.onFrames((frame) => {
    if (frame.type !== FrameType.RECV) return undefined
    if (frame.messageSeq !== lastSeq + 1) throw new Error(`seq ${frame.messageSeq} after ${lastSeq}`)
    if (receiver.cipher !== undefined && delivered % 64 === 0 && openRecv(frame, receiver.cipher) === undefined) throw new Error('a RECV cannot be read')
    lastSeq = frame.messageSeq
    delivered++
    return encode({ type: FrameType.RECVACK, flags: 0, messageID: frame.messageID, messageSeq: frame.messageSeq }, 5)
  })
  const nextSend = (): Uint8Array => {
    const packet: SendPacket = {
      type: FrameType.SEND, flags: 0, setting: 0, clientSeq: ++clientSeq, clientMsgNo: `${index}-${clientSeq}`, streamNo: '',
      channelID: `r${index}`, channelType: 1, expireSec: 0, msgKey: '', topic: '', payload,
    }
    sentAt.set(clientSeq, performance.now())
    return encode(sender.cipher === undefined ? packet : sealSend(packet, sender.cipher), 5)
  }
  sender.onFrames((frame) => {
    if (frame.type !== FrameType.SENDACK) return undefined
    if (frame.reasonCode !== 1) throw new Error(`SENDACK ${frame.reasonCode}`)
    count(sentAt.get(frame.clientSeq)!)
    sentAt.delete(frame.clientSeq)
    return nextSend()
  })
  return () => sender.write(Array.from({ length: job.window }, nextSend))
}

type OnFrame = (frame: Parameters<Parameters<FrameDecoder['feed']>[1]>[0]) => Uint8Array | undefined

interface Client {
  readonly cipher: PayloadCipher | undefined
  /** answers of one chunk leave in one write */
  onFrames(listener: OnFrame): void
  write(frames: readonly Uint8Array[]): void
}

async function login(uid: string): Promise<Client> {
  const socket = await open()
  const decoder = new FrameDecoder({ version: 5 })
  const keys = job.kind === 'encrypted' ? new ClientKeyAgreement() : undefined
  const write = (frames: readonly Uint8Array[]): void => void (frames.length > 0 && socket.write(Buffer.concat(frames)))
  let onFrame: OnFrame = () => undefined
  socket.on('data', (chunk) => {
    const answers: Uint8Array[] = []
    decoder.feed(chunk, (frame) => {
      const answer = onFrame(frame)
      if (answer !== undefined) answers.push(answer)
    })
    write(answers)
  })
  write([encode({ type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 0, deviceID: uid, uid, token: '', clientTimestampMs: 0n, clientKey: keys?.clientKey ?? '' }, 5)])
  const cipher = await new Promise<PayloadCipher | undefined>((resolve) => {
    onFrame = (frame) => {
      if (frame.type === FrameType.CONNACK) resolve(keys?.complete(frame.serverKey, frame.salt))
      return undefined
    }
  })
  return { cipher, write, onFrames: (listener) => (onFrame = listener) }
}

async function open(): Promise<Socket> {
  const socket = connect({ port: job.port, host: '127.0.0.1', noDelay: true })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return socket
}
