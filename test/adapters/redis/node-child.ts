/** A node in a process of its own that may be killed at any moment: one user is connected to it. Tells the parent when they are. */
import { allowAnyToken, IMEngine } from 'imengine'
import { redisCluster } from 'imengine/redis'
import { connectTestClient } from 'imengine/testing'

const [url = '', nodeID = '', uid = ''] = process.argv.slice(2)
const { presence, peerPush } = redisCluster({ url })
const engine = new IMEngine({
  tokenVerifier: allowAnyToken(),
  nodeID: Number(nodeID),
  presence,
  peerPush,
  limits: { presenceHeartbeatMs: 300 },
})
await engine.start()
const { client } = await connectTestClient(engine, { uid })
process.send?.('connected')
process.on('message', () => {
  void client.nextRecv().then(({ text }) => process.send?.(text))
})
