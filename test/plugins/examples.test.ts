import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { ChannelType, personChannelID, ReasonCode, type Plugin } from 'imengine'
import { recordingLogger, type TestClient } from 'imengine/testing'
import * as autoReply from '../../examples/plugins/auto-reply.ts'
import * as offlinePush from '../../examples/plugins/offline-push.ts'
import type { PushNote } from '../../examples/plugins/offline-push.ts'
import * as welcome from '../../examples/plugins/welcome.ts'
import * as wordFilter from '../../examples/plugins/word-filter.ts'
import { regionOf } from '../docs/markdown.ts'
import { tcpClient } from '../docs/real-client.ts'
import { deferred, stage, TEAM } from '../support.ts'

const toBot = (uid: string, payload: string) => ({ channelID: uid, channelType: ChannelType.Person, payload })
const asText = (content: string): string => JSON.stringify({ type: 1, content })

async function logIn(port: number, uid: string): Promise<TestClient> {
  const client = await tcpClient(port)
  expect((await client.connect({ uid })).reasonCode).toBe(ReasonCode.Success)
  return client
}

describe('a plugin in 15 lines', () => {
  test('has 15 lines in the docs', () => {
    expect(regionOf('examples/plugins/welcome.ts#plugin').split('\n')).toHaveLength(15)
  })

  test('greets who comes in and refuses what is empty', async () => {
    const example = await welcome.start(0)
    const ann = await logIn(example.port, 'ann')
    expect(await ann.nextRecv()).toMatchObject({ text: 'Good to see you.', fromUID: 'welcome' })
    expect((await ann.send(toBot('bob', ''))).reasonCode).toBe(ReasonCode.NotAllowSend)
    expect((await ann.send(toBot('bob', 'hi'))).reasonCode).toBe(ReasonCode.Success)
    expect(example.plugins).toEqual([{ name: 'welcome', steps: [{ event: 'EventOnSend', name: 'welcome:notNothing', isReplacement: false }] }])
    await example.close()
  })
})

describe('word-filter', () => {
  test('masks for clients over TCP, leaves an exempt group alone, and refuses by its new options', async () => {
    const example = await wordFilter.start(0)
    const ann = await logIn(example.port, 'ann')
    const bob = await logIn(example.port, 'bob')
    await ann.send({ ...TEAM, payload: asText('Darn it, what the HECK') })
    expect((await bob.nextRecv()).text).toBe(asText('**** it, what the ****'))
    await ann.send({ ...TEAM, channelID: 'pub', payload: asText('darn') })
    expect((await bob.nextRecv()).text).toBe(asText('darn'))
    await example.setWords(['lunch'])
    expect((await ann.send({ ...TEAM, payload: asText('Lunch?') })).reasonCode).toBe(ReasonCode.NotAllowSend)
    expect((await ann.send({ ...TEAM, payload: asText('darn') })).reasonCode).toBe(ReasonCode.Success)
    expect((await bob.nextRecv()).text).toBe(asText('darn'))
    await example.close()
  })

  test.each([
    ['plain text', 'so darn good', 'so **** good'],
    ['text as SDKs write it, with what else they write', '{"type":1,"content":"darn","mention":["darn"]}', '{"type":1,"content":"****","mention":["darn"]}'],
    ['another kind of content not at all', '{"type":2,"content":"darn"}', '{"type":2,"content":"darn"}'],
    ['JSON that is no object as the text it is', '"darn"', '"****"'],
    ['what has no such word byte by byte', '{ "type": 1, "content": "fine" }', '{ "type": 1, "content": "fine" }'],
  ])('looks at %s', async (_what, payload, expected) => {
    const { engine, connect } = await stage()
    engine.use(wordFilter.wordFilter(), { words: ['darn'] })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    await ann.send({ ...TEAM, payload })
    expect((await bob.nextRecv()).text).toBe(expected)
  })

  test('judges what the handlers before it have made of a message', async () => {
    const { engine, connect } = await stage()
    engine.use(wordFilter.wordFilter(), { words: ['darn'] })
    engine.use('EventOnSend', (ctx) => void (ctx.payload = Buffer.from('darn')), { name: 'rewrite' })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    await ann.send({ ...TEAM, payload: 'fine' })
    expect((await bob.nextRecv()).text).toBe('****')
  })

  test('masks what looking for each word by itself would, and nothing else', () => {
    const word = fc.stringMatching(/^[abcİß😀]{1,4}$/u)
    fc.assert(
      fc.property(fc.array(word, { maxLength: 8 }), fc.stringMatching(/^[abcABİß😀 ]{0,40}$/u), (words, text) => {
        const lower = (from: string): string => from.split('').map((unit) => (unit.toLowerCase().length === 1 ? unit.toLowerCase() : unit)).join('')
        const expected = text.split('')
        for (const each of words.map(lower)) {
          for (let at = lower(text).indexOf(each); at >= 0; at = lower(text).indexOf(each, at + 1)) expected.fill('*', at, at + each.length)
        }
        expect(new wordFilter.WordList(words).mask(text)).toBe(expected.join(''))
      }),
    )
  })
})

