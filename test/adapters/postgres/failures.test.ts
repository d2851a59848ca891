import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { inspect } from 'node:util'
import type { AppendResult, ChannelKey, IMError, Message } from 'imengine'
import { postgresStorage, type AnyPool, type PostgresStorage, type PostgresStorageOptions } from 'imengine/postgres'
import { sampleMessage } from 'imengine/testing'
import { Client, Pool } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { binaries, TestServer } from './server.ts'

const ROOM: ChannelKey = { channelID: 'room', channelType: 2 }
const PASSWORD = 'owner-password'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

function storageOf(options: PostgresStorageOptions): PostgresStorage {
  const storage = postgresStorage(options)
  closers.push(() => storage.close())
  return storage
}

function append(storage: PostgresStorage, n: number, over: Partial<Message> = {}): Promise<AppendResult> {
  const key = { ...ROOM, ...(over.channelID !== undefined && { channelID: over.channelID }) }
  return Promise.resolve(storage.messages.append([{ key, messages: [sampleMessage(n, { ...over, ...key })] }])).then(([results]) => results![0]!)
}

/** What it rejects with; its password is nowhere in it. */
async function failureOf(call: Promise<unknown>): Promise<IMError> {
  const error = await call.then(
    () => undefined,
    (reason: IMError) => reason,
  )
  expect(error?.name).toBe('IMError')
  expect(`${error!.message}${inspect(error)}`).not.toContain(PASSWORD)
  return error!
}

async function codeOf(call: Promise<unknown>): Promise<string> {
  return (await failureOf(call)).code
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

interface Proxy {
  readonly port: number
  /** on a connection on which this is said, nothing that the server says comes through any more */
  muteAfter: string | undefined
  /** instead, the proxy hangs up as soon as it says something */
  hangsUp: boolean
}

async function proxyTo(port: number): Promise<Proxy> {
  const sockets = new Set<Socket>()
  const proxy = { port: 0, muteAfter: undefined as string | undefined, hangsUp: false }
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    let isMuted = false
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    near.on('data', (chunk) => {
      if (proxy.muteAfter !== undefined && chunk.toString('latin1').includes(proxy.muteAfter)) isMuted = true
      far.write(chunk)
    })
    far.on('data', (chunk) => {
      if (!isMuted) near.write(chunk)
      else if (proxy.hangsUp) near.destroy()
    })
    near.on('close', () => far.destroy())
    far.on('close', () => near.destroy())
  })
  proxy.port = await listening(server)
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return proxy
}

