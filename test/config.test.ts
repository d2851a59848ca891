import { describe, expect, test } from 'vitest'
import {
  allowAnyToken, IMEngine, LIMITS, memoryPeerHub, memoryPresence, memoryReplicatorHub, memoryStorage, type IMEngineOptions, type Limits,
} from 'imengine'
import { FakeClock, recordingLogger, seededRandom } from 'imengine/testing'
import { checkOptions } from '../src/config.ts'

const GOOD: IMEngineOptions = { tokenVerifier: allowAnyToken() }

/** What the constructor says to options that are wrong. */
function complaint(options: unknown): string {
  try {
    new IMEngine(options as IMEngineOptions)
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError)
    return (error as TypeError).message
  }
  throw new Error('it was taken')
}

const limitNames = Object.keys(LIMITS) as (keyof Limits)[]

describe('options', () => {
  test('need nothing but a token verifier', () => {
    const engine = new IMEngine(GOOD)
    expect(engine.nodeID).toBe(1)
    expect(engine.state).toBe('new')
    for (const name of limitNames) expect(engine.limits[name]).toBe(LIMITS[name].default)
  })

  test('may all be given at once', () => {
    const clock = new FakeClock()
    const options: Required<IMEngineOptions> = {
      tokenVerifier: () => ({ ok: true }),
      nodeID: 1022,
      storage: memoryStorage(),
      webhook: { beforeSend: () => ({ code: 0 }), notify: () => undefined },
      presence: memoryPresence({ nowMs: () => clock.monotonicMs() }),
      replicator: memoryReplicatorHub().replicator(),
      peerPush: memoryPeerHub().peer(),
      logger: recordingLogger(),
      clock,
      random: seededRandom(1),
      ack: 'accepted',
      plaintext: 'allow',
      payloadCrypto: 'wasm',
      slowConsumer: 'skip',
      whenIsolated: 'keep',
      offline: 'none',
      isOffline: () => true,
      kickPolicy: () => 'keep',
      authorizeSend: () => undefined,
      systemUIDs: ['system'],
      limits: {},
    }
    expect(() => new IMEngine(options)).not.toThrow()
  })

  test('that are undefined count as not given', () => {
    const undefinedOnes = Object.fromEntries(['nodeID', 'storage', 'webhook', 'logger', 'clock', 'ack', 'limits', 'kickPolicy', 'systemUIDs'].map((name) => [name, undefined]))
    expect(() => new IMEngine({ ...GOOD, ...undefinedOnes })).not.toThrow()
    expect(() => new IMEngine({ ...GOOD, limits: { maxQueued: undefined } as unknown as Partial<Limits> })).not.toThrow()
  })
})

const storage = memoryStorage()
const contract = (methods: readonly string[]): Record<string, unknown> => Object.fromEntries(methods.map((name) => [name, () => undefined]))
const contracts: Record<string, readonly string[]> = {
  presence: ['online', 'offline', 'locate', 'devices', 'heartbeat', 'leave'],
  replicator: ['start', 'propose', 'close'],
  peerPush: ['start', 'push', 'kick', 'close'],
  logger: ['debug', 'info', 'warn', 'error'],
  clock: ['nowMs', 'monotonicMs', 'setTimer', 'clearTimer', 'defer'],
  random: ['bytes'],
}

