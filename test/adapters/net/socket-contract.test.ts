import { connect, createServer, type AddressInfo, type Socket as NetSocket } from 'node:net'
import { describe, it } from 'vitest'
import { attachNetServer } from '../../../src/adapters/net/index.ts'
import { socketContract, type SocketFarEnd } from '../../../src/testing/index.ts'

function farEndOf(socket: NetSocket): SocketFarEnd {
  return {
    write: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on('data', listener),
    end: () => void socket.end(),
    pauseReading: () => void socket.pause(),
    resumeReading: () => void socket.resume(),
    closed: new Promise((resolve) => socket.once('close', resolve)),
  }
}

describe('a TCP socket on loopback', () => {
  const cases = socketContract({
    open: async (acceptor) => {
      const server = createServer()
      attachNetServer(acceptor, server)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
      socket.on('error', () => undefined) // a destroyed peer resets the connection; 'close' follows
      await new Promise((resolve) => socket.once('connect', resolve))
      const close = async (): Promise<void> => {
        socket.destroy()
        await new Promise((resolve) => server.close(resolve))
      }
      return { subject: farEndOf(socket), close }
    },
  })
  for (const contractCase of cases) it(contractCase.name, contractCase.run)
})
