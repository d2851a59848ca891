import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ProxyTracerProvider, trace, type Span } from '@opentelemetry/api'
import { ChannelType, DeviceFlag, FrameFlag, ReasonCode, reasonName } from 'imengine'
import { messageStoreContract, recordingLogger, type TestClient } from 'imengine/testing'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import * as bot from '../examples/bot.ts'
import * as fileStore from '../examples/file-store.ts'
import * as handlers from '../examples/handlers.ts'
import * as history from '../examples/history.ts'
import * as host from '../examples/host.ts'
import * as management from '../examples/management.ts'
import * as observability from '../examples/observability.ts'
import * as ownSocket from '../examples/own-socket.ts'
import * as permissions from '../examples/permissions.ts'
import * as quickstart from '../examples/quickstart.ts'
import * as storage from '../examples/storage.ts'
import * as tcp from '../examples/tcp.ts'
import * as tokenVerifier from '../examples/token-verifier.ts'
import * as virtualTime from '../examples/virtual-time.ts'
import * as webhook from '../examples/webhook.ts'
import { messagePortClient, tcpClient, webSocketClient } from './docs/real-client.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

beforeEach(() => {
  vi.spyOn(console, 'log').mockImplementation(() => undefined) // what an example prints is for its reader
})
afterEach(() => void vi.restoreAllMocks())

let root: string
let folderCount = 0
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'imengine-examples-'))
})
afterAll(() => rm(root, { recursive: true }))

/** A folder of its own, which the example makes. */
const newFolder = (): string => join(root, String(++folderCount))

async function logIn(client: TestClient, uid: string, token = ''): Promise<TestClient> {
  const connack = await client.connect({ uid, token })
  expect(connack.reasonCode).toBe(ReasonCode.Success)
  return client
}

/** Run `use` on a started example, and see that its close ends every connection. */
async function withExample<T extends { close(): Promise<void> }>(
  started: Promise<T>,
  use: (example: T) => Promise<readonly TestClient[]>,
): Promise<void> {
  const example = await started
  const clients = await use(example).finally(() => example.close())
  await Promise.all(clients.map((client) => client.closed))
}

