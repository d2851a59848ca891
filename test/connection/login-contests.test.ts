import { afterEach, describe, expect, test } from 'vitest'
import {
  DeviceLevel, IMEngine, memoryPresence, memoryStorage, ReasonCode, type PeerKickRequest, type PeerPush, type PeerPushHost,
} from 'imengine'
import { FrameType } from 'imengine/protocol'
import { FakeClock, seededRandom, socketPair, TestClient, type SocketPair } from 'imengine/testing'

const engines: IMEngine[] = []
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
})

/** What lies between the nodes: every question and every answer waits until it is its turn. */
class Post {
  readonly hosts = new Map<number, PeerPushHost>()
  readonly waiting: (() => void)[] = []

  /** @param carried  what an adapter makes of a request on its way */
  peer(carried: (request: PeerKickRequest) => PeerKickRequest): PeerPush {
    let ownID = 0
    return {
      start: (host) => {
        ownID = host.nodeID
        this.hosts.set(ownID, host)
      },
      push: () => undefined,
      kick: async (request) => {
        const others = [...this.hosts.values()].filter(({ nodeID }) => nodeID !== ownID)
        await Promise.all(others.map((host) => this.#ask(host, carried(request))))
      },
      close: () => void this.hosts.delete(ownID),
    }
  }

  #ask(host: PeerPushHost, request: PeerKickRequest): Promise<void> {
    return new Promise((answered, failed) => {
      const arrive = async (): Promise<void> => {
        await host.kicked(request)
        this.waiting.push(answered)
      }
      this.waiting.push(() => void arrive().catch(failed))
    })
  }
}

interface Attempt {
  readonly client: TestClient
  readonly pair: SocketPair
}

async function nodes(count: number, carried: (request: PeerKickRequest) => PeerKickRequest = (request) => request) {
  const clock = new FakeClock()
  const post = new Post()
  const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
  const shared = {
    clock,
    storage: memoryStorage(),
    presence,
    tokenVerifier: ({ token }: { token: string }) => ({ ok: true, deviceLevel: token === 'slave' ? DeviceLevel.Slave : DeviceLevel.Master }) as const,
  }
  const cluster: IMEngine[] = []
  for (let nodeID = 1; nodeID <= count; nodeID++) {
    const engine = new IMEngine({ ...shared, nodeID, random: seededRandom(nodeID), peerPush: post.peer(carried) })
    engines.push(engine)
    cluster.push(engine)
    await engine.start()
  }
  const begin = (nodeID: number, deviceID: string, token = 'master'): Attempt => {
    const pair = socketPair()
    const client = new TestClient(pair.client)
    pair.attach(cluster[nodeID - 1]!.accept(pair.server))
    client.connect({ uid: 'ann', deviceID, token }).catch(() => undefined) // `received` says how it went
    return { client, pair }
  }
  /** One of what waits arrives, the longest waiting one unless told otherwise. */
  const deliver = async (index = 0): Promise<void> => {
    post.waiting.splice(index, 1)[0]!()
    await clock.settle()
  }
  const deliverAll = async (): Promise<void> => {
    await clock.settle()
    while (post.waiting.length > 0) await deliver()
  }
  const connected = (): string[] => cluster.flatMap((engine) => engine.connections.list().map(({ deviceID }) => deviceID))
  return { clock, post, begin, deliver, deliverAll, connected, presence }
}

/** What the server has told a client: the reason codes of CONNACK and DISCONNECT, in that order. */
function told({ client }: Attempt): number[] {
  return client.received.flatMap((frame) => (frame.type === FrameType.CONNACK || frame.type === FrameType.DISCONNECT ? [frame.reasonCode] : []))
}

describe('masters of one kind of device that log in on several nodes at the same moment', () => {
  test.each([
    { nodeCount: 2, loginCount: 2 },
    { nodeCount: 2, loginCount: 5 },
    { nodeCount: 3, loginCount: 3 },
    { nodeCount: 4, loginCount: 8 },
  ])('leave one of them, in whatever order $loginCount logins on $nodeCount nodes, questions and answers come', async ({ nodeCount, loginCount }) => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = seededRandom(seed)
      const below = (count: number): number => random.bytes(1)[0]! % count
      const { clock, post, begin, deliver, connected, presence } = await nodes(nodeCount)
      const attempts: Attempt[] = []
      while (attempts.length < loginCount || post.waiting.length > 0) {
        // Logins are more likely than deliveries, so that most of them meet.
        if (attempts.length < loginCount && (post.waiting.length === 0 || below(3) > 0)) {
          attempts.push(begin(1 + below(nodeCount), `phone-${attempts.length}`))
          await clock.settle()
        } else await deliver(below(post.waiting.length))
      }
      const word = attempts.map(told)
      const winners = word.filter((codes) => codes.join() === `${ReasonCode.Success}`)
      expect({ seed, connected: connected().length, winners: winners.length }).toEqual({ seed, connected: 1, winners: 1 })
      // Everybody else has been told that another device has taken over, also who was never in.
      expect(word.map((codes) => codes.at(-1)).filter((code) => code === ReasonCode.ConnectKick)).toHaveLength(loginCount - 1)
      expect(await presence.devices('ann')).toHaveLength(1)
      await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
    }
  })

