import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { headers } from '@nats-io/transport-node'
import { levelStorage } from 'imengine/level'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { JetStream } from '../../../src/adapters/nats/jetstream.ts'
import { encodeEntry } from '../../../src/adapters/nats/log-entry.ts'
import { LogFollower } from '../../../src/adapters/nats/log-follower.ts'
import { checkLogOptions, type LogProblem } from '../../../src/adapters/nats/log-options.ts'
import { configOf } from '../../../src/adapters/nats/log-streams.ts'
import { NatsReplicator } from '../../../src/adapters/nats/replicator.ts'
import { connectionTo, expectEqualStores, LogNode, logName, message, replicatorOn, room, settled, type LogNodeOptions } from './log.ts'
import { Gate } from '../../../src/testing/suites/recorder.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers, type NatsServersOptions } from './servers.ts'

let servers: NatsServers
const nodes: LogNode[] = []

beforeAll(async () => {
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.close()))
})

afterAll(() => servers?.close())

function made(options: Omit<LogNodeOptions, 'servers'> & { readonly servers?: readonly string[] }): LogNode {
  const node = new LogNode({ servers: servers.urls, startTimeoutMs: 10_000, ...options })
  nodes.push(node)
  return node
}

const started = (options: Parameters<typeof made>[0]): Promise<LogNode> => made(options).start()

/** Ask the server as its operator would. */
async function asOperator<T>(ask: (nats: Awaited<ReturnType<ReturnType<typeof connectionTo>['acquire']>>) => Promise<T>): Promise<T> {
  const connection = connectionTo(servers.urls)
  try {
    return await ask(await connection.acquire())
  } finally {
    await connection.release()
  }
}

const api = (subject: string, body: object = {}): Promise<Record<string, unknown>> =>
  asOperator(async (nats) => (await nats.request(`$JS.API.${subject}`, JSON.stringify(body))).json())

describe.skipIf(NATS_SERVER === undefined)('three nodes of one log', () => {
  it('that start at once and propose into the same channels have equal stores, without a gap or a repeat', async () => {
    const name = logName()
    const three = await Promise.all([1, 2, 3].map((nodeID) => started({ nodeID, name, partitions: 3 })))
    const keys = ['a', 'b', 'c', 'd', 'e'].map(room)
    const acked = new Map<string, number>()
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        const key = keys[i % 5]!
        const sent = [message(key), message(key)]
        const results = await three[i % 3]!.propose(key, sent)
        for (const [j, { messageSeq }] of results.entries()) acked.set(`${key.channelID} ${sent[j]!.clientMsgNo}`, messageSeq)
      }),
    )
    await settled(three)
    const found = await expectEqualStores(three, keys)
    expect([...found.values()].flat()).toHaveLength(600)
    for (const key of keys) {
      for (const [i, number] of found.get(`2:${key.channelID}`)!.entries()) expect(acked.get(`${key.channelID} ${number}`)).toBe(i + 1)
    }
    for (const { replicator } of three) {
      expect(replicator.status()).toMatchObject({ isConnected: true, isStarted: true })
      for (const { isFollowing, stopped, queuedCount } of replicator.status().partitions) expect([isFollowing, stopped, queuedCount]).toEqual([true, undefined, 0])
    }
  })

  it('apply what arrives while something else is being applied, in order and without a hole', async () => {
    const name = logName()
    const gate = new Gate()
    const [slow, fast] = await Promise.all([
      started({ nodeID: 1, name, partitions: 1, beforeApply: () => gate.opened }),
      started({ nodeID: 2, name, partitions: 1 }),
    ])
    const sent = Array.from({ length: 20 }, (_, i) => message(room('a'), `n${i}`))
    for (const each of sent) await fast.propose(room('a'), [each])
    const { replicator } = slow
    await until(() => replicator.status().partitions[0]!.lastIndex === 20, 25_000, 'they have not arrived')
    expect(slow.appliedIndexes).toEqual([0])
    gate.open()
    await settled([slow, fast])
    await expectEqualStores([slow, fast], [room('a')])
    expect(slow.applyCount).toBe(2) // the first that came, and all others at once
  })

  it('keep the order in which one channel was proposed, though nobody waited in between', async () => {
    const name = logName()
    const [one, two] = await Promise.all([1, 2].map((nodeID) => started({ nodeID, name, maxEntryCount: 3 })))
    const key = room('order')
    const sent = Array.from({ length: 200 }, (_, i) => message(key, `n${i}`))
    await Promise.all(sent.map((each) => one!.propose(key, [each])))
    await settled([one!, two!])
    expect(await two!.numbersIn(key)).toEqual(sent.map(({ clientMsgNo }) => clientMsgNo))
  })
})

