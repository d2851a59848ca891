import { createServer, type Server, type Socket } from 'node:net'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { BeforeSendRequest, IMError, Webhook, WebhookEvent } from 'imengine'
import { httpWebhook, verifyWebhookSignature } from 'imengine/http'
import { FakeClock, sampleMessage, seededRandom } from 'imengine/testing'
import { deafPort, farServer, reply, type FarRequest, type FarServer } from './far-server.ts'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function server(answer: (request: FarRequest) => unknown): Promise<FarServer> {
  const opened = await farServer(answer)
  closers.push(() => opened.close())
  return opened
}

/** A server that answers every connection with the same bytes, whatever it is asked. */
async function rawServer(bytes: string, after: (socket: Socket) => void = (socket) => socket.end()): Promise<string> {
  const raw: Server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.write(bytes, () => after(socket)))
    closers.push(() => socket.destroy())
  })
  closers.push(() => raw.close())
  await once(raw.listen(0, '127.0.0.1'), 'listening')
  return `http://127.0.0.1:${(raw.address() as AddressInfo).port}/`
}

const never = (): AbortSignal => new AbortController().signal
const QUESTION: BeforeSendRequest = { fromUID: 'ann', deviceFlag: 1, channelID: 'team', channelType: 2, clientMsgNo: 'n', payload: Buffer.from('very secret payload') }
const stored = (n: number): WebhookEvent => ({ event: 'msg.notify', messages: [sampleMessage(n, { messageSeq: n })] })
const online = (uid: string): WebhookEvent => ({ event: 'user.onlinestatus', uid, deviceFlag: 1, online: true, connectionID: '7', deviceOnlineCount: 1, onlineCount: 2 })

const ask = async (webhook: Webhook, request = QUESTION, signal = never()): Promise<unknown> => webhook.beforeSend!(request, signal)
const tell = async (webhook: Webhook, events: readonly WebhookEvent[]): Promise<void> => webhook.notify!(events, never())

/** What a call rejects with; the test fails when it does not. */
async function failureOf(call: Promise<unknown>): Promise<IMError> {
  return call.then(
    () => Promise.reject(new Error('it was answered')),
    (reason: unknown) => reason as IMError,
  )
}

const LONG = 'x'.repeat(70_000)
const HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n'

