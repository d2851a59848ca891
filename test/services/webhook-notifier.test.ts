import { describe, expect, test, vi } from 'vitest'
import type { Webhook, WebhookEvent } from '../../src/contracts/webhook.ts'
import { IMError } from '../../src/errors.ts'
import { Waits } from '../../src/services/time-limit.ts'
import { TimerWheel } from '../../src/services/timer-wheel.ts'
import { WebhookNotifier } from '../../src/services/webhook-notifier.ts'
import { FakeClock } from '../../src/testing/fake-clock.ts'
import { type Deferred, settled } from '../events/workload.ts'
import { deferred } from '../support.ts'

const online = (uid: string): WebhookEvent => ({ event: 'user.onlinestatus', uid, deviceFlag: 0, online: true, connectionID: '1', deviceOnlineCount: 1, onlineCount: 1 })
const uidsOf = (events: readonly WebhookEvent[]): string[] => events.map((event) => (event.event === 'user.onlinestatus' ? event.uid : ''))

function setUp(webhook: Webhook, maxCount = 1_000) {
  const clock = new FakeClock()
  const timers = new TimerWheel(clock, 100)
  const waits = new Waits()
  const report = vi.fn<(error: IMError) => void>()
  const notifier = new WebhookNotifier({ webhook, timers, timeoutMs: 3_000, maxCount, waits, report })
  return { clock, timers, waits, report, notifier }
}

/** A webhook whose calls end when the test says so. */
function heldWebhook() {
  const calls: { readonly uids: string[]; readonly answer: Deferred; readonly signal: AbortSignal }[] = []
  const webhook: Webhook = {
    notify: (events, signal) => {
      const answer = deferred()
      calls.push({ uids: uidsOf(events), answer, signal })
      return answer.promise
    },
  }
  return { webhook, calls }
}

describe('batches', () => {
  test('what comes in one turn goes in one call; what comes during a call goes with the next', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier } = setUp(webhook)
    notifier.add(online('a'))
    notifier.add(online('b'))
    await settled()
    notifier.add(online('c'))
    notifier.add(online('d'))
    await settled()
    expect(calls.map((call) => call.uids)).toEqual([['a', 'b']])
    calls[0]!.answer.resolve()
    await settled()
    expect(calls.map((call) => call.uids)).toEqual([['a', 'b'], ['c', 'd']])
  })

  test('hold 100 events at most, in the order in which they happened', async () => {
    const seen: string[][] = []
    const { notifier } = setUp({ notify: (events) => void seen.push(uidsOf(events)) })
    const all = Array.from({ length: 250 }, (_, index) => `u${index}`)
    for (const uid of all) notifier.add(online(uid))
    await notifier.idle()
    expect(seen.map((uids) => uids.length)).toEqual([100, 100, 50])
    expect(seen.flat()).toEqual(all)
  })
})

describe('at the bound', () => {
  test('the newest are left out, and how many is told once the call under way has ended', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, report } = setUp(webhook, 2)
    notifier.add(online('under way'))
    await settled()
    for (const uid of ['a', 'b', 'c', 'd']) notifier.add(online(uid))
    expect(report).not.toHaveBeenCalled()
    calls[0]!.answer.resolve()
    await settled()
    expect(calls[1]!.uids).toEqual(['a', 'b'])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_QUEUE_FULL' }))
    expect(report.mock.calls[0]![0].message).toContain('2 webhook notifications')
    calls[1]!.answer.resolve()
    await notifier.idle()
    expect(report).toHaveBeenCalledTimes(1)
  })
})

describe('a call that fails', () => {
  test.each([
    ['rejects', () => Promise.reject(new Error('down'))],
    ['throws', () => { throw new Error('down') }],
  ])('(%s) is reported once, not repeated, and the next one is made', async (_manner, fail) => {
    const seen: string[][] = []
    let calls = 0
    const { notifier, report, timers } = setUp({
      notify: (events) => {
        seen.push(uidsOf(events))
        if (calls++ === 0) return fail()
      },
    })
    notifier.add(online('a'))
    await notifier.idle()
    notifier.add(online('b'))
    await notifier.idle()
    expect(seen).toEqual([['a'], ['b']])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_WEBHOOK_FAILED' }))
    expect(timers.count).toBe(0)
  })

  test('because it hangs is given up after the time-out, with its signal aborted, and the next one is made', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock, report } = setUp(webhook)
    notifier.add(online('a'))
    await settled()
    notifier.add(online('b'))
    await clock.advance(2_900)
    expect(calls).toHaveLength(1)
    expect(calls[0]!.signal.aborted).toBe(false)
    await clock.advance(300)
    expect(calls[0]!.signal.aborted).toBe(true)
    expect(calls.map((call) => call.uids)).toEqual([['a'], ['b']])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_WEBHOOK_FAILED' }))
    calls[0]!.answer.reject(new Error('late')) // nobody is interested any more
    calls[1]!.answer.resolve()
    await notifier.idle()
    await settled()
    expect(report).toHaveBeenCalledTimes(1)
    await clock.advance(1_000)
    expect(clock.pendingTimerCount).toBe(0)
  })
})

describe('idle', () => {
  test('resolves at once with nothing to tell, and after the last call otherwise', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier } = setUp(webhook)
    await notifier.idle()
    notifier.add(online('a'))
    let idle = false
    void notifier.idle().then(() => (idle = true))
    await settled()
    notifier.add(online('b'))
    calls[0]!.answer.resolve()
    await settled()
    expect(idle).toBe(false)
    calls[1]!.answer.resolve()
    await settled()
    expect(idle).toBe(true)
  })

  test('resolves when the engine closes although the webhook hangs', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, waits, report } = setUp(webhook)
    notifier.add(online('a'))
    await settled()
    notifier.add(online('b'))
    waits.abort(new IMError('IM_ABORTED'))
    await notifier.idle()
    expect(calls.every((call) => call.signal.aborted)).toBe(true)
    expect(report.mock.calls.length).toBeGreaterThan(0)
  })
})

test('a webhook without notify costs nothing', async () => {
  const { notifier, clock } = setUp({})
  notifier.add(online('a'))
  await notifier.idle()
  expect(clock.pendingTimerCount).toBe(0)
})
