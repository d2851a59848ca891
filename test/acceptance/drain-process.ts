/**
 * An engine on TCP in a process of its own, which is told by IPC to close and then does nothing more: that it ends shows
 * that nothing of the engine is left, because nobody calls `exit`.
 */
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, IMEngine, memoryStorage } from 'imengine'
import { attachNetServer } from 'imengine/net'

export type Report =
  | { readonly is: 'listening'; readonly port: number }
  | { readonly is: 'asked'; readonly text: string }
  | { readonly is: 'closed'; readonly storedCount: number; readonly state: string }

/** 'release': the webhook answers. 'close': the engine closes, the server after it. */
export type Command = 'release' | 'close'

const tell = (report: Report): void => void process.send!(report)
const waiting: (() => void)[] = []
const storage = memoryStorage()
const engine = new IMEngine({
  tokenVerifier: allowAnyToken(),
  storage,
  plaintext: 'allow',
  webhook: {
    beforeSend: async ({ payload }) => {
      tell({ is: 'asked', text: Buffer.from(payload).toString() })
      await new Promise<void>((resolve) => waiting.push(resolve))
      return { code: 0 }
    },
  },
})
const team = { channelID: 'team', channelType: 2 }
await engine.start()
await engine.channels.create(team, { subscribers: ['ann', 'bob'] })
const server = createServer()
attachNetServer(engine, server)
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

async function close(): Promise<void> {
  await engine.close()
  server.close()
  tell({ is: 'closed', storedCount: await storage.messages.lastSeq(team), state: engine.state })
  process.disconnect() // the wire to the parent is the one thing that is ours
}

process.on('message', (command: Command) => {
  if (command === 'release') for (const release of waiting.splice(0)) release()
  else void close()
})
tell({ is: 'listening', port: (server.address() as AddressInfo).port })
