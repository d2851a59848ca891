import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import type { EventName, Handler } from '../../src/contracts/handler.ts'
import { ChainRegistry, type BuiltInChain, type UseOptions } from '../../src/events/chain-registry.ts'
import { ChainRunner, type Step } from '../../src/events/run-chain.ts'
import { EngineEvent } from '../../src/handlers/engine-event.ts'
import { Waits } from '../../src/services/time-limit.ts'
import { ManualTimers } from './manual-timers.ts'
import { deferred } from '../support.ts'

const EVENT = 'EventOnSend'
/** What the failures of the engine's own steps and of a host's handlers are called. */
const BUILT_IN = { failureCode: 'IM_STORE_UNAVAILABLE', timeoutCode: 'IM_REPLICATION_TIMEOUT' } as const
const HOSTS = { failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_TIMEOUT' } as const

const nothing: Handler<unknown> = () => undefined

function builtIn(names: string[], places: Partial<BuiltInChain> = {}): BuiltInChain {
  const steps = names.map((name): Step<never> => ({ name, handler: nothing, timeoutMs: 100, ...BUILT_IN, onError: 'fail' }))
  return { steps, defaultBefore: undefined, pointOfNoReturn: undefined, ...places }
}

/** A registry like the engine's: `check, ask, accept, tell`, with `accept` the point of no return. */
function registry(): ChainRegistry {
  const chains: Record<EventName, BuiltInChain> = {
    EventConnect: builtIn(['connect']),
    EventOnSend: builtIn(['check', 'ask', 'accept', 'tell'], { defaultBefore: 'accept', pointOfNoReturn: 'accept' }),
    EventRecvAck: builtIn(['settle']),
    EventPing: builtIn(['pong']),
    EventConnClose: builtIn(['leave']),
    EventChannelDistribute: builtIn(['store']),
    EventPushOnline: builtIn(['write']),
  }
  return new ChainRegistry(chains, 5_000)
}

function named(name: string): Handler<unknown> {
  return Object.defineProperty(() => undefined, 'name', { value: name })
}

describe('where a handler goes', () => {
  test.each<[string, UseOptions, string[]]>([
    ['before the step it names', { before: 'check' }, ['mine', 'check', 'ask', 'accept', 'tell']],
    ['behind the step it names', { after: 'ask' }, ['check', 'ask', 'mine', 'accept', 'tell']],
    ['behind the last step', { after: 'tell' }, ['check', 'ask', 'accept', 'tell', 'mine']],
    ["before the event's own deed when it names nothing", {}, ['check', 'ask', 'mine', 'accept', 'tell']],
  ])('%s', (_where, options, expected) => {
    const chains = registry()
    chains.use(EVENT, named('mine'), options)
    expect(chains.names(EVENT)).toEqual(expected)
  })

  test('last, in a chain without a default place', () => {
    const chains = registry()
    chains.use('EventPing', named('mine'))
    expect(chains.names('EventPing')).toEqual(['pong', 'mine'])
  })

  test('handlers for the same place run in the order in which they were added', () => {
    const chains = registry()
    for (const name of ['first', 'second', 'third']) {
      chains.use(EVENT, named(name), { after: 'check' })
      chains.use(EVENT, named(`${name} of default`))
    }
    expect(chains.names(EVENT)).toEqual([
      'check', 'first', 'second', 'third', 'ask', 'first of default', 'second of default', 'third of default', 'accept', 'tell',
    ])
  })

  test('of handlers in one place the one with the higher priority runs first, equal ones in the order in which they were added', () => {
    const chains = registry()
    const added: [name: string, options: UseOptions][] = [
      ['none', { after: 'check' }], ['low', { before: 'ask', priority: -1 }], ['high', { before: 'ask', priority: 10 }],
      ['none too', { after: 'check', priority: 0 }], ['high too', { after: 'check', priority: 10 }], ['elsewhere', { priority: 100 }],
    ]
    for (const [name, options] of added) chains.use(EVENT, named(name), options)
    expect(chains.names(EVENT)).toEqual(['check', 'high', 'high too', 'none', 'none too', 'low', 'ask', 'elsewhere', 'accept', 'tell'])
  })

  test('priority counts in front of the first step, too', () => {
    const chains = registry()
    chains.use(EVENT, named('low'), { before: 'check', priority: -1 })
    chains.use(EVENT, named('high'), { before: 'check', priority: 1 })
    expect(chains.names(EVENT)).toEqual(['high', 'low', 'check', 'ask', 'accept', 'tell'])
  })

  test('whatever is added and taken out, a place is in the order of priority and then of adding', () => {
    const handler = fc.record({ priority: fc.integer({ min: -2, max: 2 }), isBefore: fc.boolean(), isTakenOut: fc.boolean() })
    fc.assert(
      fc.property(fc.array(handler, { maxLength: 12 }), (handlers) => {
        const chains = registry()
        const removes = handlers.map(({ priority, isBefore }, index) =>
          chains.use(EVENT, named(String(index)), { priority, ...(isBefore ? { before: 'ask' } : { after: 'check' }) }))
        handlers.forEach(({ isTakenOut }, index) => isTakenOut && removes[index]!())
        const left = handlers.map((each, index) => ({ ...each, name: String(index) })).filter(({ isTakenOut }) => !isTakenOut)
        const expected = left.toSorted((a, b) => b.priority - a.priority).map(({ name }) => name) // which is stable
        expect(chains.names(EVENT)).toEqual(['check', ...expected, 'ask', 'accept', 'tell'])
      }),
    )
  })

  test('a priority does not take a handler away from another one that it was put beside', () => {
    const chains = registry()
    chains.use(EVENT, named('mine'))
    chains.use(EVENT, named('before mine'), { before: 'mine', priority: -5 })
    chains.use(EVENT, named('after mine'), { after: 'mine', priority: 5 })
    chains.use(EVENT, named('first before mine'), { before: 'mine' })
    chains.use(EVENT, named('urgent'), { priority: 1 })
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'first before mine', 'before mine', 'urgent', 'mine', 'after mine', 'accept', 'tell'])
  })

  test("another host's handler is a place, too", () => {
    const chains = registry()
    chains.use(EVENT, named('mine'), { after: 'check' })
    chains.use(EVENT, named('before it'), { before: 'mine' })
    expect(chains.names(EVENT)).toEqual(['check', 'before it', 'mine', 'ask', 'accept', 'tell'])
  })

  test('the other events are left alone', () => {
    const chains = registry()
    chains.use(EVENT, named('mine'))
    expect(chains.names('EventPing')).toEqual(['pong'])
  })
})

