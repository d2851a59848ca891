import { describe, expect, test } from 'vitest'
import { ChannelType, ReasonCode, refuse, type EventName, type Handler, type OnSendContext, type Outcome, type UseOptions } from 'imengine'
import { deferred, stage, TEAM } from '../support.ts'

/** Ways a handler may go wrong, and what that is called. */
const faults: [what: string, code: string, handler: Handler<unknown>][] = [
  ['throws', 'IM_HANDLER_FAILED', () => { throw new Error('cannot') }],
  ['throws what is no error', 'IM_HANDLER_FAILED', () => { throw undefined }], // eslint-disable-line @typescript-eslint/only-throw-error
  ['rejects', 'IM_HANDLER_FAILED', () => Promise.reject(new Error('cannot'))],
  ['hangs', 'IM_HANDLER_TIMEOUT', () => new Promise(() => undefined)],
  ['returns rubbish', 'IM_HANDLER_FAILED', () => 'no' as unknown as Outcome],
  ['resolves to rubbish', 'IM_HANDLER_FAILED', () => Promise.resolve({ kind: 'refuse', reasonCode: ReasonCode.Success } as Outcome)],
]

const policies: [UseOptions['onError'], reasonCode: number, otherRuns: number][] = [
  ['fail-closed', ReasonCode.SystemError, 0],
  ['fail-open', ReasonCode.Success, 1],
]

const cases = faults.flatMap(([what, code, handler]) => policies.map(([onError, reasonCode, otherRuns]) => ({ what, code, handler, onError, reasonCode, otherRuns })))

/** Where a handler stands before the message is stored. */
const places: [EventName, UseOptions][] = [['EventOnSend', {}], ['EventChannelDistribute', { before: 'store' }]]

