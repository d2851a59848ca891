import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import {
  allowAnyToken,
  ChannelType,
  close,
  IMEngine,
  MemberRole,
  ReasonCode,
  reasonName,
  refuse,
  type ConnectContext,
  type DistributeContext,
  type OnSendContext,
  type Outcome,
  type Plugin,
} from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

// #region words
/** Stops what looks like spam, and rewrites what is merely rude. Synchronous, so it costs no promise. */
function redactWords(ctx: OnSendContext): Outcome {
  const text = Buffer.from(ctx.payload).toString()
  if (text.includes('buy now')) return refuse(ReasonCode.NotAllowSend, 'looks like spam')
  if (text.includes('darn')) ctx.payload = Buffer.from(text.replaceAll('darn', '****'))
}
// #endregion

// #region notes
declare module 'imengine' {
  interface EventState {
    linkCount?: number
  }
}

function countLinks(ctx: OnSendContext): void {
  ctx.state.linkCount = Buffer.from(ctx.payload).toString().split('https://').length - 1
}

/** Any handler behind it, of whatever plugin, finds the note with its type. */
function fewLinks({ state }: OnSendContext): Outcome {
  if ((state.linkCount ?? 0) > 3) return refuse(ReasonCode.NotAllowSend, 'too many links')
}
// #endregion

// #region announcements
/** In this one group only admins and the owner may speak. */
async function onlyAdminsAnnounce(ctx: OnSendContext): Promise<Outcome> {
  if (ctx.key.channelType !== ChannelType.Group || ctx.key.channelID !== 'announcements') return
  const member = await ctx.channels.member(ctx.key, ctx.conn.uid)
  if (member?.role === MemberRole.Admin || member?.role === MemberRole.Owner) return
  return refuse(ReasonCode.NotAllowSend, 'only admins announce')
}
// #endregion

// #region bans
const bannedUIDs = new Set(['mallory'])

/** Instead of the flags in the channel directory: the host's own list, which may be a database behind a promise. */
async function ownBans(ctx: ConnectContext): Promise<Outcome> {
  const isBanned = await Promise.resolve(bannedUIDs.has(ctx.frame.uid)) // await yourDatabase.isBanned(uid, { signal: ctx.signal })
  if (isBanned) return close(ReasonCode.Ban)
}
// #endregion

// #region batch
/** Before `store`: looks at the whole batch, refuses single messages. It may see a message twice, so it only looks. */
function noEmptyMessages(ctx: DistributeContext): Outcome {
  for (const message of ctx.messages) {
    if (message.payload.length === 0) ctx.refuse(message, ReasonCode.NotAllowSend)
  }
}
// #endregion

// #region plugin
/** Counts what was stored: a handler behind `acknowledge` sees every stored message exactly once. */
export function messageCounter(): Plugin & { readonly countOf: (channelID: string) => number } {
  const counts = new Map<string, number>()
  return {
    name: 'message-counter',
    countOf: (channelID) => counts.get(channelID) ?? 0,
    setup(host) {
      function countStored(ctx: DistributeContext): Outcome {
        const { channelID } = ctx.key
        counts.set(channelID, (counts.get(channelID) ?? 0) + ctx.messages.length)
      }
      host.use('EventChannelDistribute', countStored, { after: 'acknowledge' })
      host.on('messageRefused', ({ fromUID, reasonCode }) => console.log(`${fromUID}: ${reasonName(reasonCode)}`))
    },
  }
}
// #endregion

export async function start(wantedPort = 0, path = './data') {
  const counter = messageCounter()
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }) })
  // #region use
  engine.use('EventOnSend', redactWords) // no place named: before `acceptSend`
  engine.use('EventOnSend', onlyAdminsAnnounce, { after: 'checkPermission', timeoutMs: 500 })
  engine.use('EventChannelDistribute', noEmptyMessages, { before: 'store' })
  engine.use('EventOnSend', fewLinks)
  engine.use('EventOnSend', countLinks, { priority: 10, onError: 'fail-open' }) // before the others there
  engine.replace('EventConnect', 'loadSession', ownBans)
  engine.use(counter)

  const remove = engine.use('EventPing', function logPing() {})
  remove() // every `use` and `replace` gives back the way out
  // #endregion
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })
  await engine.channels.create(
    { channelID: 'announcements', channelType: ChannelType.Group },
    { subscribers: [{ uid: 'ann', role: MemberRole.Admin }, 'bob'] },
  )

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')

  return {
    port: (server.address() as AddressInfo).port,
    steps: engine.steps('EventOnSend'),
    countOf: counter.countOf,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