describe.skipIf(NATS_SERVER === undefined)('what is proposed', () => {
  it('in one turn goes in few entries, and what is larger than an entry in several, in order', async () => {
    const node = await started({ nodeID: 1, name: logName(), partitions: 1 })
    await Promise.all(Array.from({ length: 1_200 }, (_, i) => node.propose(room(`c${i}`), [message(room(`c${i}`))])))
    expect(node.replicator.status().partitions[0]!.lastIndex).toBe(2)
    const large = Array.from({ length: 40 }, (_, i) => message(room('large'), `l${i}`, Buffer.alloc(50_000, i)))
    expect((await node.propose(room('large'), large)).map(({ messageSeq }) => messageSeq)).toEqual(large.map((_, i) => i + 1))
    expect(node.replicator.status().partitions[0]!.lastIndex).toBe(22)
  })

  it('and is too large for the server is IM_ENTRY_TOO_LARGE at once, and nothing of that call is in the log', async () => {
    const node = await started({ nodeID: 1, name: logName(), partitions: 1 })
    const key = room('a')
    const huge = message(key, 'huge', Buffer.alloc(1_048_576))
    await expect(node.propose(key, [message(key), huge])).rejects.toMatchObject({ code: 'IM_ENTRY_TOO_LARGE', retryable: false })
    const largest = message(key, 'largest', Buffer.alloc(1_045_000))
    expect((await node.propose(key, [largest]))[0]!.messageSeq).toBe(1)
    expect(node.replicator.status().partitions[0]!.lastIndex).toBe(1)
  })

  it('as an operation has an entry of its own, in order with the messages of its lane, and what it came to comes back', async () => {
    const name = logName()
    const nodes = await Promise.all([1, 2].map((nodeID) => new LogNode({ servers: servers.urls, name, partitions: 1, nodeID }).start()))
    const [one] = nodes as [LogNode, LogNode]
    const key = room('a')
    const signal = AbortSignal.timeout(5_000)
    const calls = [
      one.propose(key, [message(key, 'before')]),
      one.replicator.operate('2:a', Buffer.from('change'), signal),
      one.propose(key, [message(key, 'after')]),
      one.replicator.operate('2:a', Buffer.from('again'), signal),
    ]
    const before = one.appliedIndexes[0]!
    expect((await Promise.all(calls)).map((result) => (typeof result === 'string' ? result : 'stored'))).toEqual(['stored', '1 change', 'stored', '1 again'])
    await settled(nodes)
    expect(one.appliedIndexes[0]! - before).toBe(4)
    for (const node of nodes) expect([node.operated, await node.numbersIn(key)]).toEqual([['change', 'again'], ['before', 'after']])
    await expect(one.replicator.operate('2:a', Buffer.alloc(2 ** 20), signal)).rejects.toMatchObject({ code: 'IM_ENTRY_TOO_LARGE' })
    await Promise.all(nodes.map((node) => node.close()))
  })

  it('as an operation that a node cannot read stops that node there, and is not passed over', async () => {
    const name = logName()
    const node = await new LogNode({ servers: servers.urls, name, partitions: 1, nodeID: 1 }).start()
    const signal = AbortSignal.timeout(5_000)
    await expect(node.replicator.operate('x', Buffer.from('unreadable'), signal)).rejects.toMatchObject({ code: 'IM_LOG_FORMAT' })
    await expect(node.propose(room('a'), [message(room('a'))])).rejects.toMatchObject({ code: 'IM_LOG_FORMAT' })
    expect(node.replicator.status().partitions[0]).toMatchObject({ appliedIndex: 0, stopped: { code: 'IM_LOG_FORMAT' } })
    expect(node.isolations).toEqual([true])
    await node.close()
  })

  it('beyond the bound of what waits is IM_QUEUE_FULL, and there is room again when the rest has been applied', async () => {
    const gate = new Gate()
    const node = await started({ nodeID: 1, name: logName(), maxQueueCount: 10, partitions: 1, beforeApply: () => gate.opened })
    const waiting = Array.from({ length: 5 }, (_, i) => node.propose(room(`c${i}`), [message(room(`c${i}`)), message(room(`c${i}`))]))
    await expect(node.propose(room('x'), [message(room('x'))])).rejects.toMatchObject({ code: 'IM_QUEUE_FULL' })
    gate.open()
    await Promise.all(waiting)
    expect(await node.propose(room('x'), [message(room('x'))])).toHaveLength(1)
  })

  it('while the server hangs ends in IM_REPLICATION_TIMEOUT; what was not published by then never is, and then it goes on', async () => {
    const name = logName()
    const node = await started({ nodeID: 1, name, partitions: 1, maxInFlightCount: 1, publishTimeoutMs: 300 })
    await node.propose(room('a'), [message(room('a'), 'before')])
    servers.freeze(0)
    const onItsWay = node.propose(room('a'), [message(room('a'), 'on its way')], 1_500)
    await new Promise((resolve) => setImmediate(resolve)) // it has been launched: the next is another entry
    const behind = node.propose(room('a'), [message(room('a'), 'behind')], 1_000)
    const outcomes = await Promise.allSettled([behind, onItsWay])
    servers.thaw(0)
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'IM_REPLICATION_TIMEOUT' } })
    const after = message(room('a'), 'after')
    await until(async () => (await Promise.allSettled([node.propose(room('a'), [after], 1_000)]))[0].status === 'fulfilled', 25_000, 'it does not go on')
    const numbers = await node.numbersIn(room('a'))
    expect(numbers.filter((number) => number !== 'on its way')).toEqual(['before', 'after'])
  })
})

