/**
 * What `imengine/redis` takes on this machine, against a Redis that is running: `node --import tsx bench/redis.ts redis://…`.
 * It writes under keys of its own, `bench:…`, and does not remove what a stopped run has left.
 */
import { redisCluster } from 'imengine/redis'
import { sampleMessage } from 'imengine/testing'

const [url = 'redis://127.0.0.1:6379'] = process.argv.slice(2)
const never = (): AbortSignal => new AbortController().signal

async function perSecond(name: string, count: number, run: () => Promise<unknown>): Promise<void> {
  const startMs = performance.now()
  await run()
  const seconds = (performance.now() - startMs) / 1_000
  console.log(`${name}: ${Math.round(count / seconds)} per second, ${((seconds * 1_000) / count).toFixed(3)} ms each`)
}

async function inTurn(count: number, call: (index: number) => unknown): Promise<void> {
  for (let index = 0; index < count; index++) await call(index)
}

const [one, two] = [1, 2].map(() => redisCluster({ url, prefix: 'bench:' })) as [ReturnType<typeof redisCluster>, ReturnType<typeof redisCluster>]
await one.peerPush.start({ nodeID: 1, pushed: () => undefined, kicked: () => undefined })
await two.peerPush.start({ nodeID: 2, pushed: () => undefined, kicked: () => undefined })

const uids = Array.from({ length: 10_000 }, (_, index) => `user-${index}`)
const entryOf = (uid: string) => ({ uid, nodeID: 1, connectionID: uid, deviceFlag: 0, deviceLevel: 0 })
await one.presence.heartbeat(1, 60_000)
await perSecond('online, 100 under way', uids.length, () =>
  Promise.all(Array.from({ length: 100 }, (_, part) => inTurn(100, (index) => one.presence.online(entryOf(uids[100 * part + index]!))))),
)
await perSecond('online, all at once', uids.length, () => Promise.all(uids.map(async (uid) => one.presence.online(entryOf(uid)))))
await perSecond('online, one after the other', 2_000, () => inTurn(2_000, (index) => one.presence.online(entryOf(uids[index]!))))
await perSecond('locate of 1000 uids', 300, () => inTurn(300, () => two.presence.locate(uids.slice(0, 1_000))))
await perSecond('locate of 10 uids', 2_000, () => inTurn(2_000, () => two.presence.locate(uids.slice(0, 10))))

const request = { key: { channelID: 'room', channelType: 2 }, messages: [sampleMessage(1, { payload: Buffer.alloc(128) })], uids: ['bob'] }
await perSecond('push, one after the other', 3_000, () => inTurn(3_000, () => one.peerPush.push(2, request, never())))
await perSecond('push, 100 under way', 20_000, () =>
  Promise.all(Array.from({ length: 100 }, () => inTurn(200, () => one.peerPush.push(2, { ...request }, never())))),
)
await perSecond('kick of one other node', 1_000, () => inTurn(1_000, () => one.peerPush.kick({ uid: 'ann', deviceFlag: 0, deviceID: 'd', deviceLevel: 1 }, never())))
await one.presence.leave(1)
await two.presence.heartbeat(2, 60_000)
await two.presence.leave(2)
await Promise.all([one.close(), two.close()])
