import {
  IMEngine, IMError, allowAnyToken, memoryPresence, memoryReplicatorHub, memoryStorage, ReasonCode, type NotReadyReason, type Presence, type Replicator, type ReplicatorHost, type ReplicatorStatus,
} from 'imengine'
import { FakeClock, socketPair } from 'imengine/testing'
import { describe, expect, test } from 'vitest'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const text = (payload: string) => ({ ...TEAM, payload })

function reasonsOf(engine: IMEngine): NotReadyReason[] {
  const { ready, reasons } = engine.ready()
  expect(ready).toBe(reasons.length === 0)
  for (const { detail } of reasons) expect(detail).not.toBe('')
  return reasons.map(({ reason }) => reason)
}

/** A replicator of which a test says how it stands. */
function replicatorWith(status: () => ReplicatorStatus): { replicator: Replicator; host: () => ReplicatorHost } {
  const inner = memoryReplicatorHub().replicator()
  let host: ReplicatorHost | undefined
  return {
    host: () => host!,
    replicator: {
      start: (given) => inner.start((host = given)),
      propose: (key, messages, signal) => inner.propose(key, messages, signal),
      close: () => inner.close(),
      status,
    },
  }
}

describe('ready', () => {
  test('is true of an engine that runs and does what it should', async () => {
    const { engine, connect } = await stage({ presence: memoryPresence({ nowMs: () => 0 }) })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    expect(engine.ready()).toEqual({ ready: true, reasons: [] })
  })

  test('is false before start, while it starts, while it closes and afterwards', async () => {
    const opening = deferred()
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock: new FakeClock(), storage: { ...memoryStorage(), open: () => opening.promise } })
    expect(reasonsOf(engine)).toEqual(['not-started'])
    const starting = engine.start()
    expect(reasonsOf(engine)).toEqual(['not-started'])
    opening.resolve()
    await starting
    expect(reasonsOf(engine)).toEqual([])
    const closing = engine.close()
    expect(reasonsOf(engine)).toEqual(['closing'])
    await closing
    expect(reasonsOf(engine)).toEqual(['closing'])
  })

  test('is false while the node is isolated, whether or not its clients stay', async () => {
    const { replicator, host } = replicatorWith(() => ({ partitions: [] }))
    const { engine } = await stage({ replicator, whenIsolated: 'keep' })
    host().isolated(true)
    expect(reasonsOf(engine)).toEqual(['isolated'])
    host().isolated(false)
    expect(reasonsOf(engine)).toEqual([])
  })

  test('is false after a failure of storage, until something is stored', async () => {
    const storage = memoryStorage()
    let isBroken = true
    const { engine, connect } = await stage({
      storage: storageWith(storage, { append: (batches) => { if (isBroken) throw new Error('broken'); return storage.messages.append(batches) } }),
    })
    const { client: ann } = await connect('ann')
    expect((await ann.send(text('one'))).reasonCode).toBe(ReasonCode.SystemError)
    expect(engine.ready().reasons).toEqual([{ reason: 'storage-failing', detail: 'IM_STORE_UNAVAILABLE 0 ms ago' }])
    isBroken = false
    await ann.send(text('two'))
    expect(reasonsOf(engine)).toEqual([])
  })

  test('is true again after storageFailureMs, because nobody may come who could show that storage works', async () => {
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      storage: storageWith(storage, { append: () => { throw new Error('broken') } }),
      limits: { storageFailureMs: 3_000 },
    })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    await clock.advance(2_999)
    expect(reasonsOf(engine)).toEqual(['storage-failing'])
    await clock.advance(1)
    expect(reasonsOf(engine)).toEqual([])
  })

  test('says nothing of storage when something else has failed', async () => {
    const { engine, connect } = await stage()
    engine.use('EventOnSend', function judge() { throw new Error('never') })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    expect(reasonsOf(engine)).toEqual([])
  })

  test('is false while a queue is nearly full', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect } = await stage({
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
      limits: { maxQueued: 10 },
    })
    const { client: ann } = await connect('ann')
    const sent = Array.from({ length: 8 }, (_, index) => ann.send(text(String(index))))
    await ann.ping()
    expect(reasonsOf(engine)).toEqual([])
    sent.push(ann.send(text('one more')))
    await ann.ping()
    expect(engine.ready().reasons).toEqual([{ reason: 'queue-full', detail: 'channel 90 %' }])
    held.resolve()
    await Promise.all(sent)
    expect(reasonsOf(engine)).toEqual([])
  })

  test('is false while no socket is taken any more, logged in or not', async () => {
    const { engine, connect } = await stage({ limits: { maxConnections: 2, maxUnauthenticated: 1 } })
    await connect('ann')
    expect(reasonsOf(engine)).toEqual([])
    engine.accept(socketPair().server)
    expect(engine.ready().reasons).toEqual([
      { reason: 'connections-full', detail: '2 connections' },
      { reason: 'connections-full', detail: '1 have not logged in' },
    ])
  })

  test('is false while the outbox is nearly full', async () => {
    const { engine, connect } = await stage({
      webhook: { events: ['user.onlinestatus'], notify: () => new Promise<never>(() => undefined) },
      limits: { maxWebhookNotifications: 2 },
    })
    await connect('ann')
    expect(reasonsOf(engine)).toEqual([])
    await connect('bob')
    expect(engine.ready().reasons).toEqual([{ reason: 'outbox-full', detail: '2 of 2' }])
  })

  test('is false while a part of the log has stopped, is cut off, or is behind', async () => {
    let status: ReplicatorStatus = { isConnected: true, partitions: [{ log: 'chat-0', appliedIndex: 1, lastIndex: 1_000, stopped: undefined }] }
    const { engine } = await stage({ replicator: replicatorWith(() => status).replicator })
    expect(reasonsOf(engine)).toEqual([])
    status = { isConnected: true, partitions: [{ log: 'chat-0', appliedIndex: 1, lastIndex: 1_001, stopped: undefined }] }
    expect(engine.ready().reasons).toEqual([{ reason: 'log-behind', detail: 'chat-0 by 1000' }])
    status = { isConnected: false, partitions: [{ log: 'chat-0', appliedIndex: 1, lastIndex: 1, stopped: new IMError('IM_LOG_GAP') }] }
    expect(engine.ready().reasons).toEqual([
      { reason: 'log-disconnected', detail: 'no connection to the servers of the log' },
      { reason: 'log-stopped', detail: 'chat-0 IM_LOG_GAP' },
    ])
  })

  test('is false when presence has taken no heartbeat for longer than three of them, and true with the next', async () => {
    let isBroken = false
    const clock = new FakeClock()
    const inner = memoryPresence({ nowMs: () => clock.monotonicMs() })
    const presence: Presence = {
      online: (entry) => inner.online(entry),
      offline: (entry) => inner.offline(entry),
      locate: (uids) => inner.locate(uids),
      devices: (uid) => inner.devices(uid),
      leave: (nodeID) => inner.leave(nodeID),
      heartbeat: (nodeID, intervalMs) => { if (isBroken) throw new Error('gone'); return inner.heartbeat(nodeID, intervalMs) },
    }
    const { engine } = await stage({ clock, presence, limits: { presenceHeartbeatMs: 1_000 } })
    await clock.advance(2_000)
    isBroken = true
    await clock.advance(3_000)
    expect(reasonsOf(engine)).toEqual([])
    await clock.advance(1_500)
    expect(reasonsOf(engine)).toEqual(['presence-stale'])
    isBroken = false
    await clock.advance(1_500)
    expect(reasonsOf(engine)).toEqual([])
  })
})
