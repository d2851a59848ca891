import { describe, expect, test } from 'vitest'
import { DeviceFlag, DeviceLevel, ReasonCode, type IMEngineOptions } from 'imengine'
import { FrameType } from '../../src/model/frames.ts'
import { deferred, stage, TEAM } from '../support.ts'
import { heard, openSocket, typesOf } from './raw.ts'

/** The token says what the connection is worth. */
const LEVELS: Partial<IMEngineOptions> = {
  tokenVerifier: ({ token }) => ({ ok: true, deviceLevel: token === 'master' ? DeviceLevel.Master : DeviceLevel.Slave }),
}

type Fate = 'told and closed' | 'closed without a word' | 'stays'

/** wkproto, devices and kicking. */
const rows: [newLevel: 'master' | 'slave', deviceFlag: number, deviceID: string, fate: Fate][] = [
  ['master', DeviceFlag.App, 'other', 'told and closed'],
  ['master', DeviceFlag.App, 'same', 'closed without a word'],
  ['slave', DeviceFlag.App, 'other', 'stays'],
  ['slave', DeviceFlag.App, 'same', 'closed without a word'],
  ['master', DeviceFlag.Web, 'other', 'stays'],
  ['master', DeviceFlag.Pc, 'same', 'stays'],
  ['slave', DeviceFlag.Web, 'same', 'stays'],
]

