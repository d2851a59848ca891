import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { DeviceFlag, DeviceLevel, IMError, memoryStorage, ReasonCode, staticTokenVerifier, type MemoryStorage, type Storage } from 'imengine'
import type { TestClient } from 'imengine/testing'
import { FrameType } from '../../src/model/frames.ts'
import { openSocket } from '../connection/raw.ts'
import { deferred, stage, type Stage } from '../support.ts'

/** A stage that lets in whoever has the token of their kind of device. */
async function withTokens(): Promise<Stage & { storage: MemoryStorage; login(uid: string, token: string, deviceFlag?: number): Promise<{ reasonCode: number; client: TestClient }> }> {
  const storage = memoryStorage()
  const made = await stage({ storage, tokenVerifier: staticTokenVerifier(storage.tokens) })
  let count = 0
  return {
    ...made,
    storage,
    login: async (uid, token, deviceFlag = DeviceFlag.App) => {
      const { client } = openSocket(made.engine)
      const { reasonCode } = await client.connect({ uid, token, deviceFlag, deviceID: `device-${++count}` })
      return { reasonCode, client }
    },
  }
}

const without = (name: 'tokens' | 'systemUIDs'): Storage => {
  const { tokens, ...rest } = memoryStorage()
  if (name === 'tokens') return rest
  rest.channels.systemUIDs = undefined as never
  return { ...rest, tokens }
}

describe('a token', () => {
  test('lets in on its kind of device and on no other, in place of the one before', async () => {
    const { engine, login } = await withTokens()
    await engine.users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 'one' })
    expect((await login('ann', 'one')).reasonCode).toBe(ReasonCode.Success)
    expect((await login('ann', 'one', DeviceFlag.Web)).reasonCode).toBe(ReasonCode.AuthFail)
    expect((await login('bob', 'one')).reasonCode).toBe(ReasonCode.AuthFail)
    await engine.users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 'two' })
    expect((await login('ann', 'one')).reasonCode).toBe(ReasonCode.AuthFail)
    expect((await login('ann', 'two')).reasonCode).toBe(ReasonCode.Success)
  })

  test('is kept as its SHA-256, and nothing of it is in any error', async () => {
    const { engine, storage } = await withTokens()
    await engine.users.setToken('ann', { deviceFlag: 0, deviceLevel: DeviceLevel.Master, token: 'şecret' })
    expect(await storage.tokens.token('ann', 0)).toEqual({ deviceFlag: 0, deviceLevel: 1, digest: new Uint8Array(createHash('sha256').update('şecret').digest()) })
    for (const token of ['', 'x\ud800', 's'.repeat(32_768), 20_011_231]) {
      const failing = engine.users.setToken('ann', { deviceFlag: 0, token: token as string })
      await expect(failing).rejects.toThrow(/^imengine: token must be well-formed text of 1 to 32767 bytes$/)
    }
  })

  test('of a slave ends nobody; of a master ends live connections of its kind of device with DISCONNECT 12', async () => {
    const { engine, login, clock } = await withTokens()
    for (const deviceFlag of [DeviceFlag.App, DeviceFlag.Web]) await engine.users.setToken('ann', { deviceFlag, token: 't' })
    const [phone, web] = [await login('ann', 't'), await login('ann', 't', DeviceFlag.Web)]
    expect(await engine.users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 'new' })).toEqual({ kickedCount: 0 })
    expect(await engine.users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 'newer', deviceLevel: DeviceLevel.Master })).toEqual({ kickedCount: 1 })
    expect(await phone.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: ReasonCode.ConnectKick })
    await clock.advance(5_000)
    await web.client.ping()
  })

  test('that is removed lets nobody in, and leaves live connections alone', async () => {
    const { engine, login } = await withTokens()
    for (const deviceFlag of [0, 1, 2, 99]) await engine.users.setToken('ann', { deviceFlag, token: 't' })
    const phone = await login('ann', 't')
    await engine.users.removeToken('ann', DeviceFlag.Web)
    expect((await login('ann', 't', DeviceFlag.Web)).reasonCode).toBe(ReasonCode.AuthFail)
    expect((await login('ann', 't', DeviceFlag.Pc)).reasonCode).toBe(ReasonCode.Success)
    await engine.users.removeToken('ann')
    for (const flag of [0, 1, 2]) expect((await login('ann', 't', flag)).reasonCode).toBe(ReasonCode.AuthFail)
    expect((await login('ann', 't', DeviceFlag.System)).reasonCode).toBe(ReasonCode.Success)
    await phone.client.ping()
  })

  test('cannot be kept by a storage without tokens: IM_NOT_SUPPORTED, while quitDevice ends the connections', async () => {
    const { engine, connect } = await stage({ storage: without('tokens') })
    await connect('ann')
    await expect(engine.users.setToken('ann', { deviceFlag: 0, token: 't' })).rejects.toMatchObject({ code: 'IM_NOT_SUPPORTED' })
    await expect(engine.users.removeToken('ann')).rejects.toMatchObject({ code: 'IM_NOT_SUPPORTED' })
    expect(await engine.users.quitDevice('ann')).toEqual({ kickedCount: 1 })
  })

  test('that the store cannot look up is no wrong token: CONNACK 15', async () => {
    const { storage, login, errors } = await withTokens()
    storage.tokens.token = () => Promise.reject(new Error('down'))
    expect((await login('ann', 't')).reasonCode).toBe(ReasonCode.SystemError)
    expect(errors).toMatchObject([{ code: 'IM_VERIFIER_FAILED' }])
  })
})

