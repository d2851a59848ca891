import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { allowAnyToken, IMEngine, IMError, memoryStorage, ReasonCode, refuse, type EventState, type Plugin, type PluginHost } from 'imengine'
import { FakeClock, recordingLogger } from 'imengine/testing'
import { deferred, stage, TEAM, type Stage } from '../support.ts'

declare module 'imengine' {
  interface EventState {
    spamScore?: number
  }
}

const never = (): Promise<never> => new Promise(() => undefined)
const hello = { ...TEAM, fromUID: 'ann', payload: Buffer.from('hello') }

/** A plugin named `p` whose `setup` is this. */
const plugin = (setup: (host: PluginHost) => void, name = 'p'): Plugin => ({ name, setup })

/** The host of an empty plugin. */
function hostOf(engine: IMEngine, name = 'p'): PluginHost {
  let given!: PluginHost
  engine.use(plugin((host) => void (given = host), name))
  return given
}

/** Counts who asks to be called at the end of a turn. */
class CountingClock extends FakeClock {
  deferCount = 0

  override defer(run: () => void): void {
    this.deferCount++
    super.defer(run)
  }
}

/** A plugin with everything that one can have, and handlers of the host, used and gone again; no frame of the test's may hold them. */
async function comeAndGo({ engine, connect, clock }: Stage): Promise<ReadonlyMap<string, WeakRef<object>>> {
  const refs = new Map<string, WeakRef<object>>()
  const watched = <T extends object>(what: string, value: T): T => (refs.set(what, new WeakRef(value)), value)
  const everything: Plugin<object> = {
    name: 'p',
    setup: (host) => {
      watched('host', host)
      host.use('EventOnSend', watched('handler', function look() {}))
      host.replace('EventOnSend', 'callWebhook', watched('replacement', () => undefined))
      host.on('messageStored', watched('listener', () => undefined))
      host.once('messageStored', watched('listener of once', () => undefined))
      host.once('webhookGivenUp', watched('listener of once that hears nothing', () => undefined))
      host.timers.every(10, watched('function of every', () => undefined))
      host.timers.after(60_000, watched('function of after', () => undefined))
      host.onStart(watched('function of onStart', () => undefined))
      host.onClose(watched('function of onClose', () => undefined))
    },
  }
  engine.use(watched('plugin', everything), watched('options', {}))
  const undoUse = engine.use('EventOnSend', watched("the host's handler", function see() {}))
  const undoReplace = engine.replace('EventOnSend', 'checkPermission', () => undefined)
  const { client } = await connect('ann')
  await client.send({ ...TEAM, payload: 'hello' })
  await clock.advance(100)
  undoUse()
  undoReplace()
  await engine.plugins.remove('p')
  await client.send({ ...TEAM, payload: 'again' })
  return refs
}

/** What is still there after a collection. */
async function livingOf(refs: ReadonlyMap<string, WeakRef<object>>): Promise<string[]> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  await new Promise((resolve) => setImmediate(resolve)) // until the end of its turn a WeakRef holds what it was made of
  collect()
  return [...refs].flatMap(([what, ref]) => (ref.deref() === undefined ? [] : [what]))
}

