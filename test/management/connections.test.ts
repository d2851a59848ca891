import { describe, expect, test } from 'vitest'
import { DeviceFlag, ReasonCode, type ConnectionFilter } from 'imengine'
import { FrameType } from '../../src/model/frames.ts'
import { stage } from '../support.ts'
import { heard, openSocket } from '../connection/raw.ts'

async function three() {
  const made = await stage()
  const phone = await made.connect('ann', { deviceID: 'phone', remoteAddress: '10.0.0.1' })
  const web = await made.connect('ann', { deviceID: 'web', deviceFlag: DeviceFlag.Web, version: 3 })
  const bob = await made.connect('bob')
  return { ...made, phone, web, bob }
}

const devices = (list: readonly { readonly deviceID: string }[]): string[] => list.map(({ deviceID }) => deviceID).toSorted()

describe('list', () => {
  test('shows every open connection of this node, and none that has not been accepted', async () => {
    const { engine, clock } = await three()
    openSocket(engine)
    expect(engine.connections.list()).toHaveLength(3)
    expect(engine.connections.list({ uid: 'ann', deviceFlag: DeviceFlag.App })).toEqual([
      {
        connectionID: '1', uid: 'ann', deviceID: 'phone', deviceFlag: DeviceFlag.App, deviceLevel: 0, version: 5, remoteAddress: '10.0.0.1',
        connectedAtMs: clock.nowMs(),
      },
    ])
  })

  test.each<[ConnectionFilter, string[]]>([
    [{ uid: 'ann' }, ['phone', 'web']],
    [{ deviceFlag: DeviceFlag.App }, ['bob-device', 'phone']],
    [{ uid: 'ann', deviceFlag: DeviceFlag.Web }, ['web']],
    [{ connectionID: '3' }, ['bob-device']],
    [{ uid: 'ann', connectionID: '3' }, []],
    [{ uid: 'nobody' }, []],
  ])('with %j shows what matches all of it', async (filter, expected) => {
    const { engine } = await three()
    expect(devices(engine.connections.list(filter))).toEqual(expected)
  })

  test('forgets a connection when it ends', async () => {
    const { engine, clock, web } = await three()
    web.client.end()
    await clock.settle()
    expect(devices(engine.connections.list({ uid: 'ann' }))).toEqual(['phone'])
  })
})

describe('kick', () => {
  test('ends what matches with DISCONNECT 12 and the reason, closes it later, and counts it once', async () => {
    const { engine, clock, phone, web, bob } = await three()
    const disconnected = heard(engine, 'disconnected')
    expect(engine.connections.kick({ uid: 'ann', deviceFlag: DeviceFlag.App }, 'too loud')).toEqual({ kickedCount: 1 })
    expect(engine.connections.kick({ uid: 'ann', deviceFlag: DeviceFlag.App })).toEqual({ kickedCount: 0 })
    expect(await phone.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: ReasonCode.ConnectKick, reason: 'too loud' })
    expect(disconnected).toMatchObject([{ deviceID: 'phone', cause: 'kicked' }])
    await clock.advance(2_200)
    expect(phone.pair.client.socketEnd).toMatchObject({ by: 'server' })
    await web.client.ping()
    await bob.client.ping()
  })

  test('by connection id ends that one', async () => {
    const { engine, clock, web } = await three()
    expect(engine.connections.kick({ connectionID: '2' })).toEqual({ kickedCount: 1 })
    await clock.advance(2_200)
    expect(web.client.received.at(-1)).toMatchObject({ type: FrameType.DISCONNECT, reason: 'server kick' })
    expect(devices(engine.connections.list())).toEqual(['bob-device', 'phone'])
  })

  test.each<[string, unknown, unknown, RegExp]>([
    ['nobody in particular', {}, undefined, /filter must be \{ uid \} or \{ connectionID \}/],
    ['a kind of device only', { deviceFlag: 0 }, undefined, /filter must be/],
    ['nothing', null, undefined, /filter must be .*got null/],
    ['a reason that is no text', { uid: 'ann' }, 7, /reason must be text of at most 32767 bytes, got 7/],
    ['a reason that is too long', { uid: 'ann' }, 'ä'.repeat(16_384), /reason must be text/],
  ])('of %s is a TypeError and ends nobody', async (_what, filter, reason, message) => {
    const { engine } = await three()
    const kick = (): unknown => engine.connections.kick(filter as ConnectionFilter, reason as string)
    expect(kick).toThrow(TypeError)
    expect(kick).toThrow(message)
    expect(engine.connections.list()).toHaveLength(3)
  })

  test('of the longest reason reaches the client whole', async () => {
    const { engine, phone } = await three()
    const reason = 'r'.repeat(32_767)
    engine.connections.kick({ connectionID: '1' }, reason)
    expect(await phone.client.next(FrameType.DISCONNECT)).toMatchObject({ reason })
  })
})
