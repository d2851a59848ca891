/** One node: the chat of examples/chat in a process of its own. `cluster.ts` starts it, and hears from it when it can be used. */
import { IMError } from 'imengine'
import { natsCluster } from 'imengine/nats'
import { start, type Chat, type ChatOptions } from '../chat/server.ts'

/** What a node is told, as JSON, in its first argument. */
export interface NodeSettings extends Required<Pick<ChatOptions, 'port' | 'tcpPort' | 'dataDir' | 'offline'>> {
  readonly nodeID: number
  readonly servers: readonly string[]
}

const { nodeID, servers, ...settings } = JSON.parse(process.argv[2] ?? '{}') as NodeSettings

const chat: Chat = await start({
  ...settings,
  cluster: {
    nodeID, // another one for every node
    ...natsCluster({ servers, onError: (error) => console.error(error.code, error.message) }),
  },
})
chat.engine.on('isolated', ({ isIsolated }) => console.error(isIsolated ? 'cut off from the other nodes' : 'with the other nodes again'))
process.send?.({ port: chat.port, tcpPort: chat.tcpPort })

let stopping = false
function stop(): void {
  if (stopping) return
  stopping = true
  chat.close().then(
    () => process.disconnect?.(),
    (error: unknown) => {
      console.error(error instanceof IMError ? error.code : error)
      process.exit(1)
    },
  )
}
// Ctrl+C reaches every process of the terminal; whoever has started this one says when it is time.
process.on('SIGINT', () => undefined)
process.on('SIGTERM', stop)
process.on('disconnect', stop)
