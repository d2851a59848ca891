import { expect, test } from 'vitest'
import { httpTokenVerifier, httpWebhook } from '../../src/adapters/http/index.ts'
import { levelStorage } from '../../src/adapters/level/index.ts'
import { natsCluster } from '../../src/adapters/nats/index.ts'
import { postgresStorage } from '../../src/adapters/postgres/index.ts'
import { redisCluster } from '../../src/adapters/redis/index.ts'

const connectionString = 'postgres://im:hunter2@127.0.0.1/chat'
const url = 'http://127.0.0.1/'
const servers = '127.0.0.1'

const mistakes: readonly [what: string, make: () => unknown, option: string][] = [
  ['levelStorage', () => levelStorage({ path: 'x', durabilty: 'os' } as never), 'levelStorage.durabilty'],
  ['a retention of it', () => levelStorage({ path: 'x', retention: { maxAge: 5 } as never }), 'retention.maxAge'],
  ['postgresStorage', () => postgresStorage({ connectionString, instanceID: 'a' } as never), 'postgresStorage.instanceID'],
  ['a retention of that', () => postgresStorage({ connectionString, retention: { maxAge: 5 } as never }), 'retention.maxAge'],
  ['natsCluster', () => natsCluster({ servers, replica: 3 } as never), 'natsCluster.replica'],
  ['the log of it', () => natsCluster({ servers, log: { maxAge: 5 } as never }), 'log.maxAge'],
  ['redisCluster', () => redisCluster({ url: 'redis://127.0.0.1', clients: 5 } as never), 'redisCluster.clients'],
  ['httpWebhook', () => httpWebhook({ url, secrets: 'x' } as never), 'httpWebhook.secrets'],
  ['httpTokenVerifier', () => httpTokenVerifier({ url, timeout: 5 } as never), 'httpTokenVerifier.timeout'],
]

test.each(mistakes)('a misspelt option of %s is a TypeError that names it, and does not silently do nothing', (_what, make, option) => {
  expect(make).toThrow(TypeError)
  expect(make).toThrow(`imengine: ${option} must be left out: there is no such option (known: `)
  expect(make).not.toThrow(/hunter2/)
})

/** Set to undefined they are left out, as everywhere. */
test('options that are undefined are no mistake', () => {
  expect(() => levelStorage({ path: 'x', retention: undefined } as never)).not.toThrow()
  expect(() => postgresStorage({ connectionString, schema: undefined } as never)).not.toThrow()
  expect(() => natsCluster({ servers, log: undefined } as never)).not.toThrow()
})
