import { describe, expect, test, vi } from 'vitest'
import type { FactSink } from '../../src/contracts/facts.ts'
import type { PeerPush, PeerPushRequest } from '../../src/contracts/peer-push.ts'
import { IMError } from '../../src/errors.ts'
import type { Message } from '../../src/model/message.ts'
import { Counters } from '../../src/services/counters.ts'
import { PeerPushes } from '../../src/services/peer-pushes.ts'
import { Waits } from '../../src/services/time-limit.ts'
import { TimerWheel } from '../../src/services/timer-wheel.ts'
import { FakeClock } from '../../src/testing/fake-clock.ts'
import { type Deferred, settled } from '../events/workload.ts'
import { deferred } from '../support.ts'

const KEY = { channelID: 'team', channelType: 2 }

function request(messageSeq: number): PeerPushRequest {
  const message: Message = {
    messageID: String(messageSeq), messageSeq, clientMsgNo: '', fromUID: 'ann', channelID: 'team', channelType: 2, payload: Buffer.from('hi'),
    timestampMs: 0, expireSec: 0, topic: '', setting: 0, noPersist: false, redDot: true, syncOnce: false,
  }
  return { key: KEY, messages: [message], uids: ['bob'] }
}

type Push = PeerPush['push']

function setUp(push: Push, { maxCount = 100, timeoutMs = 5_000, kick = (): unknown => undefined } = {}) {
  const clock = new FakeClock()
  const timers = new TimerWheel(clock, 100)
  const waits = new Waits()
  const report = vi.fn<(error: IMError) => void>()
  const undelivered: { readonly nodeID: number | undefined; readonly seqs: number[]; readonly key: unknown }[] = []
  const facts: FactSink = {
    has: () => true,
    emit: (name, ...args) => {
      expect(name).toBe('undelivered')
      const { key, messages, nodeID } = args[0] as { key: unknown; messages: Message[]; nodeID: number }
      undelivered.push({ key, nodeID, seqs: messages.map((message) => message.messageSeq) })
    },
  }
  const calls: { readonly nodeID: number; readonly seq: number; readonly signal: AbortSignal }[] = []
  const peerPush = {
    kick,
    push: (nodeID: number, pushed: PeerPushRequest, signal: AbortSignal) => {
      calls.push({ nodeID, seq: pushed.messages[0]!.messageSeq, signal })
      return push(nodeID, pushed, signal)
    },
  } as unknown as PeerPush
  const pushes = new PeerPushes({ peerPush, timers, timeoutMs, kickTimeoutMs: 1_000, maxCount, waits, facts, counts: new Counters(), report })
  const tried = (): string[] => calls.map((call) => `${call.nodeID}:${call.seq}`)
  return { pushes, clock, timers, waits, report, undelivered, calls, tried }
}

/** Pushes that end when the test says so. */
function held(): { push: Push; answers: Deferred[] } {
  const answers: Deferred[] = []
  const push: Push = () => {
    const answer = deferred()
    answers.push(answer)
    return answer.promise
  }
  return { push, answers }
}

describe('order', () => {
  test('to one node one push at a time, in the order they were added; other nodes do not wait', async () => {
    const { push, answers } = held()
    const { pushes, tried } = setUp(push)
    pushes.add(2, request(1))
    pushes.add(2, request(2))
    pushes.add(3, request(1))
    await settled()
    expect(tried()).toEqual(['2:1', '3:1'])
    answers[0]!.resolve()
    await settled()
    expect(tried()).toEqual(['2:1', '3:1', '2:2'])
  })

  test('a push that is repeated stays ahead of the ones behind it', async () => {
    let failures = 2
    const { pushes, tried, clock, report } = setUp(() => {
      if (failures-- > 0) throw new Error('down')
    })
    pushes.add(2, request(1))
    pushes.add(2, request(2))
    await clock.advance(2_000)
    expect(tried()).toEqual(['2:1', '2:1', '2:1', '2:2'])
    expect(report).not.toHaveBeenCalled()
  })
})

