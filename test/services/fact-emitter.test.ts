import { describe, expect, test, vi } from 'vitest'
import { allowAnyToken, IMEngine } from 'imengine'
import { FakeClock, recordingLogger } from 'imengine/testing'
import type { ConnectionInfo } from '../../src/contracts/facts.ts'
import { IMError } from '../../src/errors.ts'
import { FactEmitter } from '../../src/services/fact-emitter.ts'
import { settled } from '../events/workload.ts'

const ANN: ConnectionInfo = {
  connectionID: '1', uid: 'ann', deviceID: 'phone', deviceFlag: 0, deviceLevel: 0, version: 5, remoteAddress: undefined, connectedAtMs: 0,
}

function setUp() {
  const logger = recordingLogger()
  const facts = new FactEmitter(logger)
  const errors: IMError[] = []
  return { logger, facts, errors, collectErrors: () => void facts.on('error', (error) => void errors.push(error)) }
}

describe('listeners', () => {
  test('all hear a fact, in the order in which they came', () => {
    const { facts } = setUp()
    const heard: string[] = []
    facts.on('connected', ({ uid }) => void heard.push(`first ${uid}`))
    facts.on('connected', ({ uid }) => void heard.push(`second ${uid}`))
    facts.emit('connected', ANN)
    expect(heard).toEqual(['first ann', 'second ann'])
  })

  test('has() says whether anybody listens', () => {
    const { facts } = setUp()
    const listener = (): void => undefined
    expect(facts.has('connected')).toBe(false)
    facts.on('connected', listener)
    expect(facts.has('connected')).toBe(true)
    facts.off('connected', listener)
    expect(facts.has('connected')).toBe(false)
  })

  test.each([
    ['throws', () => { throw new Error('boom') }],
    ['rejects', () => Promise.reject(new Error('boom'))],
    ['throws something else than an error', () => { throw 'boom' as unknown as Error }],
  ])('one that %s is reported once as IM_LISTENER_FAILED and the next one hears the fact', async (_manner, fail) => {
    const { facts, errors, collectErrors } = setUp()
    collectErrors()
    const next = vi.fn()
    facts.on('connected', fail)
    facts.on('connected', next)
    expect(() => facts.emit('connected', ANN)).not.toThrow()
    await settled()
    expect(next).toHaveBeenCalledTimes(1)
    expect(errors.map((error) => [error.code, error.context.event])).toEqual([['IM_LISTENER_FAILED', 'connected']])
  })

  test('one that leaves while a fact is told does not keep the next one from hearing it', () => {
    const { facts } = setUp()
    const next = vi.fn()
    const leaves = (): void => void facts.off('connected', leaves)
    facts.on('connected', leaves)
    facts.on('connected', next)
    facts.emit('connected', ANN)
    facts.emit('connected', ANN)
    expect(next).toHaveBeenCalledTimes(2)
  })
})

describe("'error'", () => {
  test('is told with one log line, which holds the code and where, also when nobody listens', () => {
    const { facts, logger } = setUp()
    expect(() => facts.report(new IMError('IM_STORE_UNAVAILABLE', { cause: new Error('disk'), context: { uid: 'ann' } }))).not.toThrow()
    expect(logger.lines).toEqual([
      { level: 'error', fields: { code: 'IM_STORE_UNAVAILABLE', uid: 'ann', cause: 'Error' }, message: 'the message store did not answer' },
    ])
  })

  test.each([
    ['throws', () => { throw new Error('boom') }],
    ['rejects', () => Promise.reject(new Error('boom'))],
  ])("a listener of it that %s is logged, not told again, and the next one hears it", async (_manner, fail) => {
    const { facts, logger } = setUp()
    const next = vi.fn()
    const failing = vi.fn(fail)
    facts.on('error', failing)
    facts.on('error', next)
    expect(() => facts.report(new IMError('IM_STORE_UNAVAILABLE'))).not.toThrow()
    await settled()
    expect(failing).toHaveBeenCalledTimes(1)
    expect(next).toHaveBeenCalledTimes(1)
    expect(logger.at('error').map((line) => line.fields['code'])).toEqual(['IM_STORE_UNAVAILABLE', 'IM_LISTENER_FAILED'])
  })
})

describe('at the engine', () => {
  async function running() {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock: new FakeClock() })
    await engine.start()
    return engine
  }
  const stored = async (engine: IMEngine): Promise<void> => {
    await engine.messages.send({ channelID: 'bob', channelType: 1, fromUID: 'ann', payload: Buffer.from('hi') })
  }

  test('a once listener hears one fact', async () => {
    await using engine = await running()
    const listener = vi.fn()
    engine.once('messageStored', listener)
    await stored(engine)
    await stored(engine)
    expect(listener).toHaveBeenCalledTimes(1)
  })

  test('a once listener that rejects is reported as any other', async () => {
    await using engine = await running()
    const unhandled: unknown[] = []
    const onUnhandled = (reason: unknown): void => void unhandled.push(reason)
    process.on('unhandledRejection', onUnhandled)
    const errors: string[] = []
    engine.on('error', (error) => void errors.push(error.code))
    const rejects = (): Promise<never> => Promise.reject(new Error('boom'))
    engine.once('messageStored', () => rejects() as unknown as void)
    await stored(engine)
    await settled()
    await settled()
    process.off('unhandledRejection', onUnhandled)
    expect(unhandled).toEqual([])
    expect(errors).toEqual(['IM_LISTENER_FAILED'])
  })

  test('off takes a once listener out, too', async () => {
    await using engine = await running()
    const listener = vi.fn()
    engine.once('messageStored', listener)
    engine.off('messageStored', listener)
    await stored(engine)
    expect(listener).not.toHaveBeenCalled()
  })

  test('a listener that throws does not keep the message from its receiver', async () => {
    await using engine = await running()
    engine.on('messageStored', () => {
      throw new Error('boom')
    })
    await expect(stored(engine)).resolves.toBeUndefined()
    await expect(engine.messages.lastSeq({ channelID: 'bob@ann', channelType: 1 })).resolves.toBeGreaterThanOrEqual(0)
  })
})
