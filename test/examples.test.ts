import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChannelType, ReasonCode } from 'imengine'
import { messageStoreContract, type TestClient } from 'imengine/testing'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import * as bot from '../examples/bot.ts'
import * as fileStore from '../examples/file-store.ts'
import * as handlers from '../examples/handlers.ts'
import * as host from '../examples/host.ts'
import * as ownSocket from '../examples/own-socket.ts'
import * as quickstart from '../examples/quickstart.ts'
import * as tcp from '../examples/tcp.ts'
import * as tokenVerifier from '../examples/token-verifier.ts'
import * as virtualTime from '../examples/virtual-time.ts'
import { messagePortClient, tcpClient, webSocketClient } from './docs/real-client.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

beforeEach(() => {
  vi.spyOn(console, 'log').mockImplementation(() => undefined) // what an example prints is for its reader
})
afterEach(() => void vi.restoreAllMocks())

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
  it('quickstart: ann writes to the team over WebSocket and bob receives it', async () => {
    await withExample(quickstart.start(0), async ({ port }) => {
      const ann = await logIn(await webSocketClient(port), 'ann', 'token-of-ann')
      const bob = await logIn(await webSocketClient(port), 'bob', 'token-of-bob')
      expect(await ann.send({ ...TEAM, payload: 'hello' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
      expect(await bob.nextRecv()).toMatchObject({ text: 'hello', fromUID: 'ann', messageSeq: 1 })
      return [ann, bob]
    })
  })

  it('tcp: ann writes to the team over TCP and bob receives it, and a wrong token is refused', async () => {
    await withExample(tcp.start(0), async ({ port }) => {
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
    await withExample(handlers.start(0), async ({ port, steps, countOf }) => {
      expect(steps).toEqual(['checkPermission', 'onlyAdminsAnnounce', 'callWebhook', 'redactWords', 'acceptSend'])
      const ann = await logIn(await tcpClient(port), 'ann')
      const bob = await logIn(await tcpClient(port), 'bob')
      expect(await bob.send({ ...TEAM, payload: 'buy now' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
      expect(await bob.send({ ...TEAM, payload: '' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
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

  it('token-verifier: a signed token opens the door to its own user, until it expires', async () => {
    await withExample(tokenVerifier.start(0), async ({ port }) => {
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

  it('host: what the host stores reaches members who connect later only as history, and live ones at once', async () => {
    await withExample(host.start(0), async ({ port, stored, lastSeq }) => {
      expect([stored.length, lastSeq]).toEqual([1, 0])
      const ann = await logIn(await tcpClient(port), 'ann')
      const bob = await logIn(await tcpClient(port), 'bob')
      expect(await bob.send({ ...TEAM, payload: 'me, too' })).toMatchObject({ reasonCode: ReasonCode.InBlacklist })
      await ann.send({ ...TEAM, payload: 'great' })
      expect(await bob.nextRecv()).toMatchObject({ text: 'great', messageSeq: 2 })
      expect(stored).toHaveLength(2)
      return [ann, bob]
    })
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
  let folder: string
  let fileCount = 0
  const nextPath = (): string => join(folder, `${++fileCount}.jsonl`)
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'imengine-file-store-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

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
      expect(await bob.nextRecv()).toMatchObject({ text: 'two' })
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