describe.skipIf(NATS_SERVER === undefined)('a node that comes back', () => {
  it('with its level store applies what it missed, and nothing twice', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imengine-log-'))
    try {
      const name = logName()
      const other = await started({ nodeID: 2, name, partitions: 1, maxEntryCount: 1 })
      const keys = ['a', 'b', 'c'].map(room)
      let saidCount = 0
      const say = async (): Promise<void> => {
        saidCount += 20
        // Without a number a repeat is not recognised: only the position keeps it from being applied twice.
        await Promise.all(keys.flatMap((key) => Array.from({ length: 20 }, () => other.propose(key, [message(key, '')]))))
      }
      for (let life = 1; life <= 4; life++) {
        const storage = levelStorage({ path: folder, durability: 'os' })
        await storage.open()
        const node = await started({ nodeID: 1, name, partitions: 1, store: storage.messages })
        await settled([node, other])
        for (const key of keys) expect(await node.store.lastSeq(key)).toBe(saidCount)
        // The second life ends with what it caught up with in few applies of many entries, the others with single ones.
        if (life !== 2) await say()
        await settled([node, other])
        await node.close()
        await storage.close()
        if (life % 2 === 1) await say()
      }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })

  it('is started when everything that was in the log has been applied', async () => {
    const name = logName()
    const one = await started({ nodeID: 1, name, partitions: 2 })
    for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 100 }, (_, j) => one.propose(room(`c${j}`), [message(room(`c${j}`))])))
    const two = await started({ nodeID: 2, name, partitions: 2, maxApplyCount: 2 })
    expect(two.appliedIndexes).toEqual(one.appliedIndexes)
    await expectEqualStores([one, two], [room('c0'), room('c99')])
  })

  it('too late for what the log keeps is IM_LOG_GAP, unless somebody can bring its store there', async () => {
    const name = logName()
    const store = memoryMessageStore()
    const away = await started({ nodeID: 1, name, store, partitions: 1, maxBytes: 1_048_576 })
    await away.propose(room('a'), [message(room('a'))])
    await away.close()
    const one = await started({ nodeID: 2, name, partitions: 1 })
    for (let i = 0; i < 24; i++) await one.propose(room('a'), [message(room('a'), `no-${i}`, Buffer.alloc(100_000))])
    await expect(started({ nodeID: 1, name, store, partitions: 1 })).rejects.toMatchObject({ code: 'IM_LOG_GAP', retryable: false })
    expect(await store.lastSeq(room('a'))).toBe(1)
    const asked: unknown[] = []
    const recover = async (log: string, fromIndex: number): Promise<number> => {
      asked.push([log, fromIndex])
      await store.append([{ key: room('a'), messages: (await one.store.range(room('a'), { startSeq: 2 })).map((each) => ({ ...each, messageSeq: 0 })) }], { log, index: one.appliedIndexes[0]! })
      return one.appliedIndexes[0]!
    }
    const back = await started({ nodeID: 1, name, store, partitions: 1, recover })
    await one.propose(room('a'), [message(room('a'), 'last')])
    await settled([one, back])
    await expectEqualStores([one, back], [room('a')])
    expect(asked).toEqual([[`${name}_log_0`, 2]])
    expect(back.settleCount).toBe(1) // before: what it has applied may not be kept behind that
  })
})

