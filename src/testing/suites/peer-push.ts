import assert from 'node:assert/strict'
import type { PeerKickRequest, PeerPush, PeerPushHost, PeerPushRequest } from '../../contracts/peer-push.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { casesOf, started, type ContractCase, type ContractOptions, type Opened, type Scenario } from './contract-case.ts'
import { Gate, Recorder, turns } from './recorder.ts'
import { assertSameMessages, channel, HOSTILE_IDS, ROOM, sampleMessage } from './samples.ts'

/** The promises of a PeerPush. `open` gives three that can reach each other, none started: they become nodes 1, 2 and 3. */
export function peerPushContract<O extends Opened<readonly PeerPush[]>>(
  options: ContractOptions<readonly PeerPush[], O>,
): ContractCase[] {
  return casesOf(options, scenarios)
}

class RecordingHost implements PeerPushHost {
  readonly nodeID: number
  readonly pushes = new Recorder<PeerPushRequest>()
  readonly kicks = new Recorder<PeerKickRequest>()
  /** runs before a call counts as taken over; a throw is a failed call */
  beforeCall: () => MaybePromise<void> = () => {}

  constructor(nodeID: number) {
    this.nodeID = nodeID
  }

  async pushed(request: PeerPushRequest): Promise<void> {
    await this.beforeCall()
    this.pushes.add(request)
  }

  async kicked(request: PeerKickRequest): Promise<void> {
    await this.beforeCall()
    this.kicks.add(request)
  }
}

class Node {
  readonly peer: PeerPush
  readonly host: RecordingHost

  constructor(peer: PeerPush, host: RecordingHost) {
    this.peer = peer
    this.host = host
  }

  push(nodeID: number, request: PeerPushRequest, signal = new AbortController().signal): Promise<void> {
    return started(() => this.peer.push(nodeID, request, signal))
  }

  kick(request: PeerKickRequest, signal = new AbortController().signal): Promise<void> {
    return started(() => this.peer.kick(request, signal))
  }
}

async function nodesOf(peers: readonly PeerPush[]): Promise<readonly [Node, Node, Node]> {
  const nodes = peers.map((peer, i) => new Node(peer, new RecordingHost(i + 1)))
  for (const node of nodes) await node.peer.start(node.host)
  const [first, second, third] = nodes
  assert.ok(first && second && third, 'open must give three peers')
  return [first, second, third]
}

function pushOf(n: number, over: Partial<PeerPushRequest> = {}): PeerPushRequest {
  return { key: ROOM, messages: [sampleMessage(n, { messageSeq: n })], uids: ['bob'], ...over }
}

function firstIDs(host: RecordingHost): (string | undefined)[] {
  return host.pushes.items.map((request) => request.messages[0]?.messageID)
}

const KICK: PeerKickRequest = { uid: 'ann', deviceFlag: 1, deviceID: 'd\0:@/👩‍👩‍👧', deviceLevel: 1 }
/** What was asked, without the node: an adapter may leave it out. */
function asked({ uid, deviceFlag, deviceID, deviceLevel, out }: PeerKickRequest): PeerKickRequest {
  return { uid, deviceFlag, deviceID, deviceLevel, ...(out === undefined ? {} : { out: { ...out } }) }
}

const UNREACHABLE = { code: 'IM_PEER_UNREACHABLE' }

