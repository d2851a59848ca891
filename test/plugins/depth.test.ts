import { describe, expect, test } from 'vitest'
import { ChannelType, memoryReplicatorHub, personChannelID, refuse, ReasonCode, type ChannelKey, type IMEngine, type IMError, type Message, type PluginHost, type SendReceipt } from 'imengine'
import { deferred, stage, TEAM } from '../support.ts'

const text = (message: Message): string => Buffer.from(message.payload).toString()
const toTeam = { ...TEAM, fromUID: 'bot', payload: Buffer.from('again') }
const fromClient = { ...TEAM, payload: 'hello' }

function hostOf(engine: IMEngine, name: string): PluginHost {
  let given!: PluginHost
  engine.use({ name, setup: (host) => void (given = host) })
  return given
}

/** Everything stored in the team, oldest first. */
async function storedIn(engine: IMEngine, key: ChannelKey = TEAM): Promise<string[]> {
  const texts: string[] = []
  for await (const message of engine.messages.range(key, { startSeq: 1 })) texts.push(text(message))
  return texts
}

describe('a plugin that answers what it has said itself', () => {
  /** Ways of answering every message of the team with another one. */
  const ways: [string, (host: PluginHost, answer: () => Promise<SendReceipt>) => void][] = [
    ['a listener', (host, answer) => void host.on('messageStored', answer)],
    ['a listener, after an await', (host, answer) => void host.on('messageStored', async () => (await Promise.resolve(), answer()))],
    ['a listener, after a timer', (host, answer) => void host.on('messageStored', () => void host.timers.after(250, answer))],
    ['a listener of what nobody has received', (host, answer) => void host.on('offlineMessage', answer)],
    ['a handler', (host, answer) => void host.use('EventChannelDistribute', function reply() { void answer().catch(() => undefined) }, { after: 'store' })],
    ['a handler of what is pushed', (host, answer) => void host.use('EventPushOnline', function reply() { void answer().catch(() => undefined) })],
    ['a handler of what is acknowledged', (host, answer) => void host.use('EventRecvAck', function reply() { void answer().catch(() => undefined) })],
  ]
  test.each(ways)('by %s comes to an end after maxPluginSendDepth messages', async (way, loop) => {
    const { engine, connect, clock } = await stage({ limits: { maxPluginSendDepth: 4 } })
    const host = hostOf(engine, 'loop')
    const codes: string[] = []
    loop(host, async () => {
      try {
        return await host.messages.send(toTeam)
      } catch (error) {
        codes.push((error as IMError).code)
        throw error
      }
    })
    const { client } = await connect('ann')
    await client.send(fromClient)
    // Bob acknowledges every message, but then he has received it.
    if (!way.includes('nobody')) await connect('bob')
    await clock.advance(5_000)
    expect((await storedIn(engine)).length).toBeLessThanOrEqual(2 ** 5)
    expect(codes.length).toBeGreaterThan(0)
    expect(new Set(codes)).toEqual(new Set(['IM_SEND_DEPTH']))
  })

  test('sends exactly maxPluginSendDepth messages, and the error says who and where, but not what', async () => {
    const { engine, connect, clock, errors } = await stage()
    const host = hostOf(engine, 'loop')
    host.on('messageStored', () => host.messages.send(toTeam))
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.settle()
    expect(await storedIn(engine)).toEqual(['hello', ...Array<string>(8).fill('again')])
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatchObject({ code: 'IM_SEND_DEPTH', retryable: false, context: { step: 'loop', ...TEAM } })
    expect(JSON.stringify([errors[0]!.message, errors[0]!.context])).not.toContain('again')
    await client.send(fromClient) // a new message of a client begins anew
    await clock.settle()
    expect(await storedIn(engine)).toHaveLength(18)
  })

  test('is stopped in a person channel, too', async () => {
    const { engine, connect, clock } = await stage({ limits: { maxPluginSendDepth: 3 } })
    const host = hostOf(engine, 'loop')
    host.on('messageStored', () => host.messages.send({ channelID: 'ann', channelType: ChannelType.Person, fromUID: 'bot', payload: Buffer.from('again') }))
    const { client } = await connect('ann')
    await client.send({ channelID: 'bot', channelType: ChannelType.Person, payload: 'hello' })
    await clock.settle()
    expect(await storedIn(engine, { channelID: personChannelID('ann', 'bot'), channelType: ChannelType.Person })).toHaveLength(4)
  })

  test('is stopped when its answers are refused and it answers that', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 3 } })
    const host = hostOf(engine, 'loop')
    let sentCount = 0
    host.use('EventChannelDistribute', () => (sentCount++, refuse(ReasonCode.NotAllowSend)), { name: 'refuseAll' })
    host.on('messageRefused', () => void host.messages.send(toTeam).catch((error: IMError) => error.code === 'IM_SEND_DEPTH' && errors.push(error)))
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.settle()
    expect(sentCount).toBe(4)
    expect(errors.map(({ code }) => code)).toEqual(['IM_SEND_DEPTH'])
  })

  test('is stopped where messages come back from a log as copies', async () => {
    const { engine, connect, clock } = await stage({ replicator: memoryReplicatorHub().replicator(), limits: { maxPluginSendDepth: 3 } })
    const host = hostOf(engine, 'loop')
    host.on('messageStored', () => host.messages.send(toTeam))
    const { client } = await connect('ann')
    const answered = client.send(fromClient)
    await clock.advance(1_000)
    await answered
    expect(await storedIn(engine)).toHaveLength(4)
  })
})

