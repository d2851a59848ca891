import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { IMError } from 'imengine'
import { peerPushContract, sampleMessage } from 'imengine/testing'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import { NatsPeerPush, type NatsPeerPushOptions } from '../../../src/adapters/nats/peer-push.ts'
import { Answer, decodePeerFrame, encodeAnswer, encodeSpeaker, Kind } from '../../../src/adapters/nats/peer-wire.ts'
import type { PeerKickRequest, PeerPushHost, PeerPushRequest } from '../../../src/contracts/peer-push.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

let clusterCount = 0

function peersOf(urls: readonly string[], count: number, over: Partial<NatsPeerPushOptions> = {}): { peers: NatsPeerPush[]; reports: IMError[]; name: string } {
  const reports: IMError[] = []
  const name = `c${++clusterCount}`
  const peers = Array.from({ length: count }, () => {
    const connection = new ClusterConnection({ servers: urls, clientName: name, connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 300 })
    return new NatsPeerPush({
      connection,
      name,
      peerBeatMs: 200,
      peerCallTimeoutMs: 5_000,
      maxPeerCalls: 10_000,
      maxPeerCallBytes: 67_108_864,
      report: (error) => reports.push(error),
      ...over,
    })
  })
  return { peers, reports, name }
}

const closeAll = async (peers: readonly NatsPeerPush[]): Promise<void> => void (await Promise.all(peers.map((peer) => peer.close())))

const patient = (): AbortSignal => AbortSignal.timeout(10_000)

class Host implements PeerPushHost {
  readonly nodeID: number
  readonly pushes: PeerPushRequest[] = []
  readonly kicks: PeerKickRequest[] = []
  beforePush: () => Promise<void> | void = () => {}

  constructor(nodeID: number) {
    this.nodeID = nodeID
  }

  async pushed(request: PeerPushRequest): Promise<void> {
    await this.beforePush()
    this.pushes.push(request)
  }

  get kickCount(): number {
    return this.kicks.length
  }

  kicked(request: PeerKickRequest): void {
    this.kicks.push(request)
  }
}

const KEY = { channelID: 'team', channelType: 2 }
const KICK = { uid: 'ann', deviceFlag: 0, deviceID: 'd', deviceLevel: 1 }

describe.skipIf(NATS_SERVER === undefined).each([1, 3] as const)('PeerPush over %i nats-server(s)', (count) => {
  let servers: NatsServers
  beforeAll(async () => {
    servers = await startNatsServers({ count })
  })
  afterAll(() => servers.close())

  // On a cluster all go to one server: between servers news of a subscription takes a moment, which `kick` does not wait for.
  const suite = peerPushContract({
    open: () => {
      const { peers } = peersOf([servers.url(0)], 3)
      return { subject: peers, close: () => closeAll(peers) }
    },
  })
  for (const { name, run } of suite) test(name, run)

  test('a push to a node that is not there fails at once and not by a time limit', async () => {
    const { peers } = peersOf([servers.url(0)], 1, { peerCallTimeoutMs: 600_000 })
    await peers[0]!.start(new Host(1))
    const endless = new AbortController().signal
    await expect(peers[0]!.push(7, { key: KEY, messages: [sampleMessage(1)], uids: ['bob'] }, endless)).rejects.toMatchObject({
      code: 'IM_PEER_UNREACHABLE',
      context: { nodeID: 7 },
    })
    await closeAll(peers)
  })

  test('nodes on different servers reach each other once they have heard of each other', async () => {
    const hosts = [new Host(1), new Host(2)]
    const { peers } = peersOf([servers.url(0)], 1)
    const others = peersOf([servers.url(count - 1)], 1, { name: `c${clusterCount}` }).peers
    await peers[0]!.start(hosts[0]!)
    await others[0]!.start(hosts[1]!)
    await until(async () => {
      await peers[0]!.kick(KICK, patient()).catch(() => undefined)
      return hosts[1]!.kickCount > 0
    }, 5_000, 'no kick arrives')
    await others[0]!.push(1, { key: KEY, messages: [sampleMessage(1)], uids: ['bob'] }, patient())
    expect(hosts[0]!.pushes).toHaveLength(1)
    await closeAll([...peers, ...others])
  })
})

