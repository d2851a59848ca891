import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { redisCluster } from 'imengine/redis'
import { peerPushContract, presenceContract, type ContractCase } from 'imengine/testing'
import { hasRedisServer, RedisServer } from './redis-server.ts'

describe.skipIf(!hasRedisServer())('redisCluster', () => {
  let server: RedisServer
  let caseCount = 0
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterAll(() => server.stop())

  /** Of a cluster of its own: the server is shared. */
  const options = () => ({ url: server.url, prefix: `case-${caseCount}:` })

  function run(name: string, cases: readonly ContractCase[]): void {
    describe(name, () => {
      for (const contractCase of cases) it(contractCase.name, contractCase.run)
    })
  }

  run(
    'presence',
    presenceContract({
      intervalMs: 400,
      open: () => {
        caseCount++
        const cluster = redisCluster(options())
        return { subject: cluster.presence, close: () => cluster.close() }
      },
      // Redis has a clock of its own, which nobody can turn.
      advance: async (_opened, ms) => {
        await sleep(ms)
      },
    }),
  )

  for (const maxPublishBytes of [undefined, 1024]) {
    run(
      `peerPush${maxPublishBytes === undefined ? '' : ' in parts'}`,
      peerPushContract({
        open: () => {
          caseCount++
          const given = maxPublishBytes === undefined ? options() : { ...options(), maxPublishBytes }
          const subject = [1, 2, 3].map(() => redisCluster(given).peerPush)
          return {
            subject,
            close: async () => {
              for (const peer of subject) await peer.close()
            },
          }
        },
      }),
    )
  }
})