describe('what a plugin is given', () => {
  test('is the engine by other means', async () => {
    const { engine } = await stage({ nodeID: 7 })
    const host = hostOf(engine)
    expect(host).toMatchObject({ name: 'p', nodeID: 7, limits: engine.limits })
    for (const api of ['channels', 'connections', 'conversations', 'users'] as const) expect(host[api]).toBe(engine[api])
    expect(host.steps('EventPing')).toEqual(engine.steps('EventPing'))
    await host.messages.send(hello)
    expect(await host.messages.lastSeq(TEAM)).toBe(1)
  })

  test('and its own options', async () => {
    const { engine } = await stage()
    const given: unknown[] = []
    const greeter: Plugin<{ readonly text: string }> = { name: 'greeter', setup: (_host, { text }) => void given.push(text) }
    engine.use(greeter, { text: 'hi' })
    const shy: Plugin<{ readonly text: string } | undefined> = { name: 'shy', setup: (_host, options) => void given.push(options) }
    engine.use(shy)
    expect(given).toEqual(['hi', undefined])
    // @ts-expect-error: it cannot do without
    expect(() => engine.use({ ...greeter, name: 'another' })).toThrow()
  })

  test('a step of its own is called after it, in the chain, in the list and in errors', async () => {
    const { engine, connect, errors } = await stage()
    const host = hostOf(engine)
    host.use('EventOnSend', function check() {
      throw new Error('cannot')
    }, { after: 'checkPermission' })
    host.replace('EventOnSend', 'callWebhook', () => undefined)
    expect(engine.steps('EventOnSend')).toEqual(['checkPermission', 'p:check', 'callWebhook', 'acceptSend'])
    expect(engine.plugins.list()).toEqual([{
      name: 'p',
      steps: [{ event: 'EventOnSend', name: 'p:check', isReplacement: false }, { event: 'EventOnSend', name: 'callWebhook', isReplacement: true }],
    }])
    const { client } = await connect('ann')
    await client.send({ ...TEAM, payload: 'x' })
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_HANDLER_FAILED', 'p:check']])
  })

  test('an error in what it has put in the place of a step names it, too, also one of time', async () => {
    const { engine, connect, clock, errors } = await stage()
    hostOf(engine).replace('EventOnSend', 'checkPermission', never, { timeoutMs: 200 })
    const { client } = await connect('ann')
    const answered = client.send({ ...TEAM, payload: 'x' })
    await clock.advance(400)
    expect((await answered).reasonCode).toBe(ReasonCode.SystemError)
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_HANDLER_TIMEOUT', 'p:checkPermission']])
  })

  test('two plugins may call their handlers by the same name', async () => {
    const { engine } = await stage()
    for (const name of ['a', 'b']) hostOf(engine, name).use('EventPing', function count() {})
    expect(engine.steps('EventPing')).toEqual(['sendPong', 'a:count', 'b:count'])
    expect(() => hostOf(engine, 'c').use('EventPing', () => undefined)).toThrow(/options\.name must be given/)
  })

  test('a listener that throws or rejects is reported under its name, and the others hear the fact all the same', async () => {
    const { engine, clock, errors } = await stage()
    const heard: string[] = []
    hostOf(engine, 'a').on('messageStored', () => {
      throw new Error('cannot')
    })
    hostOf(engine, 'b').on('messageStored', async () => {
      await Promise.resolve()
      throw new Error('cannot')
    })
    hostOf(engine, 'c').on('messageStored', () => heard.push('c'))
    await engine.messages.send(hello)
    await clock.settle()
    expect(errors.map(({ code, context }) => [code, context.event, context.step])).toEqual([
      ['IM_LISTENER_FAILED', 'messageStored', 'a'], ['IM_LISTENER_FAILED', 'messageStored', 'b'],
    ])
    expect(heard).toEqual(['c'])
  })

  test('off takes out what on and once have put in, and once hears one fact', async () => {
    const { engine } = await stage()
    const host = hostOf(engine)
    const heard: string[] = []
    const kept = (): unknown => heard.push('kept')
    const left = (): unknown => heard.push('left')
    host.on('messageStored', kept).once('messageStored', () => heard.push('once'))
    host.on('messageStored', left).once('messageStored', left).off('messageStored', left)
    for (let count = 0; count < 2; count++) await host.messages.send(hello)
    expect(heard).toEqual(['kept', 'once', 'kept'])
  })

  test('a line of its log carries its name', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger })
    hostOf(engine).logger.warn({ wordCount: 3 }, 'a few words')
    expect(logger.lines).toContainEqual({ level: 'warn', fields: { wordCount: 3, plugin: 'p' }, message: 'a few words' })
  })

  test('a note on ctx.state goes along the chain of one event, with its type', async () => {
    const { engine, connect } = await stage()
    const scores: unknown[] = []
    hostOf(engine, 'scorer').use('EventOnSend', function score({ state, payload }) {
      state.spamScore = (state.spamScore ?? 0) + payload.length
    })
    hostOf(engine, 'judge').use('EventOnSend', function judge({ state }) {
      expectTypeOf(state.spamScore).toEqualTypeOf<number | undefined>()
      // @ts-expect-error: it is a number
      state.spamScore satisfies string | undefined
      scores.push(state.spamScore)
      if (state.spamScore! > 5) return refuse(ReasonCode.NotAllowSend)
    })
    expectTypeOf<EventState['anything else']>().toEqualTypeOf<unknown>()
    const { client } = await connect('ann')
    expect((await client.send({ ...TEAM, payload: '12345' })).reasonCode).toBe(ReasonCode.Success)
    expect((await client.send({ ...TEAM, payload: '123456' })).reasonCode).toBe(ReasonCode.NotAllowSend)
    expect(scores).toEqual([5, 6])
  })
})

