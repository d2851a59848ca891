import { afterAll, beforeAll, describe, it } from 'vitest'
import { replicatorContract } from '../../../src/testing/index.ts'
import { logName, replicatorOn } from './log.ts'
import { NATS_SERVER, startNatsServers, type NatsServers } from './servers.ts'

describe.skipIf(NATS_SERVER === undefined).each([
  { count: 1, replicas: 1 },
  { count: 3, replicas: 3 },
] as const)('NatsReplicator on $count servers', ({ count, replicas }) => {
  let servers: NatsServers

  beforeAll(async () => {
    servers = await startNatsServers({ count })
  })

  afterAll(() => servers.close())

  const cases = replicatorContract({
    open: () => {
      const name = logName()
      const urls = servers.urls
      const subject = [0, 1, 2].map((i) => replicatorOn([urls[i % count]!, ...urls], { name, replicas, partitions: count === 1 ? 3 : 2 }))
      return { subject, close: async () => void (await Promise.all(subject.map((each) => each.close()))) }
    },
  })
  for (const contractCase of cases) it(contractCase.name, contractCase.run)
})
