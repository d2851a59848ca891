import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, ChannelType, IMEngine, type ChannelKey, type Storage } from 'imengine'
import { levelStorage, type Retention } from 'imengine/level'
import { attachNetServer } from 'imengine/net'
import { postgresStorage } from 'imengine/postgres'
import { MemoryLevel } from 'memory-level'

const DAY_MS = 86_400_000

// #region options
/** All of a folder's options that say what is kept; the others are sizes of caches. */
export function storageIn(path: string): Storage {
  return levelStorage({
    path, // one process at a time: for a second one `engine.start()` rejects with IM_STORE_LOCKED
    durability: 'sync', // the default: on the disk before the SENDACK. 'os' is faster, and loses the last moments with the machine
    retention: { maxAgeMs: 365 * DAY_MS, maxCount: 100_000 }, // of every channel; default: everything stays
    dedupeKeepMs: 7 * DAY_MS, // how long a repeat is recognised; default: as long as its message is there
  })
}
// #endregion

// #region retention
/** By channel: alarms stay for a week, what two people say to each other for ever, groups keep so many. */
function retentionOf({ channelID, channelType }: ChannelKey): Retention | undefined {
  if (channelID.startsWith('alarms-')) return { maxAgeMs: 7 * DAY_MS }
  return channelType === ChannelType.Person ? undefined : { maxCount: 100_000 }
}

export const storageByChannel = (path: string): Storage => levelStorage({ path, retention: retentionOf })
// #endregion

// #region postgres
/** In a database that several engines share. Each has its own `instance`, the same after a restart: its outbox goes by it. */
export function storageInPostgres(connectionString: string, instance: string): Storage {
  return postgresStorage({
    connectionString, // e.g. postgres://im:secret@db.example/chat; or `pool`: a pg.Pool of yours
    instance,
    retention: { maxAgeMs: 365 * DAY_MS },
  })
}
// #endregion

// #region memory
/** For tests: the same storage without a disk. The database is yours and outlives an engine, so a test can restart one. */
export async function restartInMemory(): Promise<string[]> {
  const db = new MemoryLevel<Buffer, Buffer>({ keyEncoding: 'buffer', valueEncoding: 'buffer' })
  const note = { channelID: 'bob', channelType: ChannelType.Person, fromUID: 'ann', clientMsgNo: 'note-1' }
  const receipts: string[] = []
  for (const run of [1, 2]) {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ db }) })
    await engine.start()
    const { messageID, messageSeq } = await engine.messages.send({ ...note, payload: Buffer.from('hello') })
    receipts.push(`${messageID} is number ${messageSeq}`) // the second run repeats the first, and gets its answer
    console.log(`run ${run}: ${await engine.conversations.unread('bob')} unread`)
    await engine.close()
  }
  await db.close()
  return receipts
}
// #endregion

export async function start(wantedPort = 0, path = './data', storage: (path: string) => Storage = storageIn) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: storage(path) })
  await engine.start()
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