describe('a wrong option is a TypeError that names it, what was expected and what came', () => {
  test.each<[option: string, wrong: unknown, expected: string, got: string]>([
    ['tokenVerifier', undefined, 'a function; allowAnyToken() lets everyone in', 'undefined'],
    ['tokenVerifier', null, 'a function', 'null'],
    ['tokenVerifier', 'secret', 'a function', 'a string'],
    ['tokenVerifier', {}, 'a function', 'a Object'],
    ['nodeID', -1, 'an integer from 0 to 1022', '-1'],
    ['nodeID', 1023, 'an integer from 0 to 1022', '1023'],
    ['nodeID', 1.5, 'an integer', '1.5'],
    ['nodeID', '1', 'an integer', '"1"'],
    ['nodeID', Number.NaN, 'an integer', 'NaN'],
    ['nodeID', null, 'an integer', 'null'],
    ['storage', null, 'an object', 'null'],
    ['storage', 'memory', 'an object', '"memory"'],
    ['webhook', null, 'an object', 'null'],
    ['webhook', 'https://example.org/hook', 'an object', '"https://example.org/hook"'],
    ['webhook', { events: ['msg.notfy'] }, 'an array of msg.notify, msg.offline, user.onlinestatus', 'an array of 1'],
    ['presence', true, 'an object', 'true'],
    ['replicator', 7, 'an object', '7'],
    ['peerPush', [], 'a function', 'undefined'],
    ['logger', () => undefined, 'an object', 'a function'],
    ['clock', null, 'an object', 'null'],
    ['random', Math.random, 'an object', 'a function'],
    ['ack', 'stored', "'committed' or 'accepted'", '"stored"'],
    ['ack', true, "'committed' or 'accepted'", 'true'],
    ['ack', null, "'committed' or 'accepted'", 'null'],
    ['plaintext', false, "'refuse' or 'allow'", 'false'],
    ['plaintext', 'Allow', "'refuse' or 'allow'", '"Allow"'],
    ['payloadCrypto', 'wasm32', "'auto' or 'wasm' or 'node'", '"wasm32"'],
    ['payloadCrypto', true, "'auto' or 'wasm' or 'node'", 'true'],
    ['slowConsumer', 'drop', "'disconnect' or 'skip'", '"drop"'],
    ['whenIsolated', 'wait', "'close' or 'keep'", '"wait"'],
    ['kickPolicy', 'keep', 'a function', '"keep"'],
    ['kickPolicy', null, 'a function', 'null'],
    ['authorizeSend', ['members'], 'a function', 'an array of 1'],
    ['systemUIDs', 'system', 'an array of strings', '"system"'],
    ['systemUIDs', ['system', 7], 'an array of strings', 'an array of 2'],
    ['systemUIDs', new Set(['system']), 'an array of strings', 'a Set'],
    ['systemUIDs', null, 'an array of strings', 'null'],
    ['limits', null, 'an object', 'null'],
    ['limits', 5, 'an object', '5'],
    ['nodeID', 1n, 'an integer', '1n'],
  ])('%s: %o', (option, wrong, expected, got) => {
    const message = complaint({ ...GOOD, [option]: wrong })
    expect(message).toContain(`imengine: options.${option}`)
    expect(message).toContain(expected)
    expect(message).toMatch(new RegExp(`got ${got.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`))
  })

  test.each([[undefined], [null], ['options'], [5]])('no options at all: %j', (options) => {
    expect(complaint(options)).toMatch(/^imengine: options must be an object, got /)
  })

  test.each(['tokenVerifer', 'nodeId', 'NODEID', 'toString', 'constructor'])('an option that does not exist: %s', (name) => {
    const message = complaint({ ...GOOD, [name]: 1 })
    expect(message).toContain(`imengine: options.${name} must be left out: there is no such option`)
    expect(message).toContain('tokenVerifier')
  })

  test('a long text is cut, so that a secret in the wrong place does not fill the log', () => {
    expect(complaint({ ...GOOD, ack: 'x'.repeat(500) }).length).toBeLessThan(200)
  })
})