describe('auto-reply', () => {
  test('answers over TCP by the first rule that fits, and otherwise', async () => {
    const example = await autoReply.start(0)
    const ann = await logIn(example.port, 'ann')
    await ann.send(toBot('helpdesk', asText('When are you OPEN?')))
    expect(await ann.nextRecv()).toMatchObject({ text: asText('From nine to five.'), fromUID: 'helpdesk', channelID: 'helpdesk' })
    await ann.send(toBot('helpdesk', 'hello'))
    expect((await ann.nextRecv()).text).toBe(asText('Somebody will answer you soon.'))
    await example.close()
  })

  const bot = (uid: string): Plugin => autoReply.autoReply({ uid, rules: [], otherwise: 'what?' })

  test('answers neither itself nor in channels of others', async () => {
    const { engine, connect, clock } = await stage()
    engine.use(bot('bot'))
    const { client } = await connect('ann')
    await client.send(toBot('bot', 'hello'))
    await client.send(toBot('bob', 'hello'))
    await client.send({ ...TEAM, payload: 'hello bot' })
    await clock.settle()
    const seqs = await Promise.all(['bot', 'bob'].map((uid) => engine.messages.lastSeq({ channelID: personChannelID('ann', uid), channelType: ChannelType.Person })))
    expect([...seqs, await engine.messages.lastSeq(TEAM)]).toEqual([2, 1, 1])
  })

  test('falls silent when it talks to another bot, and answers people as before', async () => {
    const logger = recordingLogger()
    const { engine, connect, clock, errors } = await stage({ logger })
    engine.use(bot('bot'))
    engine.use(bot('robot'))
    const key = { channelID: personChannelID('bot', 'robot'), channelType: ChannelType.Person }
    await engine.messages.send({ channelID: 'robot', channelType: ChannelType.Person, fromUID: 'bot', payload: Buffer.from('hello') })
    await clock.settle()
    expect(await engine.messages.lastSeq(key)).toBe(1 + engine.limits.maxPluginSendDepth)
    expect(errors).toEqual([])
    expect(logger.lines.filter(({ message }) => message.startsWith('not answered'))).toHaveLength(1)
    const { client } = await connect('ann')
    await client.send(toBot('robot', 'hello'))
    expect(await client.nextRecv()).toMatchObject({ fromUID: 'robot', text: asText('what?') })
  })
})