describe.skipIf(NATS_SERVER === undefined)('a log that cannot be followed', () => {
  const boot = '0123456789abcdef'

  it.each([
    ['IM_LOG_FORMAT', Buffer.from('0301', 'hex')],
    ['IM_LOG_CORRUPT', encodeEntry({ nodeID: 1, boot, number: 1 }, []).fill(0xff, 10, 11)],
  ])('because of an entry that is %s stops there on every node, says so, and applies what came before', async (code, bytes) => {
    const name = logName()
    const [one, two] = await Promise.all([1, 2].map((nodeID) => started({ nodeID, name, partitions: 1 })))
    await one!.propose(room('a'), [message(room('a'), 'before')])
    await asOperator(async (nats) => void (await nats.request(`${name}.log.0`, bytes)))
    await until(() => [one!, two!].every((node) => node.replicator.status().partitions[0]!.stopped !== undefined), 25_000, 'not stopped')
    for (const node of [one!, two!]) {
      expect(node.replicator.status().partitions[0]!.stopped).toMatchObject({ code, retryable: false })
      expect(node.problems.filter(({ isStopped }) => isStopped)).toMatchObject([{ error: { code }, log: `${name}_log_0` }])
      await expect(node.propose(room('a'), [message(room('a'))])).rejects.toMatchObject({ code })
      expect(await node.numbersIn(room('a'))).toEqual(['before'])
    }
    await expect(started({ nodeID: 3, name, partitions: 1 })).rejects.toMatchObject({ code })
  })

  it('because its stream was deleted stops in IM_LOG_REPLACED, and whoever waits is told', async () => {
    const name = logName()
    const node = await started({ nodeID: 1, name, partitions: 1 })
    await node.propose(room('a'), [message(room('a'))])
    await api(`STREAM.DELETE.${name}_log_0`)
    await expect(node.propose(room('a'), [message(room('a'))], 20_000)).rejects.toMatchObject({ code: 'IM_LOG_REPLACED' })
    await until(() => node.replicator.status().partitions[0]!.stopped?.code === 'IM_LOG_REPLACED', 25_000, 'it has not stopped')
    await expect(node.propose(room('a'), [message(room('a'))])).rejects.toMatchObject({ code: 'IM_LOG_REPLACED' })
  })

  it('because another stream has its name is IM_LOG_REPLACED, and nothing is applied on top', async () => {
    const name = logName()
    const store = memoryMessageStore()
    const node = await started({ nodeID: 1, name, store, partitions: 1 })
    for (let i = 0; i < 3; i++) await node.propose(room('a'), [message(room('a'))])
    await node.close()
    await api(`STREAM.DELETE.${name}_log_0`)
    const fresh = await started({ nodeID: 2, name, partitions: 1 })
    await fresh.propose(room('a'), [message(room('a'))])
    await expect(started({ nodeID: 1, name, store, partitions: 1 })).rejects.toMatchObject({ code: 'IM_LOG_REPLACED' })
    expect(await store.lastSeq(room('a'))).toBe(3)
  })

  it('because an entry is missing in its middle stops in IM_LOG_GAP before it', async () => {
    const name = logName()
    const log = `${name}_log_0`
    const limits = checkLogOptions({ name })
    // A stream that allows deletes, which `start` would refuse.
    await api(`STREAM.CREATE.${log}`, { ...configOf(limits, 0), deny_delete: false, deny_purge: false })
    const connection = connectionTo(servers.urls)
    const nats = await connection.acquire()
    for (let number = 1; number <= 4; number++) await nats.request(`${name}.log.0`, encodeEntry({ nodeID: 9, boot, number }, []))
    expect(await api(`STREAM.MSG.DELETE.${log}`, { seq: 3 })).not.toHaveProperty('error')
    const applied: number[] = []
    const stopped = new Promise<LogProblem>((resolve) => {
      const follower = new LogFollower({
        log,
        limits,
        jetStream: new JetStream(nats, headers),
        host: { nodeID: 1, apply: () => [], operate: () => undefined, isolated: () => undefined },
        isConnected: () => true,
        maxPayloadBytes: () => 1_048_576,
        recover: undefined,
        applied: ({ number }) => void applied.push(number),
        moved: () => undefined,
        report: (problem) => problem.isStopped && resolve(problem),
      })
      follower.start(0)
    })
    expect(await stopped).toMatchObject({ log, error: { code: 'IM_LOG_GAP', message: /goes on with 4.*applied 2/ } })
    expect(applied).toEqual([1, 2])
    await connection.release()
  })
})

