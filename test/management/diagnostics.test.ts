import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { memoryStorage, ReasonCode } from 'imengine'
import { socketPair, TestClient } from 'imengine/testing'
import { afterEach, describe, expect, test } from 'vitest'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const stops: (() => void)[] = []
afterEach(() => stops.splice(0).forEach((stop) => stop()))

/** What is published on a channel of the process, until the test ends. */
function heard(name: string): unknown[] {
  const messages: unknown[] = []
  const listener = (message: unknown): void => void messages.push(message)
  subscribe(name, listener)
  stops.push(() => unsubscribe(name, listener))
  return messages
}

describe('diagnostics channels', () => {
  test('tell of a message when it is answered, committed and pushed, with when each of that began', async () => {
    const [sends, commits, pushes] = ['imengine:send', 'imengine:commit', 'imengine:push'].map(heard)
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      nodeID: 3,
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const startedAtMs = clock.nowMs()
    const sent = ann.send({ ...TEAM, payload: 'secret', clientMsgNo: 'a-1' })
    await clock.advance(20)
    held.resolve()
    const { messageID } = await sent
    await bob.nextRecv()
    const times = { startedAtMs, endedAtMs: startedAtMs + 20 }
    expect(sends).toEqual([
      { nodeID: 3, connectionID: '1', uid: 'ann', ...TEAM, clientMsgNo: 'a-1', messageID, messageSeq: 1, reason: 'Success', payloadBytes: 6, ...times },
    ])
    expect(commits).toEqual([{ nodeID: 3, ...TEAM, messages: [{ messageID, messageSeq: 1, fromUID: 'ann', clientMsgNo: 'a-1' }], ...times }])
    expect(pushes).toEqual([
      { nodeID: 3, ...TEAM, messageIDs: [messageID], uidCount: 3, connectionCount: 2, nodeCount: 0, startedAtMs: startedAtMs + 20, endedAtMs: startedAtMs + 20 },
    ])
    expect(JSON.stringify([sends, commits, pushes])).not.toContain('secret')
    expect(engine.state).toBe('running')
  })

  test('tell of a SEND that is refused, and commit and push nothing of it', async () => {
    const [sends, commits, pushes] = ['imengine:send', 'imengine:commit', 'imengine:push'].map(heard)
    const { connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ channelID: 'nowhere', channelType: 2, payload: 'one' })
    expect(sends).toMatchObject([{ channelID: 'nowhere', reason: 'ChannelNotExist', messageID: '0', messageSeq: 0 }])
    expect([commits, pushes]).toEqual([[], []])
  })

  test('tell of connections that are let in and that are not, without their tokens', async () => {
    const connects = heard('imengine:connect')
    const { engine, connect } = await stage({ tokenVerifier: ({ token }) => ({ ok: token === 'good-secret' }) })
    await connect('ann', { token: 'good-secret', remoteAddress: '192.0.2.1' })
    const pair = socketPair()
    pair.attach(engine.accept(pair.server))
    const connack = await new TestClient(pair.client).connect({ uid: 'bob', token: 'bad-secret' })
    expect(connack.reasonCode).toBe(ReasonCode.AuthFail)
    expect(connects).toMatchObject([
      { nodeID: 1, connectionID: '1', uid: 'ann', deviceFlag: 0, remoteAddress: '192.0.2.1', outcome: 'opened', cause: undefined, reason: undefined },
      { nodeID: 1, connectionID: '2', uid: 'bob', outcome: 'refused', cause: 'refused', reason: 'AuthFail' },
    ])
    expect(JSON.stringify(connects)).not.toContain('secret')
  })

  test('tell nothing to whom has stopped listening', async () => {
    const sends = heard('imengine:send')
    const { connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ ...TEAM, payload: 'one' })
    stops.splice(0).forEach((stop) => stop())
    await ann.send({ ...TEAM, payload: 'two' })
    expect(sends).toHaveLength(1)
  })
})
