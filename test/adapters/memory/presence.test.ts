import { expect, it } from 'vitest'
import { memoryPresence } from '../../../src/adapters/memory/index.ts'
import { FakeClock } from '../../../src/testing/index.ts'

const entry = (uid: string, nodeID: number, connectionID: string) => ({ uid, nodeID, connectionID, deviceFlag: 0, deviceLevel: 0 })

function openPresence() {
  const clock = new FakeClock()
  return { clock, presence: memoryPresence({ nowMs: () => clock.monotonicMs() }) }
}

it('a node is gone at three intervals of silence, not a millisecond before', async () => {
  const { clock, presence } = openPresence()
  await presence.heartbeat(1, 1000)
  await presence.online(entry('ann', 1, 'a'))
  await clock.advance(2999)
  expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
  await clock.advance(1)
  expect((await presence.locate(['ann'])).size).toBe(0)
})

it('what a silent node announces is shown from its next heartbeat on, all of it', async () => {
  const { clock, presence } = openPresence()
  await presence.heartbeat(1, 1000)
  await clock.advance(5000)
  await presence.online(entry('ann', 1, 'a'))
  await presence.online(entry('bob', 1, 'b'))
  expect((await presence.locate(['ann', 'bob'])).size).toBe(0)
  await presence.heartbeat(1, 1000)
  expect((await presence.locate(['ann', 'bob'])).size).toBe(2)
})

it('a node that never sends a heartbeat stays', async () => {
  const { clock, presence } = openPresence()
  await presence.online(entry('ann', 1, 'a'))
  await clock.advance(1_000_000)
  expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
})

it('a connection id that comes back for another user belongs to that user alone', async () => {
  const { presence } = openPresence()
  await presence.online(entry('ann', 1, 'a'))
  await presence.online(entry('bob', 1, 'a'))
  expect([...(await presence.locate(['ann', 'bob'])).keys()]).toEqual(['bob'])
})