describe('how a handler is watched', () => {
  const stepOf = (chains: ChainRegistry, name: string): Step<unknown> => chains.current<unknown>(EVENT).find((step) => step.name === name)!

  test('with the default time-out, or its own', () => {
    const chains = registry()
    chains.use(EVENT, named('usual'))
    chains.use(EVENT, named('patient'), { timeoutMs: 60_000 })
    expect(stepOf(chains, 'usual').timeoutMs).toBe(5_000)
    expect(stepOf(chains, 'patient')).toMatchObject({ timeoutMs: 60_000, ...HOSTS })
  })

  test.each<[UseOptions, Step<unknown>['onError']]>([
    [{ before: 'check' }, 'fail'],
    [{}, 'fail'],
    [{ before: 'accept' }, 'fail'],
    [{ after: 'accept' }, 'continue'],
    [{ before: 'tell' }, 'continue'],
    [{ after: 'tell' }, 'continue'],
  ])('placed %j its failure means %s', (options, onError) => {
    const chains = registry()
    chains.use(EVENT, named('mine'), options)
    expect(stepOf(chains, 'mine').onError).toBe(onError)
  })

  test.each<[UseOptions, Step<unknown>['onError']]>([
    [{ onError: 'fail-closed' }, 'fail'],
    [{ onError: 'fail-open' }, 'open'],
    [{ onError: 'fail-closed', after: 'accept' }, 'continue'],
    [{ onError: 'fail-open', after: 'accept' }, 'continue'],
  ])('with its own policy, but none behind the point of no return: %j means %s', (options, onError) => {
    const chains = registry()
    chains.use(EVENT, named('mine'), options)
    expect(stepOf(chains, 'mine').onError).toBe(onError)
    chains.replace(EVENT, 'mine', named('other'))
    expect(stepOf(chains, 'mine').onError).toBe(onError)
  })

  test('in the place of a step with its own time-out and policy', () => {
    const chains = registry()
    const restore = chains.replace(EVENT, 'ask', named('mine'), { timeoutMs: 7, onError: 'fail-open' })
    expect(stepOf(chains, 'ask')).toMatchObject({ timeoutMs: 7, onError: 'open', ...HOSTS })
    restore()
    expect(stepOf(chains, 'ask')).toMatchObject({ timeoutMs: 100, onError: 'fail' })
  })

  test('a failure fails a chain that has no point of no return', () => {
    const chains = registry()
    chains.use('EventPing', named('mine'), { after: 'pong' })
    expect(chains.current<unknown>('EventPing').map((step) => step.onError)).toEqual(['fail', 'fail'])
  })
})