describe('a push that fails', () => {
  test.each<[string, Push]>([
    ['throws', () => { throw new Error('down') }],
    ['rejects', () => Promise.reject(new Error('down'))],
  ])('(%s) is repeated until the time is over, then told as undelivered, once', async (_manner, push) => {
    const { pushes, clock, timers, tried, undelivered, report } = setUp(push)
    pushes.add(2, request(7))
    await clock.advance(4_000)
    expect(undelivered).toEqual([])
    expect(tried().length).toBeGreaterThan(5)
    await clock.advance(1_500)
    expect(undelivered).toEqual([{ key: KEY, nodeID: 2, seqs: [7] }])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_PEER_UNREACHABLE', context: expect.objectContaining({ nodeID: 2 }) as unknown }))
    const triedBefore = tried().length
    await clock.advance(20_000)
    expect(tried()).toHaveLength(triedBefore)
    expect(timers.count).toBe(0)
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('and succeeds in time is not told as undelivered', async () => {
    let failures = 3
    const { pushes, clock, timers, undelivered, report } = setUp(() => {
      if (failures-- > 0) throw new Error('down')
    })
    pushes.add(2, request(1))
    await clock.advance(10_000)
    expect(undelivered).toEqual([])
    expect(report).not.toHaveBeenCalled()
    expect(timers.count).toBe(0)
  })

  test('because it hangs is given up in time with its signal aborted, and the next one has its turn', async () => {
    const { push, answers } = held()
    const { pushes, clock, calls, tried, undelivered } = setUp(push)
    pushes.add(2, request(1))
    pushes.add(2, request(2))
    await clock.advance(5_500)
    expect(undelivered).toEqual([{ key: KEY, nodeID: 2, seqs: [1] }])
    expect(calls[0]!.signal.aborted).toBe(true)
    expect(tried()).toEqual(['2:1', '2:2'])
    answers[0]!.reject(new Error('late')) // nobody is interested any more
    answers[1]!.resolve()
    await pushes.idle()
    expect(undelivered).toHaveLength(1)
  })

  test('because it hangs is reported as a peer that did not confirm, with its node', async () => {
    const { pushes, clock, report } = setUp(held().push)
    pushes.add(2, request(1))
    await clock.advance(5_500)
    expect(report.mock.calls.map(([error]) => [error.code, error.context.nodeID])).toEqual([['IM_PEER_UNREACHABLE', 2]])
  })
})

describe('at the bound of waiting pushes', () => {
  test('the newest is told as undelivered at once, for that node only', async () => {
    const { push, answers } = held()
    const { pushes, undelivered, report, tried } = setUp(push, { maxCount: 2 })
    for (const seq of [1, 2, 3, 4]) pushes.add(2, request(seq))
    pushes.add(3, request(5))
    await settled()
    // One is under way, two wait.
    expect(undelivered).toEqual([{ key: KEY, nodeID: 2, seqs: [4] }])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_QUEUE_FULL', context: { nodeID: 2 } }))
    for (let index = 0; index < 4; index++) {
      answers[index]!.resolve()
      await settled()
    }
    expect(tried()).toEqual(['2:1', '3:5', '2:2', '2:3'])
  })
})

describe('telling the others of a login', () => {
  const login = { uid: 'ann', deviceFlag: 0, deviceID: 'phone', deviceLevel: 1 }

  test('hands it on with a signal', async () => {
    const kick = vi.fn()
    const { pushes, report, timers } = setUp(held().push, { kick })
    await pushes.kick(login)
    expect(kick).toHaveBeenCalledExactlyOnceWith(login, expect.any(AbortSignal))
    expect(report).not.toHaveBeenCalled()
    expect(timers.count).toBe(0)
  })

  test.each<[string, () => unknown]>([
    ['throws', () => { throw new Error('down') }],
    ['rejects', () => Promise.reject(new Error('down'))],
    ['hangs', () => deferred().promise],
  ])('that %s holds up the login no longer than its time-out, and is reported', async (_manner, kick) => {
    const { pushes, report, clock, timers } = setUp(held().push, { kick })
    let over = false
    void pushes.kick(login).then(() => (over = true))
    await clock.advance(1_200)
    expect(over).toBe(true)
    expect(report.mock.calls.map(([error]) => [error.code, error.context.uid])).toEqual([['IM_PEER_UNREACHABLE', 'ann']])
    expect(timers.count).toBe(0)
  })
})

describe('idle', () => {
  test('resolves when everything has been confirmed or given up', async () => {
    const { push, answers } = held()
    const { pushes } = setUp(push)
    await pushes.idle()
    pushes.add(2, request(1))
    pushes.add(3, request(1))
    let idle = false
    void pushes.idle().then(() => (idle = true))
    await settled()
    answers[0]!.resolve()
    await settled()
    expect(idle).toBe(false)
    answers[1]!.resolve()
    await settled()
    expect(idle).toBe(true)
  })

  test('resolves when the engine closes, whatever the peer does; what was not confirmed is told', async () => {
    const { pushes, waits, undelivered, timers } = setUp(held().push)
    for (const seq of [1, 2]) pushes.add(2, request(seq))
    await settled()
    waits.abort(new IMError('IM_ABORTED'))
    await pushes.idle()
    expect(undelivered.map(({ seqs }) => seqs)).toEqual([[1], [2]])
    expect(timers.count).toBe(0)
  })
})