describe.skipIf(NATS_SERVER === undefined)('PeerPush over NATS', () => {
  let servers: NatsServers
  beforeAll(async () => {
    servers = await startNatsServers({ maxPayloadBytes: 65_536 })
  })
  afterAll(() => servers.close())

  async function pair(over: Partial<NatsPeerPushOptions> = {}): Promise<{ peers: NatsPeerPush[]; hosts: Host[]; reports: IMError[]; name: string }> {
    const made = peersOf(servers.urls, 2, over)
    const hosts = [new Host(1), new Host(2)]
    for (const [i, peer] of made.peers.entries()) await peer.start(hosts[i]!)
    return { ...made, hosts }
  }

  test('a push larger than the servers take at once arrives whole and in order, and what is pushed behind it stays behind it', async () => {
    const { peers, hosts } = await pair()
    const big = Array.from({ length: 30 }, (_, i) => sampleMessage(i, { ...KEY, messageSeq: i + 1, payload: new Uint8Array(10_000).fill(i) }))
    const uids = Array.from({ length: 8_000 }, (_, i) => `user-${i}`)
    const last = sampleMessage(99, { ...KEY, messageSeq: 31 })
    await Promise.all([
      peers[0]!.push(2, { key: KEY, messages: big, uids }, patient()),
      peers[0]!.push(2, { key: KEY, messages: [last], uids: ['user-1', 'user-7999'] }, patient()),
    ])
    for (const uid of ['user-0', 'user-7999']) {
      const got = hosts[1]!.pushes.filter((push) => push.uids.includes(uid)).flatMap((push) => push.messages)
      expect(got.slice(0, 30).map(({ messageSeq, payload }) => [messageSeq, payload.length, payload[0]])).toEqual(big.map(({ messageSeq }, i) => [messageSeq, 10_000, i]))
      expect(got.length).toBe(uid === 'user-0' ? 30 : 31)
    }
    expect(hosts[1]!.pushes.length).toBeGreaterThan(2)
    expect(hosts[1]!.pushes.at(-1)!.messages[0]!.messageID).toBe(last.messageID)
    await closeAll(peers)
  })

  test('a message that the servers do not take at all is IM_PEER_UNREACHABLE and says why', async () => {
    const { peers, hosts } = await pair()
    const messages = [sampleMessage(1, { payload: new Uint8Array(70_000) })]
    await expect(peers[0]!.push(2, { key: KEY, messages, uids: ['bob'] }, patient())).rejects.toMatchObject({
      code: 'IM_PEER_UNREACHABLE',
      message: expect.stringContaining('larger than what the servers take') as unknown,
    })
    expect(hosts[1]!.pushes).toEqual([])
    await closeAll(peers)
  })

  test('bytes that are no call are answered, told and survived', async () => {
    const { peers, hosts, reports, name } = await pair()
    const connection = new ClusterConnection({ servers: servers.urls, clientName: 'hostile', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 1_000 })
    const nats = await connection.acquire()
    const hostile = [[], [2, 1, 1], [1, 99, 1], [1, 1, 1, 255, 255, 255, 255, 255, 255, 255, 1], [1, 1, 0xff], [1, 2, 1, 3, 97], Array.from({ length: 300 }, () => 0xff)]
    for (const bytes of hostile) {
      const { data } = await nats.request(`${name}.node.2`, Uint8Array.from(bytes), { timeout: 2_000 })
      expect([...data], String(bytes)).toEqual([1, 2])
      nats.publish(`${name}.peers`, Uint8Array.from(bytes))
    }
    await nats.flush()
    await peers[0]!.push(2, { key: KEY, messages: [sampleMessage(1)], uids: ['bob'] }, patient())
    expect(hosts[1]!.pushes).toHaveLength(1)
    expect(reports.length).toBeGreaterThanOrEqual(hostile.length)
    await connection.release()
    await closeAll(peers)
  })

  test('at maxPeerCalls a further push is refused at once, and taken again when there is room', async () => {
    const { peers, hosts } = await pair({ maxPeerCalls: 3 })
    let open = (): void => {}
    const gate = new Promise<void>((resolve) => (open = resolve))
    hosts[1]!.beforePush = () => gate
    const push = (n: number): Promise<void> => peers[0]!.push(2, { key: KEY, messages: [sampleMessage(n)], uids: ['bob'] }, patient())
    const held = [push(1), push(2), push(3)]
    await expect(push(4)).rejects.toMatchObject({ code: 'IM_PEER_UNREACHABLE' })
    open()
    await Promise.all(held)
    await push(5)
    expect(hosts[1]!.pushes.map(({ messages }) => messages[0]!.messageID)).toEqual([1, 2, 3, 5].map((n) => sampleMessage(n).messageID))
    await closeAll(peers)
  })

  test('a second node of the same id is not let in while the first one lives', async () => {
    const { peers } = await pair()
    const { peers: twins } = peersOf(servers.urls, 1, { name: `c${clusterCount}` })
    await expect(twins[0]!.start(new Host(2))).rejects.toThrow(TypeError)
    await peers[1]!.close()
    await twins[0]!.start(new Host(2))
    await peers[0]!.push(2, { key: KEY, messages: [sampleMessage(1)], uids: ['bob'] }, patient())
    await closeAll([...peers, ...twins])
  })

  test('a second node of the same id takes nothing that is meant for the first one, and its going is not taken for that of the first', async () => {
    const { peers, hosts } = await pair({ peerBeatMs: 60_000 })
    const { peers: twins } = peersOf(servers.urls, 1, { name: `c${clusterCount}` })
    const twin = new Host(2)
    let isOver = false
    const refused = expect(twins[0]!.start(twin)).rejects.toThrow(TypeError).finally(() => (isOver = true))
    let pushCount = 0
    do {
      await peers[0]!.push(2, { key: KEY, messages: [sampleMessage(++pushCount)], uids: ['bob'] }, patient())
    } while (!isOver)
    await refused
    await peers[0]!.kick(KICK, patient())
    expect([hosts[1]!.pushes.length, hosts[1]!.kickCount]).toEqual([pushCount, 1])
    expect([twin.pushes.length, twin.kickCount]).toEqual([0, 0])
    await closeAll([...peers, ...twins])
  })

  /** A node that speaks when it is told to, and takes calls in silence unless `answers` says what it answers. */
  async function puppet(name: string) {
    const connection = new ClusterConnection({ servers: servers.urls, clientName: 'puppet', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 1_000 })
    const nats = await connection.acquire()
    const calls: PeerKickRequest[] = []
    const made = { answers: false, calls, say: (kind: typeof Kind.Alive | typeof Kind.Bye, boot: string) => say(kind, boot), end: () => connection.release() }
    const say = (kind: typeof Kind.Alive | typeof Kind.Bye, boot: string): Promise<void> => {
      nats.publish(`${name}.peers`, encodeSpeaker(kind, { nodeID: 3, boot }))
      return nats.flush()
    }
    nats.subscribe(`${name}.node.3`, {
      callback: (_error, msg) => {
        const frame = decodePeerFrame(msg.data)
        if (frame.kind === Kind.Kick) calls.push(frame.request)
        if (made.answers) msg.respond(encodeAnswer(Answer.Taken))
      },
    })
    await nats.flush()
    return made
  }

  test('a call without an answer fails when the other node has missed three beats', async () => {
    const { peers, hosts, name } = await pair({ peerCallTimeoutMs: 600_000 })
    const silent = await puppet(name)
    await silent.say(Kind.Alive, 'x')
    const endless = new AbortController().signal
    const kicks: Promise<void>[] = []
    await until(() => {
      kicks.push(peers[0]!.kick(KICK, endless))
      kicks.at(-1)!.catch(() => undefined)
      return silent.calls.length > 0
    }, 10_000, 'the silent node is not asked')
    await expect(kicks.at(-1)).rejects.toMatchObject({ code: 'IM_PEER_UNREACHABLE', context: { nodeID: 3 } })
    await Promise.allSettled(kicks)
    expect(hosts[1]!.kickCount).toBe(kicks.length)
    await silent.end()
    await closeAll(peers)
  })

  describe('a node that has fallen silent', () => {
    /** Node 3 was heard once. It takes kicks in silence until it is lost, and is not asked from then on. */
    async function lost() {
      const { peers, name, reports } = await pair()
      const silent = await puppet(name)
      await silent.say(Kind.Alive, 'x')
      await until(async () => (await told(peers[0]!, 'nobody')) === 3, 10_000, 'it is not known')
      await until(async () => {
        const before = silent.calls.length
        await told(peers[0]!, 'nobody')
        return silent.calls.length === before
      }, 10_000, 'it is not lost')
      silent.calls.length = 0
      return { peers, silent, reports }
    }

    /** The node that a kick of this user fails for. */
    const told = (peer: NatsPeerPush, uid: string, over: Partial<PeerKickRequest> = {}): Promise<unknown> =>
      peer.kick({ ...KICK, uid, ...over }, patient()).then(
        () => undefined,
        (error: IMError) => error.context?.['nodeID'],
      )

    test('makes every kick fail until it is heard again, says that it ends, or begins another life', async () => {
      const { peers, silent } = await lost()
      expect([await told(peers[0]!, 'ann'), await told(peers[0]!, 'bob')]).toEqual([3, 3])
      expect(silent.calls).toEqual([])
      await silent.say(Kind.Bye, 'x')
      await until(async () => (await told(peers[0]!, 'ann')) === undefined, 5_000, 'it has ended, and is waited for')
      await silent.end()
      await closeAll(peers)
    })

    test('is told what it has missed when it is heard again, the last of the same kick once, and how long ago that was', async () => {
      const { peers, silent } = await lost()
      const out = { allDevices: true, reason: 'banned' }
      for (const [uid, over] of [['ann', {}], ['bob', { out }], ['ann', {}], ['ann', { deviceID: 'tablet', deviceLevel: 0 }]] as const) await told(peers[0]!, uid, over)
      silent.answers = true
      await silent.say(Kind.Alive, 'x')
      await until(() => silent.calls.length >= 4, 5_000, 'it is not told')
      await peers[0]!.kick({ ...KICK, uid: 'cat' }, patient())
      expect(silent.calls.map(({ uid, deviceID, agoMs, ...rest }) => [uid, deviceID, rest.out, agoMs !== undefined])).toEqual([
        ['nobody', 'd', undefined, true],
        ['bob', 'd', out, true],
        ['ann', 'd', undefined, true],
        ['ann', 'tablet', undefined, true],
        ['cat', 'd', undefined, false],
      ])
      expect(silent.calls.every(({ agoMs = 0 }) => agoMs >= 0)).toBe(true)
      await silent.end()
      await closeAll(peers)
    })

    test('is told nothing of it when it has begun another life: nobody is connected there who was before', async () => {
      const { peers, silent } = await lost()
      await told(peers[0]!, 'ann')
      silent.answers = true
      await silent.say(Kind.Alive, 'y')
      await until(async () => (await told(peers[0]!, 'cat')) === undefined, 5_000, 'it is not asked')
      expect(new Set(silent.calls.map(({ uid }) => uid))).toEqual(new Set(['cat']))
      await silent.end()
      await closeAll(peers)
    })

    test('gets the last 4096, and that there were more is told', async () => {
      const { peers, silent, reports } = await lost()
      for (let count = 0; count < 4_100; count++) await told(peers[0]!, `user-${count}`)
      silent.answers = true
      await until(async () => {
        await silent.say(Kind.Alive, 'x')
        return reports.length > 0
      }, 20_000, 'nobody is told')
      expect(silent.calls.map(({ uid }) => uid)).toEqual(Array.from({ length: 4_096 }, (_, count) => `user-${count + 4}`))
      expect(reports[0]).toMatchObject({ code: 'IM_PEER_UNREACHABLE', context: { nodeID: 3 } })
      expect(reports[0]!.message).toContain('5 logins and kicks')
      await silent.end()
      await closeAll(peers)
    })
  })

  test('while NATS is away calls fail at once, and when it is back they are made again', async () => {
    const { peers, hosts } = await pair({ peerCallTimeoutMs: 600_000 })
    const endless = new AbortController().signal
    const push = (): Promise<void> => peers[0]!.push(2, { key: KEY, messages: [sampleMessage(1)], uids: ['bob'] }, endless)
    await servers.kill(0)
    await expect(push()).rejects.toMatchObject({ code: 'IM_PEER_UNREACHABLE' })
    await until(async () => (await peers[0]!.kick(KICK, endless).catch(() => 'failed')) === 'failed', 25_000, 'a node that is cut off kicks nobody and says nothing')
    await expect(push()).rejects.toMatchObject({ code: 'IM_PEER_UNREACHABLE' })
    await servers.start(0)
    await until(async () => (await push().catch(() => 'failed')) !== 'failed', 25_000, 'no push arrives')
    await until(async () => (await peers[0]!.kick(KICK, patient()).catch(() => 'failed')) !== 'failed' && hosts[1]!.kickCount > 0, 25_000, 'no kick arrives')
    await closeAll(peers)
  })

  test('closing while it starts leaves no connection', async () => {
    const { peers } = peersOf(servers.urls, 1)
    const starting = peers[0]!.start(new Host(1)).catch((error: unknown) => error)
    await peers[0]!.close()
    expect(await starting).toMatchObject({ code: 'IM_ABORTED' })
    await peers[0]!.start(new Host(1))
    await closeAll(peers)
  })
})
