/** An engine with a SEND that is never answered, in a process that ends by signals alone: nobody calls `exit`. */
import { createServer } from 'node:net'
import { allowAnyToken, IMEngine } from 'imengine'
import { attachNetServer } from 'imengine/net'
import { connectTestClient } from 'imengine/testing'
import { closeOnSignals } from '../../examples/host.ts'

const tell = (line: string): void => void process.stdout.write(`${line}\n`)
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
const server = createServer()
attachNetServer(engine, server)
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
server.on('close', () => tell('closing'))
closeOnSignals(engine, server, 86_400_000)
const { client } = await connectTestClient(engine, { uid: 'ann', plaintext: true })
client.send({ channelID: 'bob', channelType: 1, payload: 'x' }).catch(() => tell('not answered'))
