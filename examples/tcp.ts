import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { ChannelType, IMEngine, staticTokenVerifier } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

export async function start(wantedPort = 0, path = './data'): Promise<{ port: number; close(): Promise<void> }> {
  const engine = new IMEngine({
    tokenVerifier: staticTokenVerifier({ ann: 'token-of-ann', bob: 'token-of-bob' }),
    storage: levelStorage({ path }),
  })
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort), 'listening')

  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.close()
      await engine.close()
    },
  }
}

if (process.argv[1] === import.meta.filename) {
  const { port } = await start(5100)
  console.log(`The WuKongIM SDKs for phones: localhost:${port}, as ann with token-of-ann or as bob with token-of-bob`)
}
