/** An engine that is closed when told so; then its process has nothing left to wait for. Argument: url. */
import { once } from 'node:events'
import { allowAnyToken, IMEngine } from '../../../src/index.ts'
import { natsCluster } from '../../../src/adapters/nats/index.ts'

const { presence, peerPush } = natsCluster({ servers: process.argv[2] ?? '', name: 'leaver', presenceWriteTimeoutMs: 500 })
const engine = new IMEngine({ nodeID: 1, tokenVerifier: allowAnyToken(), presence, peerPush, limits: { presenceHeartbeatMs: 200, closeTimeoutMs: 5_000 } })
await engine.start()
process.stdout.write('ready')
await once(process.stdin, 'data')
await engine.close({ drainMs: 0 })
process.stdin.destroy()