describe.each(places)('M15 Handler-plugin chains with time-out, priority, error policy: in %s', (event, place) => {
  test.each(cases)('a hook that $what is met with $onError within its time-out, and the engine stays up', async ({ code, handler, onError, reasonCode, otherRuns }) => {
    const { engine, connect, clock, errors } = await stage()
    const before: string[] = []
    const behind: string[] = []
    let isBroken = true
    engine.use({
      name: 'broken',
      setup(host) {
        host.use(event, (ctx) => (isBroken ? handler(ctx) : undefined), { ...place, name: 'hook', timeoutMs: 300, onError: onError! })
      },
    })
    engine.use({
      name: 'whole',
      setup(host) {
        host.use(event, () => void before.push('before'), { ...place, name: 'urgent', priority: 1 })
        host.use(event, () => void behind.push('behind'), { ...place, name: 'usual' })
      },
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const answered = ann.send({ ...TEAM, payload: 'hi' })
    await clock.advance(400) // its time-out, and one tick
    expect((await answered).reasonCode).toBe(reasonCode)
    expect(before).toEqual(['before'])
    expect(behind).toHaveLength(otherRuns)
    expect(bob.messages.map(({ text }) => text)).toEqual(otherRuns === 1 ? ['hi'] : [])
    expect(errors.map((error) => [error.code, error.context.step])).toEqual([[code, 'broken:hook']])
    isBroken = false
    expect((await ann.send({ ...TEAM, payload: 'again' })).reasonCode).toBe(ReasonCode.Success)
    expect(engine.state).toBe('running')
  })
})

describe('fail-open', () => {
  test('lets a hook refuse all the same, at once and after a wait', async () => {
    const { engine, connect, errors } = await stage()
    engine.use('EventOnSend', ({ payload }: OnSendContext): Outcome | Promise<Outcome> => {
      const text = Buffer.from(payload).toString()
      if (text === 'now') return refuse(ReasonCode.NotAllowSend)
      if (text === 'later') return Promise.resolve(refuse(ReasonCode.NotAllowSend))
    }, { name: 'choosy', onError: 'fail-open' })
    const { client } = await connect('ann')
    const reasons: number[] = []
    for (const payload of ['now', 'later', 'never']) reasons.push((await client.send({ ...TEAM, payload })).reasonCode)
    expect(reasons).toEqual([ReasonCode.NotAllowSend, ReasonCode.NotAllowSend, ReasonCode.Success])
    expect(errors).toEqual([])
  })

  test('a hook that is late finds the signal aborted that it took before, and the step behind it has one of its own', async () => {
    const { engine, connect, clock } = await stage()
    const late = deferred()
    const seen: boolean[] = []
    engine.use('EventOnSend', async ({ signal }: OnSendContext) => {
      await late.promise
      seen.push(signal.aborted)
    }, { name: 'slow', timeoutMs: 300, onError: 'fail-open' })
    engine.use('EventOnSend', async ({ signal }: OnSendContext) => {
      late.resolve()
      await clock.settle()
      seen.push(signal.aborted)
    }, { name: 'next' })
    const { client } = await connect('ann')
    const answered = client.send({ ...TEAM, payload: 'hi' })
    await clock.advance(400)
    expect((await answered).reasonCode).toBe(ReasonCode.Success)
    expect(seen).toEqual([true, false])
  })

  test('does not run a batch again one by one: a hook sees each message once', async () => {
    const { engine, connect } = await stage()
    const seen: number[] = []
    engine.use('EventChannelDistribute', ({ messages }) => {
      seen.push(messages.length)
      throw new Error('cannot')
    }, { name: 'broken', onError: 'fail-open' })
    const { client } = await connect('ann')
    const answers = await Promise.all(['1', '2', '3'].map((payload) => client.send({ ...TEAM, payload })))
    expect(answers.map(({ reasonCode }) => reasonCode)).toEqual(Array(3).fill(ReasonCode.Success))
    expect(seen.reduce((sum, count) => sum + count, 0)).toBe(3)
  })

  test('is what happens behind the point of no return, whatever a hook asks for', async () => {
    const { engine, connect, errors } = await stage()
    engine.use('EventChannelDistribute', () => {
      throw new Error('cannot')
    }, { name: 'broken', after: 'store', onError: 'fail-closed' })
    const { client } = await connect('ann')
    expect((await client.send({ ...TEAM, payload: 'hi' })).reasonCode).toBe(ReasonCode.Success)
    expect(errors.map(({ code }) => code)).toEqual(['IM_HANDLER_FAILED'])
  })
})

describe('a hook that hangs for one user', () => {
  test('delays neither PONG nor RECVACK of that user, nor messages of others', async () => {
    const { engine, connect, clock } = await stage()
    const hang = deferred()
    engine.use('EventOnSend', ({ conn }) => (conn.uid === 'ann' ? hang.promise : undefined), { name: 'slow' })
    const acked: string[] = []
    engine.use('EventRecvAck', ({ conn }) => void acked.push(conn.uid), { name: 'watchAcks' })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    let isAnswered = false
    const answered = ann.send({ ...TEAM, payload: 'held up' }).then((sendack) => ((isAnswered = true), sendack))
    await clock.settle()
    await ann.ping()
    expect((await bob.send({ ...TEAM, payload: 'hi' })).reasonCode).toBe(ReasonCode.Success)
    expect((await bob.send({ channelID: 'ann', channelType: ChannelType.Person, payload: 'psst' })).reasonCode).toBe(ReasonCode.Success)
    expect([(await ann.nextRecv()).text, (await ann.nextRecv()).text]).toEqual(['hi', 'psst'])
    await clock.settle()
    expect(acked).toEqual(['ann', 'ann'])
    expect(isAnswered).toBe(false)
    hang.resolve()
    expect((await answered).reasonCode).toBe(ReasonCode.Success)
    expect((await bob.nextRecv()).text).toBe('held up')
  })
})

describe('ctx.extraOf', () => {
  test('is what the webhook answered to the SEND of a message, and undefined for the host', async () => {
    const { engine, connect } = await stage({ webhook: { beforeSend: ({ payload }) => ({ code: 0, extra: { byteCount: payload.length } }) } })
    const extras: unknown[] = []
    engine.use('EventChannelDistribute', (ctx) => void extras.push(...ctx.messages.map((message) => ctx.extraOf(message)), ctx.extraOf({ ...ctx.messages[0]! })), { name: 'look' })
    const { client } = await connect('ann')
    await client.send({ ...TEAM, payload: 'four' })
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })
    expect(extras).toEqual([{ byteCount: 4 }, undefined, undefined, undefined])
  })
})
