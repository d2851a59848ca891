import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { ChannelType, IMEngine, staticTokenVerifier } from 'imengine'
import { attachWebSocketServer } from 'imengine/ws'
import { WebSocketServer } from 'ws'

export async function start(wantedPort = 0): Promise<{ port: number; close(): Promise<void> }> {
  const engine = new IMEngine({ tokenVerifier: staticTokenVerifier({ ann: 'token-of-ann', bob: 'token-of-bob' }) })
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })

  const wss = new WebSocketServer({ port: wantedPort, maxPayload: 1 << 20 })
  attachWebSocketServer(engine, wss)
  await once(wss, 'listening')

  return {
    port: (wss.address() as AddressInfo).port,
    close: async () => {
      wss.close()
      await engine.close()
    },
  }
}

if (process.argv[1] === import.meta.filename) {
  const { port } = await start(5001)
  console.log(`Any WuKongIM SDK: ws://localhost:${port}, as ann with token-of-ann or as bob with token-of-bob`)
}
