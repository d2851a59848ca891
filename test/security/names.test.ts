import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { allowAnyToken, ChannelType, IMEngine, ReasonCode, staticTokenVerifier } from 'imengine'
import { httpTokenVerifier, httpWebhook, verifyWebhookSignature } from 'imengine/http'
import { stage } from '../support.ts'

const NAMES = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__']

const before = Object.getOwnPropertyNames(Object.prototype).toSorted()
afterEach(() => {
  expect(Object.getOwnPropertyNames(Object.prototype).toSorted()).toEqual(before)
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
})

/** A server on this machine that answers every POST with this text, and the headers of what it was asked. */
async function answering(text: string): Promise<{ url: string; asked: (readonly string[])[] }> {
  const asked: (readonly string[])[] = []
  const server = createServer((request, response) => {
    asked.push(request.rawHeaders) // Node itself keeps no header of the name __proto__ in the others
    request.resume().on('end', () => response.end(text))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, asked }
}

const request = { uid: '__proto__', token: 't', deviceFlag: 0, deviceID: '__proto__', remoteAddress: undefined, signal: new AbortController().signal }

describe('names that every object has', () => {
  test.each(NAMES)('%s is a uid, a device, a group, a topic and a clientMsgNo like any other', async (name) => {
    const { engine, connect, clock, errors } = await stage()
    const group = { channelID: name, channelType: ChannelType.Group }
    const { client: stranger } = await connect('stranger', { deviceID: name })
    expect((await stranger.send({ ...group, payload: 'x' })).reasonCode).toBe(ReasonCode.ChannelNotExist)
    await engine.channels.create(group, { subscribers: [name] })
    const { client } = await connect(name, { deviceID: name })
    const first = await client.send({ ...group, payload: 'x', clientMsgNo: name, topic: name })
    expect(first).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect(await client.send({ ...group, payload: 'x', clientMsgNo: name, topic: name })).toMatchObject({ messageID: first.messageID, messageSeq: 1 })
    expect((await stranger.send({ ...group, payload: 'x' })).reasonCode).toBe(ReasonCode.SubscriberNotExist)
    expect((await engine.channels.of(name)).items).toMatchObject([group])
    expect((await engine.presence.query([name])).map(({ uid, online }) => [uid, online])).toEqual([[name, true]])
    await clock.settle()
    expect(errors).toEqual([])
  })

  test('are in no table of tokens that does not list them', () => {
    const listed = staticTokenVerifier(JSON.parse('{"ann":"a","__proto__":"p"}') as Record<string, string>)
    const unlisted = staticTokenVerifier({ ann: 'a' })
    for (const uid of NAMES) expect(unlisted({ ...request, uid, token: 'p' }), uid).toEqual({ ok: false })
    expect(listed({ ...request, token: 'p' })).toMatchObject({ ok: true })
  })

  test('mean nothing in options: they are misspelt, like any other', () => {
    const options = JSON.parse('{"limits":{"__proto__":5}}') as { limits: object }
    expect(() => new IMEngine({ tokenVerifier: allowAnyToken(), limits: options.limits })).toThrow(TypeError)
    const whole = JSON.parse('{"__proto__":{"plaintext":"allow"}}') as object
    expect(() => new IMEngine(Object.assign(whole, { tokenVerifier: allowAnyToken() }))).toThrow(TypeError)
  })

  test('in the JSON of a webhook change no object, and are there for who asks for them', async () => {
    const { url, asked } = await answering('{"code":0,"extra":{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"own":1},"__proto__":{"code":1}}')
    const seen: unknown[] = []
    const { engine, connect } = await stage({ webhook: httpWebhook({ url, beforeSend: true, events: [], headers: JSON.parse('{"__proto__":"h","constructor":"c"}') as Record<string, string> }) })
    engine.use('EventOnSend', function look(ctx) {
      seen.push(ctx.extra)
    })
    const { client } = await connect('ann')
    expect((await client.send({ channelID: 'team', channelType: 2, payload: 'x', clientMsgNo: '__proto__' })).reasonCode).toBe(ReasonCode.Success)
    const [extra] = seen as Record<string, unknown>[]
    expect(extra?.['own']).toBe(1)
    expect(extra?.['polluted']).toBeUndefined()
    expect(Object.getPrototypeOf(extra)).toBe(Object.prototype)
    expect(asked[0]!.join(' ')).toContain('__proto__ h constructor c')
  })

  test.each([
    ['{"__proto__":{"code":0}}', 'rejects'],
    ['{"constructor":{"code":0}}', 'rejects'],
    ['{"code":1,"__proto__":{"code":0}}', 'refuses'],
  ])('in the JSON of a token verifier let nobody in: %s', async (text, outcome) => {
    const { url } = await answering(text)
    const verdict = Promise.resolve(httpTokenVerifier({ url })(request))
    if (outcome === 'rejects') await expect(verdict).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    else expect(await verdict).toEqual({ ok: false })
  })

  test('are no signature', () => {
    const headers = JSON.parse('{"__proto__":{"webhook-id":"1","webhook-timestamp":"1","webhook-signature":"v1,x"}}') as Record<string, string>
    expect(verifyWebhookSignature({ secret: 's', headers, body: '' })).toBe(false)
  })
})
