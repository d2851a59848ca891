import { once } from 'node:events'
import { connect } from 'node:net'
import type { MessagePort } from 'node:worker_threads'
import { TestClient, type TestTransport } from 'imengine/testing'
import { WebSocket } from 'ws'

/** A TestClient on a TCP connection to this machine. */
export async function tcpClient(port: number): Promise<TestClient> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  const transport: TestTransport = {
    write: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on('data', listener),
    closed: new Promise((resolve) => socket.on('close', resolve).on('error', () => undefined)),
    end: () => void socket.end(),
  }
  return new TestClient(transport)
}

/** A TestClient on a WebSocket to this machine. */
export async function webSocketClient(port: number, path = ''): Promise<TestClient> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`)
  await once(socket, 'open')
  const transport: TestTransport = {
    write: (bytes) => socket.send(bytes),
    onData: (listener) => void socket.on('message', (chunk: Buffer) => listener(chunk)),
    closed: new Promise((resolve) => socket.on('close', resolve).on('error', () => undefined)),
    end: () => socket.close(),
  }
  return new TestClient(transport)
}

/** A TestClient on one end of a MessageChannel. */
export function messagePortClient(port: MessagePort): TestClient {
  return new TestClient({
    write: (bytes) => port.postMessage(new Uint8Array(bytes)),
    onData: (listener) => void port.on('message', listener),
    closed: new Promise((resolve) => void port.on('close', resolve)),
    end: () => port.close(),
  })
}
