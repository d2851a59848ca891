import { describe, expect, it } from 'vitest'
import { IMEngine, allowAnyToken, memoryPresence, memoryStorage, ReasonCode, type AppendResult, type MessageStore, type WebhookEvent } from 'imengine'
import { encode, FrameFlag, FrameType, type ConnectPacket } from 'imengine/protocol'
import { FakeClock, socketPair } from 'imengine/testing'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const SEND = { ...TEAM, payload: 'hi' }
const never = (): Promise<never> => new Promise(() => undefined)

describe('close, while a host’s code hangs', () => {
  it('abandons what is queued behind a hanging webhook after drainMs, and not after each one’s own time-out', async () => {
    const { engine, connect, clock } = await stage({ webhook: { beforeSend: never }, limits: { webhookTimeoutMs: 60_000 } })
    const { client } = await connect('ann')
    const answers = Array.from({ length: 6 }, () => client.send(SEND).catch(() => 'never answered'))
    await clock.settle()
    const closing = engine.close({ drainMs: 1_000 })
    await clock.advance(1_200)
    await closing
    expect(await Promise.all(answers)).toEqual(Array(6).fill('never answered'))
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('rejects a messages.send whose fate is open', async () => {
    const storage = memoryStorage()
    const { engine, clock } = await stage({ storage: storageWith(storage, { append: never }), limits: { stepTimeoutMs: 60_000 } })
    const sending = engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })
    const outcome = sending.catch((error: { code: string }) => error.code)
    await clock.settle()
    const closing = engine.close({ drainMs: 100 })
    await clock.advance(300)
    await closing
    expect(await outcome).toBe('IM_ABORTED')
  })

  it('is not held up for ever by adapters that do not close', async () => {
    const clock = new FakeClock()
    const base = memoryStorage()
    base.cursors.flush = never
    const presence = memoryPresence()
    const engine: IMEngine = new IMEngine({
      tokenVerifier: allowAnyToken(),
      clock,
      storage: { ...base, close: never },
      presence: {
        online: (entry) => presence.online(entry), offline: (entry) => presence.offline(entry), locate: (uids) => presence.locate(uids),
        devices: (uid) => presence.devices(uid), heartbeat: (nodeID, ms) => presence.heartbeat(nodeID, ms),
        leave: () => (engine.state === 'starting' ? undefined : never()),
      },
    })
    const errors: string[] = []
    engine.on('error', (error) => errors.push(error.code))
    await engine.start()
    const closing = engine.close()
    await clock.advance(4 * engine.limits.closeTimeoutMs)
    await closing
    expect(errors).toEqual(Array(3).fill('IM_CLOSE_TIMEOUT'))
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('reports nothing when there was nothing to wait for, even if told not to wait', async () => {
    const { engine, errors } = await stage()
    await engine.close({ signal: AbortSignal.abort() })
    expect(errors).toEqual([])
  })
})

describe('a host’s adapter that is too late', () => {
  it('pushes nothing out of order when a page of members comes after the step’s time-out', async () => {
    const gate = deferred()
    let slow = true
    const storage = memoryStorage()
    const channels = new Proxy(storage.channels, {
      get: (target, name: keyof typeof storage.channels) =>
        name === 'members' && slow ? async () => (await gate.promise, target.members(TEAM)) : target[name].bind(target),
    })
    const { engine, connect, clock } = await stage({ storage: { ...storage, channels }, limits: { subscriberCacheMs: 0 } })
    const undelivered: unknown[] = []
    engine.on('undelivered', ({ messages }) => undelivered.push(messages.map((message) => message.messageSeq)))
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    await ann.send(SEND)
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    slow = false
    await ann.send(SEND)
    gate.resolve()
    await clock.settle()
    expect(bob.messages.map((message) => message.messageSeq)).toEqual([2])
    expect(undelivered).toEqual([[1]])
  })

  it('tells the host of a message that the store kept after its time-out', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => gate.promise.then(() => storage.messages.append(batches))
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const told: unknown[] = []
    engine.on('messageStored', ({ messages }) => told.push(['stored', messages[0]?.messageSeq]))
    engine.on('undelivered', ({ messages }) => told.push(['undelivered', messages[0]?.messageSeq]))
    const { client } = await connect('ann')
    const answer = client.send(SEND)
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    expect((await answer).reasonCode).toBe(ReasonCode.SystemError)
    gate.resolve()
    await clock.settle()
    expect(told).toEqual([['stored', 1], ['undelivered', 1]])
  })

  it('delivers to those who are connected here although presence hangs', async () => {
    const presence = memoryPresence()
    const { engine, connect, clock, errors } = await stage({
      presence: {
        online: (entry) => presence.online(entry), offline: (entry) => presence.offline(entry), locate: never,
        devices: (uid) => presence.devices(uid), heartbeat: (nodeID, ms) => presence.heartbeat(nodeID, ms), leave: (nodeID) => presence.leave(nodeID),
      },
      limits: { stepTimeoutMs: 300 }, // shorter than presence is waited for
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    await ann.send(SEND)
    await clock.advance(engine.limits.presenceTimeoutMs + 200)
    expect(bob.messages).toHaveLength(1)
    expect(errors.map((error) => error.code)).toEqual(['IM_PRESENCE_UNAVAILABLE'])
  })

  it('leaves no ghost when presence learns of a login after it was refused', async () => {
    const presence = memoryPresence()
    const gate = deferred()
    const made = await stage({
      presence: {
        online: (entry) => gate.promise.then(() => presence.online(entry)), offline: (entry) => presence.offline(entry), locate: (uids) => presence.locate(uids),
        devices: (uid) => presence.devices(uid), heartbeat: (nodeID, ms) => presence.heartbeat(nodeID, ms), leave: (nodeID) => presence.leave(nodeID),
      },
    })
    const refused = made.connect('ann').catch((error: Error) => error.message)
    await made.clock.advance(made.engine.limits.authTimeoutMs + 200)
    expect(await refused).toContain('SystemError')
    gate.resolve()
    await made.clock.settle()
    expect(await presence.devices('ann')).toEqual([])
  })
})

describe('a host’s adapter that answers nonsense', () => {
  const stored = (over: Partial<AppendResult>): AppendResult => ({ status: 'stored', messageID: '1', messageSeq: 1, ...over })
  for (const [name, result] of [
    ['a stored message under another id', stored({})],
    ['a repeat with an id that is none', stored({ status: 'duplicate', messageID: 'abc' })],
    ['a repeat with a number for an id', stored({ status: 'duplicate', messageID: 7 as unknown as string })],
    ['a repeat with seq 0', stored({ status: 'duplicate', messageSeq: 0 })],
    ['a seq beyond the wire', stored({ status: 'duplicate', messageSeq: 2 ** 32 })],
    ['a status that is none', stored({ status: 'fine' as 'stored' })],
  ] as const) {
    it(`a store with ${name} is caught before anyone is told`, async () => {
      const { connect, errors } = await stage({ storage: storageWith(memoryStorage(), { append: () => [[result]] }) })
      const { client } = await connect('ann')
      expect(await client.send(SEND)).toMatchObject({ reasonCode: ReasonCode.SystemError, messageID: '0' })
      expect(errors).toMatchObject([{ code: 'IM_STORE_CONTRACT' }])
    })
  }

  for (const policy of [() => undefined, () => Promise.resolve('keep'), () => 'Keep']) {
    it(`a kick policy that is ${String(policy)} ends nobody`, async () => {
      const { engine, connect } = await stage({ kickPolicy: policy as never })
      await connect('ann', { deviceID: 'a' })
      await expect(connect('ann', { deviceID: 'b' })).rejects.toThrow('SystemError')
      expect(engine.connections.list()).toHaveLength(1)
    })
  }

  it('ctx.refuse after the store is a failure of the handler, and the sender is told the truth', async () => {
    const { engine, connect, errors } = await stage()
    engine.use('EventChannelDistribute', function tooLate(ctx) { ctx.refuse(ctx.messages[0]!, ReasonCode.NotAllowSend) }, { after: 'store' })
    const { client } = await connect('ann')
    expect(await client.send(SEND)).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect(errors).toMatchObject([{ code: 'IM_HANDLER_FAILED', context: { step: 'tooLate' } }])
  })

  it('a fact whose name is misspelt is a TypeError', async () => {
    const { engine } = await stage()
    expect(() => engine.on('mesageStored' as 'messageStored', () => undefined)).toThrow(/mesageStored/)
  })
})

describe('a host’s listener that calls back', () => {
  const connectFrame = (uid: string): Uint8Array => {
    const packet: ConnectPacket = { type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 0, deviceID: 'd', uid, token: '', clientTimestampMs: 0n, clientKey: '' }
    return encode(packet, 5)
  }

  it('and ends the new connection while the old one makes room leaves nothing registered', async () => {
    const { engine, clock } = await stage({ plaintext: 'allow' })
    const open = (): ReturnType<typeof engine.accept> => {
      const connection = engine.accept({ send: () => undefined, close: () => undefined, destroy: () => undefined, bufferedBytes: 0 })
      connection.receive(connectFrame('ann'))
      return connection
    }
    const first = open()
    await clock.settle()
    const sockets: (typeof first)[] = []
    engine.once('disconnected', () => sockets[0]?.closed())
    sockets.push(open())
    await clock.settle()
    first.closed()
    expect(engine.connections.list()).toEqual([])
  })

  it('and kicks whoever connects is told of in the order in which it happened', async () => {
    const online: boolean[] = []
    const notify = (events: readonly WebhookEvent[]): void => {
      for (const event of events) if (event.event === 'user.onlinestatus') online.push(event.online)
    }
    const { engine, connect, clock } = await stage({ webhook: { notify } })
    engine.on('connected', ({ uid }) => void engine.connections.kick({ uid }))
    await connect('ann')
    await clock.advance(3_000)
    expect(online).toEqual([true, false])
  })

  it('is not told that the sender of a message is offline for it', async () => {
    const { engine, clock } = await stage()
    const offline: unknown[] = []
    engine.on('offlineMessage', ({ uids }) => offline.push([...uids]))
    await engine.messages.send({ channelID: 'bob', channelType: 1, fromUID: 'ann', payload: Buffer.from('x') })
    await clock.settle()
    expect(offline).toEqual([['bob']])
  })
})

describe('a client that asks for too much at once', () => {
  it('is closed after ten thousand frames in one chunk', async () => {
    const { engine, connect } = await stage()
    const { pair } = await connect('ann')
    pair.client.write(new Uint8Array(10_001).fill(0x70))
    expect((await pair.client.closed).by).toBe('server')
    expect(engine.connections.list()).toEqual([])
  })

  it('cannot fill the memory of repeats with large messages', async () => {
    const { connect, clock } = await stage({ limits: { maxRecentBytes: 100_000 } })
    const { client } = await connect('ann')
    const message = (n: number) => ({ ...TEAM, payload: 'x'.repeat(30_000), clientMsgNo: `n${n}`, flags: FrameFlag.NoPersist })
    const first = await client.send(message(0))
    for (let n = 1; n < 10; n++) await client.send(message(n))
    await clock.settle()
    expect((await client.send(message(9))).messageID).not.toBe(first.messageID)
    expect((await client.send(message(0))).messageID).not.toBe(first.messageID) // forgotten: it was too long ago in bytes
  })

  it('holds a socket that was turned away for no longer than it takes to end it', async () => {
    const { engine } = await stage({ limits: { maxConnections: 1 } })
    socketPair().attach(engine.accept(socketPair().server))
    const calls: string[] = []
    engine.accept({ send: () => undefined, close: () => calls.push('close'), destroy: () => calls.push('destroy'), bufferedBytes: 0 })
    expect(calls).toEqual(['destroy'])
  })
})