describe('quitDevice', () => {
  test('of one kind of device takes its token and ends its connections, and counts them', async () => {
    const { engine, login } = await withTokens()
    for (const deviceFlag of [0, 1]) await engine.users.setToken('ann', { deviceFlag, token: 't' })
    await login('ann', 't')
    const web = await login('ann', 't', DeviceFlag.Web)
    expect(await engine.users.quitDevice('ann', DeviceFlag.App)).toEqual({ kickedCount: 1 })
    expect((await login('ann', 't')).reasonCode).toBe(ReasonCode.AuthFail)
    await web.client.ping()
    expect(await engine.users.quitDevice('ann')).toEqual({ kickedCount: 1 })
    expect((await login('ann', 't', DeviceFlag.Web)).reasonCode).toBe(ReasonCode.AuthFail)
  })

  test('without a kind means APP, WEB and PC, and not SYSTEM', async () => {
    const { engine, connect } = await stage()
    for (const deviceFlag of [0, 1, 2, 99]) await connect('ann', { deviceFlag, deviceID: `d${deviceFlag}` })
    expect(await engine.users.quitDevice('ann')).toEqual({ kickedCount: 3 })
    expect(engine.connections.list().map(({ deviceFlag }) => deviceFlag)).toEqual([99])
  })
})

describe('a ban', () => {
  test('ends live connections and refuses the next ones until it is lifted', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    expect(await engine.users.ban('ann')).toEqual({ kickedCount: 1 })
    expect(await client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: ReasonCode.ConnectKick, reason: 'banned' })
    await expect(connect('ann')).rejects.toThrow('refused')
    await engine.users.unban('ann')
    await connect('ann')
  })

  test('leaves live connections alone when it is told to', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    expect(await engine.users.ban('ann', { disconnect: false })).toEqual({ kickedCount: 0 })
    await client.ping()
  })

  test('ends a login that was judged before it', async () => {
    const asked = deferred<{ ok: true }>()
    const { engine, clock } = await stage({ tokenVerifier: () => asked.promise })
    const { client, pair } = openSocket(engine)
    void client.connect({ uid: 'ann' }).catch(() => undefined)
    await clock.settle()
    await engine.users.ban('ann')
    asked.resolve({ ok: true })
    await clock.settle()
    expect(engine.connections.count()).toBe(0)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  test('of sending is seen in the flags', async () => {
    const { engine } = await stage()
    await engine.users.setSendBan('ann', true)
    expect(await engine.users.flags('ann')).toMatchObject({ sendBanned: true })
    await engine.users.setSendBan('ann', false)
    expect(await engine.users.flags('ann')).toMatchObject({ sendBanned: false })
  })
})

