import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { IMError, type IMErrorContext } from '../../src/errors.ts'
import { ChainRunner, type ChainResult, type Step } from '../../src/events/run-chain.ts'
import { EngineEvent } from '../../src/handlers/engine-event.ts'
import { close, refuse, type Outcome } from '../../src/model/outcome.ts'
import { ReasonCode } from '../../src/model/reason-code.ts'
import { Waits } from '../../src/services/time-limit.ts'
import { ManualTimers } from './manual-timers.ts'
import { deferred } from '../support.ts'
import { CASES, settled } from './workload.ts'

class TestEvent extends EngineEvent {
  readonly event = 'EventTest'
  readonly visited: string[] = []
  readonly waits = new Waits()

  describe(): IMErrorContext {
    return { uid: 'ann' }
  }
}

const CODES = { failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_TIMEOUT' } as const

function step(name: string, handler: (ctx: TestEvent) => Outcome | Promise<Outcome>, options: Partial<Step<TestEvent>> = {}): Step<TestEvent> {
  const visit = (ctx: TestEvent): Outcome | Promise<Outcome> => {
    ctx.visited.push(name)
    return handler(ctx)
  }
  return { name, handler: visit, timeoutMs: 1_000, ...CODES, onError: 'fail', ...options }
}

const pass = (name: string): Step<TestEvent> => step(name, () => undefined)
const passLater = (name: string): Step<TestEvent> => step(name, () => Promise.resolve())

function setUp() {
  const timers = new ManualTimers()
  const report = vi.fn<(error: IMError) => void>()
  return { timers, report, runner: new ChainRunner({ timers, report }), ctx: new TestEvent() }
}

/** What a chain without a promise ended with. */
function endedAtOnce(result: ChainResult | Promise<ChainResult>): ChainResult {
  expect(result).not.toBeInstanceOf(Promise)
  return result as ChainResult
}

const unhandled: unknown[] = []
const onUnhandled = (reason: unknown): void => void unhandled.push(reason)
beforeEach(() => {
  unhandled.length = 0
  process.on('unhandledRejection', onUnhandled)
})
afterEach(async () => {
  await settled()
  await settled()
  process.off('unhandledRejection', onUnhandled)
  expect(unhandled).toEqual([])
})

describe('steps run in order', () => {
  test('a chain that waits for nothing makes no promise and arms no timer', () => {
    const { runner, ctx, timers } = setUp()
    expect(endedAtOnce(runner.run([pass('a'), pass('b'), pass('c')], ctx))).toBeUndefined()
    expect(ctx.visited).toEqual(['a', 'b', 'c'])
    expect(timers.entries.size).toBe(0)
  })

  test('a promise is waited for before the next step, and the time-out behind it is gone afterwards', async () => {
    const { runner, ctx, timers } = setUp()
    const answer = deferred<Outcome>()
    const result = runner.run([pass('a'), step('waits', () => answer.promise), pass('c')], ctx)
    expect(result).toBeInstanceOf(Promise)
    await settled()
    expect(ctx.visited).toEqual(['a', 'waits'])
    expect(timers.entries.size).toBe(1)
    answer.resolve(undefined)
    expect(await result).toBeUndefined()
    expect(ctx.visited).toEqual(['a', 'waits', 'c'])
    expect(timers.entries.size).toBe(0)
  })

  test('an empty chain lets the event pass', () => {
    const { runner, ctx } = setUp()
    expect(endedAtOnce(runner.run([], ctx))).toBeUndefined()
  })

  test('whatever the steps do, the chain ends exactly as its first step that ends it says', async () => {
    const kinds = ['pass', 'pass later', 'refuse', 'refuse later', 'close', 'throw', 'reject', 'nonsense', 'nonsense later'] as const
    const steps = fc.array(fc.record({ kind: fc.constantFrom(...kinds), onError: fc.constantFrom('fail' as const, 'continue' as const) }), { maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(steps, async (list) => {
        const { runner, ctx, report, timers } = setUp()
        const chain = list.map(({ kind, onError }, index) =>
          step(
            String(index),
            () => {
              if (kind === 'refuse') return refuse(ReasonCode.NotAllowSend)
              if (kind === 'refuse later') return Promise.resolve(refuse(ReasonCode.NotAllowSend))
              if (kind === 'close') return close(ReasonCode.Ban)
              if (kind === 'throw') throw new Error('thrown')
              if (kind === 'reject') return Promise.reject(new Error('rejected'))
              if (kind === 'nonsense') return 42 as unknown as Outcome
              if (kind === 'nonsense later') return Promise.resolve('yes' as unknown as Outcome)
              return kind === 'pass later' ? Promise.resolve() : undefined
            },
            { onError },
          ),
        )
        const end = list.findIndex(({ kind, onError }) => kind !== 'pass' && kind !== 'pass later' && onError === 'fail')
        const result = await runner.run(chain, ctx)
        const ran = end < 0 ? list.length : end + 1
        expect(ctx.visited).toEqual(list.slice(0, ran).map((_, index) => String(index)))
        const kind = list[end]?.kind
        if (kind === undefined) expect(result).toBeUndefined()
        else if (kind === 'refuse' || kind === 'refuse later') expect(result).toEqual(refuse(ReasonCode.NotAllowSend))
        else if (kind === 'close') expect(result).toEqual(close(ReasonCode.Ban))
        else expect(result).toMatchObject({ code: 'IM_HANDLER_FAILED', context: { uid: 'ann', event: 'EventTest', step: String(end) } })
        // Steps whose chain goes on tell their failures one by one.
        const told = list.slice(0, ran).filter((one) => one.onError === 'continue' && one.kind !== 'pass' && one.kind !== 'pass later')
        expect(report).toHaveBeenCalledTimes(told.length)
        expect(timers.entries.size).toBe(0)
      }),
      CASES,
    )
  })
})

describe('how a chain ends', () => {
  test.each([
    ['refuse', refuse(ReasonCode.InBlacklist, 'why')],
    ['close', close(ReasonCode.AuthFail)],
  ])('%s ends it, at once and later, and is handed on as it is', async (_kind, outcome) => {
    const { runner, ctx } = setUp()
    expect(endedAtOnce(runner.run([step('a', () => outcome), pass('b')], ctx))).toBe(outcome)
    expect(await runner.run([step('a', () => Promise.resolve(outcome)), pass('b')], ctx)).toBe(outcome)
    expect(ctx.visited).toEqual(['a', 'a'])
  })

  test('a throw comes back as an IMError that says where, with what was thrown as its cause', () => {
    const { runner, ctx } = setUp()
    const cause = new Error('boom')
    const result = endedAtOnce(runner.run([step('breaks', () => { throw cause }), pass('b')], ctx))
    expect(result).toBeInstanceOf(IMError)
    expect(result).toMatchObject({ code: 'IM_HANDLER_FAILED', cause, context: { uid: 'ann', event: 'EventTest', step: 'breaks' } })
    expect(ctx.visited).toEqual(['breaks'])
  })

  test.each([['throws', false], ['rejects', true]])('an IMError that a step %s keeps its code, and is handed on as it is when it says where', async (_manner, later) => {
    const { runner, ctx } = setUp()
    const breaking = (failure: IMError) =>
      step('breaks', () => {
        if (later) return Promise.reject(failure)
        throw failure
      })
    const located = new IMError('IM_STORE_UNAVAILABLE', { context: { uid: 'bob' } })
    expect(await runner.run([breaking(located)], ctx)).toBe(located)
    // As adapters throw them, the same one to everybody who waits.
    const cause = new Error('disk')
    const shared = new IMError('IM_STORE_FULL', { detail: 'make room', cause })
    const result = await runner.run([breaking(shared)], ctx)
    expect(result).toMatchObject({ code: 'IM_STORE_FULL', message: shared.message, cause, context: { uid: 'ann', event: 'EventTest', step: 'breaks' } })
    expect(shared.context).toEqual({})
  })

  test('a throw and a rejection are called by the code of their step', async () => {
    const { runner, ctx } = setUp()
    const failureCode = 'IM_STORE_UNAVAILABLE'
    const throws = step('throws', () => { throw new Error('boom') }, { failureCode })
    const rejects = step('rejects', () => Promise.reject(new Error('boom')), { failureCode })
    expect(endedAtOnce(runner.run([throws], ctx))).toMatchObject({ code: failureCode, context: { step: 'throws' } })
    expect(await runner.run([rejects], ctx)).toMatchObject({ code: failureCode, context: { step: 'rejects' } })
  })

  test.each([[undefined], [null], ['text'], [0]])('a rejection with %j is a failure like any other', async (reason) => {
    const { runner, ctx } = setUp()
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
    expect(await runner.run([step('breaks', () => Promise.reject(reason)), pass('b')], ctx)).toMatchObject({ code: 'IM_HANDLER_FAILED' })
    expect(ctx.visited).toEqual(['breaks'])
  })

  test.each([[true], [false], [0], [''], ['refuse'], [null], [{}], [{ kind: 'pass' }], [[]],
    [{ kind: 'refuse' }], [{ kind: 'refuse', reasonCode: ReasonCode.Success }], [{ kind: 'close', reasonCode: 0 }], [{ kind: 'refuse', reasonCode: 256 }]])(
    'a step that answers %j fails, because it may have meant to stop the message',
    async (answer) => {
      const { runner, ctx } = setUp()
      const outcome = answer as unknown as Outcome
      expect(endedAtOnce(runner.run([step('a', () => outcome), pass('b')], ctx))).toMatchObject({ code: 'IM_HANDLER_FAILED' })
      expect(await runner.run([step('a', () => Promise.resolve(outcome)), pass('b')], ctx)).toMatchObject({ code: 'IM_HANDLER_FAILED' })
      expect(ctx.visited).toEqual(['a', 'a'])
    },
  )
})

describe('a step that outlives its time-out', () => {
  test('fails the chain with IM_HANDLER_TIMEOUT and no later step runs', async () => {
    const { runner, ctx, timers } = setUp()
    const result = runner.run([step('hangs', () => deferred<Outcome>().promise, { timeoutMs: 250 }), pass('b')], ctx)
    expect([...timers.entries].map((entry) => entry.dueMs)).toEqual([250])
    timers.fireAll()
    expect(await result).toMatchObject({ code: 'IM_HANDLER_TIMEOUT', context: { step: 'hangs', uid: 'ann' } })
    expect(ctx.visited).toEqual(['hangs'])
  })

  test('is called by the code of its step', async () => {
    const { runner, ctx, timers } = setUp()
    const result = runner.run([step('hangs', () => deferred<Outcome>().promise, { timeoutCode: 'IM_REPLICATION_TIMEOUT' })], ctx)
    timers.fireAll()
    expect(await result).toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
  })

  test.each(['resolves', 'refuses', 'rejects'])('and %s afterwards changes nothing', async (manner) => {
    const { runner, ctx, timers, report } = setUp()
    const answer = deferred<Outcome>()
    const result = runner.run([step('late', () => answer.promise), pass('b')], ctx)
    timers.fireAll()
    const first = await result
    if (manner === 'rejects') answer.reject(new Error('late'))
    else answer.resolve(manner === 'refuses' ? refuse(ReasonCode.Ban) : undefined)
    await settled()
    expect(await result).toBe(first)
    expect(first).toMatchObject({ code: 'IM_HANDLER_TIMEOUT' })
    expect(ctx.visited).toEqual(['late'])
    expect(report).not.toHaveBeenCalled()
  })

  test('does not keep the next wait from having the whole of its own time', async () => {
    const { runner, ctx, timers } = setUp()
    const second = deferred<Outcome>()
    const result = runner.run([passLater('a'), step('b', () => second.promise, { timeoutMs: 70 })], ctx)
    await settled()
    expect([...timers.entries].map((entry) => entry.dueMs)).toEqual([70])
    second.resolve(undefined)
    expect(await result).toBeUndefined()
  })
})

describe("a step whose chain goes on ('continue')", () => {
  const late = { onError: 'continue' } as const

  test('is reported when it throws, rejects, hangs or answers nonsense, and the next step runs', async () => {
    const { runner, ctx, report, timers } = setUp()
    const chain = [
      step('throws', () => { throw new Error('boom') }, late),
      step('rejects', () => Promise.reject(new Error('boom')), late),
      step('nonsense', () => 1 as unknown as Outcome, late),
      step('hangs', () => deferred<Outcome>().promise, late),
      pass('last'),
    ]
    const result = runner.run(chain, ctx)
    await settled()
    timers.fireAll()
    expect(await result).toBeUndefined()
    expect(ctx.visited).toEqual(['throws', 'rejects', 'nonsense', 'hangs', 'last'])
    expect(report.mock.calls.map(([error]) => [error.code, error.context.step])).toEqual([
      ['IM_HANDLER_FAILED', 'throws'],
      ['IM_HANDLER_FAILED', 'rejects'],
      ['IM_HANDLER_FAILED', 'nonsense'],
      ['IM_HANDLER_TIMEOUT', 'hangs'],
    ])
  })

  test.each([
    ['refuse', refuse(ReasonCode.Ban)],
    ['close', close(ReasonCode.Ban)],
  ])('cannot %s any more: that is reported', async (_kind, outcome) => {
    const { runner, ctx, report } = setUp()
    expect(endedAtOnce(runner.run([step('a', () => outcome, late), pass('b')], ctx))).toBeUndefined()
    expect(await runner.run([step('a', () => Promise.resolve(outcome), late), pass('b')], ctx)).toBeUndefined()
    expect(ctx.visited).toEqual(['a', 'b', 'a', 'b'])
    expect(report).toHaveBeenCalledTimes(2)
  })
})

describe('the abort signal of an event', () => {
  test('is aborted when a step outlives its time-out, for whoever has it and whoever asks later', async () => {
    const { runner, ctx, timers } = setUp()
    let held: AbortSignal | undefined
    const result = runner.run([step('hangs', (event) => ((held = event.signal), deferred<Outcome>().promise))], ctx)
    expect(held!.aborted).toBe(false)
    timers.fireAll()
    await result
    expect(held!.aborted).toBe(true)
    expect(ctx.signal.aborted).toBe(true)
  })

  test('that nobody had asked for is aborted when it is asked for after the time-out', async () => {
    const { runner, ctx, timers } = setUp()
    const result = runner.run([step('hangs', () => deferred<Outcome>().promise)], ctx)
    timers.fireAll()
    await result
    expect(ctx.signal.aborted).toBe(true)
  })

  test('is not aborted by a step that ends in time', async () => {
    const { runner, ctx } = setUp()
    let held: AbortSignal | undefined
    await runner.run([step('a', (event) => ((held = event.signal), Promise.resolve()))], ctx)
    expect(held!.aborted).toBe(false)
  })

  test("behind a hanging 'continue' step is a new one: only the hanging step's is aborted", async () => {
    const { runner, ctx, timers } = setUp()
    const held: AbortSignal[] = []
    const hangs = step('hangs', (event) => (held.push(event.signal), deferred<Outcome>().promise), { onError: 'continue' })
    const result = runner.run([hangs, step('next', (event) => void held.push(event.signal))], ctx)
    timers.fireAll()
    await result
    expect(held.map((signal) => signal.aborted)).toEqual([true, false])
  })

  test('is aborted when the engine closes', () => {
    const { ctx } = setUp()
    const { signal } = ctx
    ctx.waits.abort(new IMError('IM_ABORTED'))
    expect(signal.aborted).toBe(true)
    expect(ctx.signal.aborted).toBe(true)
  })

  test('that is asked for after the engine has closed is aborted', () => {
    const { ctx } = setUp()
    ctx.waits.abort(new IMError('IM_ABORTED'))
    expect(ctx.signal.aborted).toBe(true)
  })

  test('of an event that has ended is left alone, and one asked for afterwards is aborted', () => {
    const { ctx } = setUp()
    const { signal } = ctx
    ctx.release()
    ctx.waits.abort(new IMError('IM_ABORTED'))
    expect(signal.aborted).toBe(false)
    const other = new TestEvent()
    other.release()
    expect(other.signal.aborted).toBe(true)
  })
})

describe('the notes of an event', () => {
  test('are one object for all handlers of one event, and empty in the next', () => {
    const { runner, ctx } = setUp()
    const seen: unknown[] = []
    const writes = step('writes', (event) => void (event.state['mark'] = 1))
    const reads = step('reads', (event) => void seen.push(event.state['mark']))
    void runner.run([writes, reads], ctx)
    void runner.run([reads], new TestEvent())
    expect(seen).toEqual([1, undefined])
  })
})
