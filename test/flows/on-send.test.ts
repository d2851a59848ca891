import { describe, expect, it } from 'vitest'
import { ChannelType, memoryStorage, ReasonCode, refuse, type BeforeSendRequest, type ChannelKey, type MessageStore } from 'imengine'
import { FrameFlag, FrameType } from 'imengine/protocol'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const SEND = { ...TEAM, payload: 'hi' }

describe('EventOnSend: permission', () => {
  it('refuses each case with its own reason, in the protocol’s order, with id 0 and seq 0, and stores nothing', async () => {
    const { engine, connect } = await stage({ systemUIDs: ['sys'] })
    const { client: ann } = await connect('ann')
    const { client: eve } = await connect('eve')
    const { client: sys } = await connect('sys')
    const refused = async (client: typeof ann, reasonCode: ReasonCode, to: ChannelKey = TEAM): Promise<void> => {
      expect(await client.send({ ...to, payload: 'x' })).toMatchObject({ reasonCode, messageID: '0', messageSeq: 0 })
    }

    await refused(ann, ReasonCode.ChannelNotExist, { channelID: 'nowhere', channelType: ChannelType.Group })
    await refused(eve, ReasonCode.SubscriberNotExist)
    await engine.channels.allowlist.add(TEAM, ['bob'])
    await refused(ann, ReasonCode.NotInWhitelist)
    await engine.channels.denylist.add(TEAM, ['ann', 'eve'])
    await refused(ann, ReasonCode.InBlacklist) // before membership and the allow list
    await refused(eve, ReasonCode.InBlacklist)
    await engine.channels.create({ ...TEAM, disband: true })
    await refused(ann, ReasonCode.Disband)
    await refused(sys, ReasonCode.Disband) // the only thing that stops a system user
    await engine.channels.create({ ...TEAM, ban: true })
    await refused(ann, ReasonCode.Ban) // before disbanded
    await engine.users.setFlags('ann', { sendBanned: true })
    await refused(ann, ReasonCode.SendBan) // before anything about the channel
    await refused(ann, ReasonCode.SendBan, { channelID: 'nowhere', channelType: ChannelType.Group })
    await refused(ann, ReasonCode.SendBan, { channelID: 'bob', channelType: ChannelType.Person })
    await engine.channels.create({ ...TEAM, disband: false })
    expect(await sys.send(SEND)).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  it('lets the receiver’s deny list stop a person, one way only, but never a message to a system user', async () => {
    const { engine, connect } = await stage({ systemUIDs: ['sys'] })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    for (const uid of ['bob', 'sys']) await engine.channels.denylist.add({ channelID: uid, channelType: ChannelType.Person }, ['ann'])
    const to = (channelID: string) => ({ channelID, channelType: ChannelType.Person, payload: 'x' })
    expect((await ann.send(to('bob'))).reasonCode).toBe(ReasonCode.InBlacklist)
    expect((await bob.send(to('ann'))).reasonCode).toBe(ReasonCode.Success)
    expect((await ann.send(to('sys'))).reasonCode).toBe(ReasonCode.Success)
  })

  for (const channelID of ['', ' ', 'a@b', 'a#b', 'a&b', 'a\u0001']) {
    it(`refuses the person ${JSON.stringify(channelID)} with ChannelIDError`, async () => {
      const { connect } = await stage()
      const { client } = await connect('ann')
      const answer = await client.send({ channelID, channelType: ChannelType.Person, payload: 'x' })
      expect(answer.reasonCode).toBe(ReasonCode.ChannelIDError)
    })
  }

  it('answers SystemError when the directory fails, and goes on', async () => {
    const storage = memoryStorage()
    let broken = false
    const channels = new Proxy(storage.channels, {
      get: (target, name: keyof typeof storage.channels) =>
        name === 'member' && broken ? () => Promise.reject(new Error('down')) : target[name].bind(target),
    })
    const { connect, errors } = await stage({ storage: { ...storage, channels } })
    const { client } = await connect('ann')
    broken = true
    expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.SystemError)
    broken = false
    expect(await client.send(SEND)).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect(errors).toMatchObject([{ code: 'IM_DIRECTORY_UNAVAILABLE', context: { step: 'checkPermission', uid: 'ann' } }])
  })
})

describe('EventOnSend: webhook', () => {
  it('may veto, replace the payload and leave notes for later handlers', async () => {
    const asked: BeforeSendRequest[] = []
    const { engine, connect } = await stage({
      webhook: {
        beforeSend(request) {
          asked.push(request)
          if (Buffer.from(request.payload).includes('bad')) return { code: 7, message: 'bad word' }
          return { code: 0, newPayload: Buffer.from('nice'), extra: { score: 3 } }
        },
      },
    })
    const extras: unknown[] = []
    engine.use('EventOnSend', function look(ctx) { extras.push(ctx.extra) }, { after: 'callWebhook' })
    const refusals: unknown[] = []
    engine.on('messageRefused', ({ reasonCode, message }) => refusals.push([reasonCode, message]))
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    expect((await ann.send({ ...SEND, payload: 'bad thing' })).reasonCode).toBe(ReasonCode.NotAllowSend)
    expect((await ann.send({ ...SEND, payload: 'thing' })).reasonCode).toBe(ReasonCode.Success)
    expect((await bob.nextRecv()).text).toBe('nice')
    expect(asked[0]).toMatchObject({ fromUID: 'ann', channelID: 'team', channelType: ChannelType.Group })
    expect(extras).toEqual([{ score: 3 }])
    expect(refusals).toEqual([[ReasonCode.NotAllowSend, 'bad word']])
  })

  // P5
  it('answers SystemError when the webhook throws, rejects, answers nonsense or hangs, and stores nothing', async () => {
    let behave: () => unknown = () => undefined
    const { engine, connect, clock, errors } = await stage({ webhook: { beforeSend: () => behave() as never } })
    const { client } = await connect('ann')
    for (const failing of [
      () => { throw new Error('down') },
      () => Promise.reject(new Error('down')),
      () => undefined,
      () => ({ code: 0, newPayload: 'text' }),
    ]) {
      behave = failing
      expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.SystemError)
    }
    behave = () => new Promise(() => undefined)
    const answer = client.send(SEND)
    await clock.advance(engine.limits.webhookTimeoutMs + 200)
    expect((await answer).reasonCode).toBe(ReasonCode.SystemError)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(errors.map((error) => error.code)).toEqual([
      'IM_WEBHOOK_FAILED', 'IM_WEBHOOK_FAILED', 'IM_WEBHOOK_FAILED', 'IM_HANDLER_FAILED', 'IM_WEBHOOK_FAILED',
    ])
  })

  it('holds up neither PING nor the user’s other device while it hangs', async () => {
    const { connect, clock } = await stage({ webhook: { beforeSend: () => new Promise(() => undefined) } })
    const { client: phone } = await connect('ann', { deviceID: 'phone' })
    const { client: web } = await connect('ann', { deviceID: 'web' })
    const answer = phone.send(SEND)
    await clock.settle()
    await phone.ping()
    await web.ping()
    await clock.advance(3_200)
    expect((await answer).reasonCode).toBe(ReasonCode.SystemError)
  })
})