describe('a far end that does not answer as it should', () => {
  const manners: [manner: string, open: () => Promise<string>, detail: RegExp][] = [
    ['nobody listens', async () => `http://127.0.0.1:${await deafPort()}/`, /the connection failed \(ECONNREFUSED\)/],
    ['status 500', async () => (await server((request) => reply(request, { code: 0 }, 500))).url, /status 500/],
    ['status 404', async () => (await server((request) => reply(request, { code: 0 }, 404))).url, /status 404/],
    ['a redirect, which is not followed', async () => {
      const other = await server((request) => reply(request, { code: 0 }))
      const first = await server(({ response }) => response.writeHead(307, { location: other.url }).end())
      closers.push(() => expect(other.requests).toEqual([]))
      return first.url
    }, /status 307/],
    ['silence', async () => (await server(() => undefined)).url, /no answer after 50 ms/],
    ['silence behind the head', async () => rawServer(`${HEAD}content-length: 10\r\n\r\n`, () => undefined), /no answer after 50 ms/],
    ['a connection that ends at once', async () => rawServer(''), /the connection failed \(ECONNRESET\)/],
    ['a reset in the middle of the body', async () => rawServer(`${HEAD}content-length: 10\r\n\r\n{"co`, (socket) => socket.resetAndDestroy()), /in the middle of the answer|the connection failed/],
    ['a content-length that is too long', async () => rawServer(`${HEAD}content-length: 100\r\n\r\n{"code":0}`), /in the middle of the answer/],
    ['a body cut off between chunks', async () => rawServer(`${HEAD}transfer-encoding: chunked\r\n\r\na\r\n{"code":0}\r\n`), /in the middle of the answer/],
    ['a body that says that it is too large', async () => rawServer(`${HEAD}content-length: 99999999\r\n\r\n{`, () => undefined), /longer than 65536 bytes/],
    ['a body that is too large without saying so', async () => (await server(({ response }) => { response.writeHead(200).write(LONG) })).url, /longer than 65536 bytes/],
    ['bytes that are not HTTP', async () => rawServer('SSH-2.0-OpenSSH_9.6\r\n'), /the connection failed \(HPE_/],
  ]

  for (const [manner, open, detail] of manners) {
    it(`${manner}: both methods reject with IM_WEBHOOK_FAILED, and say nothing of URL, secret and payload`, async () => {
      const timeoutMs = manner.startsWith('silence') ? 50 : 25_000 // a slow machine must not turn one failure into another
      const url = new URL(await open())
      url.username = 'hookuser'
      url.password = 'hookpassword'
      url.search = '?key=querysecret'
      const webhook = httpWebhook({ url, secret: 'signing secret', beforeSend: { timeoutMs }, notifyTimeoutMs: timeoutMs })
      for (const failure of [await failureOf(ask(webhook)), await failureOf(tell(webhook, [stored(1)]))]) {
        expect(failure).toMatchObject({ code: 'IM_WEBHOOK_FAILED' })
        expect(failure.message).toMatch(detail)
        expect(failure.cause).toBeUndefined()
        expect(JSON.stringify([failure.message, failure.context, failure.stack])).not.toMatch(/hookuser|hookpassword|querysecret|signing secret|very secret/)
      }
    })
  }

  const answers: [what: string, body: string][] = [
    ['nothing', ''], ['text', 'OK'], ['a number', '0'], ['null', 'null'], ['an array', '[]'], ['no code', '{}'], ['a code that is text', '{"code":"0"}'],
    ['a code with a fraction', '{"code":0.5}'], ['a message that is none', '{"code":1,"message":7}'], ['an extra that is a list', '{"code":0,"extra":[1]}'],
    ['a payload that is not base64', '{"code":0,"newPayload":"not base64!"}'], ['a payload that is an object', '{"code":0,"new_payload":{}}'],
    ['half of it, because content-length is too short', 'SHORT'],
  ]
  for (const [what, body] of answers) {
    it(`answers with ${what}: a failure, not a yes`, async () => {
      const url = body === 'SHORT'
        ? await rawServer(`${HEAD}content-length: 5\r\n\r\n{"code":0}`)
        : (await server(({ response }) => response.writeHead(200).end(body))).url
      expect(await failureOf(ask(httpWebhook({ url, beforeSend: true })))).toMatchObject({ code: 'IM_WEBHOOK_FAILED' })
    })
  }

  it('null stands for absent, and both spellings of the new payload are read', async () => {
    const bodies = ['{"code":0,"message":null,"extra":null,"newPayload":null}', '{"code":0,"new_payload":"aGk="}', '{"code":0,"newPayload":"aGk="}']
    let count = 0
    const { url } = await server(({ response }) => response.writeHead(200).end(bodies[count++]))
    const webhook = httpWebhook({ url, beforeSend: true })
    expect([await ask(webhook), await ask(webhook), await ask(webhook)]).toEqual([
      { code: 0 },
      { code: 0, newPayload: new Uint8Array(Buffer.from('hi')) },
      { code: 0, newPayload: new Uint8Array(Buffer.from('hi')) },
    ])
  })
})

describe('connections', () => {
  it('are kept: questions one after the other use one', async () => {
    const far = await server((request) => reply(request, { code: 0 }))
    const webhook = httpWebhook({ url: far.url, beforeSend: true })
    for (let n = 0; n < 5; n++) await ask(webhook)
    expect(far.connectionCount).toBe(1)
  })

  it('that the far end has closed meanwhile cost nothing: the question is asked again on another', async () => {
    let socket: Socket | undefined
    const raw = createServer((opened) => {
      opened.on('error', () => undefined)
      let isFirst = socket === undefined
      socket ??= opened
      opened.on('data', () => {
        if (!isFirst && opened === socket) return opened.resetAndDestroy() // asked again on the kept one
        isFirst = false
        opened.write(`${HEAD}content-length: 10\r\n\r\n{"code":0}`)
      })
    })
    closers.push(() => raw.close())
    await once(raw.listen(0, '127.0.0.1'), 'listening')
    const webhook = httpWebhook({ url: `http://127.0.0.1:${(raw.address() as AddressInfo).port}/`, beforeSend: true })
    expect(await ask(webhook)).toEqual({ code: 0 })
    expect(await ask(webhook)).toEqual({ code: 0 })
    closers.push(() => socket?.destroy())
  })
})

describe('message.send', () => {
  it('is POSTed as JSON with the query, the headers and the password of the URL', async () => {
    const far = await server((request) => reply(request, { code: 0 }))
    const url = new URL(`${far.url}?tenant=7`)
    url.username = 'user'
    url.password = 'pass'
    await ask(httpWebhook({ url, beforeSend: true, headers: { 'X-Tenant': 'seven' } }))
    const { method, url: asked, headers, body } = far.requests[0]!
    expect([method, asked]).toEqual(['POST', '/hook?tenant=7&event=message.send'])
    expect(headers).toMatchObject({
      'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)), 'x-tenant': 'seven', authorization: `Basic ${Buffer.from('user:pass').toString('base64')}`,
    })
    expect(JSON.parse(body)).toEqual({
      from_uid: 'ann', device_flag: 1, channel_id: 'team', channel_type: 2, client_msg_no: 'n', payload: Buffer.from('very secret payload').toString('base64'),
    })
  })

  it('asks maxConcurrent at a time, lets maxQueued wait, and fails the rest at once', async () => {
    const held: FarRequest[] = []
    const far = await server((request) => void held.push(request))
    const webhook = httpWebhook({ url: far.url, beforeSend: { maxConcurrent: 2, maxQueued: 1 } })
    const asked = [ask(webhook), ask(webhook), ask(webhook)]
    expect((await failureOf(ask(webhook))).message).toContain('1 questions are waiting')
    await vi.waitFor(() => expect(held.length).toBe(2), { timeout: 20_000 })
    for (const request of held.splice(0)) reply(request, { code: 0 })
    await vi.waitFor(() => expect(held.length).toBe(1), { timeout: 20_000 })
    reply(held[0]!, { code: 0 })
    expect(await Promise.all(asked)).toEqual([{ code: 0 }, { code: 0 }, { code: 0 }])
  })

  it('that waits for its turn is given up with its signal, and never asked', async () => {
    const held: FarRequest[] = []
    const far = await server((request) => void held.push(request))
    const webhook = httpWebhook({ url: far.url, beforeSend: { maxConcurrent: 1 } })
    const first = ask(webhook)
    await vi.waitFor(() => expect(held.length).toBe(1), { timeout: 20_000 })
    const patience = new AbortController()
    const second = failureOf(ask(webhook, QUESTION, patience.signal))
    patience.abort()
    expect((await second).message).toContain('the caller gave up waiting')
    reply(held[0]!, { code: 0 })
    await first
    expect(far.requests.length).toBe(1)
  })

  it('required: false lets the message go unasked, and tells of the first failure of a streak', async () => {
    let isDown = true
    const far = await server((request) => reply(request, { code: isDown ? 0 : 7 }, isDown ? 503 : 200))
    const errors: IMError[] = []
    const webhook = httpWebhook({ url: far.url, beforeSend: { required: false }, onError: (error) => errors.push(error) })
    expect([await ask(webhook), await ask(webhook)]).toEqual([{ code: 0 }, { code: 0 }])
    isDown = false
    expect(await ask(webhook)).toEqual({ code: 7 })
    isDown = true
    expect(await ask(webhook)).toEqual({ code: 0 })
    expect(errors.map(({ code, detail }) => [code, detail])).toEqual([['IM_WEBHOOK_FAILED', 'status 503'], ['IM_WEBHOOK_FAILED', 'status 503']])
  })

  it('the breaker: after failureCount failures nobody is asked for resetMs, then one call decides', async () => {
    const clock = new FakeClock()
    let isDown = true
    const held: FarRequest[] = []
    let isHeld = false
    const far = await server((request) => (isHeld ? void held.push(request) : reply(request, { code: 0 }, isDown ? 503 : 200)))
    const webhook = httpWebhook({ url: far.url, clock, beforeSend: { breaker: { failureCount: 3, resetMs: 10_000 } } })
    for (let n = 0; n < 3; n++) expect((await failureOf(ask(webhook))).detail).toBe('status 503')
    expect((await failureOf(ask(webhook))).detail).toBe('it has failed too often and is not asked for a while')
    await clock.advance(9_999)
    await failureOf(ask(webhook))
    expect(far.requests.length).toBe(3)
    await clock.advance(1)
    expect((await failureOf(ask(webhook))).detail).toBe('status 503') // the one that was let through
    await failureOf(ask(webhook))
    expect(far.requests.length).toBe(4)
    await clock.advance(10_000)
    isDown = false
    isHeld = true
    const probe = ask(webhook)
    await vi.waitFor(() => expect(held.length).toBe(1), { timeout: 20_000 })
    await failureOf(ask(webhook)) // not while it is being tried
    isHeld = false
    reply(held[0]!, { code: 0 })
    expect(await probe).toEqual({ code: 0 })
    expect(await ask(webhook)).toEqual({ code: 0 })
    expect(clock.pendingTimerCount).toBe(0)
  })
})

describe('notify', () => {
  it('posts messages in the JSON of the reference server, ids as whole numbers', async () => {
    const far = await server((request) => reply(request, {}))
    const message = sampleMessage(1, { messageID: '9223372036854775807', messageSeq: 5, topic: 't', expireSec: 60, setting: 8, redDot: false, syncOnce: true })
    await tell(httpWebhook({ url: far.url }), [{ event: 'msg.notify', messages: [message, { ...message, revision: { kind: 'edited', version: 2, byUID: 'bob', timestampMs: 5 } }] }])
    expect(far.requests[0]!.body.startsWith(
      '[{"header":{"no_persist":0,"red_dot":0,"sync_once":1},"setting":8,"message_id":9223372036854775807,"message_idstr":"9223372036854775807","client_msg_no":"no-1",' +
        '"message_seq":5,"from_uid":"ann","channel_id":"room","channel_type":2,"topic":"t","expire":60,"timestamp":1700000000,"timestamp_ms":1700000000001,"payload":"bWVzc2FnZSAx"},',
    )).toBe(true)
    const [, revised] = JSON.parse(far.requests[0]!.body) as { readonly revision: unknown }[]
    expect(revised!.revision).toEqual({ kind: 'edited', version: 2, by_uid: 'bob', timestamp_ms: 5 })
  })

  it('posts neighbours of one kind together, offline receivers message by message, all in order', async () => {
    const far = await server((request) => reply(request, {}, 204))
    const many = Array.from({ length: 1_001 }, (_, n) => `u${n}`)
    await tell(httpWebhook({ url: far.url }), [
      stored(1), stored(2), online('a-b'), online('c'),
      { event: 'msg.offline', message: sampleMessage(3), uids: ['x', 'y'] },
      { event: 'msg.offline', message: sampleMessage(4), uids: many },
      stored(5),
    ])
    expect(far.requests.map(({ event }) => event)).toEqual(['msg.notify', 'user.onlinestatus', 'msg.offline', 'msg.offline', 'msg.notify'])
    expect(JSON.parse(far.requests[1]!.body)).toEqual(['a-b-1-1-7-1-2', 'c-1-1-7-1-2'])
    expect(JSON.parse(far.requests[2]!.body)).toMatchObject({ message_idstr: sampleMessage(3).messageID, to_uids: ['x', 'y'] })
    expect(JSON.parse(far.requests[3]!.body)).toMatchObject({ compress: 'gzip', to_uids: [] })
  })

  it('signs every POST with every secret, and gives a repeated one the same id, without posting again what was taken', async () => {
    const clock = new FakeClock()
    let failures = 2
    const far = await server((request) => {
      if (request.event === 'user.onlinestatus' && failures-- > 0) return reply(request, {}, 500)
      reply(request, {})
    })
    const secrets = [`whsec_${Buffer.from('the new key of 24 bytes.').toString('base64')}`, 'the old one']
    const webhook = httpWebhook({ url: far.url, secret: secrets, clock, random: seededRandom(1) })
    const events = [stored(1), online('ann'), stored(2)]
    await failureOf(tell(webhook, events))
    await clock.advance(5_000)
    await failureOf(tell(webhook, events))
    await tell(webhook, events)
    expect(far.requests.map(({ event }) => event)).toEqual(['msg.notify', 'user.onlinestatus', 'user.onlinestatus', 'user.onlinestatus', 'msg.notify'])
    const ids = far.requests.map(({ headers }) => headers['webhook-id'] as string)
    expect(new Set(ids).size).toBe(3)
    expect(new Set(ids.slice(1, 4)).size).toBe(1)
    expect(ids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/)
    expect(far.requests.map(({ headers }) => Number(headers['webhook-timestamp']))).toEqual([1_700_000_000, 1_700_000_000, 1_700_000_005, 1_700_000_005, 1_700_000_005])
    for (const { headers, body } of far.requests) {
      for (const secret of [...secrets, Buffer.from('the old one')]) expect(verifyWebhookSignature({ secret, headers, body, nowMs: clock.nowMs() })).toBe(true)
      expect(verifyWebhookSignature({ secret: 'another', headers, body, nowMs: clock.nowMs() })).toBe(false)
    }
  })

  it('a call that is told anew gets new ids', async () => {
    const far = await server((request) => reply(request, {}))
    const webhook = httpWebhook({ url: far.url })
    const events = [stored(1)]
    await tell(webhook, events)
    await tell(webhook, events)
    const ids = far.requests.map(({ headers }) => headers['webhook-id'])
    expect(new Set(ids).size).toBe(2)
    expect(far.requests[0]!.headers['webhook-signature']).toBeUndefined()
  })

  it('is not there when no event is wanted, and beforeSend only when it is asked for', () => {
    const webhook = httpWebhook({ url: 'http://127.0.0.1:1/', events: [] })
    expect([webhook.notify, webhook.beforeSend, webhook.events]).toEqual([undefined, undefined, []])
  })
})

describe('options', () => {
  const wrong: [what: string, options: Record<string, unknown>, says: RegExp][] = [
    ['no URL', { url: 'example' }, /httpWebhook\.url must be an absolute http: or https: URL/],
    ['another scheme', { url: 'ftp://user:pass@example.org/' }, /httpWebhook\.url must be/],
    ['a password that is no percent-encoding', { url: 'http://user:100%pass@example.org/' }, /httpWebhook\.url must be/],
    ['a misspelt name', { secert: 'x' }, /httpWebhook\.secert must be left out/],
    ['an empty secret', { secret: '' }, /httpWebhook\.secret must be/],
    ['a secret that is not base64', { secret: 'whsec_!!' }, /httpWebhook\.secret must be/],
    ['no secret in the list', { secret: [] }, /httpWebhook\.secret must be/],
    ['an unknown event', { events: ['msg.notify', 'msg.stream'] }, /httpWebhook\.events\[1\] must be one of .*got "msg\.stream"/],
    ['events that are no list', { events: 'msg.notify' }, /httpWebhook\.events must be an array/],
    ['a secret that is not set', { secret: undefined }, /httpWebhook\.secret must be a secret, or left out/],
    ['an unknown format', { statusFormat: 'xml' }, /httpWebhook\.statusFormat must be/],
    ['a header of ours', { headers: { 'Content-Length': '5' } }, /httpWebhook\.headers must be/],
    ['a header with a line break', { headers: { 'x-a': 'secret\r\nx-b: c' } }, /httpWebhook\.headers\["x-a"\] must be/],
    ['a wrong number', { beforeSend: { timeoutMs: 0 } }, /httpWebhook\.beforeSend\.timeoutMs must be/],
    ['a wrong breaker', { beforeSend: { breaker: { failureCount: 0 } } }, /httpWebhook\.beforeSend\.breaker\.failureCount must be/],
    ['a wrong required', { beforeSend: { required: 'no' } }, /httpWebhook\.beforeSend\.required must be/],
  ]
  for (const [what, options, says] of wrong) {
    it(`${what} is a TypeError that quotes no secret`, () => {
      const make = (): unknown => httpWebhook({ url: 'http://127.0.0.1:1/', ...options })
      expect(make).toThrow(TypeError)
      expect(make).toThrow(says)
      expect(make).not.toThrow(/pass@|whsec_!!|secret\r/)
    })
  }
})