describe('two plugins that answer each other', () => {
  test('stop as well', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 5 } })
    for (const [me, other] of [['a', 'b'], ['b', 'a']] as const) {
      const host = hostOf(engine, me)
      host.on('messageStored', ({ messages }) => {
        if (messages.some(({ fromUID }) => fromUID === other || fromUID === 'ann')) return host.messages.send({ ...TEAM, fromUID: me, payload: Buffer.from(me) })
      })
    }
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.settle()
    expect((await storedIn(engine)).toSorted()).toEqual([...Array<string>(5).fill('a'), ...Array<string>(5).fill('b'), 'hello'])
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['IM_SEND_DEPTH']))
  })
})

describe('replyTo', () => {
  test('says because of what an answer is sent that somebody else sends', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 2 } })
    const host = hostOf(engine, 'queue')
    const waiting: Message[] = []
    host.on('messageStored', ({ messages }) => void waiting.push(...messages))
    host.timers.every(10, async () => {
      for (const replyTo of waiting.splice(0)) await host.messages.send({ ...toTeam, replyTo })
    })
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.advance(1_000)
    expect(await storedIn(engine)).toHaveLength(3)
    expect(errors.map(({ cause }) => (cause as IMError).code)).toEqual(['IM_SEND_DEPTH'])
  })

  test('counts alone within its batch: the answer to a client is not as deep as what stands beside the client’s message', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 1 } })
    const host = hostOf(engine, 'bot')
    const batches: string[][] = []
    host.on('messageStored', async ({ messages }) => {
      batches.push(messages.map(({ fromUID }) => fromUID))
      for (const replyTo of messages) if (replyTo.fromUID === 'ann') await host.messages.send({ ...toTeam, replyTo })
    })
    const [first] = await host.messages.get([(await engine.messages.send(toTeam)).messageID])
    const hold = deferred()
    let isHeld = true
    engine.use('EventChannelDistribute', () => (isHeld ? hold.promise : undefined), { name: 'hold' })
    const { client } = await connect('ann')
    void engine.messages.send(toTeam) // what comes while this one is held is one batch
    await clock.settle()
    void host.messages.send({ ...toTeam, replyTo: first! }) // as deep as may be
    void client.send(fromClient)
    await clock.settle()
    isHeld = false
    hold.resolve()
    await clock.settle()
    expect(batches).toEqual([['bot'], ['bot'], ['bot', 'ann'], ['bot']])
    expect(errors).toEqual([])
  })

  test('does not help a plugin that answers one old message for ever', async () => {
    const { engine, connect, clock } = await stage({ limits: { maxPluginSendDepth: 3 } })
    const host = hostOf(engine, 'loop')
    let first: Message | undefined
    host.on('messageStored', ({ messages }) => host.messages.send({ ...toTeam, replyTo: (first ??= messages[0]!) }))
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.settle()
    expect(await storedIn(engine)).toHaveLength(4)
  })

  test('is known as a copy from the history, too', async () => {
    const { engine } = await stage({ limits: { maxPluginSendDepth: 1 } })
    const host = hostOf(engine, 'p')
    const { messageID } = await engine.messages.send(toTeam)
    const [first] = await host.messages.get([messageID])
    const answer = await host.messages.send({ ...toTeam, replyTo: first! })
    const [second] = await host.messages.get([answer.messageID])
    await expect(host.messages.send({ ...toTeam, replyTo: second! })).rejects.toMatchObject({ code: 'IM_SEND_DEPTH' })
    await expect(host.messages.send({ ...toTeam, replyTo: 'x' as unknown as Message })).rejects.toThrow(/replyTo must be a message/)
  })
})

describe('what no message has led to', () => {
  test('has no depth: not a timer of setup, and not what the host sends', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 1 } })
    const host = hostOf(engine, 'p')
    let sentCount = 0
    host.timers.every(100, async () => {
      await host.messages.send({ ...toTeam, noPersist: true })
      sentCount++
    })
    host.on('messageStored', async ({ messages }) => {
      for (const replyTo of messages) if (replyTo.fromUID === 'ann') await host.messages.send({ ...toTeam, replyTo })
    })
    const { client } = await connect('ann')
    await client.send(fromClient)
    await engine.messages.send({ ...toTeam, fromUID: 'ann' })
    await clock.advance(2_050)
    expect([sentCount, (await storedIn(engine)).length, errors.length]).toEqual([20, 4, 0])
  })

  test('has no depth either when it comes in a turn that a deep listener has asked for', async () => {
    const { engine, connect, clock, errors } = await stage({ limits: { maxPluginSendDepth: 1 } })
    const host = hostOf(engine, 'p')
    const logins: Promise<unknown>[] = []
    host.on('messageStored', ({ messages }) => {
      if (messages[0]!.fromUID === 'ann') return host.messages.send(toTeam)
      // Two messages away from ann's already: nothing can be sent from here. Once all is quiet, the next turn is asked for here.
      logins.push(clock.settle().then(() => connect('bob')))
    })
    const greeted: string[] = []
    engine.on('connected', ({ uid }) => void host.messages.send({ ...toTeam, fromUID: 'greeter', noPersist: true }).then(() => greeted.push(uid)))
    const { client } = await connect('ann')
    await client.send(fromClient)
    await clock.settle()
    await Promise.all(logins)
    await clock.settle()
    expect([greeted, errors]).toEqual([['ann', 'bob'], []])
  })
})