describe('EventOnSend: payload', () => {
  it('refuses a payload that is not made with the connection’s key, tampered or too long, with 9', async () => {
    const { engine, connect } = await stage({ limits: { maxPayloadBytes: 10 } })
    const { client } = await connect('ann')
    const packet = { type: FrameType.SEND, flags: 0, setting: 0, clientMsgNo: 'n', streamNo: '', expireSec: 0, msgKey: '0'.repeat(32), topic: '', ...TEAM } as const
    const junk = ['', 'x', '!!!!', Buffer.alloc(16).toString('base64'), Buffer.alloc(32).toString('base64')]
    for (const [index, payload] of junk.entries()) {
      client.write({ ...packet, clientSeq: 100 + index, payload: Buffer.from(payload) })
      expect(await client.next(FrameType.SENDACK)).toMatchObject({ clientSeq: 100 + index, reasonCode: ReasonCode.PayloadDecodeError })
    }
    expect((await client.send({ ...SEND, payload: 'x'.repeat(11) })).reasonCode).toBe(ReasonCode.PayloadDecodeError)
    expect((await client.send({ ...SEND, payload: 'x'.repeat(10) })).reasonCode).toBe(ReasonCode.Success)
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  it('keeps its own copy of a plain payload, whose buffer the transport overwrites', async () => {
    const { connect } = await stage({ plaintext: 'allow' })
    const { client: ann } = await connect('ann', { plaintext: true })
    const { client: bob } = await connect('bob', { plaintext: true })
    await ann.send({ ...SEND, payload: 'kept' })
    expect((await bob.nextRecv()).text).toBe('kept')
  })
})

describe('EventOnSend: who is told what', () => {
  it('gives both ends of a person channel one sequence, and each the other’s uid', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const { client: annWeb } = await connect('ann', { deviceID: 'web' })
    const { client: bob } = await connect('bob')
    const flags = FrameFlag.RedDot
    const first = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: '1', flags })
    const second = await bob.send({ channelID: 'ann', channelType: ChannelType.Person, payload: '2', flags })
    expect([first.messageSeq, second.messageSeq]).toEqual([1, 2])
    expect(await bob.nextRecv()).toMatchObject({ fromUID: 'ann', channelID: 'ann', messageSeq: 1, text: '1', flags })
    expect(await annWeb.nextRecv()).toMatchObject({ fromUID: 'ann', channelID: 'bob', messageSeq: 1, flags: 0 })
    expect(await ann.nextRecv()).toMatchObject({ fromUID: 'bob', channelID: 'bob', messageSeq: 2, text: '2' })
    expect(ann.messages).toHaveLength(1) // its own message does not come back to it
    expect(engine.connections.list({ uid: 'ann' })).toHaveLength(2)
  })

  it('writes to oneself: other own devices see it once', async () => {
    const { connect, clock } = await stage()
    const { client: phone } = await connect('ann')
    const { client: web } = await connect('ann', { deviceID: 'web' })
    expect(await phone.send({ channelID: 'ann', channelType: ChannelType.Person, payload: 'note' })).toMatchObject({ messageSeq: 1 })
    await clock.settle()
    expect(web.messages.map((m) => [m.channelID, m.text])).toEqual([['ann', 'note']])
    expect(phone.messages).toEqual([])
  })

  it('carries topic, expire and the receipt bit, counts seconds, and echoes the SEND’s flags in SENDACK', async () => {
    const { connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const flags = FrameFlag.RedDot | FrameFlag.SyncOnce
    const ack = await ann.send({ ...SEND, topic: 'news', expireSec: 60, setting: 0x80 | 0x20, flags })
    expect(ack.flags).toBe(flags)
    expect(await bob.nextRecv()).toMatchObject({
      topic: 'news', expireSec: 60, setting: 0x88, flags, timestampSec: Math.floor(clock.nowMs() / 1000), messageID: ack.messageID,
    })
  })

  it('delivers an unpersisted message to who is online, with seq 0, and stores nothing', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    expect(await ann.send({ ...SEND, flags: FrameFlag.NoPersist })).toMatchObject({ reasonCode: 1, messageSeq: 0 })
    expect(await bob.nextRecv()).toMatchObject({ messageSeq: 0, flags: FrameFlag.NoPersist })
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(await ann.send(SEND)).toMatchObject({ messageSeq: 1 })
  })
})

