/**
 * One engine of a cluster with a level store in a folder, served over TCP, in a process that may be killed or stopped at any
 * moment. The parent asks by IPC, one question at a time or several.
 */
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, IMEngine, IMError, type ChannelKey, type Clock } from 'imengine'
import { levelStorage } from 'imengine/level'
import { natsCluster } from 'imengine/nats'
import { attachNetServer } from 'imengine/net'
import { systemClock } from '../../../src/services/system.ts'

export interface NodeOptions {
  readonly folder: string
  readonly nodeID: number
  readonly servers: readonly string[]
  readonly name: string
  readonly partitions: number
  /** how far its clock is ahead of the others, or behind */
  readonly clockOffsetMs: number
}

/** From the parent. */
export type Ask =
  | { readonly kind: 'open' }
  | { readonly kind: 'create'; readonly key: ChannelKey; readonly subscribers: readonly string[] }
  | { readonly kind: 'log'; readonly keys: readonly ChannelKey[] }
  | { readonly kind: 'status' }
  | { readonly kind: 'online'; readonly uids: readonly string[] }
  | { readonly kind: 'disk'; readonly isFull: boolean }
  | { readonly kind: 'close' }

/** A stored message, as far as the parent compares it. */
export interface Stored {
  readonly messageSeq: number
  readonly messageID: string
  readonly fromUID: string
  readonly clientMsgNo: string
  readonly text: string
  readonly timestampMs: number
}

export interface NodeStatus {
  readonly isConnected: boolean
  readonly partitions: readonly {
    readonly log: string
    readonly appliedIndex: number
    readonly lastIndex: number
    readonly queuedCount: number
    readonly isFollowing: boolean
    /** the code of the error that it has stopped for */
    readonly stopped: string | undefined
  }[]
  /** codes of what the engine and the cluster have complained about, and how often */
  readonly errors: Readonly<Record<string, number>>
}

export interface Answers {
  open: { readonly port: number }
  create: null
  /** by channel, as asked */
  log: readonly { readonly lastSeq: number; readonly messages: readonly Stored[] }[]
  status: NodeStatus
  /** of every user, on which nodes */
  online: readonly (readonly number[])[]
  disk: null
  close: null
}

const options = JSON.parse(process.argv[2]!) as NodeOptions
/** More often than by default: what is asserted is how many beats it takes until somebody is gone. */
const HEARTBEAT_MS = 2_000

const errors: Record<string, number> = {}
const count = ({ code }: IMError): void => {
  errors[code] = (errors[code] ?? 0) + 1
}

const clock: Clock = { ...systemClock(), nowMs: () => Date.now() + options.clockOffsetMs }

let isDiskFull = false
const storage = levelStorage({ path: options.folder })
const append = storage.messages.append.bind(storage.messages)
storage.messages.append = (batches, position) => {
  if (isDiskFull) return Promise.reject(new IMError('IM_STORE_FULL', { detail: 'as the test wants it' }))
  return append(batches, position)
}

const { servers, name, partitions, nodeID } = options
const cluster = natsCluster({ servers, name, partitions, onError: count, log: { maxBytes: 2 ** 27 } })
const engine = new IMEngine({
  ...cluster,
  nodeID,
  storage,
  clock,
  tokenVerifier: allowAnyToken(),
  plaintext: 'allow',
  // Everybody is to get everything at one login, also where a position was not agreed on in time and much is sent twice.
  limits: { presenceHeartbeatMs: HEARTBEAT_MS, maxReplayPerChannel: 100_000, maxReplay: 1_000_000, maxUnackedRecvs: 1_000_000 },
})
engine.on('error', count)
const server = createServer()

async function logOf(key: ChannelKey): Promise<Answers['log'][number]> {
  const messages: Stored[] = []
  for await (const { messageSeq, messageID, fromUID, clientMsgNo, payload, timestampMs } of engine.messages.range(key)) {
    messages.push({ messageSeq, messageID, fromUID, clientMsgNo, text: Buffer.from(payload).toString(), timestampMs })
  }
  return { lastSeq: await engine.messages.lastSeq(key), messages }
}

async function answer(ask: Ask): Promise<Answers[keyof Answers]> {
  switch (ask.kind) {
    case 'open':
      await engine.start()
      attachNetServer(engine, server)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return { port: (server.address() as AddressInfo).port }
    case 'create':
      await engine.channels.create(ask.key, { subscribers: ask.subscribers })
      return null
    case 'log':
      return Promise.all(ask.keys.map(logOf))
    case 'status': {
      const { isConnected, partitions: all } = cluster.replicator.status()
      return { isConnected, errors, partitions: all.map((each) => ({ ...each, stopped: each.stopped?.code })) }
    }
    case 'online': {
      const found = await engine.presence.query(ask.uids)
      return found.map(({ devices }) => devices.map((device) => device.nodeID))
    }
    case 'disk':
      isDiskFull = ask.isFull
      return null
    case 'close':
      server.close()
      await engine.close({ drainMs: 2_000 })
      return null
  }
}

process.on('message', (question) => {
  const { id, ask } = question as { id: number; ask: Ask }
  answer(ask).then(
    (value) => process.send?.({ id, value }),
    (error: unknown) => process.send?.({ id, error: String(error) }),
  )
})
process.on('disconnect', () => process.exit(0)) // nobody is left to serve
process.send!('loaded')
