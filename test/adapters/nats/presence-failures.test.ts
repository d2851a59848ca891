import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import type { NatsPresence, NatsPresenceOptions } from '../../../src/adapters/nats/presence.ts'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import { entry, newName, presenceOn } from './open.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers, type NatsServersOptions } from './servers.ts'

const INTERVAL_MS = 150

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function serversOf(options: NatsServersOptions = {}): Promise<NatsServers> {
  const servers = await startNatsServers(options)
  ends.push(() => servers.close())
  return servers
}

/** A node that beats, as an engine lets it, and goes on when a beat cannot be told. */
async function nodeOn(servers: NatsServers, nodeID: number, over: Partial<NatsPresenceOptions> = {}): Promise<NatsPresence> {
  const presence = presenceOn(servers.urls, { presenceWriteTimeoutMs: 5_000, ...over })
  await presence.start({ intervalMs: INTERVAL_MS })
  await presence.leave(nodeID)
  const beat = (): void => void presence.heartbeat(nodeID, INTERVAL_MS).catch(() => undefined)
  beat()
  const timer = setInterval(beat, INTERVAL_MS)
  ends.push(() => {
    clearInterval(timer)
    return presence.close()
  })
  return presence
}

async function child(url: string, name: string, nodeID: number, uids: readonly string[]): Promise<ChildProcess> {
  const script = fileURLToPath(new URL('announcer.ts', import.meta.url))
  const process_ = spawn(process.execPath, ['--import', 'tsx', script, url, name, String(nodeID), String(INTERVAL_MS), ...uids], { stdio: ['ignore', 'pipe', 'inherit'] })
  ends.push(() => process_.kill('SIGKILL'))
  await new Promise<void>((resolve, reject) => {
    process_.stdout.once('data', () => resolve())
    process_.once('exit', () => reject(new Error('the announcer has ended')))
  })
  return process_
}

const located = (presence: NatsPresence, ...uids: string[]): Record<string, readonly number[]> => Object.fromEntries(presence.locate(uids))

const shows = (presence: NatsPresence, uid: string, nodeIDs: readonly number[], limitMs = 20_000): Promise<void> =>
  until(() => (presence.locate([uid]).get(uid) ?? []).join() === nodeIDs.join(), limitMs, `${uid} is not shown on ${nodeIDs.join()}`)

