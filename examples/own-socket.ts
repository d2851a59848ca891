import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { allowAnyToken, IMEngine, type SocketAcceptor } from 'imengine'

// #region socket
/** One end of a MessageChannel as a transport, for clients in another thread. Every message is one frame. */
export function serveMessagePort(engine: SocketAcceptor, port: MessagePort): void {
  const connection = engine.accept(
    {
      framing: 'message',
      bufferedBytes: 0, // a MessagePort cannot say what it holds, so `maxOutboundBytes` does not protect it
      send: (bytes) => port.postMessage(new Uint8Array(bytes)),
      close: () => port.close(),
    },
    { remoteAddress: 'another thread' },
  )
  port.on('message', (chunk: Uint8Array) => connection.receive(chunk))
  port.on('close', () => connection.closed())
}
// #endregion

export async function start() {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  await engine.start()
  return {
    /** the other end: what a client writes to and reads from */
    connect: (): MessagePort => {
      const { port1, port2 } = new MessageChannel()
      serveMessagePort(engine, port1)
      return port2
    },
    close: () => engine.close(),
  }
}
