import { describe, expect, test } from 'vitest'
import { DeviceFlag, DeviceLevel, ReasonCode, type IMEngineOptions } from 'imengine'
import { FrameType } from '../../src/model/frames.ts'
import { heard, typesOf } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

/** The token says what the connection is worth. */
const LEVELS: Partial<IMEngineOptions> = {
  tokenVerifier: ({ token }) => ({ ok: true, deviceLevel: token === 'master' ? DeviceLevel.Master : DeviceLevel.Slave }),
  limits: { timerTickMs: 1 },
}

type Fate = 'DISCONNECT 12' | 'no packet' | 'stays'

const rows: [newLevel: string, oldDeviceID: string, oldFlag: number, fate: Fate][] = [
  ['master', 'another', DeviceFlag.App, 'DISCONNECT 12'],
  ['master', 'the same', DeviceFlag.App, 'no packet'],
  ['slave', 'the same', DeviceFlag.App, 'no packet'],
  ['slave', 'another', DeviceFlag.App, 'stays'],
  ['master', 'the same', DeviceFlag.Web, 'stays'],
  ['master', 'another', DeviceFlag.Pc, 'stays'],
  ['slave', 'the same', DeviceFlag.Web, 'stays'],
]

describe('M7 Kick policy exact and pluggable', () => {
  for (const oldLevel of ['master', 'slave']) {
    test.each(rows)(`a %s logs in; %s device of kind %i, a ${oldLevel}: %s`, async (newLevel, oldDeviceID, oldFlag, fate) => {
      const { engine, clock, connect } = await stage(LEVELS)
      const old = await connect('ann', { token: oldLevel, deviceID: oldDeviceID, deviceFlag: oldFlag, framing: 'message' })
      const fresh = await connect('ann', { token: newLevel, deviceID: 'the same', deviceFlag: DeviceFlag.App })
      // CONNACK of the new one has arrived: from this moment the old one can do nothing any more.
      const answer = old.client.send({ ...TEAM, payload: 'still me?' }).catch(() => 'never answered')
      old.client.write({ type: FrameType.PING })
      await clock.settle()
      if (fate === 'stays') {
        expect(await answer).toMatchObject({ reasonCode: ReasonCode.Success })
        await clock.advance(10_000)
        expect(typesOf(old.client)).toEqual([FrameType.CONNACK, FrameType.PONG, FrameType.SENDACK])
        expect(old.pair.client.socketEnd).toBeUndefined()
        expect(engine.connections.list({ uid: 'ann' })).toHaveLength(2)
        return
      }
      expect(await engine.messages.lastSeq(TEAM)).toBe(0)
      const farewell = { type: FrameType.DISCONNECT, reasonCode: ReasonCode.ConnectKick, reason: 'login in other device' }
      expect(old.client.received.slice(1)).toMatchObject(fate === 'DISCONNECT 12' ? [farewell] : [])
      await clock.advance(1_999)
      expect(old.pair.client.socketEnd).toBeUndefined()
      await clock.advance(3)
      expect(old.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
      expect(await answer).toBe('never answered')
      await fresh.client.ping()
      expect(engine.connections.list({ uid: 'ann' }).map(({ deviceID }) => deviceID)).toEqual(['the same'])
    })
  }

  test('a policy of the host’s own rules instead, and is asked about every connection of the user and no other', async () => {
    const asked: string[] = []
    const { engine, clock, connect } = await stage({
      ...LEVELS,
      // One device of any kind, and the newest wins; a screen on the wall stays.
      kickPolicy: (login, existing) => {
        asked.push(`${login.deviceID} ${existing.uid} ${existing.deviceID}`)
        return existing.deviceID === 'wall' ? 'keep' : 'kick'
      },
    })
    const disconnected = heard(engine, 'disconnected')
    const wall = await connect('ann', { deviceID: 'wall', deviceFlag: DeviceFlag.Pc })
    const phone = await connect('ann', { deviceID: 'phone', deviceFlag: DeviceFlag.App })
    const bob = await connect('bob', { deviceID: 'phone' })
    asked.length = 0
    await connect('ann', { deviceID: 'browser', deviceFlag: DeviceFlag.Web })
    await clock.settle()
    expect(new Set(asked)).toEqual(new Set(['browser ann wall', 'browser ann phone']))
    expect(phone.client.received.at(-1)).toMatchObject({ type: FrameType.DISCONNECT, reasonCode: ReasonCode.ConnectKick })
    expect(disconnected).toMatchObject([{ deviceID: 'phone', uid: 'ann', cause: 'kicked' }])
    await wall.client.ping()
    await bob.client.ping()
  })

  test("'replace' of a policy ends without a packet", async () => {
    const { clock, connect } = await stage({ ...LEVELS, kickPolicy: () => 'replace' })
    const old = await connect('ann', { token: 'master', deviceID: 'old' })
    await connect('ann', { token: 'master', deviceID: 'new' })
    await clock.advance(2_002)
    expect(typesOf(old.client)).toEqual([FrameType.CONNACK])
    expect(old.pair.client.socketEnd).toMatchObject({ by: 'server' })
  })
})