describe.skipIf(NATS_SERVER === undefined)('a start', () => {
  it('of a node with other partitions or other replicas is IM_LOG_UNFIT and says what differs', async () => {
    const name = logName()
    await started({ nodeID: 1, name, partitions: 2 })
    await expect(started({ nodeID: 2, name, partitions: 3 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /partition 0 of 2.*partition 0 of 3/ })
    await expect(started({ nodeID: 2, name, partitions: 1 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT' })
    await expect(started({ nodeID: 2, name, partitions: 2, replicas: 3 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /replicas is 1, not 3/ })
  })

  it.each([
    ['subjects', { subjects: ['elsewhere'] }],
    ['discard', { discard: 'new' }],
    ['storage', { storage: 'memory' }],
    ['retention', { retention: 'workqueue' }],
    ['duplicate_window', { duplicate_window: 10_000_000_000 }],
    ['deny_purge', { deny_purge: false }],
  ])('on a stream that is there with another %s is IM_LOG_UNFIT', async (setting, change) => {
    const name = logName()
    const node = await started({ nodeID: 1, name, partitions: 1 })
    await node.close()
    const stream = `${name}_log_0`
    const { config } = (await api(`STREAM.INFO.${stream}`)) as { config: object }
    await api(`STREAM.DELETE.${stream}`)
    const other = { ...config, ...change, ...('subjects' in change ? { subjects: [`${name}.elsewhere`] } : {}) }
    expect(await api(`STREAM.CREATE.${stream}`, other)).not.toHaveProperty('error')
    await expect(started({ nodeID: 1, name, partitions: 1 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: expect.stringContaining(setting) as string })
  })

  it('with replicas on a server alone is IM_LOG_UNFIT', async () => {
    await expect(started({ nodeID: 1, name: logName(), replicas: 3 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /3 replicas/ })
  })

  it('with a maxBytes for which there is no room is IM_LOG_UNFIT', async () => {
    await expect(started({ nodeID: 1, name: logName(), maxBytes: 2 ** 50 })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /maxBytes/ })
  })

  it('with a store that keeps no position is IM_NOT_SUPPORTED and names it', async () => {
    const replicator = replicatorOn(servers.urls, { name: logName() })
    await expect(replicator.start({ nodeID: 1, apply: () => [], operate: () => undefined, isolated: () => undefined })).rejects.toMatchObject({ code: 'IM_NOT_SUPPORTED', message: /logPosition/ })
    await replicator.close()
  })

  it('where nobody listens is IM_CLUSTER_UNAVAILABLE', async () => {
    await expect(started({ nodeID: 1, name: logName(), servers: ['nats://127.0.0.1:1'], startTimeoutMs: 500 })).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
  })

  it('whose applies do not succeed ends with its time, and says how far it came', async () => {
    const name = logName()
    const one = await started({ nodeID: 1, name, partitions: 1 })
    await one.propose(room('a'), [message(room('a'))])
    const stuck = (): never => {
      throw new Error('no')
    }
    await expect(started({ nodeID: 2, name, partitions: 1, startTimeoutMs: 700, beforeApply: stuck })).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE', message: /log_0 0 of 1/ })
  })

  it('can be ended by close at any moment, and close twice', async () => {
    for (const turns of [0, 1, 3, 10, 40]) {
      const node = made({ nodeID: 1, name: logName() })
      const starting = Promise.allSettled([node.start()])
      for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
      await Promise.all([node.close(), node.close()])
      await starting
      await expect(node.propose(room('a'), [message(room('a'))])).rejects.toMatchObject({ code: expect.stringMatching(/IM_NOT_RUNNING|IM_REPLICATION_TIMEOUT/) as string })
    }
  })

  it('is ended by close while its store is slow to tell positions, and nothing of it goes on', async () => {
    const connection = connectionTo(servers.urls)
    let watchCount = 0
    const watch = connection.watch.bind(connection)
    connection.watch = (watcher) => (watchCount++, watch(watcher))
    const replicator = new NatsReplicator(connection, { name: logName(), partitions: 1, isolatedAfterMs: 1_000 })
    const [asked, answer] = [new Gate(), new Gate()]
    let askCount = 0
    const starting = replicator.start({
      nodeID: 1,
      logPosition: async () => {
        if (++askCount === 2) {
          asked.open()
          await answer.opened
        }
        return 0
      },
      apply: () => [],
      operate: () => undefined,
      isolated: () => undefined,
    })
    const ended = expect(starting).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
    await asked.opened
    await replicator.close()
    const intervals = vi.spyOn(globalThis, 'setInterval')
    try {
      answer.open()
      await ended
      expect([intervals.mock.calls.length, watchCount]).toEqual([0, 0])
    } finally {
      intervals.mockRestore()
    }
  })

  it('refuses options out of their range', () => {
    const bad = [{ name: 'a.b' }, { name: '' }, { partitions: 0 }, { replicas: 6 }, { maxAgeMs: 1_000 }, { maxBytes: 1 }, { maxEntryBytes: 1 }, { startTimeoutMs: 0 }]
    for (const options of bad) expect(() => replicatorOn([], { name: 'a', ...options }), JSON.stringify(options)).toThrow(TypeError)
  })
})

describe.skipIf(NATS_SERVER === undefined)('a server', () => {
  async function onServer(options: NatsServersOptions, check: (urls: readonly string[]) => Promise<void>): Promise<void> {
    const other = await startNatsServers(options)
    try {
      await check(other.urls)
    } finally {
      await Promise.all(nodes.splice(0).map((node) => node.close()))
      await other.close()
    }
  }

  it('whose max_payload is too small for an entry is IM_LOG_UNFIT', async () => {
    await onServer({ maxPayloadBytes: 65_536 }, async (urls) => {
      await expect(started({ nodeID: 1, name: logName(), servers: urls })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /max_payload/ })
      await started({ nodeID: 1, name: logName(), servers: urls, maxEntryBytes: 32_768 })
    })
  })

  it('whose JetStream is off is IM_LOG_UNFIT at once', async () => {
    await onServer({ configuration: 'jetstream: disabled' }, async (urls) => {
      await expect(started({ nodeID: 1, name: logName(), servers: urls })).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /JetStream is off/ })
    })
  })

  it('whose user may not ask JetStream, or not publish, is IM_LOG_UNFIT', async () => {
    const deny = (user: string, subject: string): string => `{ user: ${user}, password: p, permissions: { publish: { deny: "${subject}" } } }`
    const configuration = `authorization { users = [${deny('asks', '$JS.API.>')}, ${deny('says', 'denied.log.>')}] }`
    await onServer({ configuration }, async (urls) => {
      const replicator = (user: string): NatsReplicator => new NatsReplicator(connectionTo(urls, { user, pass: 'p' }), { name: 'denied', partitions: 1, startTimeoutMs: 5_000 })
      const host = { nodeID: 1, logPosition: () => 0, apply: () => [], operate: () => undefined, isolated: () => undefined }
      await expect(replicator('asks').start(host)).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /may not use/ })
      const mute = replicator('says')
      await mute.start(host)
      await expect(mute.propose(room('a'), [message(room('a'))], AbortSignal.timeout(5_000))).rejects.toMatchObject({ code: 'IM_LOG_UNFIT', message: /denied\.log\.0/ })
      await mute.close()
    })
  })

  it.each([
    ['may do what the documentation lists', true],
    ['may neither fetch entries nor hear of leaders', false],
  ])('serves a user who %s', async (_what, mayAll) => {
    const logs = ['small_log_0', 'small_log_1']
    const api = logs.flatMap((log) => [`STREAM.INFO.${log}`, `STREAM.CREATE.${log}`, `CONSUMER.CREATE.${log}`, `CONSUMER.DELETE.${log}.*`, `CONSUMER.MSG.NEXT.${log}.*`])
    const apiForDeaths = mayAll ? logs.map((log) => `STREAM.MSG.GET.${log}`) : []
    const publish = [...['INFO', ...api, ...apiForDeaths].map((subject) => `$JS.API.${subject}`), 'small.log.*', 'small.snapshot.>', 'small.digests', '_INBOX.>']
    const hears = mayAll ? logs.map((log) => `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${log}`) : []
    const subscribe = ['_INBOX.>', 'small.snapshot.>', 'small.digests', ...hears]
    const configuration = `authorization { users = [{ user: u, password: p, permissions: ${JSON.stringify({ publish, subscribe })} }] }`
    await onServer({ configuration }, async (urls) => {
      const problems: LogProblem[] = []
      const replicator = new NatsReplicator(connectionTo(urls, { user: 'u', pass: 'p' }), { name: 'small', partitions: 2, onProblem: (problem) => void problems.push(problem) })
      const store = memoryMessageStore()
      await replicator.start({ nodeID: 1, logPosition: (log) => store.logPosition!(log), apply: (entries, position) => store.append(entries, position), operate: () => undefined, isolated: () => undefined })
      for (const id of ['a', 'b', 'c', 'd']) expect(await replicator.propose(room(id), [message(room(id))], AbortSignal.timeout(5_000))).toMatchObject([{ messageSeq: 1 }])
      expect(problems).toEqual([])
      await replicator.close()
    })
  })
})
