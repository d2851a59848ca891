import { Writable } from 'node:stream'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { allowAnyToken, IMEngine, memoryStorage, type Logger } from 'imengine'
import { connectTestClient, loggerContract, recordingLogger, socketPair, TestClient } from 'imengine/testing'
import { heard } from '../connection/raw.ts'
import { stage, storageWith, TEAM } from '../support.ts'

async function refuse(engine: IMEngine, uid = 'ann'): Promise<void> {
  const pair = socketPair()
  pair.attach(engine.accept(pair.server, { remoteAddress: '192.0.2.1' }))
  await new TestClient(pair.client).connect({ uid, token: 'its-secret' })
}

/** pino, and the lines it has written. */
function pinoLines(): { readonly logger: Logger; readonly lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
      done()
    },
  })
  return { logger: pino({ level: 'debug' }, stream), lines }
}

describe('log lines', () => {
  test('one for a refused connection says why and whence, and not its token', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger, tokenVerifier: () => ({ ok: false }) })
    await refuse(engine)
    expect(logger.lines.filter(({ message }) => message === 'connection refused')).toEqual([
      {
        level: 'info',
        message: 'connection refused',
        fields: { connectionID: '1', remoteAddress: '192.0.2.1', uid: 'ann', cause: 'refused', reasonCode: 2, detail: undefined },
      },
    ])
    expect(JSON.stringify(logger.lines)).not.toContain('its-secret')
  })

  test('a flood of refused connections is some lines, and one that says how many were left out', async () => {
    const logger = recordingLogger()
    const { engine, clock } = await stage({ logger, tokenVerifier: () => ({ ok: false }), limits: { maxLogLinesPerSecond: 2 } })
    const refusals = () => logger.at('info').filter(({ message }) => message.startsWith('connection refused'))
    for (let count = 0; count < 5; count++) await refuse(engine)
    expect(refusals()).toHaveLength(2)
    await clock.advance(1_000)
    expect(refusals().slice(2)).toEqual([{ level: 'info', message: 'connection refused: lines were left out', fields: { leftOutCount: 3 } }])
    await refuse(engine)
    expect(refusals().at(-1)!.message).toBe('connection refused')
    expect(engine.metrics().connections.refused).toEqual([{ cause: 'refused', reason: 'AuthFail', count: 6 }])
  })

  test('after close refused connections are bounded as before', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger, limits: { maxLogLinesPerSecond: 2 } })
    await engine.close()
    for (let count = 0; count < 50; count++) engine.accept(socketPair().server)
    expect(logger.at('info').filter(({ message }) => message === 'connection refused')).toHaveLength(2)
  })

  test('failures are bounded by their code, and the fact has all of them', async () => {
    const logger = recordingLogger()
    const storage = memoryStorage()
    const { connect, errors, engine } = await stage({
      logger, storage: storageWith(storage, { append: () => { throw new Error('broken') } }), limits: { maxLogLinesPerSecond: 1 },
    })
    engine.use('EventOnSend', function judge({ frame }) { if (frame.clientMsgNo === 'odd') throw new Error('odd') })
    const { client: ann } = await connect('ann')
    for (let count = 0; count < 3; count++) await ann.send({ ...TEAM, payload: 'one' })
    await ann.send({ ...TEAM, payload: 'one', clientMsgNo: 'odd' })
    expect(logger.at('error').map(({ fields }) => fields.code)).toEqual(['IM_STORE_UNAVAILABLE', 'IM_HANDLER_FAILED'])
    expect(errors).toHaveLength(4)
    await engine.close({ drainMs: 0 })
    expect(logger.at('error').at(-1)).toEqual({
      level: 'error', message: 'the message store did not answer: lines were left out', fields: { code: 'IM_STORE_UNAVAILABLE', leftOutCount: 2 },
    })
  })

  test('with maxLogLinesPerSecond 0 all of them come', async () => {
    const logger = recordingLogger()
    const { engine } = await stage({ logger, tokenVerifier: () => ({ ok: false }), limits: { maxLogLinesPerSecond: 0 } })
    for (let count = 0; count < 30; count++) await refuse(engine)
    expect(logger.at('info').filter(({ message }) => message === 'connection refused')).toHaveLength(30)
  })

  test('no timer is left of what was left out when the engine closes', async () => {
    const { engine, clock } = await stage({ tokenVerifier: () => ({ ok: false }), limits: { maxLogLinesPerSecond: 1 } })
    await refuse(engine)
    await refuse(engine)
    const closing = engine.close({ drainMs: 0 })
    await clock.advance(6_000)
    await closing
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('a socket that comes to an engine nobody has started is a warning that says so', async () => {
    const logger = recordingLogger()
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), logger })
    const refused = heard(engine, 'connectionRefused')
    engine.accept(socketPair().server, { remoteAddress: '192.0.2.1' })
    const detail = 'the engine is not running: start() has not been called'
    expect(refused).toEqual([expect.objectContaining({ remoteAddress: '192.0.2.1', detail })])
    expect(logger.lines).toEqual([expect.objectContaining({ level: 'warn', message: 'connection refused', fields: expect.objectContaining({ detail }) as unknown })])
    await expect(connectTestClient(engine, { uid: 'ann' })).rejects.toThrow('the engine is not running, but new: await engine.start() first')
  })

  test('pino is a logger as it comes, and writes them as fields', async () => {
    const { logger, lines } = pinoLines()
    const { engine } = await stage({ logger, tokenVerifier: () => ({ ok: false }) })
    await refuse(engine)
    expect(lines).toContainEqual(
      expect.objectContaining({ level: 30, msg: 'connection refused', remoteAddress: '192.0.2.1', uid: 'ann', cause: 'refused', reasonCode: 2 }),
    )
  })
})

describe('pino passes the suite of loggers', () => {
  for (const { name, run } of loggerContract({
    open: () => {
      const { logger, lines } = pinoLines()
      return { subject: logger, lines }
    },
    messages: ({ lines }) => lines.map(({ msg }) => msg as string),
  })) test(name, run)
})