describe('examples', () => {
  it('quickstart: ann writes to the team over WebSocket and bob receives it, also what was sent before a restart', async () => {
    const folder = newFolder()
    await withExample(quickstart.start(0, folder), async ({ port }) => {
      const ann = await logIn(await webSocketClient(port), 'ann', 'token-of-ann')
      const bob = await logIn(await webSocketClient(port), 'bob', 'token-of-bob')
      expect(await ann.send({ ...TEAM, payload: 'hello' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
      expect(await bob.nextRecv()).toMatchObject({ text: 'hello', fromUID: 'ann', messageSeq: 1 })
      bob.end()
      await bob.closed
      await ann.send({ ...TEAM, payload: 'see you' })
      return [ann]
    })
    await withExample(quickstart.start(0, folder), async ({ port }) => {
      const bob = await logIn(await webSocketClient(port), 'bob', 'token-of-bob')
      expect(await bob.nextRecv()).toMatchObject({ text: 'see you', messageSeq: 2 })
      return [bob]
    })
  })

  it('tcp: ann writes to the team over TCP and bob receives it, and a wrong token is refused', async () => {
    await withExample(tcp.start(0, newFolder()), async ({ port }) => {
      const ann = await logIn(await tcpClient(port), 'ann', 'token-of-ann')
      const bob = await logIn(await tcpClient(port), 'bob', 'token-of-bob')
      await ann.send({ ...TEAM, payload: 'hello' })
      expect(await bob.nextRecv()).toMatchObject({ text: 'hello', fromUID: 'ann' })
      const mallory = await tcpClient(port)
      expect(await mallory.connect({ uid: 'ann', token: 'a guess' })).toMatchObject({ reasonCode: ReasonCode.AuthFail })
      await mallory.closed
      return [ann, bob]
    })
  })

  it('handlers: each one does what its name says, in the place it was given', async () => {
    await withExample(handlers.start(0, newFolder()), async ({ port, steps, countOf }) => {
      expect(steps).toEqual(['checkPermission', 'onlyAdminsAnnounce', 'callWebhook', 'countLinks', 'redactWords', 'fewLinks', 'acceptSend'])
      const ann = await logIn(await tcpClient(port), 'ann')
      const bob = await logIn(await tcpClient(port), 'bob')
      expect(await bob.send({ ...TEAM, payload: 'buy now' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
      expect(await bob.send({ ...TEAM, payload: '' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
      expect(await bob.send({ ...TEAM, payload: 'https://a '.repeat(4) })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
      expect(await bob.send({ ...TEAM, payload: 'darn it' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
      expect(await ann.nextRecv()).toMatchObject({ text: '**** it' })
      const announcement = { channelID: 'announcements', channelType: ChannelType.Group, payload: 'lunch!' }
      expect(await bob.send(announcement)).toMatchObject({ reasonCode: ReasonCode.NotAllowSend, messageSeq: 0 })
      expect(await ann.send(announcement)).toMatchObject({ reasonCode: ReasonCode.Success })
      expect(await bob.nextRecv()).toMatchObject({ text: 'lunch!' })
      expect([countOf('team'), countOf('announcements')]).toEqual([1, 1])
      const mallory = await tcpClient(port)
      expect(await mallory.connect({ uid: 'mallory' })).toMatchObject({ reasonCode: ReasonCode.Ban })
      await mallory.closed
      return [ann, bob]
    })
  })

  it('webhook: a service is asked for the login and before each message, and told by signed deliveries what was stored', async () => {
    await withExample(webhook.start(0, newFolder()), async ({ port }) => {
      const ann = await logIn(await tcpClient(port), 'ann', 'token-of-ann')
      const bob = await logIn(await tcpClient(port), 'bob', 'token-of-bob')
      const mallory = await tcpClient(port)
      expect(await mallory.connect({ uid: 'ann', token: 'a guess' })).toMatchObject({ reasonCode: ReasonCode.AuthFail })
      expect(await ann.send({ ...TEAM, payload: 'buy now' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend, messageSeq: 0 })
      expect(await ann.send({ ...TEAM, payload: 'darn it' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
      expect(await bob.nextRecv()).toMatchObject({ text: '**** it' })
      const printed = vi.spyOn(console, 'log')
      await vi.waitFor(() => expect(printed).toHaveBeenCalledWith('ann in team: **** it'), { timeout: 20_000 })
      return [ann, bob]
    })
  })

  it('token-verifier: a signed token opens the door to its own user, until it expires', async () => {
    await withExample(tokenVerifier.start(0, newFolder()), async ({ port }) => {
      const token = tokenVerifier.issueToken('ann', Date.now() + 60_000)
      const ann = await logIn(await tcpClient(port), 'ann', token)
      const bob = await logIn(await tcpClient(port), 'bob', tokenVerifier.issueToken('bob', Date.now() + 60_000))
      await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hi' })
      expect(await bob.nextRecv()).toMatchObject({ text: 'hi', channelID: 'ann' })
      const refused = [
        ['mallory', token],
        ['ann', tokenVerifier.issueToken('ann', Date.now() - 1)],
        ['ann', ''],
        ['ann', `${token}x.y`],
      ] as const
      for (const [uid, wrongToken] of refused) {
        const client = await tcpClient(port)
        expect((await client.connect({ uid, token: wrongToken })).reasonCode, `${uid} ${wrongToken}`).toBe(ReasonCode.AuthFail)
        await client.closed
      }
      return [ann, bob]
    })
  })

  it('host: what the host stores reaches members when they log in, and those who are there at once', async () => {
    await withExample(host.start(0, newFolder()), async ({ port, stored, lastSeq }) => {
      expect([stored.length, lastSeq]).toEqual([1, 0])
      const ann = await logIn(await tcpClient(port), 'ann')
      const bob = await logIn(await tcpClient(port), 'bob')
      expect(await bob.nextRecv()).toMatchObject({ fromUID: 'ci', messageSeq: 1 })
      expect(await bob.send({ ...TEAM, payload: 'me, too' })).toMatchObject({ reasonCode: ReasonCode.InBlacklist })
      await ann.send({ ...TEAM, payload: 'great' })
      expect(await bob.nextRecv()).toMatchObject({ text: 'great', messageSeq: 2 })
      expect(stored).toHaveLength(2)
      return [ann, bob]
    })
  })

  it('host: started again, it sends nothing twice', async () => {
    const folder = newFolder()
    for (const storedCount of [1, 0]) {
      const example = await host.start(0, folder)
      expect(example.stored).toHaveLength(storedCount)
      await example.close()
    }
  })

  it('permissions: friends write to each other, only the owner announces, and a trial account writes to support alone', async () => {
    await withExample(permissions.start(0, newFolder()), async ({ port }) => {
      const [ann, bob, olga, mallory, trial] = (await Promise.all(
        ['ann', 'bob', 'olga', 'mallory', 'trial'].map(async (uid) => logIn(await tcpClient(port), uid)),
      )) as [TestClient, TestClient, TestClient, TestClient, TestClient]
      const answer = async (client: TestClient, channelID: string, channelType: number = ChannelType.Person): Promise<string> =>
        reasonName((await client.send({ channelID, channelType, payload: 'x' })).reasonCode)
      expect(await answer(ann, 'bob')).toBe('Success')
      expect(await answer(mallory, 'bob')).toBe('NotInWhitelist')
      expect(await answer(mallory, 'support')).toBe('Success')
      expect(await answer(ann, 'mallory')).toBe('InBlacklist') // a block holds both ways
      expect(await answer(olga, 'news', ChannelType.Group)).toBe('Success')
      expect(await answer(ann, 'news', ChannelType.Group)).toBe('NotAllowSend')
      expect(await answer(ann, 'show', ChannelType.Live)).toBe('ChannelNotExist')
      expect(await answer(trial, 'support')).toBe('Success')
      expect(await answer(trial, 'bob')).toBe('NotInWhitelist')
      return [ann, bob, olga, mallory, trial]
    })
  })

  it('history: bob sees what is left for him, and a browser that is open does not keep his phone asleep', async () => {
    await withExample(history.start(0, newFolder()), async ({ port, woken, unread, pages, everything, commands, removedCount }) => {
      expect(unread).toEqual([3, 3])
      expect(pages).toEqual([['Lunch at one?', '(recalled)'], ['Hello']])
      expect(everything).toEqual(['Hello', 'Lunch at one?', '(recalled)', '+1'])
      expect(commands).toEqual(['reload the members'])
      expect(removedCount).toBe(1)
      expect(woken).toEqual(['bob: Hello', 'bob: Lunch at noon?', 'bob: Psoted', 'bob: +1'])
      const ann = await tcpClient(port)
      await ann.connect({ uid: 'ann', deviceFlag: DeviceFlag.App })
      const bob = await tcpClient(port)
      await bob.connect({ uid: 'bob', deviceFlag: DeviceFlag.Web })
      expect(await bob.nextRecv()).toMatchObject({ text: '{"type":1,"content":"Lunch at one?"}' })
      await ann.send({ ...TEAM, payload: '{"type":1,"content":"Coming?"}', flags: FrameFlag.RedDot })
      expect(await bob.nextRecv()).toMatchObject({ text: '{"type":1,"content":"Coming?"}' }) // neither the recalled nor the deleted one
      await expect.poll(() => woken.at(-1)).toBe('bob: Coming?')
      return [ann, bob]
    })
  })

  it('storage: what was stored is there after a restart, in a folder with either retention and in memory', async () => {
    for (const storageOf of [storage.storageIn, storage.storageByChannel]) {
      const folder = newFolder()
      for (const messageSeq of [1, 2]) {
        await withExample(storage.start(0, folder, storageOf), async ({ port }) => {
          const ann = await logIn(await tcpClient(port), 'ann')
          expect(await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hi', clientMsgNo: `no-${messageSeq}` })).toMatchObject({ messageSeq })
          return [ann]
        })
      }
    }
    const [first, second] = await storage.restartInMemory()
    expect(first).toMatch(/^\d+ is number 1$/)
    expect(second).toBe(first)
  })

  it('bot: it answers whoever writes to it', async () => {
    await withExample(bot.start(0), async ({ port }) => {
      const ann = await logIn(await tcpClient(port), 'ann')
      await ann.send({ channelID: 'echo', channelType: ChannelType.Person, payload: 'are you there?' })
      expect(await ann.nextRecv()).toMatchObject({ text: 'you said: are you there?', fromUID: 'echo', channelID: 'echo' })
      return [ann]
    })
  })

  it('own-socket: two clients chat over message ports', async () => {
    await withExample(ownSocket.start(), async ({ connect }) => {
      const ann = await logIn(messagePortClient(connect()), 'ann')
      const bob = await logIn(messagePortClient(connect()), 'bob')
      await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'same process' })
      expect(await bob.nextRecv()).toMatchObject({ text: 'same process', fromUID: 'ann' })
      return [ann, bob]
    })
  })

  it('virtual-time: the message that was not acknowledged came twice', async () => {
    const { messages, close } = await virtualTime.start()
    expect(messages.map((message) => message.text)).toEqual(['hello', 'hello'])
    await close()
  })
})

describe('file-store', () => {
  const nextPath = (): string => `${newFolder()}.jsonl`

  it('numbers go on, and repeats are recognised, after a restart', async () => {
    const path = nextPath()
    let first = { messageID: '', messageSeq: 0 }
    await withExample(fileStore.start(0, path), async ({ port }) => {
      const ann = await logIn(await tcpClient(port), 'ann')
      first = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'one', clientMsgNo: 'no-1' })
      expect(first).toMatchObject({ messageSeq: 1 })
      return [ann]
    })
    await appendFile(path, '{"append":[{"key"') // the power went in the middle of a line
    await withExample(fileStore.start(0, path), async ({ port }) => {
      const ann = await logIn(await tcpClient(port), 'ann')
      const bob = await logIn(await tcpClient(port), 'bob')
      const repeat = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'one', clientMsgNo: 'no-1' })
      expect([repeat.messageID, repeat.messageSeq]).toEqual([first.messageID, 1])
      const next = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'two', clientMsgNo: 'no-2' })
      expect(next.messageSeq).toBe(2)
      for (const text of ['one', 'two']) expect(await bob.nextRecv()).toMatchObject({ text })
      return [ann, bob]
    })
  })

  // #region contract
  const suite = messageStoreContract({
    open: async () => {
      const path = nextPath()
      const subject = new fileStore.FileMessageStore(path)
      await subject.open()
      return { subject, path, close: () => subject.close() }
    },
    reopen: async ({ subject: earlier, path }) => {
      await earlier.close()
      const subject = new fileStore.FileMessageStore(path)
      await subject.open()
      return { subject, path, close: () => subject.close() }
    },
  })
  for (const { name, run } of suite) it(name, run)
  // #endregion
})

it('management.ts gives a token, writes to users and knows who is there', async () => {
  const example = await management.start()
  try {
    expect(example).toMatchObject({ sent: 2, failed: [], isOnline: false })
    const client = await tcpClient(example.port)
    expect((await client.connect({ uid: 'ann', token: 'ann-secret' })).reasonCode).toBe(1)
  } finally {
    await example.close()
  }
})

it('observability.ts serves metrics and health, writes lines, and makes a span of each step of a message', async () => {
  const spans: { readonly name: string; readonly startTime: unknown; endTime: unknown; readonly attributes: unknown }[] = []
  const noop = new ProxyTracerProvider().getTracer('none')
  trace.setGlobalTracerProvider({
    getTracer: () => ({
      startSpan: (name, { startTime, attributes } = {}) => {
        const span = Object.create(noop.startSpan(name)) as Span
        const told = { name, startTime, endTime: undefined as unknown, attributes }
        spans.push(told)
        span.end = (endTime) => void (told.endTime = endTime)
        return span
      },
      startActiveSpan: noop.startActiveSpan.bind(noop),
    }),
  })
  const logger = recordingLogger()
  const example = await observability.start(0, logger)
  try {
    const ann = await logIn(await tcpClient(example.port), 'ann')
    const bob = await logIn(await tcpClient(example.port), 'bob')
    const { messageID } = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hello' })
    expect((await bob.nextRecv()).text).toBe('hello')
    const at = `http://127.0.0.1:${example.operationsPort}`
    expect(await (await fetch(`${at}/metrics`)).text()).toContain('imengine_messages_stored_total{node="1"} 1\n')
    const health = await fetch(`${at}/healthz`)
    expect([health.status, await health.json()]).toEqual([200, { ready: true, reasons: [] }])
    expect((await fetch(`${at}/elsewhere`)).status).toBe(404)
    expect(spans.map(({ name }) => name).toSorted()).toEqual(['im commit', 'im push', 'im send'])
    expect(JSON.stringify(spans)).toContain(`"im.message_id":"${messageID}"`)
    for (const { startTime, endTime } of spans) expect(Number(endTime)).toBeGreaterThanOrEqual(Number(startTime))
    const closing = example.engine.close()
    expect((await fetch(`${at}/healthz`)).status).toBe(503)
    await closing
  } finally {
    await example.close()
    trace.disable()
  }
  expect(logger.lines.map(({ message }) => message)).toEqual(['engine started', 'engine closed'])
})