describe('taking out and replacing', () => {
  test('a handler is out once its function has been called, also when that is called again', () => {
    const chains = registry()
    const remove = chains.use(EVENT, named('mine'))
    chains.use(EVENT, named('yours'))
    remove()
    remove()
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'yours', 'accept', 'tell'])
  })

  test('its name is free again afterwards', () => {
    const chains = registry()
    chains.use(EVENT, named('mine'))()
    expect(() => chains.use(EVENT, named('mine'))).not.toThrow()
  })

  test('a replaced step keeps its name, place, time-out and what its failure means, but fails as a handler of the host', () => {
    const chains = registry()
    const mine = named('whatever')
    chains.replace(EVENT, 'ask', mine)
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'accept', 'tell'])
    expect(chains.current(EVENT)[1]).toEqual({ name: 'ask', handler: mine, timeoutMs: 100, ...HOSTS, onError: 'fail' })
  })

  test('the old step is back once its function has been called', () => {
    const chains = registry()
    const before = chains.current(EVENT)
    const restore = chains.replace(EVENT, 'ask', named('mine'))
    restore()
    restore()
    expect(chains.current(EVENT)).toEqual(before)
  })

  test('of two replacements one on the other, each takes back its own only', () => {
    const chains = registry()
    const [first, second] = [named('first'), named('second')]
    const restoreFirst = chains.replace(EVENT, 'ask', first)
    const restoreSecond = chains.replace(EVENT, 'ask', second)
    restoreFirst()
    expect(chains.current(EVENT)[1]!.handler).toBe(second)
    restoreSecond()
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'accept', 'tell'])
  })
})

describe('replacements one on the other', () => {
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]

  test.each(orders)('taken back in the order %i, %i, %i, the newest that is left runs', (...order) => {
    const chains = registry()
    const built = chains.current(EVENT)[1]!.handler
    const handlers = ['a', 'b', 'c'].map(named)
    const restores = handlers.map((handler) => chains.replace(EVENT, 'ask', handler))
    const left = new Set(handlers)
    for (const index of order) {
      restores[index]!()
      left.delete(handlers[index]!)
      expect(chains.current(EVENT)[1]!.handler).toBe([...left].at(-1) ?? built)
    }
  })

  test('go with the handler that they stand in for', () => {
    const chains = registry()
    const remove = chains.use(EVENT, named('mine'))
    const restore = chains.replace(EVENT, 'mine', named('other'))
    remove()
    restore()
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'accept', 'tell'])
  })
})

