import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { expectEqualStores, LogNode, logName, message, room, settled } from './log.ts'
import { NATS_SERVER, startNatsServers, type NatsServers } from './servers.ts'

const ROOM = room('a')
const TEXTS = Array.from({ length: 20 }, (_, index) => `m${index}`)

let servers: NatsServers
const nodes: LogNode[] = []

beforeAll(async () => {
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.close()))
})

afterAll(() => servers?.close())

describe.skipIf(NATS_SERVER === undefined)('empty nodes of one log that start together', () => {
  it.each([true, false])('read all of it by themselves, and none takes the storage of another one (an older node is there: %s)', async (isOlderThere) => {
    const name = logName()
    const restored: number[] = []
    const made = (nodeID: number): LogNode => {
      const node = new LogNode({ nodeID, name, servers: servers.urls, startTimeoutMs: 10_000, partitions: 2 })
      node.snapshot = async function* () {
        yield Buffer.from('all that there is')
      }
      node.restore = async (chunks) => {
        restored.push(nodeID)
        for await (const chunk of chunks) expect(chunk.length).toBeGreaterThan(0)
      }
      nodes.push(node)
      return node
    }
    const older = await made(1).start()
    for (const text of TEXTS) await older.propose(ROOM, [message(ROOM, text)])
    if (!isOlderThere) await nodes.pop()!.close()

    const empty = await Promise.all([2, 3, 4].map((nodeID) => made(nodeID).start()))
    await settled(empty)
    expect(restored).toEqual([])
    expect([...(await expectEqualStores(empty, [ROOM])).values()]).toEqual([TEXTS])
    // And they agree on what comes next.
    await Promise.all(empty.map((node, index) => node.propose(ROOM, [message(ROOM, `next ${index}`)])))
    await settled(empty)
    const [all] = (await expectEqualStores(empty, [ROOM])).values()
    expect(all!.slice(TEXTS.length).toSorted()).toEqual(['next 0', 'next 1', 'next 2'])
    expect(empty.flatMap(({ problems }) => problems)).toEqual([])
  })
})
