import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ChannelType, ReasonCode } from 'imengine'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { start, type Chat } from '../../examples/chat/server.ts'
import { LOBBY } from '../../examples/chat/wire.ts'
import { bubble, ChatBrowser, CHROMIUM, composer, messages, row, say, sent, signIn, state, texts } from './chat-page-driver.ts'
import { buildSDKClient, SDKClient } from './sdk-process.ts'

let root: string
let folderCount = 0
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'imengine-chat-'))
})
afterAll(() => rm(root, { recursive: true }))

/** A folder of its own for a chat, which it makes. */
const newFolder = (): string => join(root, String(++folderCount))

describe('the chat server', () => {
  let chat: Chat
  let base: string

  beforeAll(async () => {
    chat = await start({ port: 0, tcpPort: 0, dataDir: newFolder() })
    base = `http://127.0.0.1:${chat.port}`
  })
  afterAll(() => chat.close())

  const post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(base + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) })
  const get = (path: string, token?: string): Promise<Response> => fetch(base + path, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } })
  async function login(name: string, token?: string): Promise<{ status: number; uid: string; token: string; error?: string }> {
    const response = await post('/api/login', { name, token })
    return { status: response.status, ...((await response.json()) as { uid: string; token: string; error?: string }) }
  }

  test('a name becomes a uid that every SDK can carry', async () => {
    expect(await login('  José  Müller ')).toMatchObject({ status: 200, uid: 'jose-muller', name: 'José Müller' })
    expect(await login('a@b#c&d')).toMatchObject({ status: 200, uid: 'a-b-c-d' })
    expect(await login('小明')).toMatchObject({ status: 200, uid: 'user' })
    expect(await login('小红')).toMatchObject({ status: 200, uid: 'user-2' })
    expect(await login('System')).toMatchObject({ status: 200, uid: 'system-2' })
    const { token } = await login('Ann')
    expect(token).toMatch(/^[0-9a-f]{32}$/)
  })

  test('a taken name needs its token, whatever its spelling', async () => {
    const first = await login('Grace')
    expect(await login('Grace')).toMatchObject({ status: 409, error: 'name-taken' })
    expect(await login('  ｇＲＡＣＥ ')).toMatchObject({ status: 409 })
    expect(await login('Grace', 'f'.repeat(32))).toMatchObject({ status: 409 })
    expect(await login('grace', first.token)).toMatchObject({ status: 200, uid: first.uid, token: first.token })
  })

  test('a name that was given up comes back as somebody else', async () => {
    const first = await login('Heidi')
    expect((await post('/api/logout', {}, { authorization: `Bearer ${first.token}` })).status).toBe(204)
    expect((await get('/api/people', first.token)).status).toBe(401)
    const second = await login('Heidi')
    expect(second).toMatchObject({ status: 200, uid: 'heidi-2' })
    expect(second.token).not.toBe(first.token)
  })

  test.each([
    ['no name', {}, 400],
    ['an empty name', { name: '   ' }, 400],
    ['a name of 33 characters', { name: 'x'.repeat(33) }, 400],
    ['a name with an invisible character', { name: 'An\u200bn' }, 400],
    ['a name with a control character', { name: 'An\u0007n' }, 400],
    ['punctuation alone', { name: '...' }, 400],
    ['a name that is not text', { name: 5 }, 400],
    ['a token that is not text', { name: 'Zoe', token: {} }, 400],
    ['an array', [], 400],
    ['half of an object', '{"name":', 400],
    ['5000 bytes', { name: 'x'.repeat(5000) }, 413],
  ])('refuses to log in %s', async (_what, body, status) => {
    const response = await post('/api/login', body)
    expect(response.status).toBe(status)
    expect(await response.json()).toEqual({ error: expect.any(String) as string, message: expect.any(String) as string })
  })

  test('answers what it does not have with the right code', async () => {
    expect((await get('/nothing')).status).toBe(404)
    expect((await get('/constructor')).status).toBe(404)
    expect((await get('/../../package.json')).status).toBe(404)
    const wrongMethod = await get('/api/login')
    expect([wrongMethod.status, wrongMethod.headers.get('allow')]).toEqual([405, 'POST'])
    expect((await post('/', {})).status).toBe(405)
    const form = await fetch(`${base}/api/login`, { method: 'POST', body: new URLSearchParams({ name: 'Eve' }) })
    expect(form.status).toBe(415)
  })

  test('lets only members read, and says so to others', async () => {
    const [ida, jon, kim] = [await login('Ida'), await login('Jon'), await login('Kim')]
    await chat.engine.messages.send({ channelID: jon.uid, channelType: 1, fromUID: ida.uid, payload: Buffer.from('{"type":1,"content":"between us"}') })
    await chat.engine.messages.send({ channelID: ida.uid, channelType: 1, fromUID: jon.uid, payload: Buffer.from('not JSON') })
    const history = (channelID: string, channelType: number, token?: string): Promise<Response> => get(`/api/history?channelID=${channelID}&channelType=${channelType}`, token)

    const seen = (await (await history(jon.uid, 1, ida.token)).json())
    expect(seen).toMatchObject({ messages: [{ messageSeq: 1, fromUID: ida.uid, content: { type: 1, content: 'between us' } }, { messageSeq: 2, content: { type: 0 } }] })
    expect(await (await history(ida.uid, 1, jon.token)).json()).toEqual(seen)
    // Kim has never talked to either, and has no way to name a conversation between two others.
    expect(await (await history(ida.uid, 1, kim.token)).json()).toEqual({ messages: [] })
    expect((await history(`${ida.uid}@${jon.uid}`, 1, kim.token)).status).toBe(403)
    expect((await history('secret-group', 2, kim.token)).status).toBe(403)
    for (const path of ['/api/people', '/api/events', '/api/conversations', '/api/history?channelID=lobby&channelType=2']) {
      expect((await get(path)).status).toBe(401)
      expect((await get(path, 'f'.repeat(32))).status).toBe(401)
    }
    expect((await get('/api/history?channelID=lobby&channelType=two', kim.token)).status).toBe(400)
    expect((await get('/api/history?channelID=lobby&channelType=2&before=-1', kim.token)).status).toBe(400)
  })

  test('pages through the history in both directions', async () => {
    const [liz, moe] = [await login('Liz'), await login('Moe')]
    for (let count = 1; count <= 7; count++) {
      await chat.engine.messages.send({ channelID: moe.uid, channelType: 1, fromUID: liz.uid, payload: Buffer.from('{"type":1,"content":"x"}') })
    }
    const seqs = async (query: string): Promise<number[]> => {
      const { messages } = (await (await get(`/api/history?channelID=${moe.uid}&channelType=1&${query}`, liz.token)).json()) as { messages: { messageSeq: number }[] }
      return messages.map(({ messageSeq }) => messageSeq)
    }
    expect(await seqs('limit=3')).toEqual([5, 6, 7])
    expect(await seqs('limit=3&before=5')).toEqual([2, 3, 4])
    expect(await seqs('limit=3&before=2')).toEqual([1])
    expect(await seqs('limit=3&before=1')).toEqual([])
    expect(await seqs('limit=3&after=4')).toEqual([5, 6, 7])
    expect(await seqs('limit=3&after=7')).toEqual([])
  })

  test("takes back one's own messages and nobody else's", async () => {
    const [ola, pam, quy] = [await login('Ola'), await login('Pam'), await login('Quy')]
    const stream = async ({ token }: { token: string }): Promise<Response> => fetch(`${base}/api/events`, { headers: { authorization: `Bearer ${token}` } })
    const [toPam, toQuy] = [await stream(pam), await stream(quy)]
    const { messageID } = await chat.engine.messages.send({ channelID: pam.uid, channelType: 1, fromUID: ola.uid, payload: Buffer.from('{"type":1,"content":"secret"}') })
    const recall = async ({ token }: { token: string }, id: unknown): Promise<number> => (await post('/api/recall', { messageID: id }, { authorization: `Bearer ${token}` })).status
    for (const id of ['1', '', 'x', '99999999999999999999', 7, undefined]) expect(await recall(ola, id)).toBe(404)
    expect(await recall(pam, messageID)).toBe(404)
    expect(await recall(ola, messageID)).toBe(204)
    expect(await recall(ola, messageID)).toBe(204)
    const history = await (await get(`/api/history?channelID=${ola.uid}&channelType=1`, pam.token)).text()
    expect(history).toContain('"recalled":true')
    expect(history).not.toContain('secret')
    // Signing out ends a stream, so that all it has said is here.
    for (const { token } of [pam, quy]) await post('/api/logout', {}, { authorization: `Bearer ${token}` })
    const [heardByPam, heardByQuy] = [await toPam.text(), await toQuy.text()]
    expect(heardByPam.match(/event: revised\ndata: .*"channelID":"ola".*/g)).toHaveLength(1)
    expect(heardByQuy).not.toContain('revised')
  })

  test('forbids the page everything it does not need', async () => {
    const response = await get('/')
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'; script-src 'self'")
    expect(response.headers.get('content-security-policy')).not.toContain('unsafe')
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
    const again = await fetch(`${base}/app.js`, { headers: { 'if-none-match': (await get('/app.js')).headers.get('etag') ?? '' } })
    expect(again.status).toBe(304)
  })

  test('refuses what is not for this chat, before anybody hears of it', async () => {
    const program = await buildSDKClient()
    const client = new SDKClient(program.path)
    const { uid, token } = await login('Nia')
    await client.connect({ addr: `ws://127.0.0.1:${chat.port}/ws`, uid, token })
    expect(await client.next('status')).toMatchObject({ status: 1 })
    client.send(LOBBY, 'x'.repeat(4001))
    expect(await client.next('ack')).toMatchObject({ reasonCode: ReasonCode.NotAllowSend })
    client.send({ channelID: 'nobody-here', channelType: ChannelType.Person }, 'hello?')
    expect(await client.next('ack')).toMatchObject({ reasonCode: ReasonCode.ChannelNotExist })
    client.send(LOBBY, 'x'.repeat(4000))
    expect(await client.next('ack')).toMatchObject({ reasonCode: ReasonCode.Success })
    await client.end()
    await program.remove()
  })

  test('closes with a stream and a half-open connection still there', async () => {
    const other = await start({ port: 0, tcpPort: 0, dataDir: newFolder() })
    const { token } = (await (await fetch(`http://127.0.0.1:${other.port}/api/login`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"name":"Ann"}' })).json()) as { token: string }
    const stream = await fetch(`http://127.0.0.1:${other.port}/api/events`, { headers: { authorization: `Bearer ${token}` } })
    const silent = connect(other.tcpPort, '127.0.0.1')
    silent.on('error', () => undefined)
    await other.close()
    expect(await stream.text()).toContain('event: people')
    silent.destroy()
  })

  test('says which port is taken', async () => {
    await expect(start({ port: chat.port, tcpPort: 0, dataDir: newFolder() })).rejects.toMatchObject({ code: 'EADDRINUSE', port: chat.port })
    await expect(start({ port: 0, tcpPort: chat.tcpPort, dataDir: newFolder() })).rejects.toMatchObject({ code: 'EADDRINUSE', port: chat.tcpPort })
  })
})