  test('never are two at once: the older one is silent before the newer one is answered', async () => {
    const { clock, begin, deliver, connected } = await nodes(2)
    const [low, high] = [begin(1, 'low'), begin(2, 'high')]
    await clock.settle()
    await deliver() // the question of the first, to the second: which stays
    await deliver() // and the other way round
    expect(told(low)).toEqual([ReasonCode.ConnectKick])
    expect(connected()).toEqual([])
    await deliver() // the first one's answer: until then the second is not answered, so that it cannot be ended for an older one
    expect(told(high)).toEqual([])
    await deliver() // the second one's
    expect(connected()).toEqual([])
    await deliver() // it asks once more: somebody has come in between
    await deliver()
    expect([connected(), told(high)]).toEqual([['high'], [ReasonCode.Success]])
  })

  test('end without a word when it is the same device that comes twice', async () => {
    const { begin, deliverAll, connected } = await nodes(2)
    const [low, high] = [begin(1, 'phone'), begin(2, 'phone')]
    await deliverAll()
    expect([told(low), told(high)]).toEqual([[], [ReasonCode.Success]])
    expect(low.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(connected()).toEqual(['phone'])
  })

  test('and a login that comes when one of them is in ends it', async () => {
    const { begin, deliverAll, connected } = await nodes(2)
    const [low, high] = [begin(1, 'low'), begin(2, 'high')]
    await deliverAll()
    const later = begin(1, 'later')
    await deliverAll()
    expect([low, high, later].map(told)).toEqual([
      [ReasonCode.ConnectKick],
      [ReasonCode.Success, ReasonCode.ConnectKick],
      [ReasonCode.Success],
    ])
    expect(connected()).toEqual(['later'])
  })
})

describe('other logins at the same moment', () => {
  test('of slaves stay beside each other', async () => {
    const { begin, deliverAll, connected } = await nodes(2)
    begin(1, 'tablet', 'slave')
    begin(2, 'watch', 'slave')
    await deliverAll()
    expect(connected()).toEqual(['tablet', 'watch'])
  })

  test('of a slave and a master count as if the one on the higher node had come later', async () => {
    const before = await nodes(2)
    const [slave, master] = [before.begin(1, 'watch', 'slave'), before.begin(2, 'phone')]
    await before.deliverAll()
    expect([told(slave), told(master), before.connected()]).toEqual([[ReasonCode.ConnectKick], [ReasonCode.Success], ['phone']])

    const behind = await nodes(2)
    behind.begin(1, 'phone')
    behind.begin(2, 'watch', 'slave')
    await behind.deliverAll()
    expect(behind.connected()).toEqual(['phone', 'watch'])
  })
})

test('a kick that does not say which node asks ends who is connected, and is waited for by nobody', async () => {
  const { begin, deliverAll, connected } = await nodes(2, ({ uid, deviceFlag, deviceID, deviceLevel }) => ({ uid, deviceFlag, deviceID, deviceLevel }))
  const old = begin(1, 'old')
  await deliverAll()
  const fresh = begin(2, 'fresh')
  await deliverAll()
  expect([told(old), told(fresh)]).toEqual([[ReasonCode.Success, ReasonCode.ConnectKick], [ReasonCode.Success]])
  expect(connected()).toEqual(['fresh'])
})
