import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { allowAnyToken, ChannelType, DeviceLevel, IMEngine, memoryStorage, type IMEngineOptions, type IMError, type Storage } from 'imengine'
import { natsCluster, type NatsClusterOptions } from 'imengine/nats'
import { FrameType } from 'imengine/protocol'
import { connectTestClient } from 'imengine/testing'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

const sees = async (engine: IMEngine, uid: string): Promise<boolean> => (await engine.presence.query([uid]))[0]!.online

describe.skipIf(NATS_SERVER === undefined)('engines joined by natsCluster', () => {
  let servers: NatsServers
  let name: string
  let nameCount = 0
  const engines: IMEngine[] = []
  const errors: IMError[] = []
  beforeAll(async () => {
    servers = await startNatsServers()
  })
  afterAll(() => servers.close())
  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
    errors.length = 0
  })

  function make(nodeID: number, storage: Storage, over: Partial<IMEngineOptions> = {}, options: Partial<NatsClusterOptions> = {}): IMEngine {
    const cluster = natsCluster({ servers: servers.urls, name, reconnectPauseMs: 50, presenceWriteTimeoutMs: 500, ...options })
    const limits = { presenceHeartbeatMs: 200, closeTimeoutMs: 5_000 }
    const engine = new IMEngine({ nodeID, storage, tokenVerifier: allowAnyToken(), limits, presence: cluster.presence, peerPush: cluster.peerPush, ...over })
    engine.on('error', (error) => errors.push(error))
    engines.push(engine)
    return engine
  }

  /** A busy machine may keep a beat of presence waiting, which concerns no message. */
  const errorsOfMessages = (): readonly IMError[] => errors.filter(({ code }) => code !== 'IM_ABORTED' && code !== 'IM_PRESENCE_UNAVAILABLE')

  async function pair(over: Partial<IMEngineOptions> = {}): Promise<[IMEngine, IMEngine]> {
    name = `e${++nameCount}`
    const storage = memoryStorage()
    const [one, two] = [make(1, storage, over), make(2, storage, over)]
    await one.start()
    await two.start()
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    return [one, two]
  }

  test('messages reach the connections of the other node, in order and once', async () => {
    const [one, two] = await pair()
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    await until(() => sees(one, 'bob'), 25_000, 'bob is not shown') // where a moment passes between his login and its being read here
    for (let i = 1; i <= 50; i++) await ann.send({ ...TEAM, payload: String(i) })
    await until(() => bob.messages.length >= 50, 25_000, 'not all arrive')
    expect(bob.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1))
    await bob.send({ ...TEAM, payload: 'back' })
    expect((await ann.nextRecv()).text).toBe('back')
    expect(errorsOfMessages()).toEqual([])
  })

  test('a master login ends the older one on the other node before it is told that it is in', async () => {
    const [one, two] = await pair({ tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) })
    const old = await connectTestClient(one, { uid: 'ann', deviceID: 'a' })
    await connectTestClient(two, { uid: 'ann', deviceID: 'b' })
    // CONNACK has been read: from here on the old login is nobody.
    expect(one.connections.list()).toEqual([])
    expect(await old.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: 12 })
    expect(errorsOfMessages()).toEqual([])
  })

  test('while NATS is gone a login is refused, who is connected is served; afterwards logins and pushes work again', async () => {
    const [one, two] = await pair()
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    await servers.kill(0)
    await expect(connectTestClient(two, { uid: 'bob' })).rejects.toThrow('refused')
    expect(errors.some(({ code }) => code === 'IM_PRESENCE_UNAVAILABLE')).toBe(true)
    expect(await ann.send({ ...TEAM, payload: 'alone' })).toMatchObject({ reasonCode: 1 })
    await servers.start(0)
    let bob: Awaited<ReturnType<typeof connectTestClient>> | undefined
    await until(async () => (bob = await connectTestClient(two, { uid: 'bob' }).catch(() => undefined)) !== undefined, 25_000, 'bob is not let in')
    const before = bob!.client.messages.length
    await until(async () => {
      await ann.send({ ...TEAM, payload: 'again' })
      return bob!.client.messages.length > before
    }, 10_000, 'nothing arrives')
  })

  test('an engine without its servers does not start, says why and closes', async () => {
    name = `e${++nameCount}`
    const engine = make(1, memoryStorage(), {}, { servers: 'nats://127.0.0.1:1' })
    await expect(engine.start()).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    await engine.close()
    expect(engine.state).toBe('closed')
  })

  test('an engine that closes is gone from the others at once', async () => {
    const [one, two] = await pair()
    await connectTestClient(two, { uid: 'bob' })
    await until(() => sees(one, 'bob'), 25_000, 'bob is not shown')
    await two.close({ drainMs: 0 })
    await until(async () => !(await sees(one, 'bob')), 25_000, 'bob is still shown')
    await connectTestClient(one, { uid: 'bob' }) // whose kick waits for nobody
    expect(errorsOfMessages()).toEqual([])
  })
})

describe.skipIf(NATS_SERVER === undefined)('a process that has closed its engine ends by itself', () => {
  test.each(['while its server runs', 'when its server is gone', 'when its server hangs'])('%s', async (when) => {
    const servers = await startNatsServers()
    const script = fileURLToPath(new URL('leaver.ts', import.meta.url))
    const child = spawn(process.execPath, ['--import', 'tsx', script, servers.url(0)], { stdio: ['pipe', 'pipe', 'inherit'] })
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
    try {
      await new Promise((resolve) => child.stdout.once('data', resolve))
      if (when.includes('gone')) await servers.kill(0)
      if (when.includes('hangs')) servers.freeze(0)
      child.stdin.end('close')
      expect(await ended).toBe(0)
    } finally {
      child.kill('SIGKILL')
      await servers.close()
    }
  })
})

test.each<[option: string, value: unknown]>([
  ['servers', []],
  ['servers', 7],
  ['servers', ['']],
  ['name', 'a.b'],
  ['name', ''],
  ['replicas', 6],
  ['user', 1],
  ['pass', 1],
  ['token', {}],
  ['creds', Buffer.from('x')],
  ['tls', true],
  ['presenceStorage', 'disk'],
  ['presenceMaxAgeMs', 0],
  ['presenceWriteTimeoutMs', '1'],
  ['maxPresenceWrites', 0],
  ['peerBeatMs', 1],
  ['peerCallTimeoutMs', Infinity],
  ['maxPeerCalls', 0.5],
  ['maxPeerCallBytes', 1],
  ['connectTimeoutMs', -1],
  ['reconnectPauseMs', 0],
  ['pingIntervalMs', NaN],
  ['onError', 'log'],
])('%s %j is refused by its name', (option, value) => {
  expect(() => natsCluster({ servers: 'nats://127.0.0.1', [option]: value })).toThrow(new RegExp(`imengine: ${option} must be`))
})
