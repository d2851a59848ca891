import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { allOf, allowAnyToken, ChannelType, IMEngine, MemberRole, ReasonCode, refuse, sendPolicy, type AuthorizeSend } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

// #region policy
/** A rule of your own, asked behind those of the engine: a trial account may write to support and to nobody else. */
const trialUsers = new Set(['trial'])
const trialsAskSupport: AuthorizeSend = ({ uid, channelID }) => {
  if (trialUsers.has(uid) && channelID !== 'support') return refuse(ReasonCode.NotAllowSend, 'a trial account')
}

const authorizeSend = allOf(
  sendPolicy({
    personAllowlist: true, // friends only, unless the receiver's own channel has `allowStranger`
    blockBothWays: true, // who blocks somebody cannot write to them either
    rules: { [ChannelType.Live]: 'members' }, // here live channels must exist, and are for those who have joined
  }),
  trialsAskSupport,
)
// #endregion

/** Who may say what to whom: friends only, a group where only its owner speaks, and a rule for trial accounts. */
export async function start(wantedPort = 0, path = './data') {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }), authorizeSend })
  await engine.start()

  // #region groups
  const news = { channelID: 'news', channelType: ChannelType.Group }
  await engine.channels.create(
    { ...news, mode: 'announcement' },
    { subscribers: [{ uid: 'olga', role: MemberRole.Owner }, 'ann', 'trial'] },
  )
  await engine.channels.allowlist.add({ channelID: 'bob', channelType: ChannelType.Person }, ['ann']) // bob's friends
  await engine.channels.create({ channelID: 'support', channelType: ChannelType.Person, allowStranger: true })
  await engine.channels.denylist.add({ channelID: 'ann', channelType: ChannelType.Person }, ['mallory'])
  // #endregion

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
