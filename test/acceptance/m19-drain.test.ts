import { fork } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ReasonCode } from 'imengine'
import { TestClient, type TestTransport } from 'imengine/testing'
import { FrameType } from '../../src/model/frames.ts'
import { openSocket, plainConnect } from '../connection/raw.ts'
import { deferred, stage, TEAM } from '../support.ts'
import type { Command, Report } from './drain-process.ts'

function transportOf(socket: Socket): TestTransport {
  socket.on('error', () => undefined)
  return {
    write: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on('data', listener),
    closed: new Promise((resolve) => socket.once('close', resolve)),
    end: () => void socket.end(),
  }
}

describe('M19 Graceful drain and shutdown', () => {
  // P8
  test('close: no CONNECT is accepted, SENDs in flight are acked, nothing waits, no timer is left', async () => {
    const answer = deferred<{ code: number }>()
    const { engine, clock, connect: login } = await stage({ webhook: { beforeSend: () => answer.promise } })
    const ann = await login('ann')
    const bob = await login('bob')
    const halfway = openSocket(engine)
    const acks = ['1', '2', '3'].map((payload) => ann.client.send({ ...TEAM, payload }))
    await clock.settle()
    const closing = engine.close()
    expect(engine.state).toBe('closing')
    const late = openSocket(engine)
    late.client.write({ ...plainConnect('cat') })
    halfway.client.write({ ...plainConnect('cat') })
    await clock.settle()
    expect(late.pair.client.socketEnd).toMatchObject({ by: 'server' })
    answer.resolve({ code: 0 })
    expect(await Promise.all(acks)).toMatchObject([1, 2, 3].map((messageSeq) => ({ reasonCode: ReasonCode.Success, messageSeq })))
    await closing
    expect(bob.client.messages.map(({ text }) => text)).toEqual(['1', '2', '3'])
    for (const { client } of [late, halfway]) expect(client.received).toEqual([])
    for (const { pair } of [ann, bob, halfway]) expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(ann.client.received.some(({ type }) => type === FrameType.DISCONNECT)).toBe(false)
    expect(engine.connections.list()).toEqual([])
    expect(clock.pendingTimerCount).toBe(0)
    expect(engine.state).toBe('closed')
  })

  // P8
  test('a process with an engine that has closed ends by itself', async () => {
    const child = fork(fileURLToPath(new URL('drain-process.ts', import.meta.url)), { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    onTestFinished(() => void child.kill()) // also when the test has run out of time
    const reports: Report[] = []
    let look = (): void => undefined
    child.on('message', (report: Report) => {
      reports.push(report)
      look()
    })
    const exited = once(child, 'exit') as Promise<[code: number | null, signal: string | null]>
    /** The one report of this kind, now or when it comes; not when the process has ended without it. */
    const told = async <K extends Report['is']>(is: K): Promise<Extract<Report, { is: K }>> => {
      for (;;) {
        const found = reports.find((report) => report.is === is)
        if (found !== undefined) return found as Extract<Report, { is: K }>
        const more = new Promise<'more'>((resolve) => (look = () => resolve('more')))
        if ((await Promise.race([more, exited])) !== 'more') throw new Error(`the process has ended and never told '${is}'`)
      }
    }
    const command = (what: Command): void => void child.send(what)
    const { port } = await told('listening')
    const socket = connect(port, '127.0.0.1')
    const client = new TestClient(transportOf(socket))
    expect((await client.connect({ uid: 'ann' })).reasonCode).toBe(ReasonCode.Success)
    const ack = client.send({ ...TEAM, payload: 'in flight' })
    expect((await told('asked')).text).toBe('in flight')
    command('close')
    command('release')
    expect(await ack).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    await client.closed
    expect(await told('closed')).toMatchObject({ storedCount: 1, state: 'closed' })
    expect(await exited).toEqual([0, null])
    expect(reports.map(({ is }) => is)).toEqual(['listening', 'asked', 'closed'])
  })
})