describe("a host's mistake is a TypeError that names it", () => {
  const chains = registry()
  const use = (event: string, handler: unknown, options?: unknown): (() => void) =>
    chains.use(event as EventName, handler as Handler<unknown>, options as UseOptions)

  test.each<[string, () => unknown, RegExp]>([
    ['an unknown event', () => use('EventFoo', named('a')), /event must be EventConnect \| EventOnSend .*got "EventFoo"/],
    ['a name from the prototype of all objects', () => use('toString', named('a')), /event must be .*got "toString"/],
    ['no handler', () => use(EVENT, undefined), /handler must be a function, got undefined/],
    ['something else than a handler', () => use(EVENT, {}), /handler must be a function, got a Object/],
    ['an unknown step to go before', () => use(EVENT, named('a'), { before: 'foo' }), /options\.before must be a step of EventOnSend \(check, ask, accept, tell\), got "foo"/],
    ['an unknown step to go behind', () => use(EVENT, named('a'), { after: 'foo' }), /options\.after must be a step of EventOnSend .*got "foo"/],
    ['two places', () => use(EVENT, named('a'), { before: 'ask', after: 'check' }), /\{ before \} or \{ after \}, not both/],
    ['a function without a name', () => use(EVENT, named('')), /options\.name must be given/],
    ['the name of a built-in step', () => use(EVENT, named('check')), /EventOnSend has a step of that name, got "check"/],
    ['a time-out of 0', () => use(EVENT, named('a'), { timeoutMs: 0 }), /options\.timeoutMs must be a positive number of milliseconds, got 0/],
    ['a time-out of NaN', () => use(EVENT, named('a'), { timeoutMs: Number.NaN }), /timeoutMs .*got NaN/],
    ['no end at all', () => use(EVENT, named('a'), { timeoutMs: Infinity }), /timeoutMs .*got Infinity/],
    ['a time-out as text', () => use(EVENT, named('a'), { timeoutMs: '5' }), /timeoutMs .*got "5"/],
    ['a priority that is no number', () => use(EVENT, named('a'), { priority: 'high' }), /options\.priority must be a finite number, got "high"/],
    ['an unknown policy', () => use(EVENT, named('a'), { onError: 'ignore' }), /options\.onError must be 'fail-closed' or 'fail-open', got "ignore"/],
    ['a time-out of 0 for a replacement', () => chains.replace(EVENT, 'ask', named('a'), { timeoutMs: 0 }), /options\.timeoutMs must be/],
    ['an unknown step to replace', () => chains.replace(EVENT, 'foo', named('a')), /stepName must be a step of EventOnSend .*got "foo"/],
    ['nothing to replace it with', () => chains.replace(EVENT, 'ask', undefined as never), /handler must be a function/],
    ['the names of an unknown event', () => chains.names('EventFoo' as EventName), /event must be .*got "EventFoo"/],
  ])('%s', (_what, call, message) => {
    expect(call).toThrow(TypeError)
    expect(call).toThrow(message)
    expect(chains.names(EVENT)).toEqual(['check', 'ask', 'accept', 'tell'])
  })

  test('a name that another handler has already', () => {
    const own = registry()
    own.use(EVENT, named('mine'))
    expect(() => own.use(EVENT, named('mine'))).toThrow(/has a step of that name, got "mine"/)
    expect(() => own.use(EVENT, named('mine'), { name: 'mine too' })).not.toThrow()
  })
})

describe('a change', () => {
  class TestEvent extends EngineEvent {
    readonly event = EVENT
    protected readonly waits = new Waits()
    describe(): object {
      return {}
    }
  }

  test('concerns events that start later: one under way keeps the chain it started with', async () => {
    const chains = registry()
    const answer = deferred()
    const ran: string[] = []
    chains.replace(EVENT, 'ask', () => answer.promise)
    chains.replace(EVENT, 'tell', () => void ran.push('old tell'))
    const runner = new ChainRunner({ timers: new ManualTimers(), report: vi.fn() })
    const underWay = runner.run(chains.current<TestEvent>(EVENT), new TestEvent())
    chains.replace(EVENT, 'tell', () => void ran.push('new tell'))
    chains.use(EVENT, () => void ran.push('added'), { name: 'added' })
    answer.resolve()
    await underWay
    expect(ran).toEqual(['old tell'])
    await runner.run(chains.current<TestEvent>(EVENT), new TestEvent())
    expect(ran).toEqual(['old tell', 'added', 'new tell'])
  })
})
