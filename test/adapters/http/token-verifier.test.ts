import { afterEach, describe, expect, it, vi } from 'vitest'
import { IMEngine, ReasonCode, type IMError, type VerifyTokenRequest } from 'imengine'
import { httpTokenVerifier } from 'imengine/http'
import { FakeClock, recordingLogger, socketPair, TestClient } from 'imengine/testing'
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

const asked = (over: Partial<VerifyTokenRequest> = {}): VerifyTokenRequest => ({
  uid: 'ann', token: 'token of ann', deviceFlag: 1, deviceID: 'd', remoteAddress: undefined, signal: new AbortController().signal, ...over,
})

describe('httpTokenVerifier', () => {
  it('posts what the client has shown, with the host’s headers', async () => {
    const far = await server((request) => reply(request, { code: 0 }))
    const verify = httpTokenVerifier({ url: far.url, headers: { authorization: 'Bearer of the engine' } })
    expect(await verify(asked())).toEqual({ ok: true })
    const { method, url, headers, body } = far.requests[0]!
    expect([method, url, headers.authorization]).toEqual(['POST', '/hook', 'Bearer of the engine'])
    expect(JSON.parse(body)).toEqual({ uid: 'ann', token: 'token of ann', deviceFlag: 1, deviceID: 'd' })
  })

  it.each<[body: string, result: unknown]>([
    ['{"code":0,"deviceLevel":1}', { ok: true, deviceLevel: 1 }],
    ['{"code":0,"deviceLevel":0}', { ok: true, deviceLevel: 0 }],
    ['{"code":0,"deviceLevel":null}', { ok: true }],
    ['{"code":1}', { ok: false }],
    ['{"code":-1,"reason":19}', { ok: false, reason: ReasonCode.Ban }],
    ['{"code":1,"reason":1}', { ok: false }],
    ['{"code":1,"reason":256}', { ok: false }],
    ['{"code":1,"reason":"19"}', { ok: false }],
  ])('%s', async (body, result) => {
    const far = await server(({ response }) => response.writeHead(200).end(body))
    expect(await httpTokenVerifier({ url: far.url })(asked())).toEqual(result)
  })

  it.each<[body: string, status: number]>([
    ['', 200], ['null', 200], ['yes', 200], ['{"ok":true}', 200], ['{"code":"0"}', 200], ['{"code":0,"deviceLevel":2}', 200], ['{"code":0,"deviceLevel":true}', 200],
    ['{"code":0}', 500], ['{"code":0}', 201], ['{"code":0}', 302],
  ])('%j with status %i is a failure, neither yes nor no', async (body, status) => {
    const far = await server(({ response }) => response.writeHead(status).end(body))
    await expect(httpTokenVerifier({ url: far.url })(asked())).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
  })

  it('keeps a yes for cacheMs, for the same token of the same device only, and never a no', async () => {
    const clock = new FakeClock()
    const far = await server((request) => reply(request, { code: request.body.includes('token of ann') ? 0 : 1 }))
    const verify = httpTokenVerifier({ url: far.url, cacheMs: 1_000, maxCached: 10, clock })
    for (let n = 0; n < 3; n++) expect(await verify(asked())).toEqual({ ok: true })
    expect(far.requests.length).toBe(1)
    for (const other of [{ deviceID: 'e' }, { deviceFlag: 0 }, { uid: 'bob' }]) await verify(asked(other))
    expect(far.requests.length).toBe(4)
    for (let n = 0; n < 2; n++) expect(await verify(asked({ token: 'wrong' }))).toEqual({ ok: false })
    expect(far.requests.length).toBe(6)
    await clock.advance(1_001)
    await verify(asked())
    expect(far.requests.length).toBe(7)
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('asks every time without cacheMs', async () => {
    const far = await server((request) => reply(request, { code: 0 }))
    const verify = httpTokenVerifier({ url: far.url })
    await verify(asked())
    await verify(asked())
    expect(far.requests.length).toBe(2)
  })

  it('hangs up when the client has gone', async () => {
    const held: FarRequest[] = []
    const far = await server((request) => void held.push(request))
    const gone = new AbortController()
    const verdict = httpTokenVerifier({ url: far.url })(asked({ signal: gone.signal }))
    await vi.waitFor(() => expect(held.length).toBe(1), { timeout: 20_000 })
    gone.abort()
    await expect(verdict).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    await vi.waitFor(() => expect(held[0]!.signal.aborted).toBe(true), { timeout: 20_000 })
  })

  it('asks nobody who has failed too often, until resetMs have passed', async () => {
    const clock = new FakeClock()
    const far = await server((request) => reply(request, { code: 0 }, far.requests.length <= 2 ? 500 : 200))
    const verify = httpTokenVerifier({ url: far.url, clock, breaker: { failureCount: 2, resetMs: 5_000 } })
    for (let n = 0; n < 4; n++) await expect(verify(asked())).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    expect(far.requests.length).toBe(2)
    await clock.advance(5_000)
    expect(await verify(asked())).toEqual({ ok: true })
  })

  it('goes on asking when clients leave without waiting for the answer: that is no failure of the far end', async () => {
    const clock = new FakeClock()
    const held: FarRequest[] = []
    let isSlow = true
    const far = await server((request) => (isSlow ? held.push(request) : reply(request, { code: 0 })))
    const verify = httpTokenVerifier({ url: far.url, clock, breaker: { failureCount: 2, resetMs: 5_000 } })
    for (let n = 1; n <= 5; n++) {
      const gone = new AbortController()
      const verdict = verify(asked({ signal: gone.signal }))
      await vi.waitFor(() => expect(held.length).toBe(n), { timeout: 20_000 })
      gone.abort()
      await expect(verdict).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    }
    isSlow = false
    expect(await verify(asked())).toEqual({ ok: true })
  })

  it('lets another one decide when who was let through as a trial has left', async () => {
    const clock = new FakeClock()
    const held: FarRequest[] = []
    let answer = (request: FarRequest): unknown => reply(request, {}, 500)
    const far = await server((request) => answer(request))
    const verify = httpTokenVerifier({ url: far.url, clock, breaker: { failureCount: 1, resetMs: 5_000 } })
    await expect(verify(asked())).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    await clock.advance(5_000)
    answer = (request) => held.push(request)
    const gone = new AbortController()
    const verdict = verify(asked({ signal: gone.signal }))
    await vi.waitFor(() => expect(held.length).toBe(1), { timeout: 20_000 })
    await expect(verify(asked())).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' }) // one at a time
    expect(far.requests.length).toBe(2)
    gone.abort()
    await expect(verdict).rejects.toMatchObject({ code: 'IM_VERIFIER_FAILED' })
    answer = (request) => reply(request, { code: 0 })
    expect(await verify(asked())).toEqual({ ok: true })
  })

  it.each(['url', 'timeoutMs', 'maxConcurrent', 'cacheMs', 'maxCached', 'headers', 'misspelt'])('a wrong %s is a TypeError that names it', (option) => {
    const make = (): unknown => httpTokenVerifier({ url: 'http://127.0.0.1:1/', [option]: -1 })
    expect(make).toThrow(TypeError)
    expect(make).toThrow(`httpTokenVerifier.${option}`)
  })

  it('a wrong token is CONNACK 2, a far end that is down CONNACK 15; neither token nor URL is logged', async () => {
    let isDown = false
    const far = await server((request) => reply(request, { code: request.body.includes('token of ann') ? 0 : 1 }, isDown ? 503 : 200))
    const url = new URL(far.url)
    url.search = '?key=querysecret'
    const deaf = new URL(url)
    deaf.port = String(await deafPort())
    const logger = recordingLogger()
    const errors: IMError[] = []
    const reasonOf = async (where: URL, token: string): Promise<number> => {
      const engine = new IMEngine({ tokenVerifier: httpTokenVerifier({ url: where }), logger })
      engine.on('error', (error) => errors.push(error))
      closers.push(() => engine.close())
      await engine.start()
      const pair = socketPair()
      pair.attach(engine.accept(pair.server))
      return (await new TestClient(pair.client).connect({ uid: 'ann', token })).reasonCode
    }
    expect(await reasonOf(url, 'token of ann')).toBe(ReasonCode.Success)
    expect(await reasonOf(url, 'wrongtoken')).toBe(ReasonCode.AuthFail)
    isDown = true
    expect(await reasonOf(url, 'token of ann')).toBe(ReasonCode.SystemError)
    expect(await reasonOf(deaf, 'token of ann')).toBe(ReasonCode.SystemError)
    expect(errors.map(({ code, detail }) => [code, detail])).toEqual([['IM_VERIFIER_FAILED', 'status 503'], ['IM_VERIFIER_FAILED', 'the connection failed (ECONNREFUSED)']])
    expect(JSON.stringify([logger.lines, errors.map(({ message, context, stack }) => [message, context, stack])])).not.toMatch(/token of ann|wrongtoken|querysecret/)
  })
})
