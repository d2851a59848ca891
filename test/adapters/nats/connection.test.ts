import { afterEach, describe, expect, test, vi } from 'vitest'
import { ClusterConnection, type ClusterConnectionOptions } from '../../../src/adapters/nats/connection.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers, type NatsServersOptions } from './servers.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function serversOf(options: NatsServersOptions = {}): Promise<NatsServers> {
  const servers = await startNatsServers(options)
  ends.push(() => servers.close())
  return servers
}

function connectionTo(servers: readonly string[], over: Partial<ClusterConnectionOptions> = {}): ClusterConnection {
  return new ClusterConnection({ servers, clientName: 'test', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 100, ...over })
}

describe.skipIf(NATS_SERVER === undefined)('the connection of a natsCluster', () => {
  test('is opened by the first who needs it and closed by the last', async () => {
    const servers = await serversOf()
    const connection = connectionTo(servers.urls)
    const [first, second] = await Promise.all([connection.acquire(), connection.acquire()])
    expect(second).toBe(first)
    expect([connection.serverVersion, connection.maxPayloadBytes]).toEqual([NATS_SERVER, 1_048_576])
    await connection.release()
    expect([first.isClosed(), connection.state.name]).toEqual([false, 'connected'])
    await connection.release()
    await connection.release() // once too often
    expect([first.isClosed(), connection.state.name]).toEqual([true, 'idle'])
    const again = await connection.acquire()
    expect(again.isClosed()).toBe(false)
    await connection.release()
  })

  test('tells that it is lost, and comes back when its server does', async () => {
    const servers = await serversOf()
    const connection = connectionTo(servers.urls)
    const states: string[] = []
    connection.watch(({ name }) => states.push(name))
    await connection.acquire()
    await servers.kill(0)
    await until(() => connection.state.name === 'disconnected', 25_000, 'it does not notice')
    await servers.start(0)
    await until(() => connection.isConnected, 25_000, 'it does not come back')
    await connection.release()
    expect(states).toEqual(['connected', 'disconnected', 'connected', 'idle'])
  })

  test('leaves a server that falls silent, and can be closed while it is silent', async () => {
    const servers = await serversOf()
    const connection = connectionTo(servers.urls)
    const nats = await connection.acquire()
    servers.freeze(0)
    await until(() => connection.state.name === 'disconnected', 25_000, 'it does not notice')
    await connection.release()
    expect(nats.isClosed()).toBe(true)
    servers.thaw(0)
  })

  test('can be closed when its server is gone', async () => {
    const servers = await serversOf()
    const connection = connectionTo(servers.urls)
    const nats = await connection.acquire()
    await servers.kill(0)
    await connection.release()
    expect(nats.isClosed()).toBe(true)
  })

  test('no server is IM_CLUSTER_UNAVAILABLE, and the next try may succeed', async () => {
    const servers = await serversOf()
    await servers.kill(0)
    const connection = connectionTo(servers.urls)
    await expect(connection.acquire()).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    await servers.start(0)
    await servers.ready()
    await connection.acquire()
    await connection.release()
  })

  test('a server that takes the connection and says nothing is IM_CLUSTER_UNAVAILABLE', async () => {
    const servers = await serversOf()
    servers.freeze(0)
    await expect(connectionTo(servers.urls, { connectTimeoutMs: 200 }).acquire()).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    servers.thaw(0)
  })

  test('a wrong password is IM_CLUSTER_DENIED and is not in the error; the right one is let in', async () => {
    const servers = await serversOf({ user: 'im', pass: 'right-one' })
    const error: unknown = await connectionTo(servers.urls, { user: 'im', pass: 'wrong-one' }).acquire().catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'IM_CLUSTER_DENIED' })
    expect((error as Error).message).not.toContain('wrong-one')
    const connection = connectionTo(servers.urls, { user: 'im', pass: 'right-one' })
    await connection.acquire()
    await connection.release()
  })

  test('TLS that the server does not offer is IM_CLUSTER_DENIED', async () => {
    const servers = await serversOf()
    const connection = connectionTo(servers.urls, { tls: { handshakeFirst: true } })
    await expect(connection.acquire()).rejects.toMatchObject({ code: 'IM_CLUSTER_DENIED' })
  })
})

test('without its driver it is IM_DRIVER_MISSING, which names the package and says how all three are installed', async () => {
  vi.doMock('@nats-io/transport-node', () => {
    throw new Error('no such package')
  })
  const failure: unknown = await connectionTo(['nats://127.0.0.1:1']).acquire().catch((error: unknown) => error)
  vi.doUnmock('@nats-io/transport-node')
  const detail = '@nats-io/transport-node is missing: npm install @nats-io/transport-node@~3.3 @nats-io/jetstream@~3.3 @nats-io/kv@~3.3'
  expect(failure).toMatchObject({ code: 'IM_DRIVER_MISSING', detail })
})
