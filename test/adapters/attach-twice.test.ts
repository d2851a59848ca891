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

test('what is no engine or no server of its kind is told when it is attached, and not at the first client', () => {
  const net = createServer()
  const ws = new WebSocketServer({ noServer: true })
  for (const none of [undefined, {}, ws]) expect(() => attachNetServer(acceptor, none as never)).toThrow(/^imengine: server must be a server of node:net or node:tls/)
  for (const none of [undefined, {}, net]) expect(() => attachWebSocketServer(acceptor, none as never)).toThrow(/^imengine: server must be a WebSocketServer of the package ws/)
  for (const none of [undefined, {}, net]) {
    expect(() => attachNetServer(none as never, net)).toThrow(/^imengine: engine must be an engine/)
    expect(() => attachWebSocketServer(none as never, ws)).toThrow(/^imengine: engine must be an engine/)
  }
})

test('a socket that is served is not served once more, which would give its bytes to the second one twice', () => {
  const socket = new Socket()
  serveNetSocket(acceptor, socket)
  expect(() => serveNetSocket(acceptor, socket)).toThrow(new TypeError('imengine: this socket is served already'))
  expect(socket.listenerCount('data')).toBe(1)
  socket.destroy()
})