describe('timers', () => {
  test('after fires once and every again and again, until they are cancelled', async () => {
    const { engine, clock } = await stage()
    const { timers } = hostOf(engine)
    const fired: string[] = []
    timers.after(100, () => fired.push('after'))
    timers.after(100, () => fired.push('cancelled'))()
    const stop = timers.every(50, () => fired.push('every'))
    await clock.advance(120)
    stop()
    await clock.advance(1_000)
    expect(fired).toEqual(['every', 'after', 'every'])
  })

  test('a run of every that is still going on is not overlapped', async () => {
    const { engine, clock } = await stage()
    const gate = deferred()
    let count = 0
    hostOf(engine).timers.every(10, () => (count++, gate.promise))
    await clock.advance(100)
    expect(count).toBe(1)
    gate.resolve()
    await clock.advance(10)
    expect(count).toBe(2)
  })

  test('a throw and a rejection are reported with the name of the plugin, and every goes on', async () => {
    const { engine, clock, errors } = await stage()
    const { timers } = hostOf(engine)
    timers.after(10, () => {
      throw new Error('cannot')
    })
    timers.every(20, () => Promise.reject(new Error('cannot either')))
    await clock.advance(50)
    expect(errors.map(({ code, context, cause }) => [code, context.step, (cause as Error).message])).toEqual([
      ['IM_HANDLER_FAILED', 'p', 'cannot'], ['IM_HANDLER_FAILED', 'p', 'cannot either'], ['IM_HANDLER_FAILED', 'p', 'cannot either'],
    ])
  })

  test.each([-1, 0.5, Number.NaN, 2 ** 31, '5'])('a delay of %s is a TypeError', async (delayMs) => {
    const { timers } = hostOf((await stage()).engine)
    expect(() => timers.after(delayMs as number, () => undefined)).toThrow(/delayMs must be an integer/)
    expect(() => timers.every(delayMs as number, () => undefined)).toThrow(/intervalMs must be an integer/)
  })
})

