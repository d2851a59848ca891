/**
 * An engine on a folder, served over TCP, in a process that may be killed at any moment. The parent hears of the port, and
 * may ask what a channel holds, or for an orderly end.
 */
import { createServer, type AddressInfo } from 'node:net'
import { ClassicLevel } from 'classic-level'
import { allowAnyToken, IMEngine, type ChannelKey } from 'imengine'
import { levelStorage, type AnyLevel } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

/** From the parent. */
export type Ask =
  | { readonly kind: 'open' }
  | { readonly kind: 'create'; readonly key: ChannelKey; readonly subscribers: readonly string[] }
  | { readonly kind: 'range'; readonly key: ChannelKey; readonly startSeq: number }
  | { readonly kind: 'close' }

/** A stored message, as far as the parent looks at it. */
export interface Stored {
  readonly messageSeq: number
  readonly messageID: string
  readonly fromUID: string
  readonly clientMsgNo: string
  readonly text: string
}

export type Answer =
  | { readonly kind: 'loaded' | 'done' }
  | { readonly kind: 'open'; readonly port: number }
  | { readonly kind: 'range'; readonly lastSeq: number; readonly messages: readonly Stored[] }

/** 'slow': a disk on which writes begin late, so that an answer that does not wait for them is far ahead of them. */
const [, , path, disk] = process.argv
if (path === undefined) throw new Error('which folder?')

/** Small, so that sorted files are written and merged all the time, and the end may come while they are. */
const writeBufferBytes = 256 << 10
/** More than it takes an answer to reach the parent, and the parent to end this process. */
const SLOW_MS = 50

function slow(level: ClassicLevel<Buffer, Buffer>): AnyLevel {
  const begin = level.batch.bind(level)
  return Object.assign(level, {
    batch: () => {
      const batch = begin()
      const write = batch.write.bind(batch)
      return Object.assign(batch, {
        write: async (options: { sync?: boolean }) => {
          await new Promise((resolve) => setTimeout(resolve, SLOW_MS))
          return write(options)
        },
      })
    },
  })
}

function makeEngine(folder: string): IMEngine {
  const encodings = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  const storage =
    disk === 'slow'
      ? levelStorage({ db: slow(new ClassicLevel(folder, { ...encodings, writeBufferSize: writeBufferBytes })) })
      : levelStorage({ path: folder, writeBufferBytes })
  return new IMEngine({ storage, tokenVerifier: allowAnyToken(), plaintext: 'allow' })
}

let engine: IMEngine
const server = createServer()

function tell(answer: Answer): void {
  process.send!(answer)
}

async function answer(ask: Ask): Promise<void> {
  if (ask.kind === 'open') {
    engine = makeEngine(path!)
    await engine.start()
    attachNetServer(engine, server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return tell({ kind: 'open', port: (server.address() as AddressInfo).port })
  }
  if (ask.kind === 'create') {
    await engine.channels.create(ask.key, { subscribers: ask.subscribers })
    return tell({ kind: 'done' })
  }
  if (ask.kind === 'range') {
    const lastSeq = await engine.messages.lastSeq(ask.key)
    const messages: Stored[] = []
    for await (const { messageSeq, messageID, fromUID, clientMsgNo, payload } of engine.messages.range(ask.key, { startSeq: ask.startSeq })) {
      messages.push({ messageSeq, messageID, fromUID, clientMsgNo, text: Buffer.from(payload).toString() })
    }
    return tell({ kind: 'range', lastSeq, messages })
  }
  server.close()
  await engine.close()
  process.disconnect()
}

process.on('message', (ask) => void answer(ask as Ask))
process.on('disconnect', () => process.exit(0)) // nobody is left to serve
tell({ kind: 'loaded' })
