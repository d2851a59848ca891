import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ChannelType, type ChannelKey } from 'imengine'
import type { Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { start, type Chat } from '../../examples/chat/server.ts'
import { LOBBY } from '../../examples/chat/wire.ts'
import { bubble, ChatBrowser, CHROMIUM, composer, row, say, sent, state, texts } from './chat-page-driver.ts'

const PROGRAM = fileURLToPath(new URL('../../examples/chat/start.ts', import.meta.url))
const ANN: ChannelKey = { channelID: 'ann', channelType: ChannelType.Person }

let root: string
let folderCount = 0
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'imengine-chat-restart-'))
})
afterAll(() => rm(root, { recursive: true }))

const newFolder = (): string => join(root, String(++folderCount))

/** `npm start` without npm, which would stand between us and the process that is killed. */
class Program {
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown>
  output = ''

  constructor(environment: Record<string, string>) {
    const env = { ...process.env, TCP_PORT: '0', ...environment }
    this.#child = spawn(process.execPath, ['--import', 'tsx', PROGRAM], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#exit = once(this.#child, 'exit')
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.on('data', (chunk: Buffer) => (this.output += chunk.toString()))
  }

  async port(): Promise<number> {
    const page = /http:\/\/localhost:(\d+)/
    await Promise.race([expect.poll(() => this.output, { timeout: 20_000 }).toMatch(page), this.#exit])
    const port = page.exec(this.output)?.[1]
    if (port === undefined) throw new Error(`it did not start:\n${this.output}`)
    return Number(port)
  }

  /** @returns its exit code, null when a signal ended it */
  async ended(): Promise<number | null> {
    await this.#exit
    return this.#child.exitCode
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal)
    await this.#exit
  }
}

const programs: Program[] = []
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')))
})

function run(environment: Record<string, string>): Program {
  const program = new Program(environment)
  programs.push(program)
  return program
}

