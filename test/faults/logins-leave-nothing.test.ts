import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { ChannelType, memoryStorage } from 'imengine'
import { FrameFlag } from 'imengine/protocol'
import { stage, type Stage } from '../support.ts'

const EARLY_COUNT = 40
const LOGIN_COUNT = 250
/** what each login brings along, which is to be found wherever one is kept */
const DEVICE_BYTES = 30_000

// Whatever outlives a connection and is keyed by user, device, connection or channel, or closes over one of them, keeps at least
// this device's id: a time-out that is not cancelled, a listener, a lane, a hint.
it.each<[how: string, leave: (at: Awaited<ReturnType<Stage['connect']>>) => void]>([
  ['by closing', ({ pair }) => pair.client.end()],
  ['by a reset', ({ pair }) => pair.client.destroy()],
])('a user who comes once, writes to another one and leaves %s leaves nothing in the engine', async (_, leave) => {
  const made = await stage({ storage: memoryStorage({ nowMs: () => 0 }), limits: { maxRecentMessages: 10 } })
  const listener = await made.connect('listener')
  for (let n = 0; n < EARLY_COUNT; n++) await visit(made, `early-${n}`, leave) // what all logins share is there now
  const before = await usedBytes()
  for (let n = 0; n < LOGIN_COUNT; n++) await visit(made, `new-${n}`, leave)
  const grownBytes = (await usedBytes()) - before
  expect(listener.client.messages).toHaveLength(LOGIN_COUNT + EARLY_COUNT)
  expect(made.engine.metrics().connections.states).toEqual({ new: 0, authenticating: 0, open: 1, closing: 0 })
  expect(grownBytes).toBeLessThan((LOGIN_COUNT * DEVICE_BYTES * 2) / 3)
})

async function visit({ connect, clock }: Stage, uid: string, leave: (at: Awaited<ReturnType<Stage['connect']>>) => void): Promise<void> {
  const login = await connect(uid, { deviceID: Buffer.alloc(DEVICE_BYTES, `${uid} `).toString('latin1') })
  await login.client.send({ channelID: 'listener', channelType: ChannelType.Person, payload: 'hello', flags: FrameFlag.NoPersist })
  leave(login)
  await login.client.closed
  await clock.advance(0)
}

/** The heap after collections, so that only what is still reachable counts: the ids are in it. Buffers are given back when the collector likes. */
async function usedBytes(): Promise<number> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let round = 0; round < 3; round++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve)) // what was finalized is let go of
  }
  return process.memoryUsage().heapUsed
}
