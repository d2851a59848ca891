import { describe, expect, it } from 'vitest'
import { memoryPeerHub, memoryReplicatorHub } from '../../../src/adapters/memory/index.ts'
import type { LogEntry, ReplicatorHost } from '../../../src/contracts/replicator.ts'
import { FakeClock, sampleMessage } from '../../../src/testing/index.ts'

const ROOM = { channelID: 'room', channelType: 2 }
const never = (): AbortSignal => new AbortController().signal

class ListHost implements ReplicatorHost {
  readonly nodeID: number
  readonly applied: number[] = []
  applyFails = false

  constructor(nodeID: number) {
    this.nodeID = nodeID
  }

  isolated(): void {}

  operate(operation: Uint8Array) {
    this.applied.push(-operation[0]!)
    return operation[0]
  }

  apply(entries: readonly LogEntry[]) {
    if (this.applyFails) throw new Error('the store is not there')
    return entries.map((entry) =>
      entry.messages.map((message) => {
        this.applied.push(Number(BigInt(message.messageID) - 7_000_000_000_000_000_000n))
        return { status: 'stored' as const, messageID: message.messageID, messageSeq: this.applied.length }
      }),
    )
  }
}

describe('memoryReplicatorHub', () => {
  it('gives a node that starts late everything from the beginning, and one that comes back what it missed', async () => {
    const hub = memoryReplicatorHub()
    const [one, two] = [hub.replicator(), hub.replicator()]
    const [first, second] = [new ListHost(1), new ListHost(2)]
    await one.start(first)
    await one.propose(ROOM, [sampleMessage(1)], never())
    await two.start(second)
    await two.propose(ROOM, [sampleMessage(2)], never())
    expect(second.applied).toEqual([1, 2])
    await two.close()
    await one.propose(ROOM, [sampleMessage(3)], never())
    const again = hub.replicator()
    await again.start(second)
    await again.propose(ROOM, [sampleMessage(4)], never())
    expect([first.applied, second.applied]).toEqual([[1, 2, 3, 4], [1, 2, 3, 4]])
  })

  it('does not apply within the call of propose', async () => {
    const hub = memoryReplicatorHub()
    const replicator = hub.replicator()
    const host = new ListHost(1)
    await replicator.start(host)
    const proposed = replicator.propose(ROOM, [sampleMessage(1)], never())
    expect(host.applied).toEqual([])
    await proposed
    expect(host.applied).toEqual([1])
  })

  it('refuses proposals while a started host is a whole log behind, and takes them again when it has caught up', async () => {
    const clock = new FakeClock()
    const hub = memoryReplicatorHub({ maxEntries: 4, clock })
    const [one, two] = [hub.replicator(), hub.replicator()]
    const slow = new ListHost(2)
    slow.applyFails = true
    await one.start(new ListHost(1))
    await two.start(slow)
    for (let n = 1; n <= 4; n++) await one.propose(ROOM, [sampleMessage(n)], never())
    await expect(one.propose(ROOM, [sampleMessage(5)], never())).rejects.toMatchObject({ code: 'IM_QUEUE_FULL' })
    slow.applyFails = false
    await clock.advance(50)
    await one.propose(ROOM, [sampleMessage(6)], never())
    await clock.settle()
    expect(slow.applied).toEqual([1, 2, 3, 4, 6])
  })

  it('does not start a node that missed more than the log holds', async () => {
    const hub = memoryReplicatorHub({ maxEntries: 4 })
    const [one, two] = [hub.replicator(), hub.replicator()]
    await one.start(new ListHost(1))
    for (let n = 1; n <= 5; n++) await one.propose(ROOM, [sampleMessage(n)], never())
    expect(() => two.start(new ListHost(2))).toThrow(/no longer has what this node missed/)
  })

  it('leaves no timer when it is closed while it waits to try again', async () => {
    const clock = new FakeClock()
    const replicator = memoryReplicatorHub({ clock }).replicator()
    const host = new ListHost(1)
    host.applyFails = true
    await replicator.start(host)
    const proposed = expect(replicator.propose(ROOM, [sampleMessage(1)], never())).rejects.toMatchObject({
      code: 'IM_REPLICATION_TIMEOUT',
    })
    await clock.settle()
    expect(clock.pendingTimerCount).toBe(1)
    await replicator.close()
    expect(clock.pendingTimerCount).toBe(0)
    await proposed
  })

  it('takes no two started replicators for one node, and needs a start', async () => {
    const hub = memoryReplicatorHub()
    const replicator = hub.replicator()
    await expect(replicator.propose(ROOM, [sampleMessage(1)], never())).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    await replicator.start(new ListHost(1))
    expect(() => replicator.start(new ListHost(2))).toThrow(TypeError)
    expect(() => hub.replicator().start(new ListHost(1))).toThrow(/nodeID must be one that no other started replicator has, got 1/)
    expect(() => memoryReplicatorHub({ maxEntries: 0 })).toThrow(/maxEntries must be a positive integer/)
  })
})

describe('memoryPeerHub', () => {
  const request = { key: ROOM, messages: [sampleMessage(1)], uids: ['bob'] }

  it('bounds what waits for a node, and goes on when it has answered', async () => {
    const hub = memoryPeerHub({ maxWaitingPushes: 2 })
    const [one, two] = [hub.peer(), hub.peer()]
    let answer: () => void = () => {}
    const answered = new Promise<void>((resolve) => {
      answer = resolve
    })
    await one.start({ nodeID: 1, pushed: () => {}, kicked: () => {} })
    await two.start({ nodeID: 2, pushed: () => answered, kicked: () => {} })
    const push = async (): Promise<void> => await one.push(2, request, never())
    const waiting = [push(), push()]
    await expect(one.push(2, request, never())).rejects.toMatchObject({ code: 'IM_PEER_UNREACHABLE' })
    answer()
    await Promise.all(waiting)
    await one.push(2, request, never())
  })

  it('ends what waits when the pushing node closes', async () => {
    const hub = memoryPeerHub()
    const [one, two] = [hub.peer(), hub.peer()]
    await one.start({ nodeID: 1, pushed: () => {}, kicked: () => {} })
    await two.start({ nodeID: 2, pushed: () => new Promise(() => {}), kicked: () => new Promise(() => {}) })
    const waiting = Promise.allSettled([one.push(2, request, never()), one.kick({ uid: 'ann', deviceFlag: 0, deviceID: 'd', deviceLevel: 0 }, never())])
    await one.close()
    expect((await waiting).map((outcome) => outcome.status)).toEqual(['rejected', 'rejected'])
  })

  it('takes no two started peers for one node', async () => {
    const hub = memoryPeerHub()
    const host = { nodeID: 1, pushed: () => {}, kicked: () => {} }
    await hub.peer().start(host)
    expect(() => hub.peer().start(host)).toThrow(/nodeID must be one that no other started peer has, got 1/)
    expect(() => memoryPeerHub({ maxWaitingPushes: 0 })).toThrow(/maxWaitingPushes must be a positive integer/)
  })
})