const scenarios: readonly Scenario<readonly PeerPush[]>[] = [
  [
    'a push reaches the node it names and no other, and has been taken over when it resolves',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      await one.push(2, pushOf(1))
      assert.equal(two.host.pushes.items.length, 1)
      await three.push(2, pushOf(2))
      await two.push(1, pushOf(3))
      await turns()
      assert.deepEqual([one, two, three].map(({ host }) => host.pushes.items.length), [1, 2, 0])
    },
  ],
  [
    'key, messages and uids arrive as they were, whatever the text and the bytes',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      const payload = Uint8Array.from({ length: 256 }, (_, i) => i)
      for (const [i, id] of HOSTILE_IDS.entries()) {
        const over = { ...channel(id), messageSeq: i + 1, fromUID: id, clientMsgNo: id, payload }
        const messages = [sampleMessage(2 * i, over), sampleMessage(2 * i + 1, over)]
        await one.push(2, { key: channel(id), messages, uids: [id, 'bob'] })
        const arrived = two.host.pushes.items[i]
        assert.deepEqual({ ...arrived?.key }, channel(id))
        assert.deepEqual([...(arrived?.uids ?? [])], [id, 'bob'])
        assertSameMessages(arrived?.messages ?? [], messages)
      }
    },
  ],
  [
    'pushes from one node to another for one channel arrive in the order they were made, also when the other node is slow',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      let callCount = 0
      two.host.beforeCall = () => turns(callCount++ % 3)
      await Promise.all(Array.from({ length: 60 }, (_, i) => one.push(2, pushOf(i))))
      assert.deepEqual(firstIDs(two.host), Array.from({ length: 60 }, (_, i) => sampleMessage(i).messageID))
    },
  ],
  [
    'a node that does not answer holds up nobody but the pushes to itself',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      const gate = new Gate()
      two.host.beforeCall = () => gate.opened
      const held = one.push(2, pushOf(1))
      await one.push(3, pushOf(2))
      await three.push(1, pushOf(3))
      assert.equal(two.host.pushes.items.length, 0)
      gate.open()
      await held
      assert.equal(two.host.pushes.items.length, 1)
    },
  ],
  [
    'what the caller does to its arrays after push does not reach the other node',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      const messages = [sampleMessage(1, { messageSeq: 1 })]
      const uids = ['bob']
      const pushed = one.push(2, { key: ROOM, messages, uids })
      messages.length = 0
      uids[0] = 'mallory'
      await pushed
      assert.deepEqual(firstIDs(two.host), [sampleMessage(1).messageID])
      assert.deepEqual([...(two.host.pushes.items[0]?.uids ?? [])], ['bob'])
    },
  ],
  [
    'a push to a node that is not there rejects with IM_PEER_UNREACHABLE',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      await assert.rejects(one.push(900, pushOf(1), AbortSignal.timeout(1000)), UNREACHABLE)
      await one.push(2, pushOf(2))
      assert.equal(two.host.pushes.items.length, 1)
    },
  ],
  [
    'the failure of the other node is IM_PEER_UNREACHABLE, and the next push is made',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      two.host.beforeCall = () => {
        throw new Error('no room')
      }
      await assert.rejects(one.push(2, pushOf(1)), UNREACHABLE)
      two.host.beforeCall = () => {}
      await one.push(2, pushOf(2))
      assert.deepEqual(firstIDs(two.host), [sampleMessage(2).messageID])
    },
  ],
  [
    'an aborted wait ends in IM_PEER_UNREACHABLE, before the call and during it',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      await assert.rejects(one.push(2, pushOf(1), AbortSignal.abort()), UNREACHABLE)
      const gate = new Gate()
      const patience = new AbortController()
      two.host.beforeCall = () => {
        patience.abort()
        return gate.opened
      }
      await assert.rejects(one.push(2, pushOf(2), patience.signal), UNREACHABLE)
      two.host.beforeCall = () => {}
      gate.open()
      await one.push(2, pushOf(3))
      assert.equal(firstIDs(two.host).at(-1), sampleMessage(3).messageID)
      assert.ok(!firstIDs(two.host).includes(sampleMessage(1).messageID), 'what was given up before its turn is not made')
    },
  ],
  [
    'a kick reaches every other node and not the own one',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      await one.kick(KICK)
      assert.deepEqual([two, three].map(({ host }) => host.kicks.items.map(asked)), [[KICK], [KICK]])
      await turns()
      assert.equal(one.host.kicks.items.length, 0)
    },
  ],
  [
    'a kick says whether somebody has logged in or been sent away',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      const words = [{ allDevices: true, reason: 'banned' }, { allDevices: false, reason: '' }, { allDevices: false, reason: 'é \u0000' }]
      for (const out of words) await one.kick({ ...KICK, out })
      assert.deepEqual(two.host.kicks.items.map(asked), words.map((out) => ({ ...KICK, out })))
    },
  ],
  [
    'a kick of a login says on which node that is, or nothing of it',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      await one.kick({ ...KICK, nodeID: 1 })
      await three.kick({ ...KICK, nodeID: 3 })
      const [first, second] = two.host.kicks.items.map(({ nodeID }) => nodeID)
      assert.ok((first === 1 && second === 3) || (first === undefined && second === undefined), `it says ${first} and ${second}, and not 1 and 3`)
    },
  ],
  [
    'two nodes that kick at the same moment, each waiting for what it has asked, do not hold each other up',
    async (peers) => {
      const [one, two] = await nodesOf(peers)
      const asking = two.kick({ ...KICK, nodeID: 2 })
      two.host.beforeCall = () => asking
      await one.kick({ ...KICK, nodeID: 1 })
      assert.equal(two.host.kicks.items.length, 1)
    },
  ],
  [
    'a kick that one node does not confirm is IM_PEER_UNREACHABLE, and the others have been asked',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      two.host.beforeCall = () => {
        throw new Error('no')
      }
      await assert.rejects(one.kick(KICK, AbortSignal.timeout(1000)), UNREACHABLE)
      await three.host.kicks.untilCount(1)
    },
  ],
  [
    'a node alone kicks nobody and fails at nothing',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      await two.peer.close()
      await three.peer.close()
      await one.kick(KICK)
      await turns()
      assert.deepEqual([one, two, three].map(({ host }) => host.kicks.items.length), [0, 0, 0])
    },
  ],
  [
    'a closed node can neither push nor be reached; the others go on; closing twice does no harm',
    async (peers) => {
      const [one, two, three] = await nodesOf(peers)
      await two.peer.close()
      await two.peer.close()
      await assert.rejects(one.push(2, pushOf(1), AbortSignal.timeout(1000)), UNREACHABLE)
      await assert.rejects(two.push(1, pushOf(2), AbortSignal.timeout(1000)), UNREACHABLE)
      await one.push(3, pushOf(3))
      await three.kick(KICK)
      assert.deepEqual([one, two, three].map(({ host }) => host.pushes.items.length), [0, 0, 1])
      assert.deepEqual([one, two, three].map(({ host }) => host.kicks.items.length), [1, 0, 0])
    },
  ],
]