describe.skipIf(NATS_SERVER === undefined)('Presence over NATS', () => {
  test('the users of a node that was killed are offline after three heartbeats, and its keys are cleared away', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    await one.online(entry('ann', 1))
    const victim = await child(servers.url(0), name, 2, ['ann', 'bob', 'cleo'])
    await shows(one, 'bob', [2])
    expect(located(one, 'ann', 'cleo')).toEqual({ ann: [1, 2], cleo: [2] })
    victim.kill('SIGKILL')
    await shows(one, 'bob', [])
    expect(located(one, 'ann', 'bob', 'cleo')).toEqual({ ann: [1] })
    // Who comes now reads the beat of a dead node, and must not take it for one of a living node.
    const three = await nodeOn(servers, 3, { name })
    expect(located(three, 'ann', 'bob', 'cleo')).toEqual({ ann: [1] })
    await until(() => one.uidCount === 0, 25_000, 'it is not forgotten')
    const connection = new ClusterConnection({ servers: servers.urls, clientName: 'test', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 1_000 })
    const { Kvm } = await import('@nats-io/kv')
    const kv = await new Kvm(await connection.acquire()).open(`${name}_presence`)
    await until(async () => {
      const keys: string[] = []
      for await (const key of await kv.keys()) keys.push(key)
      return !keys.some((key) => key.startsWith('u.2.')) && keys.some((key) => key.startsWith('u.1.'))
    }, 10_000, 'its keys are in the bucket')
    await connection.release()
  })

  test('while the server hangs nobody of other nodes is shown and who is here is; when it goes on, all are', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    const two = await nodeOn(servers, 2, { name })
    await one.online(entry('ann', 1))
    await two.online(entry('bob', 2))
    await Promise.all([shows(one, 'bob', [2]), shows(two, 'ann', [1])])
    servers.freeze(0)
    await Promise.all([shows(one, 'bob', []), shows(two, 'ann', [])])
    expect([located(one, 'ann', 'bob'), located(two, 'ann', 'bob')]).toEqual([{ ann: [1] }, { bob: [2] }])
    await two.offline(entry('bob', 2)).catch(() => undefined)
    const late = two.online(entry('cleo', 2, 'd')).catch((error: unknown) => error)
    expect(await late).toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    servers.thaw(0)
    await Promise.all([shows(one, 'cleo', [2]), shows(two, 'ann', [1])])
    expect(located(one, 'ann', 'bob', 'cleo')).toEqual({ ann: [1], cleo: [2] })
  })

  test('when the server has lost the bucket it is made anew, and everybody is announced again', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    const two = await nodeOn(servers, 2, { name })
    await one.online(entry('ann', 1))
    await two.online(entry('bob', 2))
    await servers.kill(0)
    await expect(one.online(entry('cleo', 1, 'd'))).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    await one.offline(entry('cleo', 1, 'd')).catch(() => undefined) // as the engine does with a login that has failed
    await servers.start(0)
    await Promise.all([shows(one, 'bob', [2]), shows(two, 'ann', [1])])
    expect(located(two, 'cleo')).toEqual({})
    await two.online(entry('dan', 2, 'e'))
    await shows(one, 'dan', [2])
  })

  test('a bucket that somebody deletes is made anew, and everybody is announced again', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    const two = await nodeOn(servers, 2, { name })
    await one.online(entry('ann', 1))
    const connection = new ClusterConnection({ servers: servers.urls, clientName: 'test', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 1_000 })
    const { Kvm } = await import('@nats-io/kv')
    await (await new Kvm(await connection.acquire()).open(`${name}_presence`)).destroy()
    await connection.release()
    await two.online(entry('bob', 2)).catch(() => undefined)
    const three = await nodeOn(servers, 3, { name })
    await Promise.all([shows(three, 'ann', [1]), shows(three, 'bob', [2]), shows(one, 'bob', [2])])
  })

  test('in a cluster the death of the server that leads the bucket is survived', async () => {
    const servers = await serversOf({ count: 3 })
    const name = newName()
    const one = await nodeOn(servers, 1, { name, replicas: 3, presenceWriteTimeoutMs: 30_000 })
    const two = await nodeOn(servers, 2, { name, replicas: 3, presenceWriteTimeoutMs: 30_000 })
    await one.online(entry('ann', 1))
    await servers.kill(await servers.leaderOf(`KV_${name}_presence`))
    await two.online(entry('bob', 2))
    await Promise.all([shows(one, 'bob', [2], 60_000), shows(two, 'ann', [1], 60_000)])
  }, 120_000) // a leader for the bucket, and for the consumers of those who follow it, takes up to nine seconds each

  test('a node that was declared dead while it lived announces everybody again', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    const two = await nodeOn(servers, 2, { name })
    await two.online(entry('bob', 2))
    await shows(one, 'bob', [2])
    await one.leave(2) // which is what declares it dead
    await shows(one, 'bob', [2])
  })

  test('what changes faster than it can be written ends as it was last', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name, maxPresenceWrites: 2 })
    const two = await nodeOn(servers, 2, { name })
    const uids = Array.from({ length: 50 }, (_, i) => `u${i}`)
    const calls = uids.flatMap((uid) => ['a', 'b', 'c'].map((id) => one.online(entry(uid, 1, `${uid}${id}`))))
    for (const uid of uids) calls.push(one.offline(entry(uid, 1, `${uid}a`)))
    for (const uid of uids.slice(25)) for (const id of ['b', 'c']) calls.push(one.offline(entry(uid, 1, `${uid}${id}`)))
    await Promise.all(calls)
    await one.online(entry('last', 1, 'last'))
    await shows(two, 'last', [1])
    expect([...two.locate(uids).keys()]).toEqual(uids.slice(0, 25))
    expect(two.devices('u0').map(({ connectionID }) => connectionID)).toEqual(['u0b', 'u0c'])
  })

  test('values that are none of ours are passed over', async () => {
    const servers = await serversOf()
    const name = newName()
    const one = await nodeOn(servers, 1, { name })
    const connection = new ClusterConnection({ servers: servers.urls, clientName: 'test', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 1_000 })
    const { Kvm } = await import('@nats-io/kv')
    const kv = await new Kvm(await connection.acquire()).open(`${name}_presence`)
    await kv.put('h.7', 'gen\n100000')
    const keys = ['x', 'h', 'h.-1', 'h.x', 'u.7', 'u.7._', 'u.x._YQ', 'u.7._YQ', 'u.7.=zz', 'u.7._YQ.b', 'h.8']
    for (const key of keys) for (const value of ['', '\n', 'gen\n\n', 'gen\n\n[1]', 'gen\n\n[1,2,3]', 'gen\n{\n[]', 'gen\n7\n["a",0,0]', '\u0000\uffff']) await kv.put(key, value)
    await kv.put('u.7._Ym9i', 'gen\n\n["c",1,1]')
    await shows(one, 'bob', [7])
    expect(one.devices('bob')).toEqual([entry('bob', 7, 'c', { deviceFlag: 1, deviceLevel: 1 })])
    expect(located(one, 'a', '')).toEqual({})
    await connection.release()
  })

  test('no server is IM_CLUSTER_UNAVAILABLE; it can be started again, closed while it starts, and closed twice', async () => {
    const servers = await serversOf()
    await servers.kill(0)
    const presence = presenceOn(servers.urls)
    await expect(presence.start({ intervalMs: INTERVAL_MS })).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    await expect(presence.online(entry('ann', 1))).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    await servers.start(0)
    await servers.ready()
    const starting = presence.start({ intervalMs: INTERVAL_MS }).catch((error: unknown) => error)
    await presence.close()
    expect(await starting).toMatchObject({ code: 'IM_ABORTED' })
    await presence.start({ intervalMs: INTERVAL_MS })
    await presence.online(entry('ann', 1))
    await servers.kill(0)
    await Promise.all([presence.close(), presence.close()])
    await presence.close()
    await expect(presence.online(entry('ann', 1))).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
  })
})
