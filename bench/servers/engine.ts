/** The engine as its users run it: default limits but for a cluster's patience, one of the attach helpers, and a store. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allowAnyToken, ChannelType, IMEngine, memoryStorage } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'
import { attachWebSocketServer } from 'imengine/ws'
import { WebSocketServer } from 'ws'
import type { ServerSpec } from '../wire.ts'
import { listen, type Running } from './listen.ts'

/** @param prepare  for tests: what else becomes of the engine before it starts */
export async function serveEngine({ transport, storage, cluster, groups = [], maxMessagesPerChannel, limits = {} }: ServerSpec, prepare: (engine: IMEngine) => void = () => undefined): Promise<Running> {
  const folder = storage === 'level' ? mkdtempSync(join(tmpdir(), 'imengine-bench-')) : undefined
  const engine = new IMEngine({
    tokenVerifier: allowAnyToken(),
    plaintext: 'allow',
    limits,
    ...(folder === undefined && maxMessagesPerChannel !== undefined && { storage: memoryStorage({ maxMessagesPerChannel }) }),
    ...(folder !== undefined && { storage: levelStorage({ path: folder }) }),
    ...(cluster !== undefined && {
      nodeID: cluster.nodeID,
      ...(await import('imengine/nats')).natsCluster({ servers: cluster.servers, replicas: cluster.replicas, partitions: cluster.partitions, name: 'bench' }),
      limits: { ...limits, replicateTimeoutMs: 30_000 }, // a pause is measured to its end: the load repeats nothing
    }),
  })
  const errorCounts = new Map<string, number>()
  engine.on('error', (error) => {
    const count = errorCounts.get(error.code) ?? 0
    if (count === 0) console.error('engine, the first of its kind:', error)
    errorCounts.set(error.code, count + 1)
  })
  prepare(engine)
  await engine.start()
  for (const { channelID, subscribers } of groups) {
    await engine.channels.create({ channelID, channelType: ChannelType.Group }, { subscribers })
  }
  const connectionCount = (): number => engine.connections.list().length
  const closeEngine = async (): Promise<void> => {
    await engine.close({ drainMs: 5_000 })
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }
  if (transport === 'ws') {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', backlog: 4096, maxPayload: engine.limits.maxFrameBytes + 16 })
    attachWebSocketServer(engine, server)
    await new Promise((resolve) => server.once('listening', resolve))
    return {
      port: (server.address() as AddressInfo).port,
      connectionCount,
      close: async () => {
        server.close()
        await closeEngine()
      },
    }
  }
  const server = createServer()
  attachNetServer(engine, server)
  const port = await listen(server)
  return {
    port,
    connectionCount,
    close: async () => {
      server.close()
      await closeEngine()
    },
  }
}
