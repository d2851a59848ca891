import { createServer, Socket } from 'node:net'
import { expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { attachNetServer, serveNetSocket } from '../../src/adapters/net/index.ts'
import { attachWebSocketServer } from '../../src/adapters/ws/index.ts'
import type { SocketAcceptor } from '../../src/contracts/socket.ts'

const acceptor: SocketAcceptor = { accept: () => ({ receive: () => undefined, drained: () => undefined, closed: () => undefined }) }

test('a server that an engine is attached to takes no second one until it is detached', () => {
  const net = createServer()
  const ws = new WebSocketServer({ noServer: true })
  for (const attach of [() => attachNetServer(acceptor, net), () => attachWebSocketServer(acceptor, ws)]) {
    const detach = attach()
    expect(attach).toThrow(new TypeError('imengine: an engine is attached to this server already'))
    detach()
    attach()()
  }
})

test('a socket that is served is not served once more, which would give its bytes to the second one twice', () => {
  const socket = new Socket()
  serveNetSocket(acceptor, socket)
  expect(() => serveNetSocket(acceptor, socket)).toThrow(new TypeError('imengine: this socket is served already'))
  expect(socket.listenerCount('data')).toBe(1)
  socket.destroy()
})
