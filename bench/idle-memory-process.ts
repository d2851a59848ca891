/** Many connections on sockets that are plain objects, in a process of its own: `bare`, or an engine with encryption `on` or `off`. */
import { allowAnyToken, IMEngine, type Socket } from 'imengine'
import { ClientKeyAgreement } from 'imengine/protocol'
import { connectFrame } from './load/im-client.ts'
import { senderUID, type Sample } from './wire.ts'

export interface InProcessSample {
  readonly before: Omit<Sample, 'cpuMs'>
  readonly after: Omit<Sample, 'cpuMs'>
}

const OPEN_AT_ONCE = 500

/** Forgets what it is sent. */
class IdleSocket implements Socket {
  readonly framing = 'stream'
  readonly bufferedBytes = 0
  readonly onSend: () => void

  constructor(onSend: () => void) {
    this.onSend = onSend
  }

  send(): boolean {
    this.onSend()
    return true
  }

  close(): void {
    throw new Error('the engine has closed a connection')
  }
}

const what = process.argv[2] as 'bare' | 'on' | 'off'
const connectionCount = Number(process.argv[3])
const engine = what === 'bare' ? undefined : new IMEngine({ tokenVerifier: allowAnyToken(), plaintext: 'allow' })
await engine?.start()
const keys = what === 'on' ? new ClientKeyAgreement() : undefined
let answeredCount = 0
const answered = (): void => void answeredCount++
// What is made once for all is there before the first sample.
const sockets: unknown[] = new Array<unknown>(connectionCount).fill(undefined)
await open(0, OPEN_AT_ONCE)
const before = sample()
await open(OPEN_AT_ONCE, connectionCount)
const after = sample()
const scale = connectionCount / (connectionCount - OPEN_AT_ONCE)
const scaled = Object.fromEntries(Object.entries(after).map(([field, bytes]) => [field, before[field as keyof typeof before] + (bytes - before[field as keyof typeof before]) * scale]))
console.log(JSON.stringify({ before, after: scaled }))
process.exit(sockets.length === connectionCount ? 0 : 1)

async function open(first: number, end: number): Promise<void> {
  for (let from = first; from < end; from += OPEN_AT_ONCE) {
    for (let index = from; index < Math.min(end, from + OPEN_AT_ONCE); index++) {
      const socket = new IdleSocket(answered)
      sockets[index] = socket
      engine?.accept(socket, { remoteAddress: '127.0.0.1' }).receive(connectFrame(senderUID(index), keys?.clientKey ?? ''))
    }
    while (engine !== undefined && answeredCount < Math.min(end, from + OPEN_AT_ONCE)) await new Promise((resolve) => setImmediate(resolve))
  }
}

function sample(): InProcessSample['before'] {
  for (let round = 0; round < 3; round++) gc!()
  const { rss, heapUsed, external } = process.memoryUsage()
  return { rssBytes: rss, heapUsedBytes: heapUsed, externalBytes: external }
}
