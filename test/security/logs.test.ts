import { describe, expect, test } from 'vitest'
import { IMError } from 'imengine'
import { recordingLogger, socketPair, TestClient } from 'imengine/testing'
import { stage, TEAM } from '../support.ts'

/** What writes lines of its own, steers a terminal, or turns the direction of what follows. */
const HARMFUL = ['\n2026-01-01 root logged in', '\r', '\u001b[2J\u001b[31m', '\u009b31m', '\u0085', '\u2028', '\u2029', '\u202e', '\u2066', '\u200f', '\u0007', '\u0000', '\ud800']
 
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]/

function textsOf(lines: ReturnType<typeof recordingLogger>['lines']): string[] {
  return lines.flatMap(({ fields, message }) => [message, ...Object.entries(fields).flat().filter((value) => typeof value === 'string')])
}

function expectHarmless(logger: ReturnType<typeof recordingLogger>): void {
  for (const text of textsOf(logger.lines)) {
    expect(text).not.toMatch(CONTROL)
    expect(text.length).toBeLessThan(10_000)
  }
}

describe('what strangers have chosen', () => {
  test('reaches no log line as it is when their login is refused: uid, address, and texts of any length', async () => {
    const logger = recordingLogger()
    const { engine, clock } = await stage({ logger, plaintext: 'allow', limits: { maxLogLinesPerSecond: 0 }, tokenVerifier: () => ({ ok: false }) })
    const uids = [...HARMFUL.filter((text) => text.isWellFormed()).flatMap((text) => [`ann${text}`, `${text}ann`]), 'x'.repeat(32_767)]
    for (const uid of uids) {
      const pair = socketPair()
      pair.attach(engine.accept(pair.server, { remoteAddress: `10.0.0.1${uid}` }))
      const client = new TestClient(pair.client)
      await client.connect({ uid, deviceID: uid, token: uid, plaintext: true })
      await clock.settle()
    }
    expect(logger.lines.filter(({ message }) => message === 'connection refused')).toHaveLength(uids.length)
    expectHarmless(logger)
    expect(textsOf(logger.lines).some((text) => text.includes('ann\\u{a}2026-01-01 root logged in'))).toBe(true)
    expect(textsOf(logger.lines).some((text) => text.endsWith('… (32767 characters)'))).toBe(true)
  })

  test('reaches none when something fails for them: uid and channel id in errors, and what the host’s own error says', async () => {
    const logger = recordingLogger()
    const { engine, clock, connect, errors } = await stage({ logger, plaintext: 'allow', limits: { maxLogLinesPerSecond: 0 } })
    engine.use('EventOnSend', function fails(ctx) {
      throw new IMError('IM_HANDLER_FAILED', { detail: `cannot take\n${ctx.frame.clientMsgNo}`, context: { uid: ctx.conn.uid, channelID: ctx.frame.channelID } })
    })
    const odd = HARMFUL.filter((text) => text.isWellFormed())
    const allowed = odd.filter((text) => !/\p{Cc}/u.test(text)).concat('\u009b31m', '\u0085')
    for (const text of allowed) {
      const { client } = await connect(`ann${text}x`, { plaintext: true, deviceID: text })
      for (const clientMsgNo of odd) await client.send({ channelID: `bob${text}x`, channelType: 1, payload: 'x', clientMsgNo })
      client.end()
    }
    await clock.settle()
    expect(errors.length).toBe(allowed.length * odd.length)
    expect(logger.at('error').length).toBe(errors.length)
    expectHarmless(logger)
    // The host, who asks for the fact, gets the id as it is.
    expect(errors.map(({ context }) => context.uid)).toContain('ann\u202ex')
  })

  test('reaches none through the log of a plugin', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger })
    engine.use({ name: 'chatty', setup: (host) => host.logger.info({ uid: 'ann\n[error] fake', count: 1 }, 'hello\u001b[0m') })
    expect(logger.lines.at(-1)).toEqual({ level: 'info', fields: { uid: 'ann\\u{a}[error] fake', count: 1, plugin: 'chatty' }, message: 'hello\\u{1b}[0m' })
  })

  test('is not changed where it is ordinary text of any language', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger })
    const fields = { uid: 'Zoë 李雷 ألف 😀', detail: `"quoted" \\ and 'single'`, ...TEAM }
    engine.use({ name: 'chatty', setup: (host) => host.logger.warn(fields, 'ünal') })
    expect(logger.lines.at(-1)).toEqual({ level: 'warn', fields: { ...fields, plugin: 'chatty' }, message: 'ünal' })
  })
})
