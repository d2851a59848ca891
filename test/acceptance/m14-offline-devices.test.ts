import { describe, expect, test } from 'vitest'
import { DeviceFlag, DeviceLevel, MemberRole, memoryStorage, type IMEngineOptions, type IsOffline, type OnlineDevice } from 'imengine'
import { heard } from '../connection/raw.ts'
import { stage, TEAM, type Stage } from '../support.ts'

const LEVELS: Partial<IMEngineOptions> = {
  tokenVerifier: ({ token }) => ({ ok: true, deviceLevel: token === 'master' ? DeviceLevel.Master : DeviceLevel.Slave }),
}

/** The rule of the reference server: whoever has no master device connected may be woken. */
const noMaster: IsOffline = ({ devices }) => !devices.some(({ deviceLevel }) => deviceLevel === DeviceLevel.Master)

/** One message of ann's to the team, and whom the host was told of: uid and what they have connected. */
async function toldOf({ engine, clock }: Stage): Promise<Record<string, readonly OnlineDevice[]>> {
  const offline = heard(engine, 'offlineMessage')
  await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('hi') })
  await clock.settle()
  return Object.fromEntries(offline.flatMap(({ uids, devices }) => uids.map((uid) => [uid, devices.get(uid) ?? []])))
}

describe('M14 Offline push with device detail', () => {
  test('a user with WEB only: the host’s rule and its fact see every device that is connected', async () => {
    const asked: Record<string, readonly OnlineDevice[]> = {}
    const made = await stage({
      ...LEVELS,
      isOffline: ({ uid, devices }) => {
        asked[uid] = devices
        return !devices.some(({ deviceFlag }) => deviceFlag === DeviceFlag.App)
      },
    })
    await made.connect('bob', { deviceFlag: DeviceFlag.Web, deviceID: '1' })
    await made.connect('bob', { deviceFlag: DeviceFlag.Web, deviceID: '2' })
    await made.connect('cat', { deviceFlag: DeviceFlag.Web })
    await made.connect('cat', { deviceFlag: DeviceFlag.App, token: 'master' })
    const web = { deviceFlag: DeviceFlag.Web, deviceLevel: DeviceLevel.Slave }
    expect(await toldOf(made)).toEqual({ bob: [web, web] })
    expect(asked).toMatchObject({ bob: [web, web], cat: [web, { deviceFlag: DeviceFlag.App, deviceLevel: DeviceLevel.Master }] })
  })

  test('by default a user with WEB only is not offline; only who has nothing connected is', async () => {
    const made = await stage(LEVELS)
    await made.connect('bob', { deviceFlag: DeviceFlag.Web })
    expect(await toldOf(made)).toEqual({ cat: [] })
  })

  test('the no-master rule is a line of isOffline: a slave alone does not keep a user from being woken', async () => {
    const made = await stage({ ...LEVELS, isOffline: noMaster })
    await made.connect('bob', { deviceFlag: DeviceFlag.App, token: 'slave' })
    await made.connect('cat', { deviceFlag: DeviceFlag.Web, token: 'master' })
    expect(await toldOf(made)).toEqual({ bob: [{ deviceFlag: DeviceFlag.App, deviceLevel: DeviceLevel.Slave }] })
  })

  test('the sender is never told of, whatever the rule says of them and whatever they have connected', async () => {
    const made = await stage({ ...LEVELS, isOffline: () => true })
    await made.connect('ann', { deviceFlag: DeviceFlag.Web })
    expect(Object.keys(await toldOf(made)).sort()).toEqual(['bob', 'cat'])
    expect(Object.keys(await toldOf(await stage(LEVELS))).sort()).toEqual(['bob', 'cat'])
  })

  // A muted member may not speak, and hears as before. That a receiver wants no push from a channel is for the host to know:
  // the fact names the channel and the users, and whoever sends pushes leaves those out.
  test('a member who is muted still receives, so the fact names them; the host, who knows who wants no push, filters by channel', async () => {
    const storage = memoryStorage()
    const made = await stage({ ...LEVELS, storage })
    await storage.channels.putMembers(TEAM, [{ uid: 'bob', role: MemberRole.Member, mutedUntilMs: made.clock.nowMs() + 60_000 }])
    const doNotDisturb = new Set(['team cat'])
    const pushed: string[] = []
    made.engine.on('offlineMessage', ({ key, uids }) => {
      for (const uid of uids) if (!doNotDisturb.has(`${key.channelID} ${uid}`)) pushed.push(uid)
    })
    expect(Object.keys(await toldOf(made)).sort()).toEqual(['bob', 'cat'])
    expect(pushed).toEqual(['bob'])
  })
})
