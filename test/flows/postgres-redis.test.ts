import { ChannelType, DeviceFlag, IMEngine, ReasonCode, staticTokenVerifier } from 'imengine'
import { postgresStorage } from 'imengine/postgres'
import { redisCluster } from 'imengine/redis'
import { connectTestClient } from 'imengine/testing'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { binaries, TestServer } from '../adapters/postgres/server.ts'
import { hasRedisServer, RedisServer, until } from '../adapters/redis/redis-server.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

// #region node
interface NodeOptions {
  readonly nodeID: number // another one for every node, the same after a restart
  readonly database: string // the same for all: postgres://im:secret@db.internal/chat
  readonly redis: string // the same for all: redis://redis.internal
}

function nodeOf({ nodeID, database, redis }: NodeOptions): IMEngine {
  const storage = postgresStorage({ connectionString: database, instance: `node-${nodeID}` })
  const { presence, peerPush } = redisCluster({ url: redis }) // one for each engine, which closes it
  return new IMEngine({ nodeID, storage, tokenVerifier: staticTokenVerifier(storage.tokens), presence, peerPush })
}
// #endregion

describe.skipIf(binaries === undefined || !hasRedisServer())('nodes over PostgreSQL and Redis', () => {
  let postgres: TestServer
  let redis: RedisServer
  const engines: IMEngine[] = []

  beforeAll(async () => {
    postgres = await TestServer.start()
    redis = await RedisServer.start()
  })
  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
  })
  afterAll(async () => {
    await redis?.stop()
    await postgres?.close()
  })

  it('are one chat, and each serves on what another has stored when that is gone', async () => {
    const options = { database: postgres.url(await postgres.makeDatabase()), redis: redis.url }
    for (const nodeID of [1, 2]) {
      const engine = nodeOf({ ...options, nodeID })
      engines.push(engine)
      await engine.start()
    }
    const [one, two] = engines as [IMEngine, IMEngine]
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    for (const uid of ['ann', 'bob']) await one.users.setToken(uid, { deviceFlag: DeviceFlag.App, token: `token-of-${uid}` })
    const { client: ann } = await connectTestClient(one, { uid: 'ann', token: 'token-of-ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob', token: 'token-of-bob' })
    const send = { ...TEAM, clientMsgNo: 'first', payload: 'hello' }
    expect(await ann.send(send)).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    await until(() => bob.messages.length === 1, 'it has arrived')
    await one.close({ drainMs: 0 })
    const { client: again } = await connectTestClient(two, { uid: 'ann', token: 'token-of-ann' })
    expect(await again.send(send)).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect(await again.send({ ...TEAM, payload: 'still here' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 2 })
    await until(() => bob.messages.length === 2, 'the next one has arrived')
    expect(bob.messages.map(({ text }) => text)).toEqual(['hello', 'still here'])
  })
})
