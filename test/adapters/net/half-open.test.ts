import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { allowAnyToken, IMEngine, type Limits } from 'imengine'
import { attachNetServer } from 'imengine/net'

let server: Server
let engine: IMEngine
const peers: Socket[] = []

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.destroy()
  await engine.close({ drainMs: 0 })
  await new Promise((resolve) => server.close(resolve))
})

async function serve(limits: Partial<Limits>): Promise<void> {
  engine = new IMEngine({ tokenVerifier: allowAnyToken(), limits })
  await engine.start()
  server = createServer()
  attachNetServer(engine, server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
}

/** A peer that never closes its half, and the server's end of it. */
async function openPeer(): Promise<Socket> {
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const peer = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  peers.push(peer)
  peer.resume() // it reads, but it does not answer the end
  peer.on('error', () => undefined)
  const [ours] = await accepted
  return ours
}

describe('a TCP peer that never closes its half', () => {
  it('is let go after the connect time-out', async () => {
    await serve({ connectTimeoutMs: 50, closeTimeoutMs: 100, timerTickMs: 10 })
    const ours = await openPeer()
    if (!ours.destroyed) await once(ours, 'close')
    expect(ours.destroyed).toBe(true)
  })

  it('does not keep the engine from closing', async () => {
    await serve({ closeTimeoutMs: 100, timerTickMs: 10 })
    const ours = await openPeer()
    await engine.close()
    expect(ours.destroyed).toBe(true)
  })

  it('is let go at once when there is no room for it', async () => {
    await serve({ maxConnections: 1, closeTimeoutMs: 100, timerTickMs: 10 })
    await openPeer()
    const turnedAway = await openPeer()
    if (!turnedAway.destroyed) await once(turnedAway, 'close')
    expect(turnedAway.destroyed).toBe(true)
  })
})