describe('the chat, started on a folder again', { timeout: 60_000 }, () => {
  async function call(chat: Chat, path: string, { token, body }: { token?: string; body?: unknown } = {}): Promise<{ status: number } & Record<string, unknown>> {
    const headers = { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
    const response = await fetch(`http://127.0.0.1:${chat.port}${path}`, body === undefined ? { headers } : { method: 'POST', headers, body: JSON.stringify(body) })
    return { status: response.status, ...(response.status === 204 ? {} : ((await response.json()) as Record<string, unknown>)) }
  }
  const login = async (chat: Chat, name: string, token?: string): Promise<{ status: number; uid: string; token: string }> =>
    (await call(chat, '/api/login', { body: { name, token } })) as unknown as { status: number; uid: string; token: string }

  test('knows names, tokens, members, positions and who has left, and says welcome once', async () => {
    const dataDir = newFolder()
    const first = await start({ port: 0, tcpPort: 0, dataDir })
    const ann = await login(first, 'Ann')
    const bob = await login(first, 'Bob')
    const eve = await login(first, 'Eve')
    await call(first, '/api/logout', { token: eve.token, body: {} })
    for (const content of ['one', 'two', 'three']) {
      const payload = Buffer.from(JSON.stringify({ type: 1, content }))
      await first.engine.messages.send({ channelID: bob.uid, channelType: ChannelType.Person, fromUID: ann.uid, payload })
    }
    expect((await call(first, '/api/read', { token: bob.token, body: { ...ANN, seq: 1 } })).status).toBe(204)
    await first.close()

    const second = await start({ port: 0, tcpPort: 0, dataDir })
    expect((await login(second, 'Ann')).status).toBe(409)
    expect(await login(second, 'ann', ann.token)).toMatchObject({ status: 200, uid: 'ann', token: ann.token })
    expect((await call(second, '/api/people', { token: eve.token })).status).toBe(401)
    expect((await login(second, 'Eve')).uid).toBe('eve-2')
    const { conversations } = await call(second, '/api/conversations', { token: bob.token })
    expect(conversations).toMatchObject([
      { ...ANN, lastSeq: 3, readSeq: 1, unread: 2, last: { content: { content: 'three' } } },
      { channelID: 'lobby', lastSeq: 1, readSeq: 1, unread: 0 },
    ])
    expect((await second.engine.channels.subscribers.list(LOBBY)).items.map(({ uid }) => uid).sort()).toEqual(['ann', 'bob', 'eve-2'])
    const { messages } = await call(second, '/api/history?channelID=lobby&channelType=2', { token: bob.token })
    expect(messages).toMatchObject([{ messageSeq: 1, fromUID: 'system' }])
    await second.close()
  })

  test('which another chat still has, says so and how to go on', async () => {
    const dataDir = newFolder()
    const chat = await start({ port: 0, tcpPort: 0, dataDir })
    const other = run({ PORT: '0', DATA_DIR: dataDir })
    expect(await other.ended()).toBe(1)
    expect(other.output).toContain(`Another chat is running with the folder ${dataDir}.`)
    expect(other.output).toContain(`DATA_DIR=${dataDir}-2 `)
    expect(other.output).not.toContain(' at ') // no stack
    await chat.close()
  })
})

// Browsers are slow where many tests run at once: the limit is only there to end what hangs.
describe.skipIf(CHROMIUM === undefined)('two tabs, with a server that is started again in between', { timeout: 120_000 }, () => {
  let browser: ChatBrowser
  beforeAll(async () => {
    browser = await ChatBrowser.launch()
  })
  afterAll(() => browser.close())

  const isLost = (page: Page): Promise<void> => page.getByText(/Connection lost. Reconnecting/).waitFor()
  const isBack = (page: Page): Promise<void> => page.getByText('Connected', { exact: true }).waitFor()

  /** The open conversation shows these texts, each once, under numbers without a gap. */
  async function shows(page: Page, expected: readonly string[]): Promise<void> {
    await expect.poll(() => texts(page), { timeout: 20_000 }).toEqual(expected)
    const seqs = await page.evaluate<number[]>(`Array.from(document.querySelectorAll('[role=log] article'), ({ dataset }) => Number(dataset.seq))`)
    expect(seqs).toEqual(seqs.map((_seq, index) => (seqs[0] ?? 0) + index))
  }

  async function switchTo(page: Page, name: string): Promise<void> {
    await row(page, name).click()
    await page.getByRole('heading', { name }).waitFor()
  }

  // The page shows the same whether it asks for what it missed or the server sends it.
  test.each(['none', 'push'] as const)("nothing is missing, nothing is there twice, and what was read stays read, with offline: '%s'", async (offline) => {
    const dataDir = newFolder()
    let chat = await start({ port: 0, tcpPort: 0, dataDir, offline })
    const { port, tcpPort } = chat
    const [ann, bob] = [await browser.open('Ann', { port }), await browser.open('Bob', { port })]
    await say(ann, 'lobby 1')
    await sent(ann, 'lobby 1')
    await say(bob, 'lobby 2')
    await sent(bob, 'lobby 2')

    await switchTo(ann, 'Bob')
    await say(ann, 'alone 1')
    await row(bob, 'Ann').getByText('1 unread').waitFor()
    await switchTo(bob, 'Ann')
    await bubble(bob, 'alone 1').waitFor()
    // The page tells the server a moment later, so that reading a lot is told once.
    await expect.poll(() => chat.engine.conversations.unread('bob', ANN), { timeout: 10_000 }).toBe(0)
    await switchTo(bob, 'Lobby')
    for (const text of ['alone 2', 'alone 3']) await say(ann, text)
    await sent(ann, 'alone 3')
    await row(bob, 'Ann').getByText('2 unread').waitFor()

    await chat.close()
    await Promise.all([isLost(ann), isLost(bob)])
    await say(ann, 'alone 4, without a server')
    await say(bob, 'lobby 3, without a server')
    await say(bob, 'lobby 4, without a server')
    expect(await state(bob, 'lobby 4').getAttribute('aria-label')).toBe('Sending')

    chat = await start({ port, tcpPort, dataDir, offline })
    await Promise.all([sent(ann, 'alone 4'), sent(bob, 'lobby 4')])
    await say(bob, 'lobby 5')
    await sent(bob, 'lobby 5')
    const alone = ['alone 1', 'alone 2', 'alone 3', 'alone 4, without a server']
    const lobby = ['lobby 1', 'lobby 2', 'lobby 3, without a server', 'lobby 4, without a server', 'lobby 5']
    await row(bob, 'Ann').getByText('3 unread').waitFor()
    await row(ann, 'Lobby').getByText('3 unread').waitFor()
    await shows(ann, alone)
    await shows(bob, lobby)
    // A tab that starts afresh knows from the server alone how things stand.
    await bob.reload()
    await row(bob, 'Ann').getByText('3 unread').waitFor()
    await shows(bob, lobby)

    await Promise.all([switchTo(ann, 'Lobby'), switchTo(bob, 'Ann')])
    await shows(ann, lobby)
    await shows(bob, alone)
    await bob.getByRole('separator').filter({ hasText: 'New messages' }).waitFor()
    expect(await ann.getByText('Welcome!').count()).toBe(1)
    await expect.poll(() => chat.engine.conversations.unread('bob'), { timeout: 10_000 }).toBe(0)
    await expect.poll(() => chat.engine.conversations.unread('ann'), { timeout: 10_000 }).toBe(0)
    await Promise.all([ann.reload(), bob.reload()])
    await shows(ann, lobby)
    await shows(bob, alone)
    // Both know by now how the other conversation stands.
    await Promise.all([row(ann, 'Bob').getByText('alone 4').waitFor(), row(bob, 'Lobby').getByText('lobby 5').waitFor()])
    for (const page of [ann, bob]) expect(await page.locator('.row .badge:visible').count()).toBe(0)
    await Promise.all([ann.context().close(), bob.context().close()])
    await chat.close()
  })

  test('the same when it is killed in the middle of a conversation', async () => {
    const dataDir = newFolder()
    let program = run({ PORT: '0', DATA_DIR: dataDir })
    const port = await program.port()
    const [cay, dan] = [await browser.open('Cay', { port }), await browser.open('Dan', { port })]
    await say(dan, 'dan 00')
    await sent(dan, 'dan 00')

    // Without a pause, so that some are on their way when the process ends.
    const typed: string[] = []
    const typing = (async () => {
      for (let count = 1; count <= 30; count++) {
        const text = `cay ${String(count).padStart(2, '0')}`
        typed.push(text)
        await composer(cay).fill(text)
        await composer(cay).press('Enter')
      }
    })()
    await sent(cay, 'cay 08')
    await program.kill('SIGKILL')
    await typing
    await Promise.all([isLost(cay), isLost(dan)])
    await say(dan, 'dan 01')
    program = run({ PORT: String(port), DATA_DIR: dataDir })
    await program.port()
    await Promise.all([isBack(cay), isBack(dan)])
    await Promise.all([sent(cay, 'cay 30'), sent(dan, 'dan 01')])
    await say(dan, 'dan 02')
    await sent(dan, 'dan 02')

    // Who of the two came back first is not said; each one's own are in the order they were typed.
    await bubble(cay, 'dan 02').waitFor()
    const shown = await texts(cay)
    expect(shown).toHaveLength(33)
    expect(shown.filter((text) => text.startsWith('cay'))).toEqual(typed)
    expect(shown.filter((text) => text.startsWith('dan'))).toEqual(['dan 00', 'dan 01', 'dan 02'])
    for (const page of [cay, dan]) {
      await shows(page, shown)
      await page.reload()
      await shows(page, shown)
    }
    await Promise.all([cay.context().close(), dan.context().close()])
    await program.kill('SIGTERM')
    expect(program.output).toContain('Closing')
  })

  test('after a long absence the newest messages stand without a gap, whatever is replayed, and the others come when one scrolls', async () => {
    const LAST = 450 // more than is replayed, and more than the page catches up with
    const chat = await start({ port: 0, tcpPort: 0, dataDir: newFolder(), offline: 'push' })
    const flo = await browser.open('Flo', { port: chat.port })
    await say(flo, 'see you')
    await sent(flo, 'see you')
    await flo.goto('about:blank')
    const news = Array.from({ length: LAST }, (_, index) => `news ${index + 1}`)
    await Promise.all(news.map((content) => chat.engine.messages.send({ ...LOBBY, fromUID: 'gus', payload: Buffer.from(JSON.stringify({ type: 1, content })) })))
    await flo.goto(`http://127.0.0.1:${chat.port}/`)
    await flo.getByText('Connected', { exact: true }).waitFor({ state: 'attached' })
    await bubble(flo, `news ${LAST}`).waitFor()
    await expect.poll(async () => (await texts(flo)).at(0), { timeout: 10_000 }).toMatch(/^news 4/)
    const beginning = flo.getByText('This is the beginning of')
    const log = flo.locator('.log')
    await expect.poll(async () => (await log.press('Home'), beginning.isVisible()), { timeout: 20_000 }).toBe(true)
    await shows(flo, ['see you', ...news])
    await flo.context().close()
    await chat.close()
  })

  test('nothing was thrown and nothing the policy forbids was tried', () => {
    expect(browser.complaints).toEqual([])
  })
})
