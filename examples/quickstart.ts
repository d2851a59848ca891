import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
// #region server
import { ChannelType, IMEngine, staticTokenVerifier } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachWebSocketServer } from 'imengine/ws'
import { WebSocketServer } from 'ws'

// #endregion
export async function start(port = 0, path = './data'): Promise<{ port: number; close(): Promise<void> }> {
  // #region server
  const engine = new IMEngine({
    tokenVerifier: staticTokenVerifier({ ann: 'token-of-ann', bob: 'token-of-bob' }),
    storage: levelStorage({ path }), // a folder, of which a restart loses nothing
  })
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })

  const wss = new WebSocketServer({ port, maxPayload: 1 << 20 })
  attachWebSocketServer(engine, wss)
  // #endregion
  await once(wss, 'listening')
  const close = async (): Promise<void> => {
    wss.close()
    await engine.close()
  }
  return { port: (wss.address() as AddressInfo).port, close }
}

if (process.argv[1] === import.meta.filename) {
  const { port } = await start(5001)
  console.log(`Any WuKongIM SDK: ws://localhost:${port}, as ann with token-of-ann or as bob with token-of-bob`)
}
