import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { attachWebSocketServer, serveWebSocket } from '../../../src/adapters/ws/index.ts'
import { socketContract, type SocketFarEnd } from '../../../src/testing/index.ts'

function farEndOf(socket: WebSocket): SocketFarEnd {
  return {
    write: (bytes) => socket.send(bytes),
    onData: (listener) => void socket.on('message', (message: Buffer) => listener(message)),
    end: () => socket.close(),
    pauseReading: () => socket.pause(),
    resumeReading: () => socket.resume(),
    closed: new Promise((resolve) => socket.once('close', resolve)),
  }
}

describe.each([
  ['a WebSocket on loopback', false],
  ['a WebSocket that may compress', true],
])('%s', (_name, perMessageDeflate) => {
  const cases = socketContract({
    open: async (acceptor) => {
      const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate })
      attachWebSocketServer(acceptor, server)
      await new Promise((resolve) => server.once('listening', resolve))
      const socket = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
      socket.on('error', () => undefined) // a destroyed peer resets the connection; 'close' follows
      await new Promise((resolve) => socket.once('open', resolve))
      const close = async (): Promise<void> => {
        socket.terminate()
        for (const client of server.clients) client.terminate()
        await new Promise((resolve) => server.close(resolve))
      }
      return { subject: farEndOf(socket), close }
    },
  })
  for (const contractCase of cases) it(contractCase.name, contractCase.run)
})

describe('a WebSocket that the process of the engine has opened', () => {
  const cases = socketContract({
    open: async (acceptor) => {
      const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
      await once(server, 'listening')
      const accepted = once(server, 'connection') as Promise<[WebSocket]>
      const socket = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
      await once(socket, 'open')
      serveWebSocket(acceptor, socket)
      const [far] = await accepted
      far.on('error', () => undefined) // a destroyed peer resets the connection; 'close' follows
      const close = async (): Promise<void> => {
        socket.terminate()
        far.terminate()
        await new Promise((resolve) => server.close(resolve))
      }
      return { subject: farEndOf(far), close }
    },
  })
  for (const contractCase of cases) it(contractCase.name, contractCase.run)
})
