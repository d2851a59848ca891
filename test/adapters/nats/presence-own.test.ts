import { expect, test } from 'vitest'
import type { PresenceBucket } from '../../../src/adapters/nats/presence-bucket.ts'
import { OwnNode } from '../../../src/adapters/nats/presence-own.ts'
import { userKey } from '../../../src/adapters/nats/presence-wire.ts'
import { entry } from './open.ts'

test('what the bucket shows is made equal to what is held here: the missing are written, the rest is taken out, nothing else is touched', async () => {
  const calls: string[] = []
  let told = (): void => {}
  const bucket = {
    isReachable: true,
    put: (key: string) => Promise.resolve(calls.push(`put ${key}`)),
    remove: (key: string) => {
      calls.push(`remove ${key}`)
      told()
      return Promise.resolve()
    },
  } as unknown as PresenceBucket
  const node = new OwnNode({ nodeID: 1, bucket, nowMs: () => 0, intervalMs: 1_000, writeTimeoutMs: 1_000, maxWrites: 10, maxAgeMs: 60_000 })
  await node.online(entry('ann', 1, 'a'))
  await node.online(entry('bob', 1, 'b'))
  expect(calls).toEqual(['put h.1', `put ${userKey(1, 'ann')}`, `put ${userKey(1, 'bob')}`])
  calls.length = 0
  const removed = new Promise<void>((resolve) => (told = resolve))
  node.reconcile(new Set(['bob', 'ghost']))
  await removed
  expect(calls).toEqual([`put ${userKey(1, 'ann')}`, `remove ${userKey(1, 'ghost')}`])
})
