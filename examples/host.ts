import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { allowAnyToken, ChannelType, IMEngine, IMError, personChannelID } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

/** What a host does around an engine: groups, messages of its own, history, facts, an orderly end. */
export async function start(wantedPort = 0, path = './data') {
  const stored: string[] = []
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }) })

  // #region facts
  engine.on('messageStored', ({ messages }) => stored.push(...messages.map((message) => message.messageID)))
  engine.on('offlineMessage', ({ key, uids }) => console.log(`${uids.length} members of ${key.channelID} were away`))
  engine.on('error', (error) => console.error(error.code, error.context, error.cause))
  // #endregion

  await engine.start()

  // #region groups
  const team = { channelID: 'team', channelType: ChannelType.Group }
  await engine.channels.create(team, { subscribers: ['ann', 'bob'] })
  await engine.channels.subscribers.add(team, ['cleo'])
  await engine.channels.denylist.add(team, ['bob']) // still receives, may not send
  // In a person channel the list hangs on the receiver: nobody but them decides who may write to them.
  await engine.channels.denylist.add({ channelID: 'ann', channelType: ChannelType.Person }, ['mallory'])
  // #endregion

  // #region send
  const payload = Buffer.from(JSON.stringify({ type: 1, content: 'The build is green.' }))
  try {
    const receipt = await engine.messages.send({ ...team, fromUID: 'ci', payload, clientMsgNo: 'build-17' })
    console.log(`stored as number ${receipt.messageSeq}`)
  } catch (error) {
    if (error instanceof IMError && error.retryable) console.log('later, with the same clientMsgNo:', error.code)
    else throw error
  }
  // #endregion

  // #region history
  for await (const message of engine.messages.range(team, { startSeq: 1, limit: 50 })) {
    console.log(message.messageSeq, message.fromUID, Buffer.from(message.payload).toString())
  }
  // Two people share one channel; its id inside the engine is made of both uids, in whatever order.
  const annAndBob = { channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person }
  const lastSeq = await engine.messages.lastSeq(annAndBob)
  // #endregion

  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')

  // #region close
  async function close(): Promise<void> {
    server.close() // no new sockets
    await engine.close({ drainMs: 10_000 }) // what was accepted is answered, then every connection ends
  }
  // #endregion

  return { port: (server.address() as AddressInfo).port, stored, lastSeq, close }
}

// #region signals
/** The first signal begins an orderly end, also of a start; a second one cuts it short. Then nothing is left, and the process ends by itself. */
export function closeOnSignals(engine: IMEngine, server: Server, drainMs = 10_000): void {
  const hurry = new AbortController()
  const onSignal = (): void => {
    if (engine.state === 'closing') return hurry.abort()
    server.close()
    void engine.close({ drainMs, signal: hurry.signal })
  }
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal)
}
// #endregion
