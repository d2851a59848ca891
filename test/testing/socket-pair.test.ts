import { describe, expect, it } from 'vitest'
import type { SocketEvents } from '../../src/contracts/socket.ts'
import { socketPair, type SocketPairOptions } from '../../src/testing/index.ts'

/** A pair whose server end writes down what it is told. */
function open(options: SocketPairOptions = {}) {
  const pair = socketPair(options)
  const told: string[] = []
  const chunks: Uint8Array[] = []
  const connection: SocketEvents = {
    receive: (chunk) => {
      chunks.push(chunk)
      told.push(`receive ${Buffer.from(chunk).toString()}`)
    },
    drained: () => void told.push('drained'),
    closed: () => void told.push('closed'),
  }
  pair.attach(connection)
  return { pair, server: pair.server, client: pair.client, told, chunks }
}

const text = (value: string): Buffer => Buffer.from(value)
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('socketPair', () => {
  it('delivers nothing within the call that sends it, and everything before the turn ends', async () => {
    const { server, client, told } = open()
    client.write(text('up'))
    server.send(text('down'))
    expect([told, client.chunks.length, server.bufferedBytes]).toEqual([[], 0, 4])
    await settle()
    expect(told).toEqual(['receive up'])
    expect([Buffer.from(client.received).toString(), server.bufferedBytes]).toEqual(['down', 0])
  })

  it('delivers within the call when it is told to', () => {
    const { server, client, told } = open({ delivery: 'sync' })
    client.write(text('up'))
    server.send(text('down'))
    expect([told, client.chunks.length, server.bufferedBytes]).toEqual([['receive up'], 1, 0])
  })

  it('finishes one delivery before the next also when they cause each other', () => {
    const pair = socketPair({ delivery: 'sync' })
    const order: string[] = []
    pair.attach({
      receive: (chunk) => {
        order.push(`server in ${chunk.length}`)
        if (chunk.length < 3) pair.server.send(new Uint8Array(chunk.length))
        order.push(`server out ${chunk.length}`)
      },
      drained: () => {},
      closed: () => {},
    })
    pair.client.onData((chunk) => {
      order.push(`client in ${chunk.length}`)
      pair.client.write(new Uint8Array(chunk.length + 1))
      order.push(`client out ${chunk.length}`)
    })
    pair.client.write(new Uint8Array(1))
    const exchange = (n: number): string[] => [`server in ${n}`, `server out ${n}`, `client in ${n}`, `client out ${n}`]
    expect(order).toEqual([...exchange(1), ...exchange(2), 'server in 3', 'server out 3'])
  })

  it('overwrites a received chunk after the call, and takes a copy of what the client writes', async () => {
    const { client, told, chunks } = open()
    const written = text('hello')
    client.write(written)
    written.fill(0)
    await settle()
    expect(told).toEqual(['receive hello'])
    expect([...(chunks[0] ?? [])]).toEqual(Array(5).fill(0xdd))
  })

  it('shows a change to bytes that were sent', async () => {
    const { pair, server, client } = open()
    const sent = text('hello')
    server.send(sent)
    sent.fill(0x2a)
    await settle()
    expect(Buffer.from(client.received).toString()).toBe('*****')
    expect(pair.sentChunks).toEqual([sent])
  })

  it('keeps what the client wrote before it was attached', async () => {
    const pair = socketPair()
    const received: string[] = []
    pair.client.write(text('early'))
    await settle()
    pair.attach({ receive: (chunk) => void received.push(Buffer.from(chunk).toString()), drained: () => {}, closed: () => {} })
    await settle()
    expect(received).toEqual(['early'])
  })

  it('tells the truth about a client that stops reading: bufferedBytes, false above the mark, drained once when empty', async () => {
    const { pair, server, client, told } = open({ highWaterBytes: 10 })
    client.pauseReading()
    expect([server.send(new Uint8Array(10)), server.send(new Uint8Array(1)), server.send(new Uint8Array(1))]).toEqual([true, false, false])
    await settle()
    expect([server.bufferedBytes, client.chunks.length, pair.sentChunks.length, told]).toEqual([12, 0, 3, []])
    client.resumeReading()
    await settle()
    expect([server.bufferedBytes, client.chunks.length, told]).toEqual([0, 3, ['drained']])
    expect(server.send(new Uint8Array(1))).toBe(true)
    await settle()
    expect(told).toEqual(['drained'])
  })

  it('close waits for a client that does not read; destroy does not', async () => {
    for (const how of ['close', 'destroy'] as const) {
      const { server, client, told } = open()
      client.pauseReading()
      server.send(text('last words'))
      if (how === 'close') server.close(4001, 'kicked')
      else server.destroy?.()
      await settle()
      expect(told).toEqual(how === 'close' ? [] : ['closed'])
      client.resumeReading()
      await settle()
      expect(told).toEqual(['closed'])
      expect(Buffer.from(client.received).toString()).toBe(how === 'close' ? 'last words' : '')
      expect(await client.closed).toEqual(how === 'close' ? { by: 'server', code: 4001, reason: 'kicked' } : { by: 'server' })
    }
  })

  it('takes nothing more once the server has closed, and nothing from a client that has left', async () => {
    const { pair, server, client, told } = open()
    server.close()
    expect(server.send(text('late'))).toBe(false)
    await settle()
    client.write(text('late'))
    await settle()
    expect([pair.sentChunks.length, told]).toEqual([0, ['closed']])
  })

  it('end lets what was written arrive; destroy loses it', async () => {
    for (const how of ['end', 'destroy'] as const) {
      const { client, told } = open()
      client.write(text('bye'))
      client[how]()
      expect(client.socketEnd === undefined).toBe(how === 'end')
      await settle()
      expect(told).toEqual(how === 'end' ? ['receive bye', 'closed'] : ['closed'])
      expect(client.socketEnd).toEqual({ by: 'client' })
    }
  })

  it('holds input back between pause and resume, and says so', async () => {
    const { pair, server, client, told } = open()
    server.pause?.()
    client.write(text('a'))
    client.end()
    await settle()
    expect([pair.serverPaused, told]).toEqual([true, []])
    server.resume?.()
    await settle()
    expect([pair.serverPaused, told]).toEqual([false, ['receive a', 'closed']])
  })

  it('holds output back between cork and uncork, also nested', async () => {
    const { server, client } = open()
    server.cork?.()
    server.cork?.()
    server.send(text('a'))
    server.uncork?.()
    await settle()
    expect(client.chunks.length).toBe(0)
    server.uncork?.()
    await settle()
    expect(client.chunks.length).toBe(1)
  })
})
