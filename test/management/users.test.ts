import { describe, expect, test } from 'vitest'
import { ReasonCode } from 'imengine'
import { stage, TEAM } from '../support.ts'
import { openSocket } from '../connection/raw.ts'

describe('the standing of a user', () => {
  test('is good until something is said about it, and what is not given stays', async () => {
    const { engine } = await stage()
    expect(await engine.users.flags('ann')).toEqual({ banned: false, sendBanned: false })
    await engine.users.setFlags('ann', { banned: true })
    await engine.users.setFlags('ann', { sendBanned: true })
    expect(await engine.users.flags('ann')).toEqual({ banned: true, sendBanned: true })
    await engine.users.setFlags('ann', { banned: false })
    expect(await engine.users.flags('ann')).toEqual({ banned: false, sendBanned: true })
    expect(await engine.users.flags('bob')).toEqual({ banned: false, sendBanned: false })
  })

  test('banned refuses the next CONNECT with 19 and leaves a live connection alone', async () => {
    const { engine, clock, connect } = await stage()
    const { client } = await connect('ann')
    await engine.users.setFlags('ann', { banned: true })
    const { pair, client: second } = openSocket(engine)
    expect((await second.connect({ uid: 'ann', deviceID: 'other' })).reasonCode).toBe(ReasonCode.Ban)
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.Success })
  })

  test('sendBanned refuses the next SEND with 25, and receiving goes on', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    await engine.users.setFlags('ann', { sendBanned: true })
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.SendBan })
    await engine.messages.send({ ...TEAM, fromUID: 'bob', payload: Buffer.from('hi') })
    expect((await client.nextRecv()).text).toBe('hi')
  })
})

describe("a host's mistake is a TypeError that names the argument", () => {
  test.each<[string, string, unknown, RegExp]>([
    ['no uid', '', { banned: true }, /uid must be a uid/],
    ['a uid that forges a person channel', 'a@b', {}, /uid must be a uid.*got "a@b"/],
    ['banned as a number', 'ann', { banned: 1 }, /banned must be true or false, got 1/],
    ['sendBanned as text', 'ann', { sendBanned: 'no' }, /sendBanned must be true or false, got "no"/],
    ['sendBanned as null', 'ann', { sendBanned: null }, /sendBanned must be true or false, got null/],
  ])('%s', async (_what, uid, flags, message) => {
    const { engine } = await stage()
    const result = engine.users.setFlags(uid, flags as never)
    await expect(result).rejects.toThrow(TypeError)
    await expect(result).rejects.toThrow(message)
    expect(await engine.users.flags('ann')).toEqual({ banned: false, sendBanned: false })
  })

  test('a question about what is no uid', async () => {
    const { engine } = await stage()
    await expect(engine.users.flags(undefined as never)).rejects.toThrow(/uid must be a uid.*got undefined/)
  })

  test('flags that are nothing', async () => {
    const { engine } = await stage()
    await expect(engine.users.setFlags('ann', null as never)).rejects.toThrow(/imengine: flags must be/)
  })
})