describe('an adapter that lacks a method is a TypeError that names the method', () => {
  test.each(Object.entries(contracts).flatMap(([option, methods]) => methods.map((method) => [option, method, methods] as const)))(
    '%s.%s',
    (option, method, methods) => {
      expect(complaint({ ...GOOD, [option]: { ...contract(methods), [method]: undefined } })).toBe(
        `imengine: options.${option}.${method} must be a function, got undefined`,
      )
      expect(complaint({ ...GOOD, [option]: { ...contract(methods), [method]: 5 } })).toBe(`imengine: options.${option}.${method} must be a function, got 5`)
    },
  )

  test.each<[part: 'messages' | 'channels' | 'cursors', methods: string[]]>([
    ['messages', ['append', 'range', 'lastSeq', 'findByClientMsgNo', 'get', 'truncate', 'summaries', 'countAfter', 'personChannelsOf', 'revise']],
    ['channels', [
      'channel', 'putChannel', 'removeChannel', 'member', 'putMembers', 'removeMembers', 'members', 'channelsOf', 'isListed', 'isListEmpty',
      'addToList', 'removeFromList', 'listed', 'userFlags', 'setUserFlags',
    ]],
    ['cursors', ['cursor', 'cursors', 'advance', 'put', 'remove', 'flush', 'hide', 'hidden']],
  ])('storage.%s', (part, methods) => {
    for (const method of methods) {
      const without = { ...contract(methods), [method]: undefined }
      expect(complaint({ ...GOOD, storage: { ...storage, [part]: without } })).toBe(`imengine: options.storage.${part}.${method} must be a function, got undefined`)
    }
    expect(() => new IMEngine({ ...GOOD, storage: { ...storage, [part]: contract(methods) } })).not.toThrow()
    expect(complaint({ ...GOOD, storage: { ...storage, [part]: undefined } })).toBe(`imengine: options.storage.${part} must be an object, got undefined`)
  })

  test.each<[part: 'tokens' | 'outbox', methods: string[]]>([
    ['tokens', ['token', 'putToken', 'removeToken']],
    ['outbox', ['add', 'list', 'remove', 'count']],
  ])('storage.%s, which may be left out', (part, methods) => {
    expect(() => new IMEngine({ ...GOOD, storage: { ...storage, [part]: undefined } })).not.toThrow()
    expect(() => new IMEngine({ ...GOOD, storage: { ...storage, [part]: contract(methods) } })).not.toThrow()
    expect(complaint({ ...GOOD, storage: { ...storage, [part]: null } })).toBe(`imengine: options.storage.${part} must be an object, got null`)
    for (const method of methods) {
      const without = { ...contract(methods), [method]: undefined }
      expect(complaint({ ...GOOD, storage: { ...storage, [part]: without } })).toBe(`imengine: options.storage.${part}.${method} must be a function, got undefined`)
    }
  })

  test('storage.channels.systemUIDs may be left out, but not be something else', () => {
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(storage.channels)).filter((name) => name !== 'systemUIDs')
    expect(() => new IMEngine({ ...GOOD, storage: { ...storage, channels: contract(methods) } as never })).not.toThrow()
    expect(complaint({ ...GOOD, storage: { ...storage, channels: { ...contract(methods), systemUIDs: ['bot'] } } })).toBe(
      'imengine: options.storage.channels.systemUIDs must be a function, or left out, got an array of 1',
    )
  })

  test.each([
    ['webhook', 'beforeSend', {}],
    ['webhook', 'notify', {}],
    ['storage', 'open', storage],
    ['storage', 'close', storage],
  ])('%s.%s may be left out, but not be something else', (option, method, good) => {
    expect(() => new IMEngine({ ...GOOD, [option]: { ...good, [method]: undefined } })).not.toThrow()
    expect(complaint({ ...GOOD, [option]: { ...good, [method]: 'https://example.org' } })).toMatch(
      new RegExp(`^imengine: options\\.${option}\\.${method} must be a function`),
    )
  })

  test('methods of a class count as well as those of a literal', () => {
    class Silent {
      debug(): void {}
      info(): void {}
      warn(): void {}
      error(): void {}
    }
    expect(() => new IMEngine({ ...GOOD, logger: new Silent() })).not.toThrow()
  })
})

describe('limits', () => {
  test.each(limitNames)('%s: its least and its most are taken, one beyond either is not', (name) => {
    const { min, max, default: byDefault } = LIMITS[name]
    expect(min).toBeLessThanOrEqual(byDefault)
    expect(byDefault).toBeLessThanOrEqual(max)
    for (const value of [min, byDefault, max]) expect(checkOptions({ ...GOOD, limits: { [name]: value } })[name]).toBe(value)
    for (const value of [min - 1, max + 1]) {
      expect(complaint({ ...GOOD, limits: { [name]: value } })).toBe(`imengine: options.limits.${name} must be an integer from ${min} to ${max}, got ${value}`)
    }
  })

  test('0 is taken where it switches something off, and nowhere else', () => {
    expect(limitNames.filter((name) => LIMITS[name].min === 0)).toEqual([
      'kickLingerMs', 'redeliverAfterMs', 'maxRedeliveries', 'sweepIntervalMs', 'webhookBatchMs', 'webhookRetryForMs', 'maxConnectionsPerAddress', 'maxSendsPerSecond', 'maxSendsPerSecondPerUID', 'subscriberCacheMs', 'permissionCacheMs', 'maxCachedMembers', 'stepTimesEvery', 'storageFailureMs', 'maxLogLinesPerSecond', 'tracedMessages',
    ])
  })

  test.each(limitNames)('%s: is an integer and nothing else', (name) => {
    for (const value of [LIMITS[name].min + 0.5, '5', null, true, Number.NaN, Number.POSITIVE_INFINITY, [], {}, 5n]) {
      expect(complaint({ ...GOOD, limits: { [name]: value } })).toContain(`imengine: options.limits.${name} must be an integer from`)
    }
  })

  test('one that is given changes no other', () => {
    const limits = checkOptions({ ...GOOD, limits: { maxQueued: 7 } })
    expect(limits).toEqual({ ...checkOptions(GOOD), maxQueued: 7 })
  })

  test.each(['maxQueue', 'toString', 'hasOwnProperty', '__proto__x'])('one that does not exist is a TypeError: %s', (name) => {
    expect(complaint({ ...GOOD, limits: { [name]: 1 } })).toBe(`imengine: options.limits.${name} must be left out: there is no such limit, got 1`)
  })

  test('a mistake in one option of two engines concerns that engine only', () => {
    expect(() => complaint({ ...GOOD, limits: { maxQueued: -1 } })).not.toThrow()
    expect(checkOptions(GOOD).maxQueued).toBe(LIMITS.maxQueued.default)
  })
})
