import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { attachNetServer } from 'imengine/net'
// #region plugin
import { allowAnyToken, ChannelType, IMEngine, ReasonCode, refuse, type Plugin } from 'imengine'

/** Greets who comes in, and lets nobody say nothing. */
export const welcome: Plugin<{ readonly text: string }> = {
  name: 'welcome',
  setup(host, { text }) {
    host.use('EventOnSend', function notNothing({ payload }) {
      if (payload.length === 0) return refuse(ReasonCode.NotAllowSend)
    }, { after: 'checkPermission' })
    host.on('connected', ({ uid }) =>
      host.messages.send({ channelID: uid, channelType: ChannelType.Person, fromUID: 'welcome', payload: Buffer.from(text) }))
  },
}
// #endregion

export async function start(wantedPort = 0) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  // #region plugin
  engine.use(welcome, { text: 'Good to see you.' })
  // #endregion
  await engine.start()
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    plugins: engine.plugins.list(),
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
