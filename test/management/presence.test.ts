import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { memoryPeerHub, memoryPresence, type PresenceChange } from 'imengine'
import type { TestClient } from 'imengine/testing'
import { stage } from '../support.ts'

const short = ({ uid, online, deviceFlags }: PresenceChange): string => `${uid} ${online ? `online ${deviceFlags.join('+')}` : 'offline'}`

async function listening(uids: readonly string[] | '*' = '*') {
  const made = await stage()
  const told: string[] = []
  const unsubscribe = made.engine.presence.subscribe(uids, (change) => told.push(short(change)))
  return { ...made, told, unsubscribe }
}

describe('M17 Presence query and subscription: a subscription', () => {
  test('hears one online and one offline of a user, however many devices come and go', async () => {
    const { engine, clock, connect, told } = await listening()
    const facts: string[] = []
    engine.on('presenceChanged', (change) => facts.push(short(change)))
    const phone = await connect('ann', { deviceID: 'phone' })
    const web = await connect('ann', { deviceID: 'web', deviceFlag: 1 })
    phone.client.end()
    await clock.settle()
    expect(told).toEqual(['ann online 0'])
    web.client.end()
    await clock.settle()
    expect(told).toEqual(['ann online 0', 'ann offline'])
    expect(facts).toEqual(told)
  })

  test('hears nothing of a login that ends an older one of the same device', async () => {
    const { engine, connect, told } = await listening()
    for (let index = 0; index < 3; index++) await connect('ann', { deviceID: 'phone' })
    expect(engine.connections.count()).toBe(1)
    expect(told).toEqual(['ann online 0'])
  })

  test('is for those who are named, and for as long as it is not ended', async () => {
    const { engine, connect, told, unsubscribe } = await listening(['ann', 'bob', 'ann'])
    await connect('cat')
    await connect('ann')
    unsubscribe()
    unsubscribe()
    engine.connections.kick({ uid: 'ann' })
    await connect('bob')
    expect(told).toEqual(['ann online 0'])
  })

  test('whose listener throws or rejects is reported, and the others hear all the same', async () => {
    const { engine, clock, connect, told, errors } = await listening()
    engine.presence.subscribe(['ann'], () => {
      throw new Error('bug')
    })
    engine.presence.subscribe(['ann'], vi.fn().mockRejectedValue(new Error('late bug')))
    await connect('ann')
    await clock.settle()
    expect(told).toEqual(['ann online 0'])
    expect(errors).toMatchObject(Array(2).fill({ code: 'IM_LISTENER_FAILED', context: { event: 'presenceChanged', uid: 'ann' } }))
  })

  test('hears in order what a listener brings about', async () => {
    const { engine, connect, told } = await listening()
    const later: string[] = []
    engine.presence.subscribe('*', ({ uid, online }) => void (online && engine.connections.kick({ uid })))
    engine.presence.subscribe('*', (change) => void later.push(short(change)))
    await connect('ann')
    expect(later).toEqual(['ann online 0', 'ann offline'])
    expect(told).toEqual(later)
  })

  test('hears that all are gone when the engine closes', async () => {
    const { engine, connect, told, clock } = await listening()
    await connect('ann')
    const closing = engine.close({ drainMs: 0 })
    await clock.advance(engine.limits.closeTimeoutMs)
    await closing
    expect(told.at(-1)).toBe('ann offline')
  })
})

test('whatever devices come, go and replace each other, each user is told online and offline in turn, and rightly', async () => {
  const step = fc.record({ uid: fc.constantFrom('ann', 'bob'), device: fc.constantFrom('a', 'b', 'c'), action: fc.constantFrom('connect', 'end', 'kick', 'close') })
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const { engine, clock, connect, told } = await listening()
      const clients = new Map<string, TestClient>()
      for (const { uid, device, action } of steps) {
        const name = `${uid} ${device}`
        if (action === 'connect') clients.set(name, (await connect(uid, { deviceID: device, deviceFlag: device === 'c' ? 1 : 0 })).client)
        else if (action === 'end') clients.get(name)?.end()
        else if (action === 'kick') engine.connections.kick({ uid, deviceFlag: 0 })
        else engine.connections.close({ uid })
        await clock.settle()
        for (const someone of ['ann', 'bob']) {
          const own = told.filter((line) => line.startsWith(someone))
          expect(own.map((line) => line.includes('online'))).toEqual(own.map((_line, index) => index % 2 === 0))
          const isOnline = engine.connections.list({ uid: someone }).length > 0
          expect(own.length % 2 === 1).toBe(isOnline)
          expect((await engine.presence.query([someone]))[0]?.online).toBe(isOnline)
        }
      }
      const closing = engine.close({ drainMs: 0 })
      await clock.advance(engine.limits.closeTimeoutMs)
      await closing
    }),
    { numRuns: 25 },
  )
})

describe('M17 Presence query and subscription: query', () => {
  test('answers for each in the order asked, with the devices', async () => {
    const { engine, connect } = await stage()
    await connect('ann', { deviceFlag: 1 })
    expect(await engine.presence.query(['bob', 'ann'])).toEqual([
      { uid: 'bob', online: false, devices: [] },
      { uid: 'ann', online: true, devices: [{ deviceFlag: 1, deviceLevel: 0, connectionID: '1', nodeID: 1 }] },
    ])
  })

  test('knows of other nodes what presence knows, and of this one what is so', async () => {
    const presence = memoryPresence()
    const hub = memoryPeerHub()
    const one = await stage({ nodeID: 1, presence, peerPush: hub.peer() })
    const two = await stage({ nodeID: 2, presence, peerPush: hub.peer() })
    await one.connect('ann')
    await two.connect('ann', { deviceFlag: 1 })
    await two.connect('bob')
    const devices = (await one.engine.presence.query(['ann', 'bob', 'cat'])).map((user) => user.devices.map(({ nodeID, deviceFlag }) => `${nodeID}:${deviceFlag}`))
    expect(devices).toEqual([['1:0', '2:1'], ['2:0'], []])
  })

  test('of a presence that hangs or fails is IM_PRESENCE_UNAVAILABLE', async () => {
    const presence = memoryPresence()
    const { engine, clock } = await stage({ presence })
    presence.locate = () => new Promise(() => undefined)
    const asked = engine.presence.query(['ann']).catch((error: unknown) => error)
    await clock.advance(engine.limits.presenceTimeoutMs + 200)
    expect(await asked).toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    presence.locate = () => {
      throw new Error('down')
    }
    await expect(engine.presence.query(['ann'])).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE', cause: { message: 'down' } })
  })
})

test.each<[string, unknown, unknown, RegExp]>([
  ['no list', 'ann', () => undefined, /uids must be an array of uids, got "ann"/],
  ['too many', Array<string>(10_001).fill('u'), () => undefined, /uids must be at most 10000 uids/],
  ['no uid', [''], () => undefined, /uids\[0\] must be a uid/],
  ['no listener', ['ann'], undefined, /listener must be a function, got undefined/],
])("a host's mistake is a TypeError: %s", async (_what, uids, listener, message) => {
  const { engine } = await stage()
  expect(() => engine.presence.subscribe(uids as string[], listener as () => void)).toThrow(message)
  if (listener !== undefined) await expect(engine.presence.query(uids as string[])).rejects.toThrow(message)
})