describe('EventOnSend: repeats', () => {
  // P4
  it('answers a repeat with the original ids, stores it once and delivers it once', async () => {
    const { engine, connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const message = { ...SEND, clientMsgNo: 'same' }
    const [first, second] = await Promise.all([ann.send(message), ann.send(message)]) // in one batch
    const third = await ann.send(message)
    const again = await connect('ann', { deviceID: 'other' })
    const fourth = await again.client.send(message)
    for (const repeat of [second, third, fourth]) {
      expect(repeat).toMatchObject({ reasonCode: ReasonCode.Success, messageID: first.messageID, messageSeq: 1 })
    }
    await clock.settle()
    expect(bob.messages).toHaveLength(1)
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  it('finds a repeat that only the store remembers', async () => {
    const { connect } = await stage({ limits: { maxRecentMessages: 1 } })
    const { client } = await connect('ann')
    const first = await client.send({ ...SEND, clientMsgNo: 'a' })
    await client.send({ ...SEND, clientMsgNo: 'b' })
    expect(await client.send({ ...SEND, clientMsgNo: 'a' })).toMatchObject({ messageID: first.messageID, messageSeq: 1 })
  })

  it('refuses another payload under the same number, and takes the same number from another sender or channel', async () => {
    const { engine, connect } = await stage({ limits: { maxRecentMessages: 1 } })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    await ann.send({ ...SEND, clientMsgNo: 'n' })
    expect((await ann.send({ ...SEND, clientMsgNo: 'n', payload: 'other' })).reasonCode).toBe(ReasonCode.SystemError)
    expect(await bob.send({ ...SEND, clientMsgNo: 'n' })).toMatchObject({ reasonCode: 1, messageSeq: 2 })
    expect((await ann.send({ ...SEND, clientMsgNo: 'n', payload: 'other' })).reasonCode).toBe(ReasonCode.SystemError) // from the store
    expect(await ann.send({ channelID: 'bob', channelType: 1, payload: 'x', clientMsgNo: 'n' })).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect(await engine.messages.lastSeq(TEAM)).toBe(2)
  })

  it('delivers an unpersisted message once, however often it is sent', async () => {
    const { connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const message = { ...SEND, clientMsgNo: 'ping', flags: FrameFlag.NoPersist }
    const answers = await Promise.all([ann.send(message), ann.send(message), ann.send(message)])
    await clock.settle()
    expect(new Set(answers.map((answer) => answer.messageID)).size).toBe(1)
    expect(bob.messages).toHaveLength(1)
  })
})

describe('EventOnSend: SENDACK', () => {
  it('waits for the store, and carries the seq the store gave', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => gate.promise.then(() => storage.messages.append(batches))
    const { connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const answer = ann.send(SEND)
    await clock.settle()
    expect(ann.received.some((frame) => frame.type === FrameType.SENDACK)).toBe(false)
    expect(bob.messages).toEqual([])
    gate.resolve()
    expect(await answer).toMatchObject({ reasonCode: 1, messageSeq: 1 })
  })

  it('comes before the store with ack: accepted, with seq 0 and exactly once', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => gate.promise.then(() => storage.messages.append(batches))
    const { connect, clock } = await stage({ storage: storageWith(storage, { append }), ack: 'accepted' })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const ack = await ann.send(SEND)
    expect(ack).toMatchObject({ reasonCode: 1, messageSeq: 0 })
    gate.resolve()
    expect(await bob.nextRecv()).toMatchObject({ messageSeq: 1, messageID: ack.messageID })
    await clock.settle()
    expect(ann.received.filter((frame) => frame.type === FrameType.SENDACK)).toHaveLength(1)
  })

  // P5
  it('comes exactly once whatever a handler of the host does', async () => {
    const { engine, connect, clock, errors } = await stage()
    let behave: (() => unknown) | undefined
    engine.use('EventOnSend', function host() { return behave?.() as never })
    const { client } = await connect('ann')
    const cases: [behave: () => unknown, reasonCode: ReasonCode][] = [
      [() => { throw new Error('bug') }, ReasonCode.SystemError],
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- hosts do
      [() => { throw 'a string' }, ReasonCode.SystemError],
      [() => Promise.reject(new Error('bug')), ReasonCode.SystemError],
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- hosts do
      [() => Promise.reject(undefined), ReasonCode.SystemError],
      [() => true, ReasonCode.SystemError],
      [() => Promise.resolve('no outcome'), ReasonCode.SystemError],
      [() => ({ kind: 'refuse', reasonCode: ReasonCode.Success }), ReasonCode.SystemError],
      [() => ({ kind: 'refuse', reasonCode: 999 }), ReasonCode.SystemError],
      [() => refuse(ReasonCode.Success), ReasonCode.SystemError],
      [() => refuse(ReasonCode.NotAllowSend), ReasonCode.NotAllowSend],
      [() => Promise.resolve(refuse(ReasonCode.RateLimit)), ReasonCode.RateLimit],
      [() => undefined, ReasonCode.Success],
    ]
    for (const [next, reasonCode] of cases) {
      behave = next
      expect((await client.send(SEND)).reasonCode).toBe(reasonCode)
    }
    behave = () => new Promise(() => undefined)
    const hanging = client.send(SEND)
    behave = undefined
    const next = client.send(SEND)
    await clock.settle()
    behave = () => new Promise(() => undefined)
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    behave = undefined
    expect((await next).reasonCode).toBe(ReasonCode.Success)
    await hanging
    await clock.settle()
    expect(client.received.filter((frame) => frame.type === FrameType.SENDACK)).toHaveLength(cases.length + 2)
    expect(errors.length).toBeGreaterThanOrEqual(6)
  })

  it('comes even when the host has put something else in the place of acceptSend', async () => {
    const { engine, connect } = await stage()
    const restore = engine.replace('EventOnSend', 'acceptSend', () => undefined)
    const { client } = await connect('ann')
    expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.SystemError)
    restore()
    expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.Success)
  })

  it('is followed by the end of the connection when a handler answers close', async () => {
    const { engine, connect } = await stage()
    engine.use('EventOnSend', function expel() { return { kind: 'close', reasonCode: ReasonCode.Ban, message: undefined } })
    const { client, pair } = await connect('ann')
    expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.Ban)
    expect((await pair.client.closed).by).toBe('server')
  })

  it('answers what exceeds a user’s queue with 22, pauses that socket, and resumes it at half', async () => {
    const gate = deferred()
    const { engine, connect, clock } = await stage({ limits: { maxQueuedPerUser: 4 } })
    engine.use('EventOnSend', () => gate.promise, { name: 'gate' })
    const { client, pair } = await connect('ann')
    const answers = Array.from({ length: 7 }, () => client.send(SEND))
    await clock.settle()
    expect(pair.serverPaused).toBe(true)
    gate.resolve()
    await clock.settle()
    const reasons = (await Promise.all(answers)).map((answer) => answer.reasonCode)
    expect(reasons).toEqual([1, 1, 1, 1, 22, 1, 1]) // what came before the pause took hold is refused, the rest waited outside
    expect(pair.serverPaused).toBe(false)
    expect(await client.send(SEND)).toMatchObject({ messageSeq: 7 })
  })

  // P7
  it('answers what exceeds a channel’s queue with 22 and stores exactly what it acknowledged', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => gate.promise.then(() => storage.messages.append(batches))
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }), limits: { maxQueuedPerChannel: 3 } })
    const { client, pair } = await connect('ann')
    const answers = Array.from({ length: 6 }, () => client.send(SEND))
    await clock.settle()
    expect(pair.serverPaused).toBe(true)
    gate.resolve()
    const reasons = (await Promise.all(answers)).map((answer) => answer.reasonCode)
    expect(reasons).toContain(ReasonCode.RateLimit)
    const acked = (await Promise.all(answers)).filter((answer) => answer.reasonCode === ReasonCode.Success)
    expect(acked.map((answer) => answer.messageSeq)).toEqual(acked.map((_, index) => index + 1))
    expect(await engine.messages.lastSeq(TEAM)).toBe(acked.length)
    await clock.settle()
    expect(pair.serverPaused).toBe(false)
  })
})
