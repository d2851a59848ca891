/** A node of its own, to be killed: announces users and beats until then. Arguments: url, name, node id, interval, uids. */
import { natsCluster } from '../../../src/adapters/nats/index.ts'

const [url = '', name = '', nodeID = '', intervalMs = '', ...uids] = process.argv.slice(2)
const { presence } = natsCluster({ servers: url, name })
await presence.start?.({ nodeID: Number(nodeID), intervalMs: Number(intervalMs) })
await presence.leave(Number(nodeID))
await presence.heartbeat(Number(nodeID), Number(intervalMs))
for (const uid of uids) await presence.online({ uid, nodeID: Number(nodeID), connectionID: uid, deviceFlag: 0, deviceLevel: 0 })
setInterval(() => void presence.heartbeat(Number(nodeID), Number(intervalMs)), Number(intervalMs))
process.stdout.write('ready')