describe('system users', () => {
  test('are listed page by page, without those of the option', async () => {
    const { engine } = await stage({ systemUIDs: ['host'] })
    await engine.users.system.add(['bot-1', 'bot-2', 'bot-3'])
    await engine.users.system.remove(['bot-2'])
    const first = await engine.users.system.list({ limit: 1 })
    const second = await engine.users.system.list({ cursor: first.cursor! })
    expect([...first.items, ...second.items].toSorted()).toEqual(['bot-1', 'bot-3'])
    expect(await engine.users.flags('bot-1')).toMatchObject({ system: true })
  })

  test('cannot be listed by a directory that does not: IM_NOT_SUPPORTED', async () => {
    const { engine } = await stage({ storage: without('systemUIDs') })
    await expect(engine.users.system.list()).rejects.toThrow(IMError)
    await expect(engine.users.system.list()).rejects.toMatchObject({ code: 'IM_NOT_SUPPORTED' })
  })
})

describe("a host's mistake is a TypeError that names the argument", () => {
  const bad = (value: unknown): never => value as never
  type Users = Stage['engine']['users']
  test.each<[string, (users: Users) => unknown, RegExp]>([
    ['setToken without a uid', (users) => users.setToken('', { deviceFlag: 0, token: 't' }), /uid must be a uid/],
    ['setToken without a token', (users) => users.setToken('ann', bad(undefined)), /the token must be an object/],
    ['setToken of a strange device', (users) => users.setToken('ann', { deviceFlag: 256, token: 't' }), /deviceFlag must be an integer from 0 to 255, got 256/],
    ['setToken of a strange level', (users) => users.setToken('ann', { deviceFlag: 0, deviceLevel: bad(2), token: 't' }), /deviceLevel must be 0 \(slave\) or 1 \(master\), got 2/],
    ['removeToken without a uid', (users) => users.removeToken('a@b'), /uid must be a uid/],
    ['removeToken of a strange device', (users) => users.removeToken('ann', bad('0')), /deviceFlag .*got "0"/],
    ['quitDevice without a uid', (users) => users.quitDevice(bad(null)), /uid must be a uid/],
    ['quitDevice of a strange device', (users) => users.quitDevice('ann', -1), /deviceFlag .*got -1/],
    ['ban without a uid', (users) => users.ban(' '), /uid must be a uid/],
    ['ban with a strange disconnect', (users) => users.ban('ann', { disconnect: bad(1) }), /disconnect must be true or false, got 1/],
    ['unban without a uid', (users) => users.unban(bad(7)), /uid must be a uid.*got 7/],
    ['setSendBan without a uid', (users) => users.setSendBan('', true), /uid must be a uid/],
    ['setSendBan without a flag', (users) => users.setSendBan('ann', bad('yes')), /sendBanned must be true or false, got "yes"/],
    ['setFlags with a strange system', (users) => users.setFlags('ann', { system: bad(1) }), /system must be true or false, got 1/],
    ['system.add of no list', (users) => users.system.add(bad('bot')), /uids must be an array of uids, got "bot"/],
    ['system.add of too many', (users) => users.system.add(Array<string>(10_001).fill('bot')), /uids must be at most 10000 uids, got an array of 10001/],
    ['system.remove of no uid', (users) => users.system.remove(['']), /uids\[0\] must be a uid/],
    ['system.list of a strange page', (users) => users.system.list({ limit: 0 }), /limit/],
  ])('%s', async (_what, call, message) => {
    const { engine } = await stage()
    const result = (async () => call(engine.users))()
    await expect(result).rejects.toThrow(TypeError)
    await expect(result).rejects.toThrow(message)
  })
})