describe.skipIf(binaries === undefined)('imengine/postgres', () => {
  let server: TestServer
  let database: string
  let url: string

  beforeAll(async () => {
    server = await TestServer.start()
  })
  afterAll(() => server.close())
  beforeEach(async () => {
    database = await server.makeDatabase()
    url = server.url(database)
  })

  async function opened(options: Partial<PostgresStorageOptions> = {}): Promise<PostgresStorage> {
    const storage = storageOf({ ...(options.pool === undefined && { connectionString: url }), ...options })
    await storage.open()
    return storage
  }

  describe('options', () => {
    it('that are wrong are TypeErrors that name the option and show no connection string', () => {
      const make = (options: object) => () => postgresStorage(options)
      expect(make({})).toThrow(TypeError)
      expect(make({ connectionString: url, pool: { connect: () => undefined } })).toThrow(/not both/)
      for (const [name, values] of Object.entries({
        schema: ['', 'pg_own', 'x'.repeat(64), 7],
        instance: ['', 'a\0', 'x'.repeat(201)],
        maxConnections: [1, 1.5, 1001],
        statementTimeoutMs: [0, -1],
        synchronousCommit: ['maybe'],
        maxBatchCount: [0],
        nowMs: [7],
      })) {
        for (const value of values) expect(make({ connectionString: url, [name]: value }), name).toThrow(new RegExp(`imengine: ${name} must be`))
      }
      expect(make({ connectionString: { secret: PASSWORD } })).toThrow(/connectionString/)
    })

    it('synchronousCommit and the time limit are those of every connection', async () => {
      const storage = await opened({ synchronousCommit: 'off', statementTimeoutMs: 1234 })
      await append(storage, 1)
      await server.ask(database, `CREATE FUNCTION imengine.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION '% %', current_setting('synchronous_commit'), current_setting('statement_timeout'); END $$`)
      await server.ask(database, `CREATE TRIGGER tell BEFORE INSERT ON imengine.tokens EXECUTE FUNCTION imengine.tell()`)
      const error = await failureOf(Promise.resolve(storage.tokens.putToken('ann', { deviceFlag: 0, deviceLevel: 0, digest: new Uint8Array(32) })))
      expect((error.cause as Error).message).toBe('off 1234ms')
    })
  })

  describe('open rejects', () => {
    it('with IM_STORE_DENIED for a wrong password, an unknown database and a role without rights', async () => {
      expect(await codeOf(storageOf({ connectionString: server.url(database, 'owner', 'wrong') }).open())).toBe('IM_STORE_DENIED')
      expect(await codeOf(storageOf({ connectionString: server.url('nowhere') }).open())).toBe('IM_STORE_DENIED')
      await server.ask(database, `CREATE ROLE ${database}_guest LOGIN PASSWORD 'guest'`)
      const asGuest = { connectionString: server.url(database, `${database}_guest`, 'guest') }
      expect(await codeOf(storageOf(asGuest).open())).toBe('IM_STORE_DENIED')
      await opened()
      expect(await codeOf(storageOf(asGuest).open())).toBe('IM_STORE_DENIED')
    })

    it('with IM_STORE_UNAVAILABLE where nobody listens, and where nobody answers', async () => {
      const silent = createServer((socket) => void closers.push(() => socket.destroy()))
      const port = await listening(silent)
      const call = storageOf({ connectionString: `postgres://owner:${PASSWORD}@127.0.0.1:${port}/x`, connectTimeoutMs: 100 }).open()
      expect(await codeOf(call)).toBe('IM_STORE_UNAVAILABLE')
      await new Promise((resolve) => {
        silent.close(resolve)
        for (const close of closers.splice(0).reverse()) void close()
      })
      expect(await codeOf(storageOf({ connectionString: `postgres://owner:${PASSWORD}@127.0.0.1:${port}/x` }).open())).toBe('IM_STORE_UNAVAILABLE')
    })

    it('with IM_STORE_FORMAT for a schema of a later version, which it does not touch, and for one of somebody else', async () => {
      await (await opened()).close()
      await server.ask(database, `UPDATE imengine.meta SET value = '99' WHERE name = 'version'`)
      const error = await failureOf(storageOf({ connectionString: url }).open())
      expect([error.code, error.detail]).toEqual(['IM_STORE_FORMAT', 'the schema imengine has version 99, this one knows 1'])
      expect(await server.ask(database, `SELECT value FROM imengine.meta`)).toEqual([{ value: '99' }])
      for (const [schema, table] of [['mine', 'messages (a int)'], ['meta_of_mine', 'meta (a int)']] as const) {
        await server.ask(database, `CREATE SCHEMA ${schema}`)
        await server.ask(database, `CREATE TABLE ${schema}.${table}`)
        expect(await codeOf(storageOf({ connectionString: url, schema }).open())).toBe('IM_STORE_FORMAT')
        const tables = await server.ask(database, `SELECT tablename FROM pg_tables WHERE schemaname = $1`, [schema])
        expect(tables).toHaveLength(1)
      }
    })

    it('with IM_NOT_SUPPORTED for a server that is too old', async () => {
      const pool = new Pool({ connectionString: url })
      closers.push(() => pool.end())
      const old = {
        connect: async () => {
          const client = await pool.connect()
          const query = (asked: { readonly text: string }) =>
            asked.text.includes('server_version_num') ? Promise.resolve({ rows: [{ number: 120_017, text: '12.17' }] }) : client.query(asked)
          return { query, release: () => client.release(), on: () => undefined, removeListener: () => undefined }
        },
        on: () => undefined,
        removeListener: () => undefined,
        end: () => Promise.resolve(),
      } as unknown as AnyPool
      const error = await failureOf(storageOf({ pool: old }).open())
      expect([error.code, error.detail]).toEqual(['IM_NOT_SUPPORTED', 'PostgreSQL 12.17 is too old; 13 is the first that works'])
    })
  })

  it('several engines that open an empty database at once all succeed, and make one schema', async () => {
    const storages = Array.from({ length: 6 }, () => storageOf({ connectionString: url, schema: 'im "chat"' }))
    await Promise.all(storages.map((storage) => storage.open()))
    const results = await Promise.all(storages.map((storage, index) => append(storage, index)))
    expect(results.map(({ messageSeq }) => messageSeq).sort()).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('a role needs no right to make anything where the schema is in order', async () => {
    await opened()
    await server.ask(database, `CREATE ROLE ${database}_app LOGIN PASSWORD 'app'`)
    await server.ask(database, `GRANT USAGE ON SCHEMA imengine TO ${database}_app`)
    await server.ask(database, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA imengine TO ${database}_app`)
    await server.ask(database, `GRANT USAGE ON ALL SEQUENCES IN SCHEMA imengine TO ${database}_app`)
    const storage = await opened({ connectionString: server.url(database, `${database}_app`, 'app') })
    expect(await append(storage, 1)).toMatchObject({ status: 'stored', messageSeq: 1 })
    expect(await storage.outbox.add(0, [new Uint8Array(1)])).toHaveLength(1)
  })

  it('a commit whose answer is lost rejects, and its repeat gets the original', async () => {
    const proxy = await proxyTo(server.port)
    const storage = await opened({ connectionString: url.replace(String(server.port), String(proxy.port)) })
    await append(storage, 1) // the statement is known to its connection by its name from now on
    Object.assign(proxy, { muteAfter: 'no-2', hangsUp: true })
    expect(await codeOf(append(storage, 2))).toBe('IM_STORE_UNAVAILABLE')
    proxy.muteAfter = undefined
    expect(await append(storage, 2)).toEqual({ status: 'duplicate', messageID: sampleMessage(2).messageID, messageSeq: 2 })
    expect(await append(storage, 3)).toMatchObject({ status: 'stored', messageSeq: 3 })
  })

  it('a connection on which no answer came is not used again', async () => {
    const proxy = await proxyTo(server.port)
    const storage = await opened({ connectionString: url.replace(String(server.port), String(proxy.port)), statementTimeoutMs: 1_000 })
    await append(storage, 1)
    proxy.muteAfter = 'no-2'
    expect(await codeOf(append(storage, 2))).toBe('IM_STORE_UNAVAILABLE')
    proxy.muteAfter = undefined
    expect(await append(storage, 2)).toMatchObject({ status: 'duplicate', messageSeq: 2 })
  })

  it('a server that crashes in the middle of the work loses nothing acknowledged, and calls work again behind it', async () => {
    const storage = await opened()
    const acknowledged = new Map<string, number>()
    const failures: string[] = []
    let isOver = false
    const send = async (writer: number): Promise<void> => {
      for (let n = 1; !isOver || n < 5; n++) {
        const [channelID, clientMsgNo] = [`room-${writer % 3}`, `${writer}-${n}`]
        for (;;) {
          try {
            const { messageSeq } = await append(storage, writer * 100_000 + n, { channelID, clientMsgNo })
            acknowledged.set(`${channelID} ${clientMsgNo}`, messageSeq)
            break
          } catch (error) {
            failures.push((error as IMError).code)
            await new Promise((resolve) => setTimeout(resolve, 20))
          }
        }
      }
    }
    const writers = Array.from({ length: 12 }, (_, index) => send(index))
    await vi.waitUntil(() => acknowledged.size > 100, { timeout: 10_000 })
    await server.end('SIGQUIT')
    await vi.waitUntil(() => failures.length >= 12, { timeout: 10_000 })
    await server.run()
    const before = acknowledged.size
    await vi.waitUntil(() => acknowledged.size > before + 100, { timeout: 10_000 })
    isOver = true
    await Promise.all(writers)
    expect(new Set(failures)).toEqual(new Set(['IM_STORE_UNAVAILABLE']))
    let storedCount = 0
    for (const channelID of ['room-0', 'room-1', 'room-2']) {
      const stored = await storage.messages.range({ channelID, channelType: 2 }, { limit: 10_000 })
      storedCount += stored.length
      expect(stored.map(({ messageSeq }) => messageSeq)).toEqual(stored.map((_, index) => index + 1))
      for (const { clientMsgNo, messageSeq } of stored) expect(acknowledged.get(`${channelID} ${clientMsgNo}`)).toBe(messageSeq)
    }
    expect(storedCount).toBe(acknowledged.size)
  })

  it('connections that the server ends while they idle, of its own pool and of a host’s, cost nobody anything', async () => {
    const pool = new Pool({ connectionString: url })
    closers.push(() => pool.end())
    for (const storage of [await opened(), await opened({ pool })]) {
      await append(storage, 1)
      await storage.outbox.count() // holds a connection of its own
      await server.ask(database, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()`, [database])
      await vi.waitFor(async () => expect((await append(storage, 2)).messageSeq).toBe(2), { timeout: 20_000 })
      await vi.waitFor(async () => expect(await storage.outbox.count()).toBe(0), { timeout: 20_000 })
      await storage.close()
    }
    expect(pool.listenerCount('error')).toBe(0)
    expect(await pool.query('SELECT 1 AS one')).toMatchObject({ rows: [{ one: 1 }] })
  })

  it('a server that falls silent fails what waits for it, and holds up no close', async () => {
    const socketCount = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length
    const before = socketCount()
    const storage = await opened({ statementTimeoutMs: 500, connectTimeoutMs: 3_000 })
    await Promise.all([append(storage, 1), storage.outbox.count(), ...Array.from({ length: 6 }, async () => await storage.messages.lastSeq(ROOM))])
    process.kill(server.pid, 'SIGSTOP')
    const backends = await stopBackends()
    try {
      expect(await codeOf(append(storage, 2))).toBe('IM_STORE_UNAVAILABLE')
      expect(await codeOf(Promise.resolve(storage.messages.lastSeq(ROOM)))).toBe('IM_STORE_UNAVAILABLE')
      await Promise.all([storage.close(), storage.close()])
      await vi.waitFor(() => expect(socketCount()).toBe(before), { timeout: 20_000 })
    } finally {
      for (const pid of [server.pid, ...backends]) process.kill(pid, 'SIGCONT')
    }
    expect(await append(await opened(), 3)).toMatchObject({ status: 'stored' })

    async function stopBackends(): Promise<number[]> {
      const { readdirSync, readFileSync } = await import('node:fs')
      const children = readdirSync('/proc').filter((name) => {
        try {
          return /^\d+$/.test(name) && readFileSync(`/proc/${name}/stat`, 'utf8').split(') ')[1]?.split(' ')[1] === String(server.pid)
        } catch {
          return false
        }
      })
      for (const pid of children) process.kill(Number(pid), 'SIGSTOP')
      return children.map(Number)
    }
  })

  it('a statement that waits for longer than it may is ended by the server, and the next one works', async () => {
    const storage = await opened({ statementTimeoutMs: 1_000 })
    await append(storage, 1)
    const client = new Client({ connectionString: url })
    await client.connect()
    await client.query('BEGIN')
    await client.query('SELECT 1 FROM imengine.channels FOR UPDATE')
    const failure = await failureOf(append(storage, 2))
    expect([failure.code, failure.detail]).toEqual(['IM_STORE_UNAVAILABLE', 'the statement took too long'])
    await client.query('ROLLBACK')
    await client.end()
    expect(await append(storage, 2)).toMatchObject({ status: 'stored', messageSeq: 2 })
  })

  it('a message that cannot be stored does no harm to those that go in the same statement', async () => {
    const storage = await opened({ maxAppendStatements: 1 })
    await append(storage, 1)
    await server.ask(database, `UPDATE imengine.channels SET last_seq = 4294967294`)
    const calls = Array.from({ length: 8 }, (_, index) => append(storage, 10 + index, index === 3 ? {} : { channelID: `other-${index}` }))
    calls.push(append(storage, 30))
    const outcomes = await Promise.allSettled(calls)
    expect(outcomes.slice(0, 8).map((outcome) => (outcome.status === 'fulfilled' ? outcome.value.messageSeq : outcome))).toEqual([1, 1, 1, 4_294_967_295, 1, 1, 1, 1])
    expect((outcomes[8] as PromiseRejectedResult).reason).toMatchObject({ code: 'IM_STORE_FULL', detail: 'the channel has given out its last number' })
  })

  it('a channel that is gone because the database was set back is made anew by the call behind the one that notices', async () => {
    const storage = await opened()
    await append(storage, 1)
    await append(storage, 2)
    await server.ask(database, `TRUNCATE imengine.channels, imengine.messages, imengine.senders`)
    expect(await codeOf(append(storage, 3))).toBe('IM_STORE_UNAVAILABLE')
    expect(await append(storage, 3)).toMatchObject({ status: 'stored', messageSeq: 1 })
  })

  it('more than may wait is turned away, and what was accepted is stored', async () => {
    const storage = await opened({ maxPendingBytes: 1000, maxWaitingCount: 2, maxConnections: 2 })
    const outcomes = await Promise.allSettled([1, 2, 3, 4].map((n) => append(storage, n)))
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected'])
    expect((outcomes[3] as PromiseRejectedResult).reason).toMatchObject({ code: 'IM_QUEUE_FULL' })
    const reads = await Promise.allSettled(Array.from({ length: 8 }, async () => storage.messages.lastSeq(ROOM)))
    expect(new Set(reads.filter(({ status }) => status === 'rejected').map((read) => ((read as PromiseRejectedResult).reason as IMError).code))).toEqual(new Set(['IM_QUEUE_FULL']))
    expect(await storage.messages.lastSeq(ROOM)).toBe(3)
  })

  describe('close', () => {
    it('while open is under way lets neither hang, and leaves no connection', async () => {
      const storage = storageOf({ connectionString: url })
      const opening = storage.open().catch((error: IMError) => error.code)
      await storage.close()
      expect([undefined, 'IM_STORE_UNAVAILABLE']).toContain(await opening)
      await storage.close()
      await vi.waitFor(async () => {
        expect(await server.ask(database, `SELECT 1 FROM pg_stat_activity WHERE application_name = 'imengine'`)).toEqual([])
      }, { timeout: 20_000 })
      expect(await codeOf(append(storage, 1))).toBe('IM_STORE_UNAVAILABLE')
    })

    it('writes the positions that wait, and the storage can be opened again', async () => {
      const storage = await opened()
      await storage.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 7 }])
      await storage.close()
      await storage.open()
      expect(await storage.cursors.cursor('ann', ROOM)).toMatchObject({ readSeq: 7 })
    })
  })

  describe('positions', () => {
    it('that were advanced while there was no server are there once it is back', async () => {
      const storage = await opened()
      await storage.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 3, deliveredSeq: 9 }])
      await server.end()
      expect(await codeOf(Promise.resolve(storage.cursors.flush()))).toBe('IM_STORE_UNAVAILABLE')
      expect(await codeOf(Promise.resolve(storage.cursors.put([{ uid: 'ann', key: ROOM, joinSeq: 5 }])))).toBe('IM_STORE_UNAVAILABLE')
      await storage.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 4 }])
      await server.run()
      await storage.cursors.flush()
      const expected = { deliveredSeq: 9, readSeq: 4, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0 }
      expect(await (await opened()).cursors.cursor('ann', ROOM)).toEqual(expected)
    })

    it('of two engines never go backwards, whichever flushes last', async () => {
      const [one, two] = [await opened(), await opened()]
      await one.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 8, deliveredSeq: 2 }])
      await two.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 5, deliveredSeq: 6 }])
      await one.cursors.flush()
      await two.cursors.flush()
      expect(await one.cursors.cursor('ann', ROOM)).toMatchObject({ readSeq: 8, deliveredSeq: 6 })
    })
  })

  describe('the outbox', () => {
    it('of one instance is one engine’s: another gets IM_STORE_LOCKED until the first has closed', async () => {
      const [one, two, other] = [await opened({ instance: 'a' }), await opened({ instance: 'a' }), await opened({ instance: 'b' })]
      await one.outbox.add(0, [Buffer.from('of a')])
      await other.outbox.add(0, [Buffer.from('of b')])
      expect(await codeOf(Promise.resolve(two.outbox.list(0, { limit: 10 })))).toBe('IM_STORE_LOCKED')
      expect(await other.outbox.count()).toBe(1)
      await one.close()
      expect((await two.outbox.list(0, { limit: 10 })).map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['of a'])
    })
  })

  it('texts that are too long for an index come back whole, and are told apart by what follows their beginning', async () => {
    const storage = await opened()
    let state = 7
    const noise = Array.from({ length: 9_000 }, () => String.fromCodePoint(0x4e00 + ((state = (state * 16_807) % 2_147_483_647) % 20_000))).join('')
    const [a, b] = [`${noise}a`, `${noise}b`]
    for (const [index, channelID] of [a, b].entries()) {
      expect(await append(storage, index + 1, { channelID, fromUID: a, clientMsgNo: a })).toMatchObject({ status: 'stored', messageSeq: 1 })
      await storage.channels.putMembers({ channelID, channelType: 2 }, [{ uid: b, role: 0 }])
    }
    const fresh = await opened()
    expect(await fresh.messages.range({ channelID: b, channelType: 2 })).toMatchObject([{ channelID: b, fromUID: a, clientMsgNo: a }])
    expect((await fresh.messages.get([sampleMessage(1).messageID]))[0]?.channelID).toBe(a)
    expect((await fresh.channels.channelsOf(b)).items.map(({ channelID }) => channelID).sort()).toEqual([a, b])
    expect((await fresh.channels.members({ channelID: a, channelType: 2 })).items).toEqual([{ uid: b, role: 0 }])
  })
})