describe('the life of a plugin', () => {
  const engineWith = (clock = new FakeClock()): IMEngine => new IMEngine({ tokenVerifier: allowAnyToken(), clock })

  test('start waits for onStart in the order of the plugins, before the engine runs', async () => {
    const engine = engineWith()
    const seen: string[] = []
    const gate = deferred()
    hostOf(engine, 'a').onStart(async () => {
      await gate.promise
      seen.push(`a ${engine.state}`)
    })
    hostOf(engine, 'b').onStart(() => void seen.push(`b ${engine.state}`))
    const started = engine.start()
    gate.resolve()
    await started
    expect(seen).toEqual(['a starting', 'b starting'])
    hostOf(engine, 'c').onStart(() => void seen.push(`c ${engine.state}`))
    expect(seen).toEqual(['a starting', 'b starting', 'c running'])
    await engine.close()
  })

  test('a rejection of onStart fails start, closes what was open, and says which plugin it was', async () => {
    let closedCount = 0
    const storage = { ...memoryStorage(), close: () => void closedCount++ }
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock: new FakeClock(), storage })
    const ended: string[] = []
    const host = hostOf(engine)
    host.onStart(() => Promise.reject(new Error('no word list')))
    host.onClose(() => void ended.push('p'))
    const error = await engine.start().catch((reason: unknown) => reason as IMError)
    expect(error).toBeInstanceOf(IMError)
    expect(error).toMatchObject({ code: 'IM_HANDLER_FAILED', context: { step: 'p' }, cause: new Error('no word list') })
    expect([engine.state, closedCount, ended]).toEqual(['closed', 1, ['p']])
  })

  test('an onStart that hangs does not keep a closing engine from closing its storage', async () => {
    const clock = new FakeClock()
    const order: string[] = []
    const storage = { ...memoryStorage(), close: () => void order.push('storage') }
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage })
    const host = hostOf(engine)
    host.onStart(never)
    host.onStart(() => void order.push('second onStart'))
    host.onClose(() => void order.push('onClose'))
    const started = expect(engine.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    await clock.settle()
    const closing = engine.close()
    await clock.advance(engine.limits.closeTimeoutMs)
    await closing
    await started
    expect([engine.state, order]).toEqual(['closed', ['onClose', 'storage']])
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('a rejection of onStart in an engine that runs is reported', async () => {
    const { engine, clock, errors } = await stage()
    hostOf(engine).onStart(() => Promise.reject(new Error('no word list')))
    await clock.settle()
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_HANDLER_FAILED', 'p']])
  })

  test('close calls onClose backwards, when everything has been drained and before storage closes', async () => {
    const order: string[] = []
    const storage = { ...memoryStorage(), close: () => void order.push('storage') }
    const { engine, connect, clock, errors } = await stage({ storage })
    for (const name of ['a', 'b']) {
      const host = hostOf(engine, name)
      for (const number of [1, 2]) host.onClose(() => void order.push(`${name}${number}`))
    }
    hostOf(engine, 'c').on('messageStored', () => order.push('stored')).on('disconnected', () => order.push('disconnected'))
    hostOf(engine, 'd').onClose(() => Promise.reject(new Error('cannot')))
    const { client } = await connect('ann')
    void client.send({ ...TEAM, payload: 'x' }).catch(() => undefined)
    await clock.settle()
    await engine.close()
    expect(order).toEqual(['stored', 'disconnected', 'b2', 'b1', 'a2', 'a1', 'storage'])
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_HANDLER_FAILED', 'd']])
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('an onClose that hangs is left after closeTimeoutMs, and the others are called', async () => {
    const { engine, clock, errors } = await stage()
    const called: string[] = []
    hostOf(engine, 'a').onClose(() => void called.push('a'))
    hostOf(engine, 'b').onClose(never)
    const closing = engine.close()
    await clock.advance(engine.limits.closeTimeoutMs)
    await closing
    expect(called).toEqual(['a'])
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_CLOSE_TIMEOUT', 'b']])
  })

  test('its timers run while it closes, then they end and its signal is aborted', async () => {
    const { engine, clock } = await stage()
    const host = hostOf(engine)
    const waited = deferred()
    const seen: string[] = []
    host.timers.every(1_000_000, () => undefined)
    host.onClose(async () => {
      host.timers.after(50, () => waited.resolve())
      await waited.promise
      seen.push(`aborted: ${host.signal.aborted}`)
    })
    const closing = engine.close()
    await clock.advance(50)
    await closing
    expect([...seen, host.signal.aborted, clock.pendingTimerCount]).toEqual(['aborted: false', true, 0])
    host.timers.after(1, () => seen.push('too late'))
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('an engine that was never started closes its plugins, too', async () => {
    const engine = engineWith()
    const host = hostOf(engine)
    let isClosed = false
    host.onClose(() => void (isClosed = true))
    await engine.close()
    expect([isClosed, host.signal.aborted]).toEqual([true, true])
    expect(() => engine.use(plugin(() => undefined, 'late'))).toThrow(expect.objectContaining({ code: 'IM_NOT_RUNNING' }))
  })

  test('remove takes out handlers and listeners at once, calls onClose, and leaves the others', async () => {
    const { engine, clock } = await stage()
    const gate = deferred()
    const heard: string[] = []
    const host = hostOf(engine)
    host.use('EventPing', function count() {})
    host.replace('EventPing', 'sendPong', () => undefined)
    host.on('messageStored', () => heard.push('p'))
    host.timers.every(10, () => heard.push('tick'))
    host.onClose(() => gate.promise)
    hostOf(engine, 'other').use('EventPing', function count() {})
    const removing = engine.plugins.remove('p')
    expect(engine.steps('EventPing')).toEqual(['sendPong', 'other:count'])
    expect(engine.plugins.list().map(({ name }) => name)).toEqual(['other'])
    expect(() => engine.use(plugin(() => undefined))).toThrow(/plugin\.name must be a name that no other plugin has/) // it is still here
    gate.resolve()
    await removing
    await engine.messages.send(hello)
    await clock.advance(100)
    expect(heard).toEqual([])
    expect(() => host.use('EventPing', function late() {})).toThrow(expect.objectContaining({ code: 'IM_NOT_RUNNING' }))
    expect(() => host.on('error', () => undefined)).toThrow(expect.objectContaining({ code: 'IM_NOT_RUNNING' }))
    await expect(host.messages.send(hello)).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    await expect(engine.plugins.remove('p')).rejects.toThrow(/name must be that of a plugin, got "p"/)
    engine.use(plugin(() => undefined))
  })

  test('remove leaves nothing to be remembered until the engine closes, however many plugins came and went', async () => {
    const deferCounts: number[] = []
    for (const pluginCount of [0, 20]) {
      const clock = new CountingClock()
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock })
      await engine.start()
      for (let count = 0; count < pluginCount; count++) {
        hostOf(engine).onClose(() => undefined)
        await engine.plugins.remove('p')
      }
      clock.deferCount = 0
      await engine.close({ signal: AbortSignal.abort() }) // wakes whoever still waits for somebody to be in a hurry
      await clock.settle()
      deferCounts.push(clock.deferCount)
    }
    expect(deferCounts[1]).toBe(deferCounts[0])
  })

  test('what a plugin has put in, and a handler that was taken out again, can be collected', async () => {
    const made = await stage()
    const refs = await comeAndGo(made)
    expect(refs.size).toBe(13)
    expect(await livingOf(refs)).toEqual([])
  })

  test('a listener that was taken out while a fact was told is not called any more, nor is one of once a second time', async () => {
    const { engine, connect } = await stage()
    const heard: string[] = []
    engine.on('disconnected', ({ uid }) => {
      if (uid === 'ann') engine.connections.kick({ uid: 'bob' })
      else void engine.plugins.remove('p')
    })
    const host = hostOf(engine)
    host.on('disconnected', ({ uid }) => heard.push(uid))
    hostOf(engine, 'q').once('disconnected', ({ uid }) => heard.push(`once ${uid}`))
    await connect('ann')
    await connect('bob')
    engine.connections.kick({ uid: 'ann' })
    expect(heard).toEqual(['once bob'])
  })

  test('a setup that throws leaves nothing behind', async () => {
    const { engine, clock } = await stage()
    const before = engine.steps('EventPing')
    const heard: string[] = []
    const gate = deferred()
    const broken = plugin((host) => {
      host.use('EventPing', function count() {})
      host.replace('EventPing', 'sendPong', () => void heard.push('pong'))
      host.on('messageStored', () => heard.push('stored'))
      host.timers.after(10, () => heard.push('timer'))
      host.onClose(() => (heard.push('closed'), gate.promise))
      throw new Error('cannot')
    })
    expect(() => engine.use(broken)).toThrow('cannot')
    expect(engine.steps('EventPing')).toEqual(before)
    await engine.messages.send(hello)
    await clock.advance(100)
    expect(heard).toEqual(['closed'])
    expect(engine.plugins.list()).toEqual([])
    engine.use(plugin(() => undefined)) // its name is free
    gate.resolve()
  })

  test('a setup that is asynchronous is a TypeError, and its plugin is not there', async () => {
    const { engine } = await stage()
    const setup: unknown = async () => Promise.reject(new Error('cannot'))
    const late: Plugin = { name: 'p', setup: setup as Plugin['setup'] }
    expect(() => engine.use(late)).toThrow(/setup of the plugin p must be synchronous/)
    expect(engine.plugins.list()).toEqual([])
  })

  test('configure gives it new options, and passes its throw on', async () => {
    const { engine } = await stage()
    const given: number[] = []
    const configurable: Plugin<number> = {
      name: 'p',
      setup: (_host, options) => void given.push(options),
      configure: async (options) => {
        if (options < 0) throw new Error('not that')
        given.push(options)
      },
    }
    engine.use(configurable, 1)
    await engine.plugins.configure('p', 2)
    await expect(engine.plugins.configure('p', -1)).rejects.toThrow('not that')
    expect(given).toEqual([1, 2])
    hostOf(engine, 'plain')
    await expect(engine.plugins.configure('plain', 1)).rejects.toThrow(/that of a plugin that can be configured/)
    await expect(engine.plugins.configure('none', 1)).rejects.toThrow(/that of a plugin, got "none"/)
  })
})