// Browsers are slow where many tests run at once: the limit is only there to end what hangs.
describe.skipIf(CHROMIUM === undefined)('the chat page', { timeout: 90_000 }, () => {
  let chat: Chat
  let chatBrowser: ChatBrowser
  let line: Line

  beforeAll(async () => {
    chat = await start({ port: 0, tcpPort: 0, dataDir: newFolder() })
    line = await Line.to(chat.port)
    chatBrowser = await ChatBrowser.launch()
  })
  afterAll(async () => {
    await chatBrowser.close()
    await line.close()
    await chat.close()
  })

  const open = (name: string, { port = chat.port, ...options }: BrowserContextOptions & { port?: number } = {}): Promise<Page> => chatBrowser.open(name, { port, ...options })

  test('two people talk in the lobby and alone', async () => {
    const ann = await open('Ann')
    const bob = await open('Bob')
    await row(ann, 'Bob').getByText('Online').waitFor()
    await ann.getByText('2 people, 2 online').waitFor()

    await say(ann, 'Good morning, everybody')
    // Number 1 is the server's welcome.
    expect(await sent(ann, 'Good morning, everybody')).toBe('Sent · #2')
    await bubble(bob, 'Good morning, everybody').getByText('Ann', { exact: true }).waitFor()
    const hostile = '<img src=x onerror="document.title=1"><b>bold</b> javascript:alert(1)'
    await say(bob, hostile)
    await bubble(ann, hostile).waitFor()
    expect(await messages(ann).locator('img, b, a').count()).toBe(0)

    await row(ann, 'Bob').click()
    await ann.getByRole('heading', { name: 'Bob' }).waitFor()
    await say(ann, 'Just the two of us')
    expect(await sent(ann, 'Just the two of us')).toBe('Sent · #1')
    await row(bob, 'Ann').getByText('1 unread').waitFor()
    await row(bob, 'Ann').click()
    await bubble(bob, 'Just the two of us').waitFor()
    await row(bob, 'Ann').getByText('unread').waitFor({ state: 'hidden' })
    await say(bob, 'Line one\nand two')
    expect(await sent(bob, 'Line one')).toBe('Sent · #2')
    await bubble(ann, 'Line one').waitFor()

    // A reload stays signed in and shows what was said.
    await bob.reload()
    await bubble(bob, 'Just the two of us').waitFor()
    expect(await messages(bob).locator('.text').allTextContents()).toEqual(['Just the two of us', 'Line one\nand two'])
    await row(bob, 'Lobby').click()
    await bubble(bob, 'Good morning, everybody').waitFor()
    expect(await sent(bob, hostile)).toBe('Sent · #3')

    mkdirSync(fileURLToPath(new URL('../../artifacts/', import.meta.url)), { recursive: true })
    await ann.screenshot({ path: fileURLToPath(new URL('../../artifacts/chat-page.png', import.meta.url)) })
    await Promise.all([ann.context().close(), bob.context().close()])
  })

  test('a message that cannot be read hides nothing else', async () => {
    const ivy = await open('Ivy')
    const send = (payload: string): Promise<unknown> => chat.engine.messages.send({ channelID: 'ivy', channelType: 1, fromUID: 'hostile', payload: Buffer.from(payload) })
    await send('{"type":1,"content":{"toString":1}}')
    await send('{"type":1,"content":"fine"}')
    await send('{"type":1,"content":"with a reply","reply":{"payload":7}}')
    await send('not JSON')
    await send('{"type":1,"content":"last"}')
    await row(ivy, 'hostile').click()
    await bubble(ivy, 'last').waitFor()
    const unknown = 'This message is of a kind this page does not show.'
    await expect.poll(() => messages(ivy).locator('.text').allTextContents()).toEqual([unknown, 'fine', expect.any(String), unknown, 'last'])
    await row(ivy, 'Lobby').click()
    await say(ivy, 'still here')
    await sent(ivy, 'still here')
    await ivy.context().close()
  })

  test('a refused message says why, and is sent once when it is tried again', async () => {
    const cay = await open('Cay')
    const dan = await open('Dan')
    await chat.engine.channels.subscribers.remove(LOBBY, ['cay'])
    await say(cay, 'Can you hear me?')
    await bubble(cay, 'Can you hear me?').getByText('Not delivered: you are not a member of this conversation.').waitFor()
    await chat.engine.channels.subscribers.add(LOBBY, ['cay'])
    await bubble(cay, 'Can you hear me?').getByRole('button', { name: 'Try again' }).click()
    expect(await sent(cay, 'Can you hear me?')).toMatch(/^Sent · #\d+$/)
    await bubble(dan, 'Can you hear me?').waitFor()
    expect(await bubble(cay, 'Can you hear me?').count()).toBe(1)
    await Promise.all([cay.context().close(), dan.context().close()])
  })

  test('what was typed without a connection, and over a reload, arrives once and in order', async () => {
    const eva = await open('Eva', { port: line.port })
    const fay = await open('Fay')
    await say(eva, 'before')
    await sent(eva, 'before')

    line.cut()
    await eva.getByText(/Connection lost. Reconnecting/).waitFor()
    for (const text of ['away 1', 'away 2', 'away 3']) await say(eva, text)
    await say(fay, 'missed while away')
    await sent(fay, 'missed while away')
    expect(await state(eva, 'away 1').getAttribute('aria-label')).toBe('Sending')
    line.restore()
    await sent(eva, 'away 3')
    await bubble(eva, 'missed while away').waitFor()
    await bubble(fay, 'away 3').waitFor()
    const texts = ['before', 'missed while away', 'away 1', 'away 2', 'away 3']
    for (const page of [eva, fay]) expect((await messages(page).locator('.text').allTextContents()).slice(-5)).toEqual(texts)

    line.cut()
    await eva.getByText(/Connection lost. Reconnecting/).waitFor()
    await say(eva, 'typed, then reloaded')
    line.restore()
    await eva.reload()
    await sent(eva, 'typed, then reloaded')
    await bubble(fay, 'typed, then reloaded').waitFor()
    expect(await bubble(fay, 'typed, then reloaded').count()).toBe(1)
    expect(await bubble(eva, 'typed, then reloaded').count()).toBe(1)
    await Promise.all([eva.context().close(), fay.context().close()])
  })

  test('what is taken back is gone for everybody, and no longer unread', async () => {
    const jim = await open('Jim')
    const kay = await open('Kay', { port: line.port })
    await say(jim, 'Everybody can read this')
    await sent(jim, 'Everybody can read this')
    await bubble(kay, 'Everybody can read this').waitFor()
    await row(jim, 'Kay').click()
    for (const text of ['Only you', 'Not this']) await say(jim, text)
    await row(kay, 'Jim').getByText('2 unread').waitFor()

    jim.on('dialog', (dialog) => void dialog.accept())
    const takeBack = async (text: string): Promise<void> => {
      await bubble(jim, text).hover()
      await bubble(jim, text).getByRole('button', { name: 'Take it back' }).click()
      await bubble(jim, text).waitFor({ state: 'detached' })
    }
    const gone = 'This message was taken back.'
    await takeBack('Not this')
    await row(kay, 'Jim').getByText('1 unread').waitFor()
    await row(kay, 'Jim').getByText(gone).waitFor()
    await row(kay, 'Jim').click()
    await bubble(kay, gone).waitFor()
    expect(await texts(kay)).toEqual(['Only you', gone])
    expect(await texts(jim)).toEqual(['Only you', gone])
    expect(await messages(kay).getByRole('button', { name: 'Take it back' }).count()).toBe(0)

    // Also for those who were away, where they are and where they have been.
    line.cut()
    await kay.getByText(/Connection lost. Reconnecting/).waitFor()
    await takeBack('Only you')
    await row(jim, 'Lobby').click()
    await takeBack('Everybody can read this')
    line.restore()
    await bubble(kay, 'Only you').waitFor({ state: 'detached' })
    expect(await texts(kay)).toEqual([gone, gone])
    await row(kay, 'Lobby').click()
    await kay.getByRole('heading', { name: 'Lobby' }).waitFor() // until then, what was open before is still on the page
    await bubble(kay, gone).waitFor()
    expect(await bubble(kay, 'Everybody can read this').count()).toBe(0)
    await Promise.all([jim.context().close(), kay.context().close()])
  })

  test('signing in a second time ends the first, which can take it back', async () => {
    const gus = await open('Gus')
    const second = await gus.context().newPage()
    await second.goto(`http://127.0.0.1:${chat.port}/`)
    await signIn(second, 'gus')
    await gus.getByText('Signed in elsewhere. This tab no longer receives messages.').waitFor()
    expect(await gus.getByRole('textbox', { name: 'You are not signed in here any more' }).isDisabled()).toBe(true)

    await gus.getByRole('button', { name: 'Use it here' }).click()
    await gus.getByText('Connected', { exact: true }).waitFor()
    await second.getByText('Signed in elsewhere. This tab no longer receives messages.').waitFor()
    await gus.getByRole('button', { name: 'Sign out' }).click()
    await gus.getByLabel('Your name').waitFor()
    await gus.context().close()
  })

  test('on a phone one pane is shown at a time; the keyboard reaches everything', async () => {
    const hal = await open('Hal', { viewport: { width: 390, height: 844 }, colorScheme: 'dark', reducedMotion: 'reduce' })
    await row(hal, 'Lobby').waitFor()
    expect(await composer(hal).isVisible()).toBe(false)
    await row(hal, 'Lobby').focus()
    await hal.keyboard.press('Enter')
    await composer(hal).waitFor()
    expect(await row(hal, 'Lobby').isVisible()).toBe(false)
    await composer(hal).fill('first')
    await composer(hal).press('Shift+Enter')
    expect(await composer(hal).inputValue()).toBe('first\n')
    await hal.getByRole('link', { name: 'Back to the conversations' }).click()
    await row(hal, 'Lobby').waitFor()
    await row(hal, 'Lobby').focus()
    await hal.keyboard.press('ArrowDown')
    expect(await hal.evaluate('document.activeElement.className')).toBe('row')
    expect(await hal.evaluate('document.documentElement.scrollWidth')).toBe(390)
    await hal.context().close()
  })

  test('nothing was thrown and nothing the policy forbids was tried', () => {
    expect(chatBrowser.complaints).toEqual([])
  })
})

/** A line to the server that can be cut, as a network is: what was connected ends, and nobody gets through until it is restored. */
class Line {
  readonly #server: Server
  readonly #ends = new Set<Socket>()
  #isCut = false

  static async to(port: number): Promise<Line> {
    const line = new Line(port)
    await new Promise<void>((resolve) => line.#server.listen(0, '127.0.0.1', resolve))
    return line
  }

  private constructor(port: number) {
    this.#server = createServer((near) => {
      if (this.#isCut) return void near.destroy()
      const far = connect(port, '127.0.0.1')
      for (const [end, other] of [[near, far], [far, near]] as const) {
        this.#ends.add(end)
        end.on('error', () => undefined)
        end.on('close', () => {
          this.#ends.delete(end)
          other.destroy()
        })
        end.pipe(other)
      }
    })
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  cut(): void {
    this.#isCut = true
    for (const end of this.#ends) end.destroy()
  }

  restore(): void {
    this.#isCut = false
  }

  async close(): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
