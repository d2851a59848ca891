/** Others that do the same one-to-one job: acknowledged to the sender, delivered to the receiver, everything in memory. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHTTPServer } from 'node:http'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Aedes } from 'aedes'
import { Server } from 'socket.io'
import { listen, type Running } from './listen.ts'

export async function serveAedes(): Promise<Running> {
  const broker = await Aedes.createBroker()
  const server = createServer({ noDelay: true }, broker.handle)
  const port = await listen(server)
  return {
    port,
    close: async () => {
      server.close()
      await new Promise<void>((resolve) => broker.close(resolve))
    },
  }
}

/** A room per user, as its documentation has it, and the acknowledgement once the message is on its way. */
export async function serveSocketIO(): Promise<Running> {
  const server = createHTTPServer()
  const io = new Server(server, { transports: ['websocket'], serveClient: false })
  io.on('connection', (socket) => {
    const { uid } = socket.handshake.auth as { readonly uid: string }
    void socket.join(uid)
    socket.on('m', (to: string, payload: string, acknowledge: () => void) => {
      io.to(to).emit('m', payload)
      acknowledge()
    })
  })
  return { port: await listen(server), close: () => io.close() }
}

const MOSQUITTO = 'mosquitto'

export function hasMosquitto(): boolean {
  return spawnSync(MOSQUITTO, ['-h'], { stdio: 'ignore' }).error === undefined
}

/** No persistence, and none of its bounds on messages under way: its defaults drop at the rates measured here. */
export async function serveMosquitto(): Promise<Running> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'imengine-bench-'))
  const configuration = join(folder, 'mosquitto.conf')
  const lines = [
    `listener ${port} 127.0.0.1`, 'allow_anonymous true', 'persistence false', 'set_tcp_nodelay true', 'log_type error',
    'max_inflight_messages 0', 'max_queued_messages 0',
  ]
  writeFileSync(configuration, `${lines.join('\n')}\n`)
  const broker = spawn(MOSQUITTO, ['-c', configuration], { stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = new Promise<void>((resolve) => broker.once('exit', () => resolve()))
  await answering(port)
  return {
    port,
    pid: broker.pid!,
    close: async () => {
      broker.kill()
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await listen(server)
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function answering(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect({ port, host: '127.0.0.1' }, () => (socket.destroy(), resolve(true)))
      socket.once('error', () => resolve(false))
    })
    if (isUp) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('mosquitto does not answer')
}
