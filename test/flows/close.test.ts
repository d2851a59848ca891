import { createServer } from 'node:net'
import { describe, expect, it, vi } from 'vitest'
import { allowAnyToken, IMEngine, memoryPresence, memoryStorage, ReasonCode, type MessageStore, type Storage } from 'imengine'
import { FrameType } from 'imengine/protocol'
import { connectTestClient, FakeClock, socketPair } from 'imengine/testing'
import { openSocket } from '../connection/raw.ts'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

describe('close', () => {
  it('answers what is in flight, delivers it, then closes every socket without a word', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => gate.promise.then(() => storage.messages.append(batches))
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const ann = await connect('ann')
    const bob = await connect('bob')
    const answer = ann.client.send({ ...TEAM, payload: 'last' })
    await clock.settle()
    const closing = engine.close()
    const late = ann.client.send({ ...TEAM, payload: 'too late' }).catch(() => 'never answered')
    await clock.settle()
    gate.resolve()
    expect(await answer).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    await closing
    expect(bob.client.messages.map((message) => message.text)).toEqual(['last'])
    expect(await late).toBe('never answered')
    expect(ann.client.received.some((frame) => frame.type === FrameType.DISCONNECT)).toBe(false)
    expect(await ann.pair.client.closed).toMatchObject({ by: 'server' })
    expect(await storage.messages.lastSeq(TEAM)).toBe(1)
  })

  it('runs once, also when who hears of a socket that it refuses calls it again', async () => {
    const calls: string[] = []
    const gate = deferred()
    const storage = memoryStorage()
    const { engine, clock } = await stage({ storage: { ...storage, close: () => gate.promise.then(() => void calls.push('storage closed')) } })
    const pair = socketPair()
    pair.attach(engine.accept(pair.server))
    engine.on('connectionRefused', () => void engine.close({ drainMs: 0 }).then(() => calls.push('again')))
    const closing = engine.close().then(() => calls.push('closed'))
    await clock.advance(1_000)
    expect(calls).toEqual([])
    gate.resolve()
    await clock.advance(1_000)
    await closing
    expect(calls[0]).toBe('storage closed')
    expect(calls.toSorted()).toEqual(['again', 'closed', 'storage closed'])
  })

  it('waits for positions that an earlier flush is still writing', async () => {
    const gate = deferred()
    const calls: string[] = []
    const base = memoryStorage()
    const { cursors } = base
    const storage: Storage = {
      ...base,
      cursors: {
        cursor: (uid, key) => cursors.cursor(uid, key),
        cursors: (uid, keys) => cursors.cursors(uid, keys),
        advance: (updates) => gate.promise.then(() => cursors.advance(updates)).then(() => void calls.push('advanced')),
        put: (updates) => cursors.put(updates),
        remove: (key, uids) => cursors.remove(key, uids),
        flush: () => void calls.push('flush'),
        hide: (uid, key, seqs) => cursors.hide(uid, key, seqs),
        hidden: (uid, key, afterSeq, throughSeq) => cursors.hidden(uid, key, afterSeq, throughSeq),
      },
      close: () => void calls.push('close'),
    }
    const { engine, connect, clock } = await stage({ storage })
    const ann = await connect('ann')
    const bob = await connect('bob')
    await ann.client.send({ ...TEAM, payload: 'hello' })
    await bob.client.nextRecv() // and acknowledges it
    await clock.advance(engine.limits.cursorFlushMs + 100)
    const closing = engine.close()
    await clock.settle()
    expect(calls).toEqual([])
    gate.resolve()
    await closing
    expect(calls).toEqual(['advanced', 'flush', 'flush', 'close'])
  })

  it('leaves no timer, is idempotent, never rejects, and closes adapters once and in the end', async () => {
    const calls: string[] = []
    const base = memoryStorage()
    const storage: Storage = { ...base, open: () => void calls.push('open'), close: () => { calls.push('close'); throw new Error('disk') } }
    const clock = new FakeClock()
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage })
    const errors: string[] = []
    engine.on('error', (error) => errors.push(error.code))
    await Promise.all([engine.start(), engine.start()])
    engine.on('disconnected', () => calls.push('disconnected'))
    await connectTestClient(engine, { uid: 'ann' })
    const first = engine.close()
    expect(engine.close({ drainMs: 1 })).toBe(first)
    await first
    expect(calls).toEqual(['open', 'disconnected', 'close'])
    expect(errors).toEqual(['IM_STORE_UNAVAILABLE'])
    expect(clock.pendingTimerCount).toBe(0)
    expect(engine.state).toBe('closed')
    await expect(engine.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    await expect(engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
  })

  // P8
  it('gives up on what hangs after drainMs, or at once when the signal says so, and tells nobody a lie', async () => {
    for (const how of ['drain', 'signal'] as const) {
      const storage = memoryStorage()
      const append: MessageStore['append'] = () => new Promise(() => undefined)
      const { engine, connect, clock, errors } = await stage({ storage: storageWith(storage, { append }), limits: { stepTimeoutMs: 60_000 } })
      const { client, pair } = await connect('ann')
      const answer = client.send({ ...TEAM, payload: 'x' }).catch(() => 'never answered')
      await clock.settle()
      const giveUp = new AbortController()
      const closing = how === 'drain' ? engine.close({ drainMs: 1_000 }) : engine.close({ signal: giveUp.signal })
      await clock.settle()
      expect(engine.state).toBe('closing')
      if (how === 'drain') await clock.advance(1_100)
      else giveUp.abort()
      await clock.settle()
      expect((await pair.client.closed).by).toBe('server')
      expect(await answer).toBe('never answered')
      await clock.advance(60_000)
      await closing
      expect(errors.map((error) => error.code)).toContain('IM_CLOSE_TIMEOUT')
    }
  })

  it('is not held up by a client that does not read, nor by a socket that never confirms', async () => {
    const { engine, connect, clock } = await stage()
    const { pair } = await connect('ann', { highWaterBytes: 1 })
    pair.client.pauseReading()
    engine.accept({ send: () => undefined, close: () => undefined, bufferedBytes: 0 }) // never says closed
    const closing = engine.close()
    await clock.advance(engine.limits.closeTimeoutMs + 200)
    await closing
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('may come before start, during start and after a start that failed', async () => {
    const never = new IMEngine({ tokenVerifier: allowAnyToken() })
    await never.close()
    await expect(never.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })

    const gate = deferred()
    const calls: string[] = []
    const slow = new IMEngine({
      tokenVerifier: allowAnyToken(),
      storage: { ...memoryStorage(), open: () => gate.promise, close: () => void calls.push('close') },
    })
    const starting = expect(slow.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' }) // or its host would go on and listen
    const closing = slow.close()
    gate.resolve()
    await Promise.all([starting, closing])
    expect(calls).toEqual(['close'])
    expect(slow.state).toBe('closed')

    const broken = new IMEngine({
      tokenVerifier: allowAnyToken(),
      storage: { ...memoryStorage(), open: () => Promise.reject(new Error('no disk')), close: () => void calls.push('close again') },
    })
    await expect(broken.start()).rejects.toThrow('no disk')
    await broken.close()
    expect(calls).toEqual(['close', 'close again'])
  })

  it('closes what a start has opened although it hangs, and again what that opens after close has given up on it; starts nothing more', async () => {
    const gate = deferred()
    const calls: string[] = []
    const clock = new FakeClock()
    const engine = new IMEngine({
      tokenVerifier: allowAnyToken(),
      clock,
      storage: { ...memoryStorage(), open: () => gate.promise, close: () => void calls.push('close') },
      replicator: { start: () => void calls.push('replicator'), propose: () => [], close: () => undefined },
    })
    const starting = expect(engine.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    const closing = engine.close()
    await clock.advance(engine.limits.closeTimeoutMs + 200)
    await closing
    expect(calls).toEqual(['close'])
    gate.resolve()
    await starting
    expect(calls).toEqual(['close', 'close'])
    expect(engine.state).toBe('closed')
    expect(clock.pendingTimerCount).toBe(0)
  })

  /** What stands around an engine, of which one hangs while it is opened; `calls` has every `close`. */
  function hanging(which: string, fails: boolean) {
    const gate = deferred()
    const calls: string[] = []
    const open = (name: string) => async (): Promise<void> => {
      if (name !== which) return
      await gate.promise
      if (fails) throw new Error('too late')
    }
    const close = (name: string) => (): void => void calls.push(name)
    const presence = memoryPresence({ nowMs: () => 0 })
    const clock = new FakeClock()
    const engine = new IMEngine({
      tokenVerifier: allowAnyToken(),
      clock,
      storage: { ...memoryStorage(), open: open('storage'), close: close('storage') },
      presence: Object.assign(presence, { start: open('presence'), close: close('presence') }),
      peerPush: { start: open('peerPush'), push: () => undefined, kick: () => undefined, close: close('peerPush') },
      replicator: { start: open('replicator'), propose: () => [], close: close('replicator') },
    })
    engine.use({ name: 'plugin', setup: (host) => host.onStart(open('plugin')) })
    return { engine, clock, gate, calls }
  }

  const ALL = ['presence', 'peerPush', 'replicator', 'storage']

  it.each(['storage', 'presence', 'replicator', 'peerPush', 'plugin'])(
    'with its signal aborted leaves nothing open while start hangs in %s, and closes again what opens late', async (which) => {
      for (const fails of [false, true]) {
        const { engine, clock, gate, calls } = hanging(which, fails)
        const starting = engine.start().catch(() => undefined)
        await clock.settle()
        await engine.close({ signal: AbortSignal.abort() })
        expect(calls).toEqual(ALL)
        expect(engine.state).toBe('closed')
        gate.resolve()
        await starting
        expect(calls.slice(ALL.length)).toEqual(which === 'plugin' ? [] : [which])
        expect([engine.state, clock.pendingTimerCount]).toEqual(['closed', 0])
      }
    },
  )

  it('closes no adapter while an earlier call of its close is under way', async () => {
    const [opening, ending] = [deferred(), deferred()]
    const calls: string[] = []
    const close = async (): Promise<void> => {
      calls.push('close')
      await ending.promise
      calls.push('closed')
    }
    const clock = new FakeClock()
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage: { ...memoryStorage(), open: () => opening.promise, close } })
    const starting = expect(engine.start()).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    const closing = engine.close({ signal: AbortSignal.abort() })
    await clock.advance(engine.limits.closeTimeoutMs + 200)
    await closing
    expect(calls).toEqual(['close'])
    opening.resolve()
    await clock.settle()
    expect(calls).toEqual(['close'])
    ending.resolve()
    await starting
    expect(calls).toEqual(['close', 'closed', 'close', 'closed'])
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('leaves presence when the heartbeat under way has been taken, and sends none after that', async () => {
    const taken = deferred()
    const calls: string[] = []
    const presence = memoryPresence({ nowMs: () => 0 })
    presence.heartbeat = () => (calls.push('heartbeat'), taken.promise.then(() => void calls.push('taken')))
    const { engine, clock } = await stage({ presence })
    presence.leave = () => void calls.push('leave')
    await clock.advance(engine.limits.presenceHeartbeatMs + engine.limits.timerTickMs)
    const closing = engine.close()
    await clock.settle()
    expect(calls).toEqual(['heartbeat'])
    taken.resolve()
    await closing
    expect(calls).toEqual(['heartbeat', 'taken', 'leave'])
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('does not wait for a heartbeat that hangs for longer than for connections to end, and in a hurry not at all', async () => {
    for (const isHurried of [true, false]) {
      const calls: string[] = []
      const presence = memoryPresence({ nowMs: () => 0 })
      presence.heartbeat = () => new Promise<void>(() => undefined)
      const { engine, clock } = await stage({ presence, limits: { presenceHeartbeatMs: 60_000 } })
      presence.leave = () => void calls.push('leave')
      await clock.advance(engine.limits.presenceHeartbeatMs + engine.limits.timerTickMs)
      const closing = engine.close(isHurried ? { signal: AbortSignal.abort() } : {})
      if (!isHurried) await clock.advance(engine.limits.closeTimeoutMs)
      await closing
      expect([calls, engine.state, clock.pendingTimerCount]).toEqual([['leave'], 'closed', 0])
    }
  })

  it('closes adapters once when it comes while a start that has failed closes them', async () => {
    const ending = deferred()
    const calls: string[] = []
    const clock = new FakeClock()
    const presence = Object.assign(memoryPresence({ nowMs: () => 0 }), {
      start: () => Promise.reject(new Error('no presence')),
      close: () => void calls.push('presence'),
    })
    const storage = { ...memoryStorage(), close: () => (calls.push('storage'), ending.promise) }
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage, presence })
    const starting = engine.start()
    const failed = expect(starting).rejects.toThrow('no presence')
    await clock.settle()
    let hasClosed = false
    const closing = engine.close({ signal: AbortSignal.abort() }).then(() => (hasClosed = true)) // it does not wait for the start
    await clock.settle()
    expect(hasClosed).toBe(false) // but for the storage, whoever closes it
    ending.resolve()
    await Promise.all([failed, closing])
    expect(hasClosed).toBe(true)
    expect(calls).toEqual(['presence', 'storage'])
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('in a hurry does not wait for the adapters of a start that has failed either, but for the storage', async () => {
    for (const isAbortedBefore of [true, false]) {
      const ending = deferred()
      const calls: string[] = []
      const clock = new FakeClock()
      const presence = Object.assign(memoryPresence({ nowMs: () => 0 }), {
        start: () => Promise.reject(new Error('no presence')),
        close: () => (calls.push('presence'), new Promise<void>(() => undefined)),
      })
      const storage = { ...memoryStorage(), close: () => (calls.push('storage'), ending.promise) }
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage, presence })
      const failed = expect(engine.start()).rejects.toThrow('no presence')
      await clock.settle()
      expect(calls).toEqual(['presence'])
      const hurry = new AbortController()
      if (isAbortedBefore) hurry.abort()
      let hasClosed = false
      const closing = engine.close({ signal: hurry.signal }).then(() => (hasClosed = true))
      await clock.settle()
      if (!isAbortedBefore) {
        expect(calls).toEqual(['presence'])
        hurry.abort()
        await clock.settle()
      }
      expect([calls, hasClosed]).toEqual([['presence', 'storage'], false])
      ending.resolve()
      await Promise.all([failed, closing])
      expect([calls, engine.state, clock.pendingTimerCount]).toEqual([['presence', 'storage'], 'closed', 0])
    }
  })

  it('in a hurry does not wait for a plugin that hangs while it is removed', async () => {
    const { engine, clock } = await stage()
    engine.use({ name: 'slow', setup: (host) => host.onClose(() => new Promise(() => undefined)) })
    const removing = engine.plugins.remove('slow')
    await clock.settle()
    await engine.close({ signal: AbortSignal.abort() })
    await removing
    expect([engine.state, clock.pendingTimerCount]).toEqual(['closed', 0])
  })

  it('has not kept those who have waited for something of its life to end, when it comes in a hurry', async () => {
    const deferrals = async (pluginCount: number): Promise<number> => {
      const { engine, clock } = await stage()
      for (let index = 0; index < pluginCount; index++) {
        engine.use({ name: `plugin ${index}`, setup: (host) => host.onClose(() => Promise.resolve()) })
        await engine.plugins.remove(`plugin ${index}`)
      }
      await clock.settle()
      const defer = vi.spyOn(clock, 'defer')
      const closing = engine.close({ signal: AbortSignal.abort() })
      const { length } = defer.mock.calls
      await closing
      return length
    }
    expect(await deferrals(20)).toBe(await deferrals(0))
  })

  it('turns sockets away before start and after close, and ignores whatever they say', async () => {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    for (const step of [() => engine.start(), () => engine.close(), () => Promise.resolve()]) {
      if (engine.state !== 'running') {
        const messages = socketPair({ framing: 'message' })
        messages.attach(engine.accept(messages.server))
        messages.client.write(Uint8Array.of(0x10, 0x00))
        expect(await messages.client.closed).toMatchObject({ by: 'server', code: 1013 })
        // A byte stream is destroyed: its peer might never end its half.
        const calls: string[] = []
        engine.accept({ send: () => undefined, close: () => calls.push('close'), destroy: () => calls.push('destroy'), bufferedBytes: 0 })
        expect(calls).toEqual(['destroy'])
      }
      await step()
    }
  })

  it('disposes of an engine with `await using`', async () => {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    await engine.start()
    await engine[Symbol.asyncDispose]()
    expect(engine.state).toBe('closed')
  })

  it('closes who has not logged in at once, and lets nobody in whose token is still looked at', async () => {
    const [answer, verdict] = [deferred<{ code: number }>(), deferred<{ ok: true }>()]
    const { engine, connect, clock } = await stage({
      webhook: { beforeSend: () => answer.promise }, tokenVerifier: ({ uid }) => (uid === 'cat' ? verdict.promise : { ok: true }),
    })
    const { client: ann } = await connect('ann')
    const acked = ann.send({ ...TEAM, payload: 'in flight' })
    const silent = openSocket(engine)
    const asked = openSocket(engine)
    asked.client.connect({ uid: 'cat' }).catch(() => undefined)
    await clock.settle()
    const closing = engine.close()
    await clock.settle()
    expect([silent, asked].map(({ pair }) => pair.client.socketEnd?.by)).toEqual(['server', 'server'])
    expect(engine.state).toBe('closing') // ann has still to be answered
    verdict.resolve({ ok: true })
    answer.resolve({ code: 0 })
    expect((await acked).reasonCode).toBe(ReasonCode.Success)
    await closing
    expect([...silent.client.received, ...asked.client.received]).toEqual([])
  })

  it('heeds every caller: a second call joins, makes it shorter by its drainMs or its signal, and never longer', async () => {
    const hurry = new AbortController()
    const seconds = { shorter: { drainMs: 1_000 }, longer: { drainMs: 60_000 }, aborted: { signal: AbortSignal.abort() }, signal: { drainMs: 60_000, signal: hurry.signal } }
    for (const [name, second] of Object.entries(seconds)) {
      const { engine, connect, clock, errors } = await stage({ webhook: { beforeSend: () => new Promise(() => undefined) }, limits: { webhookTimeoutMs: 60_000 } })
      const { client } = await connect('ann')
      client.send({ ...TEAM, payload: 'x' }).catch(() => undefined)
      await clock.settle()
      const first = engine.close({ drainMs: 5_000 })
      await clock.advance(500)
      expect(engine.close(second), name).toBe(first)
      await clock.settle()
      expect(engine.state, name).toBe(name === 'aborted' ? 'closed' : 'closing')
      if (name === 'signal') hurry.abort()
      await clock.advance(name === 'shorter' ? 1_100 : 0)
      if (name === 'longer') {
        await clock.advance(4_000)
        expect(engine.state).toBe('closing')
        await clock.advance(1_000)
      }
      expect(engine.state, name).toBe('closed')
      expect(errors.map(({ code }) => code), name).toContain('IM_CLOSE_TIMEOUT')
      expect(clock.pendingTimerCount, name).toBe(0)
      expect(engine.close({ drainMs: 1, signal: hurry.signal }), name).toBe(first)
      expect(clock.pendingTimerCount, name).toBe(0)
    }
  })

  it('with a signal that is aborted already reports nothing when there was nothing to wait for, and does not wait for a client that does not read', async () => {
    const calm = await stage()
    await calm.connect('ann')
    await calm.engine.close({ signal: AbortSignal.abort() })
    expect([calm.errors, calm.clock.pendingTimerCount, calm.engine.state]).toEqual([[], 0, 'closed'])

    const { engine, connect, clock } = await stage()
    const { pair } = await connect('ann', { highWaterBytes: 1 })
    pair.client.pauseReading()
    engine.accept({ send: () => undefined, close: () => undefined, bufferedBytes: 0 }) // never says closed
    await engine.close({ signal: AbortSignal.abort() })
    expect([engine.state, clock.pendingTimerCount]).toEqual(['closed', 0])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  it.each([
    ['a signal that is none', { signal: 'SIGTERM' }],
    ['a drainMs that is none', { drainMs: -1 }],
    ['an option that there is not', { drain: 5_000 }],
    ['a number in the place of its options', 5_000],
  ])('throws a TypeError for %s, and goes on', async (_what, options) => {
    const { engine } = await stage()
    expect(() => engine.close(options as never)).toThrow(TypeError)
    expect(engine.state).toBe('running')
  })

  it('waits for positions that are asked for and written already, and counts what is acknowledged meanwhile', async () => {
    const base = memoryStorage()
    const [asking, writing] = [deferred(), deferred()]
    const cursors = Object.assign(Object.create(base.cursors) as typeof base.cursors, {
      cursor: (...args: Parameters<typeof base.cursors.cursor>) => (args[0] === 'bob' ? asking.promise.then(() => base.cursors.cursor(...args)) : base.cursors.cursor(...args)),
      cursors: (...args: Parameters<typeof base.cursors.cursors>) => base.cursors.cursors(...args),
      advance: (...args: Parameters<typeof base.cursors.advance>) => writing.promise.then(() => base.cursors.advance(...args)),
      put: (...args: Parameters<typeof base.cursors.put>) => base.cursors.put(...args),
      flush: () => base.cursors.flush(),
    })
    const calls: string[] = []
    const { engine, connect, clock } = await stage({ offline: 'none', storage: { ...base, cursors, close: () => void calls.push('close') } })
    const [{ client: ann }, { client: bob }] = [await connect('ann'), await connect('bob', { autoAck: false })]
    await ann.send({ ...TEAM, payload: 'one' })
    await clock.advance(1_200) // ann's position is being written
    const closing = engine.close()
    await clock.settle()
    bob.ack(bob.messages[0]!) // before the drain is over it would be lost, and after it nobody listens
    void closing
    asking.resolve()
    await clock.settle()
    expect(calls).toEqual([])
    writing.resolve()
    await closing
    expect(calls).toEqual(['close'])
    expect(await base.cursors.cursor('ann', TEAM)).toMatchObject({ deliveredSeq: 1 })
  })

  it('counts RECVACKs that come while it drains, and answers nothing else that comes then', async () => {
    const storage = memoryStorage()
    const answer = deferred<{ code: number }>()
    const { engine, connect, clock } = await stage({ storage, webhook: { beforeSend: ({ clientMsgNo }) => (clientMsgNo === 'slow' ? answer.promise : { code: 0 }) } })
    const [{ client: ann }, { client: bob }] = [await connect('ann'), await connect('bob', { autoAck: false })]
    await ann.send({ ...TEAM, payload: 'one' })
    const slow = ann.send({ ...TEAM, payload: 'two', clientMsgNo: 'slow' })
    await clock.settle()
    const closing = engine.close()
    bob.ack(bob.messages[0]!)
    bob.write({ type: FrameType.PING })
    bob.send({ ...TEAM, payload: 'late' }).catch(() => undefined)
    await clock.settle()
    answer.resolve({ code: 0 })
    expect((await slow).messageSeq).toBe(2)
    await closing
    expect(await storage.cursors.cursor('bob', TEAM)).toMatchObject({ deliveredSeq: 1 })
    expect(bob.received.map(({ type }) => type)).toEqual([FrameType.CONNACK, FrameType.RECV, FrameType.RECV])
    expect(await storage.messages.lastSeq(TEAM)).toBe(2)
  })

  it('does not close a server that it does not own', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { engine } = await stage()
    await engine.close()
    expect(server.listening).toBe(true)
    await new Promise((resolve) => server.close(resolve))
  })
})