describe.each(['master', 'slave'] as const)('an older connection of level %s', (oldLevel) => {
  test.each(rows)('when a %s with flag %i and the %s device logs in: %s', async (token, deviceFlag, deviceID, fate) => {
    const { engine, clock, connect } = await stage(LEVELS)
    const disconnected = heard(engine, 'disconnected')
    const old = await connect('ann', { token: oldLevel, deviceID: 'same' })
    const stranger = await connect('bob', { token: 'master', deviceID: 'same' })
    const fresh = await connect('ann', { token, deviceFlag, deviceID })
    await clock.settle()

    expect(disconnected).toHaveLength(fate === 'stays' ? 0 : 1)
    if (fate !== 'stays') expect(disconnected[0]).toMatchObject({ uid: 'ann', cause: 'kicked', deviceID: 'same' })
    expect(typesOf(old.client)).toEqual(fate === 'told and closed' ? [FrameType.CONNACK, FrameType.DISCONNECT] : [FrameType.CONNACK])
    if (fate === 'told and closed') {
      expect(old.client.received[1]).toMatchObject({ reasonCode: ReasonCode.ConnectKick, reason: 'login in other device' })
    }
    expect(engine.connections.list({ uid: 'ann' })).toHaveLength(fate === 'stays' ? 2 : 1)

    await clock.advance(1_900)
    expect(old.pair.client.socketEnd).toBeUndefined()
    await clock.advance(200)
    if (fate === 'stays') await old.client.ping()
    else expect(old.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    await fresh.client.ping()
    await stranger.client.ping()
  })
})

describe('a connection that has been taken the place of', () => {
  async function replaced() {
    const made = await stage(LEVELS)
    const old = await made.connect('ann', { token: 'master', deviceID: 'old' })
    const fresh = await made.connect('ann', { token: 'master', deviceID: 'new' })
    await made.clock.settle()
    return { ...made, old, fresh }
  }

  test('is heard no more from the new CONNACK on: no SENDACK, no PONG, nothing stored', async () => {
    const { engine, clock, old } = await replaced()
    const framesBefore = old.client.received.length
    void old.client.send({ ...TEAM, payload: 'too late' }).catch(() => undefined)
    old.client.write({ type: FrameType.PING })
    await clock.settle()
    expect(old.client.received).toHaveLength(framesBefore)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  test('gets no message any more; the new one does', async () => {
    const { engine, old, fresh } = await replaced()
    await engine.messages.send({ ...TEAM, fromUID: 'bob', payload: Buffer.from('hi') })
    expect((await fresh.client.nextRecv()).text).toBe('hi')
    expect(old.client.messages).toEqual([])
  })

  test('may leave during its last seconds, and is told of once', async () => {
    const { engine, clock, old } = await replaced()
    const disconnected = heard(engine, 'disconnected')
    old.client.end()
    await clock.advance(3_000)
    expect(disconnected).toEqual([])
    expect(old.pair.client.socketEnd).toMatchObject({ by: 'client' })
  })

  test('is closed at once with kickLingerMs 0, after DISCONNECT', async () => {
    const { clock, connect } = await stage({ ...LEVELS, limits: { kickLingerMs: 0 } })
    const old = await connect('ann', { token: 'master', deviceID: 'old' })
    await connect('ann', { token: 'master', deviceID: 'new' })
    await clock.advance(200)
    expect(typesOf(old.client)).toEqual([FrameType.CONNACK, FrameType.DISCONNECT])
    expect(old.pair.client.socketEnd).toMatchObject({ by: 'server' })
  })
})

test('SENDs that waited in the queue when their connection was kicked get 12 and are not stored, in order', async () => {
  const answer = deferred<{ code: number }>()
  const { engine, clock, connect } = await stage({ ...LEVELS, webhook: { beforeSend: () => answer.promise } })
  const old = await connect('ann', { token: 'master', deviceID: 'old' })
  const sendacks = [old.client.send({ ...TEAM, payload: 'in the webhook' }), old.client.send({ ...TEAM, payload: 'behind it' })]
  await clock.settle()
  await connect('ann', { token: 'master', deviceID: 'new' })
  answer.resolve({ code: 0 })
  expect(await Promise.all(sendacks)).toMatchObject([
    { clientSeq: 1, reasonCode: ReasonCode.ConnectKick, messageID: '0', messageSeq: 0 },
    { clientSeq: 2, reasonCode: ReasonCode.ConnectKick },
  ])
  await clock.settle()
  expect(typesOf(old.client)).toEqual([FrameType.CONNACK, FrameType.DISCONNECT, FrameType.SENDACK, FrameType.SENDACK])
  expect(await engine.messages.lastSeq(TEAM)).toBe(0)
})

test('a SEND that the channel has accepted before the kick is stored and acknowledged all the same', async () => {
  const answer = deferred()
  const made = await stage(LEVELS)
  const { engine, clock, connect } = made
  engine.use('EventChannelDistribute', function waits() {
    return answer.promise
  })
  const old = await connect('ann', { token: 'master', deviceID: 'old' })
  const sendack = old.client.send({ ...TEAM, payload: 'accepted' })
  await clock.settle()
  await connect('ann', { token: 'master', deviceID: 'new' })
  answer.resolve()
  expect(await sendack).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
})

test('a login that is refused ends nobody', async () => {
  const { engine, clock, connect } = await stage({
    tokenVerifier: ({ token }) => (token === 'master' ? { ok: true, deviceLevel: DeviceLevel.Master } : { ok: false }),
  })
  const old = await connect('ann', { token: 'master', deviceID: 'same' })
  const { client } = openSocket(engine)
  expect((await client.connect({ uid: 'ann', token: 'wrong', deviceID: 'same' })).reasonCode).toBe(ReasonCode.AuthFail)
  await clock.advance(3_000)
  await old.client.ping()
})

describe("a host's own kick policy", () => {
  test('decides, and sees both logins', async () => {
    const seen: string[] = []
    const { clock, connect } = await stage({
      kickPolicy: (login, existing) => {
        seen.push(`${login.deviceID} ${existing.deviceID}`)
        return existing.deviceID === 'victim' ? 'kick' : 'keep'
      },
    })
    const victim = await connect('ann', { deviceID: 'victim' })
    const spared = await connect('ann', { deviceID: 'spared', deviceFlag: DeviceFlag.Web })
    await connect('ann', { deviceID: 'third', deviceFlag: DeviceFlag.Pc })
    await clock.advance(2_200)
    expect(victim.pair.client.socketEnd).toMatchObject({ by: 'server' })
    await spared.client.ping()
    expect(seen).toContain('spared victim')
  })

  test('that throws refuses the login with 15 and ends nobody', async () => {
    let throws = false
    const { engine, clock, connect, errors } = await stage({
      kickPolicy: () => {
        if (throws) throw new Error('boom')
        return 'keep'
      },
    })
    const old = await connect('ann', { deviceID: 'old' })
    throws = true
    const { pair, client } = openSocket(engine)
    expect((await client.connect({ uid: 'ann', deviceID: 'new' })).reasonCode).toBe(ReasonCode.SystemError)
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    await old.client.ping()
    expect(errors.map((error) => error.code)).toEqual(['IM_HANDLER_FAILED'])
  })
})
