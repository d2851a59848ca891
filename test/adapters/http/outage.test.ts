import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { allowAnyToken, IMEngine, memoryStorage, ReasonCode, type Storage } from 'imengine'
import { httpWebhook, verifyWebhookSignature } from 'imengine/http'
import { levelStorage } from 'imengine/level'
import { connectTestClient, seededRandom } from 'imengine/testing'
import { stage, TEAM } from '../../support.ts'
import { deafPort, eventsOf, farServer, reply, type FarRequest, type FarServer } from './far-server.ts'

const SECRET = `whsec_${Buffer.from('twenty-four random bytes').toString('base64')}`

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

/** What a receiver has taken, each delivery once, and whether every one was signed. */
function receiver() {
  const seen = new Set<string>()
  const texts: string[] = []
  const far = { texts, online: [] as string[], unsignedCount: 0, isUp: true }
  const answer = (request: FarRequest): void => {
    // The engine's clock is not the machine's: how far they are apart is another test's business.
    const isSigned = verifyWebhookSignature({ secret: SECRET, headers: request.headers, body: request.body, toleranceSec: Infinity })
    if (!isSigned) far.unsignedCount++
    if (!far.isUp) return reply(request, {}, 503)
    const id = request.headers['webhook-id'] as string
    if (!seen.has(id)) {
      seen.add(id)
      for (const event of eventsOf(request)) {
        if (event.event === 'msg.notify') texts.push(...event.messages.map(({ payload }) => Buffer.from(payload).toString()))
        if (event.event === 'user.onlinestatus') far.online.push(`${event.uid} ${event.online}`)
      }
    }
    reply(request, {})
  }
  return { far, answer }
}

async function server(answer: (request: FarRequest) => unknown, port = 0): Promise<FarServer> {
  const opened = await farServer(answer, port)
  closers.push(() => opened.close())
  return opened
}

describe('M13: webhooks signed, durable outbox, before-send reject and replace', () => {
  it('a receiver that is down for a minute, then broken, then up is told of everything, in order per channel, each time with a valid HMAC', async () => {
    const { far, answer } = receiver()
    const port = await deafPort()
    const webhook = httpWebhook({ url: `http://127.0.0.1:${port}/hook`, secret: SECRET })
    const { engine, connect, clock, errors } = await stage({ webhook, storage: memoryStorage() })
    const { client, pair } = await connect('ann')
    const sent: string[] = []
    const next = () => {
      const n = sent.length
      const payload = `${n % 4}/${n}`
      sent.push(payload)
      return { ...(n % 4 === 0 ? TEAM : { channelID: `peer ${n % 4}`, channelType: 1 }), payload }
    }
    for (let second = 0; second < 30; second++) {
      expect((await client.send(next())).reasonCode).toBe(ReasonCode.Success)
      await clock.advance(1_000)
    }
    pair.client.end()
    far.isUp = false
    await server(answer, port)
    for (let second = 30; second < 60; second++) {
      const { payload, ...target } = next()
      await engine.messages.send({ ...target, fromUID: 'ann', payload: Buffer.from(payload) })
      await clock.advance(1_000)
    }
    far.isUp = true
    await vi.waitFor(async () => {
      await clock.advance(1_000)
      expect(far.texts.length).toBeGreaterThanOrEqual(sent.length)
      expect(far.online.length).toBeGreaterThanOrEqual(2)
    }, { timeout: 20_000 })
    const of = (texts: readonly string[], place: number): string[] => texts.filter((text) => text.startsWith(`${place}/`))
    for (let place = 0; place < 4; place++) expect(of(far.texts, place)).toEqual(of(sent, place))
    expect(far.online).toEqual(['ann true', 'ann false'])
    expect(far.unsignedCount).toBe(0)
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['IM_WEBHOOK_FAILED']))
  })

  it('message.send: a no is SENDACK 11 and stored nowhere, a new payload is what is stored, extra reaches later handlers', async () => {
    const far = await server((request) => {
      const { payload } = JSON.parse(request.body) as { readonly payload: string }
      if (!verifyWebhookSignature({ secret: SECRET, headers: request.headers, body: request.body })) return reply(request, {}, 401)
      if (Buffer.from(payload, 'base64').includes('bad')) return reply(request, { code: 403, message: 'not here' })
      reply(request, { code: 0, newPayload: Buffer.from('nice').toString('base64'), extra: { score: 3 } })
    })
    const webhook = httpWebhook({ url: far.url, secret: SECRET, beforeSend: true, events: [] })
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), webhook })
    closers.push(() => engine.close())
    await engine.start()
    const extras: unknown[] = []
    const refused: unknown[] = []
    engine.use('EventOnSend', function look(ctx) { extras.push(ctx.extra) }, { after: 'callWebhook' })
    engine.on('messageRefused', ({ message }) => refused.push(message))
    await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    const { client: ann } = await connectTestClient(engine, { uid: 'ann' })
    const { client: bob } = await connectTestClient(engine, { uid: 'bob' })
    expect(await ann.send({ ...TEAM, payload: 'bad thing' })).toMatchObject({ reasonCode: ReasonCode.NotAllowSend, messageSeq: 0 })
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(await ann.send({ ...TEAM, payload: 'thing' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect((await bob.nextRecv()).text).toBe('nice')
    expect(extras).toEqual([{ score: 3 }])
    expect(refused).toEqual(['not here'])
  })

  it('message.send: a far end that is down is SENDACK 15 when it is required, and no obstacle when it is not', async () => {
    const url = `http://127.0.0.1:${await deafPort()}/`
    const errors: string[] = []
    for (const required of [true, false]) {
      const webhook = httpWebhook({ url, events: [], beforeSend: { required }, onError: ({ code }) => errors.push(code) })
      const { connect } = await stage({ webhook })
      const { client } = await connect('ann')
      const { reasonCode } = await client.send({ ...TEAM, payload: 'x' })
      expect(reasonCode).toBe(required ? ReasonCode.SystemError : ReasonCode.Success)
    }
    expect(errors).toEqual(['IM_WEBHOOK_FAILED'])
  })

  /** Two lives over one storage: the first is told by a receiver that is down, and ends; the second finds it up. */
  async function twoLives(storageOf: () => Storage): Promise<void> {
    const { far, answer } = receiver()
    const port = await deafPort()
    const life = (seed: number) =>
      stage({
        webhook: httpWebhook({ url: `http://127.0.0.1:${port}/hook`, secret: SECRET, events: ['msg.notify'] }),
        storage: storageOf(),
        random: seededRandom(seed),
      })
    const first = await life(1)
    const sent = Array.from({ length: 150 }, (_, n) => String(n))
    for (const payload of sent) await first.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(payload) })
    await first.clock.advance(2_000)
    await first.engine.close()
    await server(answer, port)
    const second = await life(2)
    await vi.waitFor(async () => {
      await second.clock.advance(1_000)
      expect(far.texts.length).toBeGreaterThanOrEqual(sent.length)
    }, { timeout: 20_000 })
    expect(far.texts).toEqual(sent)
    expect(far.unsignedCount).toBe(0)
  }

  it('what was not told before a restart is told after it, with an outbox that lasts', async () => {
    const storage = memoryStorage()
    await twoLives(() => storage)
  })

  it.skipIf(!('outbox' in levelStorage({ path: 'never opened' })))('the same with storage in a folder', async () => {
    const path = await mkdtemp(join(tmpdir(), 'imengine-outbox-'))
    closers.push(() => rm(path, { recursive: true }))
    await twoLives(() => levelStorage({ path }))
  })
})
