/**
 * An engine in a process that ends by signals alone: nobody calls `exit`. As it is, one with a SEND that is never answered; with the
 * argument `starting`, one whose storage opens when the signal has come.
 */
import { createServer } from 'node:net'
import { allowAnyToken, IMEngine, IMError, memoryStorage } from 'imengine'
import { attachNetServer } from 'imengine/net'
import { connectTestClient } from 'imengine/testing'
import { closeOnSignals } from '../../examples/host.ts'

const tell = (line: string): void => void process.stdout.write(`${line}\n`)
const server = createServer()
server.on('close', () => tell('closing'))
const listening = new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

if (process.argv[2] === 'starting') {
  const open = async (): Promise<void> => {
    await listening
    tell('opening')
    await new Promise((resolve) => server.once('close', resolve))
  }
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: { ...memoryStorage(), open, close: () => tell('storage closed') } })
  closeOnSignals(engine, server)
  await engine.start().catch((error: unknown) => tell(error instanceof IMError ? error.code : String(error)))
} else {
  const engine = new IMEngine({
    tokenVerifier: allowAnyToken(), plaintext: 'allow', limits: { webhookTimeoutMs: 600_000 },
    webhook: {
      beforeSend: () => {
        tell('asked')
        return new Promise(() => undefined)
      },
    },
  })
  engine.on('error', ({ code }) => tell(code))
  await engine.start()
  attachNetServer(engine, server)
  await listening
  closeOnSignals(engine, server, 86_400_000)
  const { client } = await connectTestClient(engine, { uid: 'ann', plaintext: true })
  client.send({ channelID: 'bob', channelType: 1, payload: 'x' }).catch(() => tell('not answered'))
}
