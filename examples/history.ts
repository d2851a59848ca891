import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, ChannelType, DeviceFlag, IMEngine, type Message } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

const encode = (content: string): Uint8Array => Buffer.from(JSON.stringify({ type: 1, content }))

/** A recalled message has no payload left. */
function textOf({ payload, revision }: Message): string {
  if (revision?.kind === 'recalled') return '(recalled)'
  return (JSON.parse(Buffer.from(payload).toString()) as { content: string }).content
}

/** What an app asks about the past: lists of chats, pages of messages, changes of them, and whom to wake. */
export async function start(wantedPort = 0, path = './data') {
  const woken: string[] = []
  // #region push
  const engine = new IMEngine({
    tokenVerifier: allowAnyToken(),
    storage: levelStorage({ path }),
    // What is to be woken is a phone: a browser that is open somewhere does not count as being there.
    isOffline: ({ devices }) => !devices.some(({ deviceFlag }) => deviceFlag === DeviceFlag.App),
  })
  engine.on('offlineMessage', ({ messages, uids }) => {
    // Hand it to your push service here, and do not wait for it. What counts as unread is worth waking somebody for.
    for (const message of messages) if (message.redDot) woken.push(...uids.map((uid) => `${uid}: ${textOf(message)}`))
  })
  // #endregion
  await engine.start()

  const team = { channelID: 'team', channelType: ChannelType.Group }
  await engine.channels.create(team, { subscribers: ['ann', 'bob'] })
  const say = (content: string) => engine.messages.send({ ...team, fromUID: 'ann', payload: encode(content) })
  const [hello, lunch, typo, noise] = [await say('Hello'), await say('Lunch at noon?'), await say('Psoted'), await say('+1')]

  // #region conversations
  const { items } = await engine.conversations.list('bob', { limit: 20 }) // the latest first; go on with `cursor`
  for (const { channelID, unread, lastMessage } of items) console.log(channelID, unread, lastMessage && textOf(lastMessage))

  await engine.conversations.markRead('bob', team, { seq: hello.messageSeq }) // never backwards, and it survives a restart
  const unreadInTeam = await engine.conversations.unread('bob', team)
  const unreadInAll = await engine.conversations.unread('bob') // the number on the app's icon
  // #endregion

  // #region change
  await engine.messages.edit(lunch.messageID, encode('Lunch at one?'), { byUID: 'ann' }) // for everybody
  await engine.messages.recall(typo.messageID, { byUID: 'ann' }) // for everybody; its number stays, its payload is empty
  await engine.messages.deleteFor('bob', [noise.messageID]) // ann still has it
  // #endregion

  // #region pages
  // As a client scrolls: the newest page, then the one before the oldest message at hand, without what bob has deleted.
  const newest = await engine.messages.sync(team, { limit: 2, forUID: 'bob' })
  const oldestSeq = newest.messages[0]?.messageSeq ?? 1
  const page = { startSeq: oldestSeq - 1, direction: 'backward', limit: 2, forUID: 'bob' } as const
  const earlier = newest.more ? await engine.messages.sync(team, page) : undefined

  // As an export or a search index reads: everything, fetched as it is consumed.
  const everything: string[] = []
  for await (const message of engine.messages.range(team, { startSeq: hello.messageSeq })) everything.push(textOf(message))
  // #endregion

  // #region commands
  await engine.messages.send({ ...team, fromUID: 'ann', payload: encode('reload the members'), syncOnce: true })
  const commands = await engine.messages.commands.sync('bob') // what none of his devices has acknowledged, oldest first
  await engine.messages.commands.ack('bob', commands.map(({ messageID }) => messageID))
  // #endregion

  // #region truncate
  const { removedCount } = await engine.messages.truncate(team, lunch.messageSeq) // everything before it, for everybody
  // #endregion

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    woken,
    unread: [unreadInTeam, unreadInAll],
    pages: [newest.messages.map(textOf), earlier?.messages.map(textOf)],
    everything,
    commands: commands.map(textOf),
    removedCount,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