describe('offline-push', () => {
  const uidsOf = (notes: readonly PushNote[]): string[] => notes.flatMap(({ uids }) => uids)
  const textsOf = (notes: readonly PushNote[]): string[] => notes.map(({ message }) => Buffer.from(message.payload).toString())

  /** An engine with ann online, and a push service that answers as told. */
  async function bridge(options: Partial<offlinePush.OfflinePushOptions> = {}) {
    const logger = recordingLogger()
    const made = await stage({ logger })
    const posted: (readonly PushNote[])[] = []
    const post: offlinePush.OfflinePushOptions['post'] = async (notes) => void posted.push(notes)
    made.engine.use(offlinePush.offlinePush({ post, ...options }))
    const { client } = await made.connect('ann')
    const say = (...texts: string[]): Promise<unknown> => Promise.all(texts.map((payload) => client.send({ ...TEAM, payload })))
    return { ...made, logger, posted, client, say }
  }

  test('over TCP wakes up who is offline, and nobody else', async () => {
    const example = await offlinePush.start(0)
    const ann = await logIn(example.port, 'ann')
    await logIn(example.port, 'bob')
    await ann.send({ ...TEAM, payload: 'hello' })
    await example.close() // which waits for what has been added
    expect(example.woken).toEqual(['cat'])
  })

  test('makes a batch of what comes within maxWaitMs, and of maxBatchCount notes at once', async () => {
    const { clock, posted, say } = await bridge({ maxBatchCount: 3, maxWaitMs: 500 })
    for (const text of ['1', '2']) await say(text)
    await clock.settle()
    expect(posted).toEqual([])
    await clock.advance(500)
    expect(posted.map(textsOf)).toEqual([['1', '2']])
    expect(uidsOf(posted[0]!)).toEqual(['bob', 'cat', 'bob', 'cat'])
    for (const text of ['3', '4', '5', '6']) await say(text)
    await clock.settle()
    expect(posted.map(textsOf)).toEqual([['1', '2'], ['3', '4', '5']])
    await clock.advance(499)
    expect(posted).toHaveLength(2)
    await clock.advance(1)
    expect(posted).toHaveLength(3)
  })

  test('has no more than maxCalls under way', async () => {
    const gates = Array.from({ length: 5 }, () => deferred())
    let callCount = 0
    const { clock, say } = await bridge({ maxBatchCount: 1, maxCalls: 2, post: () => gates[callCount++]!.promise })
    await say('1', '2', '3', '4', '5')
    await clock.settle()
    expect(callCount).toBe(2)
    gates[1]!.resolve()
    await clock.settle()
    expect(callCount).toBe(3)
    for (const { resolve } of gates) resolve()
    await clock.settle()
    expect(callCount).toBe(5)
  })

  test('tries again after pauses that double, and then gives up and goes on', async () => {
    const triedAtMs: number[] = []
    let isDown = true
    const { clock, say, logger } = await bridge({
      maxBatchCount: 1, maxTries: 4, pauseMs: 100,
      post: async () => {
        triedAtMs.push(clock.monotonicMs())
        if (isDown) throw new Error('503')
      },
    })
    const fromMs = clock.monotonicMs()
    await say('1')
    await clock.advance(10_000)
    expect(triedAtMs.map((atMs) => atMs - fromMs)).toEqual([0, 100, 300, 700])
    expect(logger.lines.filter(({ message }) => message === 'push given up')).toEqual([
      { level: 'error', fields: { plugin: 'offline-push', noteCount: 1, tryCount: 4, cause: 'Error: 503' }, message: 'push given up' },
    ])
    isDown = false
    await say('2')
    await clock.advance(10_000)
    expect(triedAtMs).toHaveLength(5)
  })

  test('holds at most maxNotes: the newest are left out, a line says how many, and all messages are delivered', async () => {
    const hang = deferred()
    const { clock, engine, say, logger, client } = await bridge({ maxBatchCount: 1, maxCalls: 1, maxNotes: 2, post: () => hang.promise, callTimeoutMs: 1_000_000 })
    for (const text of ['1', '2', '3', '4', '5']) await say(text)
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(5)
    hang.resolve()
    await clock.settle()
    expect(logger.lines.filter(({ level }) => level === 'warn')).toEqual([
      { level: 'warn', fields: { plugin: 'offline-push', leftOutCount: 3 }, message: 'too much to push: notes left out' },
    ])
    expect(client.isClosed).toBe(false)
  })

  test('a push service that hangs delays nobody, and a call to it ends in time', async () => {
    const signals: AbortSignal[] = []
    const { clock, connect, say, logger } = await bridge({
      maxBatchCount: 1, maxTries: 1, callTimeoutMs: 1_000,
      post: (_notes, signal) => (signals.push(signal), new Promise(() => undefined)),
    })
    await say('1')
    const { client: bob } = await connect('bob', { autoAck: false })
    expect((await bob.nextRecv()).text).toBe('1') // from the history, while cat is being pushed to
    await bob.ping()
    await say('2')
    expect((await bob.nextRecv()).text).toBe('2')
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false])
    await clock.advance(1_000)
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true])
    expect(logger.lines.filter(({ message }) => message === 'push given up')).toHaveLength(2)
  })

  test('is drained when the engine closes: what waits goes at once, and what pauses is tried once more', async () => {
    let isDown = true
    const { clock, engine, posted, say } = await bridge({
      maxBatchCount: 2, maxWaitMs: 60_000, pauseMs: 60_000,
      post: async (notes) => {
        if (isDown) throw new Error('503')
        posted.push(notes)
      },
    })
    await say('1')
    await say('2')
    await clock.settle() // has failed once
    await say('3')
    isDown = false
    await engine.close()
    expect(posted.flatMap(textsOf).toSorted()).toEqual(['1', '2', '3'])
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('does not keep the engine from closing while the service hangs', async () => {
    const { clock, engine, errors, say, logger } = await bridge({ maxBatchCount: 1, post: () => new Promise(() => undefined) })
    await say('1')
    const closing = engine.close()
    await clock.advance(engine.limits.closeTimeoutMs)
    await closing
    await clock.settle()
    expect(errors.map(({ code, context }) => [code, context.step])).toEqual([['IM_CLOSE_TIMEOUT', 'offline-push']])
    expect(logger.lines.filter(({ message }) => message === 'push given up')).toHaveLength(1)
    expect(clock.pendingTimerCount).toBe(0)
  })
})
