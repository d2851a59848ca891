import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { ChannelType, DeviceFlag, DeviceLevel, IMEngine, MemberRole, memoryStorage, staticTokenVerifier } from 'imengine'
import { attachNetServer } from 'imengine/net'

const say = (content: string): Uint8Array => Buffer.from(JSON.stringify({ type: 1, content }))

/** What a back office does: tokens, groups, mutes, notices, and who is there. */
export async function start(wantedPort = 0) {
  const storage = memoryStorage()
  const engine = new IMEngine({ storage, tokenVerifier: staticTokenVerifier(storage.tokens) })
  await engine.start()

  // #region manage
  // A token per kind of device, as your login hands it out. A master token ends other phones of ann's.
  await engine.users.setToken('ann', { deviceFlag: DeviceFlag.App, deviceLevel: DeviceLevel.Master, token: 'ann-secret' })

  const team = { channelID: 'team', channelType: ChannelType.Group }
  await engine.channels.create(team, { subscribers: [{ uid: 'ann', role: MemberRole.Owner }, 'bob', 'cat'] })
  await engine.channels.mute(team, 'bob', { forMs: 600_000 })
  await engine.channels.setMode(team, 'announcement') // the owner alone speaks

  // Lists go by pages, however long they are.
  for (let cursor: string | undefined, isFirst = true; isFirst || cursor !== undefined; isFirst = false) {
    const page = await engine.channels.subscribers.list(team, { limit: 100, ...(cursor === undefined ? {} : { cursor }) })
    for (const { uid, role } of page.items) console.log(uid, role)
    cursor = page.cursor
  }

  const notice = { fromUID: 'service', payload: say('We move tonight.') }
  const { sent, failed } = await engine.messages.sendToUsers(['ann', 'bob'], notice)

  const stop = engine.presence.subscribe(['ann'], ({ uid, online }) => console.log(uid, online ? 'is here' : 'has gone'))
  const [ann] = await engine.presence.query(['ann'])
  // #endregion

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    sent,
    failed,
    isOnline: ann?.online,
    close: async (): Promise<void> => {
      stop()
      server.close()
      await engine.close()
    },
  }
}
