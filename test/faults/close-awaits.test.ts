import { MemoryLevel } from 'memory-level'
import { describe, expect, it } from 'vitest'
import {
  allowAnyToken, ChannelType, IMEngine, memoryPeerHub, memoryPresence, memoryReplicatorHub, type IMEngineOptions, type MemoryReplicatorHub, type Message,
  type WebhookEvent,
} from 'imengine'
import { levelStorage } from 'imengine/level'
import { FrameType } from 'imengine/protocol'
import { connectTestClient, FakeClock, seededRandom, type ConnectedTestClient, type TestClient } from 'imengine/testing'
import { FaultyLevel } from '../adapters/level/open.ts'
import { deferred, TEAM } from '../support.ts'
import { Gates, type Fate, type Moment } from './gates.ts'

type Memory = MemoryLevel<Buffer, Buffer>
/** 'alone': one store behind the engine. 'log': what is written goes through a replicator first. */
type Setting = 'alone' | 'log'

const BYTES = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
/** Short, because every tick of virtual time costs a turn of the real loop. */
const LIMITS = { cursorFlushMs: 100, webhookBatchMs: 50, closeTimeoutMs: 200, maxTrackedDeliveries: 100, maxCachedPermissions: 100, maxCachedChannels: 100 }
/** Memory of the usual size takes longer to get than everything else does here. */
const SMALL = { dedupeFilterBytes: 4_096, maxCachedChannels: 100, maxCachedValues: 100 }
const UIDS = ['ann', 'bob', 'cat', 'dan']

async function copyOf(memory: Memory): Promise<Memory> {
  const copy: Memory = new MemoryLevel(BYTES)
  await copy.open()
  for await (const [key, value] of memory.iterator()) await copy.put(key, value)
  return copy
}

/** The messages that a webhook has taken. */
class Told {
  readonly messageIDs = new Set<string>()

  take(events: readonly WebhookEvent[]): void {
    for (const event of events) if (event.event === 'msg.notify') for (const { messageID } of event.messages) this.messageIDs.add(messageID)
  }
}

interface Promised {
  readonly messageID: string
  readonly messageSeq: number
}

/** A life that is closed while much is under way: what it had promised, and what was on its disk at the end. */
interface Life {
  readonly memory: Memory
  readonly hub: MemoryReplicatorHub | undefined
  readonly gates: Gates
  readonly clock: FakeClock
  readonly engine: IMEngine
  readonly isClosed: boolean
  readonly errors: readonly string[]
  /** clientMsgNo → what its SENDACK, or the host's own call, has said */
  readonly acked: ReadonlyMap<string, Promised>
  /** the seqs of the group that bob has got, and acknowledged as long as anybody listened */
  readonly seenByBob: readonly number[]
  readonly told: Told
}

const sentTexts: readonly (readonly [uid: string, clientMsgNo: string])[] = [
  ['ann', 'early-1'], ['ann', 'early-2'], ['bob', 'early-3'], ['ann', 'late-1'], ['ann', 'late-2'], ['bob', 'late-3'], ['cat', 'asked'], ['ann', 'to-dan'], ['bot', 'host'],
]

function seqsOf(client: TestClient): number[] {
  return client.messages.filter(({ channelID }) => channelID === 'team').map(({ messageSeq }) => messageSeq)
}

function sendAs(client: TestClient, clientMsgNo: string): void {
  const channel = clientMsgNo === 'to-dan' ? { channelID: 'dan', channelType: ChannelType.Person } : TEAM
  client.send({ ...channel, payload: `text of ${clientMsgNo}`, clientMsgNo }).catch(() => undefined)
}

async function live(setting: Setting, fateOf: (abort: AbortController) => Fate | undefined): Promise<Life> {
  const abort = new AbortController()
  const fate = fateOf(abort)
  const gates = new Gates(fate)
  const clock = new FakeClock()
  const memory: Memory = new MemoryLevel(BYTES)
  const level = new FaultyLevel(memory)
  const storage = levelStorage({ db: gates.level(level), nowMs: () => clock.nowMs(), ...SMALL })
  const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
  const peers = memoryPeerHub()
  void peers.peer().start({ nodeID: 2, pushed: () => undefined, kicked: () => undefined })
  const hub = setting === 'log' ? memoryReplicatorHub({ clock }) : undefined
  const replicator = hub?.replicator()
  const told = new Told()
  const question = deferred<{ code: number }>()
  const webhook: IMEngineOptions['webhook'] = {
    events: ['msg.notify'],
    beforeSend: ({ clientMsgNo }) => (clientMsgNo === 'asked' ? question.promise : { code: 0 }),
    notify: (events) => gates.pass('webhook.notify', async () => told.take(events)),
  }
  const engine = new IMEngine({
    limits: LIMITS, tokenVerifier: allowAnyToken(), plaintext: 'allow', clock, random: seededRandom(1), storage: gates.storage(storage), webhook,
    presence: gates.around('presence', presence), peerPush: gates.around('peerPush', peers.peer()),
    ...(replicator !== undefined && { replicator: gates.around('replicator', replicator) }),
  })
  const errors: string[] = []
  engine.on('error', ({ code }) => errors.push(code))
  engine.use({ name: 'last words', setup: (host) => host.onClose(() => gates.pass('plugin.onClose', async () => undefined)) })
  await engine.start()
  await engine.channels.create(TEAM, { subscribers: UIDS })
  const elsewhere = { uid: 'dan', nodeID: 2, connectionID: 'x', deviceFlag: 0, deviceLevel: 0 }
  await presence.online(elsewhere)
  const clients = new Map<string, ConnectedTestClient>()
  for (const uid of ['ann', 'bob', 'cat']) clients.set(uid, await connectTestClient(engine, { uid, plaintext: true, autoAck: uid !== 'cat' }))
  const clientOf = (uid: string): TestClient => clients.get(uid)!.client

  for (const [uid, clientMsgNo] of sentTexts.slice(0, 3)) {
    sendAs(clientOf(uid), clientMsgNo)
    await clock.settle()
  }
  await engine.conversations.markRead('cat', TEAM, { seq: 2 })
  await clock.advance(400) // bob's positions are on the disk, and so is what the webhook has taken
  const held = level.holdWrites()
  for (const [uid, clientMsgNo] of sentTexts.slice(3, -1)) sendAs(clientOf(uid), clientMsgNo)
  const acked = new Map<string, Promised>()
  engine.messages.send({ ...TEAM, fromUID: 'bot', payload: Buffer.from('text of host'), clientMsgNo: 'host' }).then(
    (receipt) => acked.set('host', receipt),
    () => undefined,
  )
  await clock.settle()

  let isClosed = false
  gates.arm()
  void engine.close({ drainMs: 5_000, signal: abort.signal }).then(() => (isClosed = true))
  question.resolve({ code: 0 })
  held.release()
  for (let step = 0; step < 400 && !isClosed && !(gates.hasHappened && fate?.kind === 'crash'); step++) await clock.advance(50)
  await clock.settle()
  if (fate !== undefined) void replicator?.close() // the log outlives the node, which must be able to come back

  const numbers = new Map<string, string>()
  for (const [uid, { client }] of clients) {
    const own = sentTexts.filter(([from]) => from === uid)
    own.forEach(([, clientMsgNo], index) => numbers.set(`${uid}-${index + 1}`, clientMsgNo))
    for (const frame of client.received) {
      if (frame.type !== FrameType.SENDACK || frame.reasonCode !== 1) continue
      acked.set(numbers.get(`${uid}-${frame.clientSeq}`)!, { messageID: frame.messageID, messageSeq: frame.messageSeq })
    }
  }
  const seenByBob = seqsOf(clientOf('bob'))
  return { memory, hub, gates, clock, engine, isClosed, errors, acked, seenByBob, told }
}

/** Everything that a life has promised is found by the next one, and whatever its clients do not know of can be sent again. */
async function check(life: Life, what: string): Promise<void> {
  const memory = await copyOf(life.memory)
  const clock = new FakeClock({ nowMs: life.clock.nowMs() + 60_000 })
  const { told } = life
  const engine = new IMEngine({
    limits: LIMITS, tokenVerifier: allowAnyToken(), plaintext: 'allow', clock, random: seededRandom(2), storage: levelStorage({ db: memory, nowMs: () => clock.nowMs(), ...SMALL }),
    webhook: { events: ['msg.notify'], notify: (events) => told.take(events) },
    ...(life.hub !== undefined && { replicator: life.hub.replicator() }),
  })
  await engine.start()
  await clock.settle()
  for (const [clientMsgNo, { messageID, messageSeq }] of life.acked) {
    const [found] = await engine.messages.get([messageID])
    expect(found && { no: found.clientMsgNo, seq: found.messageSeq, text: Buffer.from(found.payload).toString() }, `${what}: ${clientMsgNo}`).toEqual({
      no: clientMsgNo, seq: messageSeq, text: `text of ${clientMsgNo}`,
    })
  }
  const ofCat = (await engine.conversations.list('cat')).items.find(({ channelID }) => channelID === 'team')
  expect(ofCat?.readSeq, `${what}: what cat has read`).toBeGreaterThanOrEqual(2)

  // What bob acknowledged and was promised to be remembered does not come again; what he has never seen does.
  const { client: bob } = await connectTestClient(engine, { uid: 'bob', plaintext: true })
  await clock.advance(200)
  const replayed = seqsOf(bob)
  expect(Math.min(Infinity, ...replayed), `${what}: replayed to bob`).toBeGreaterThan(3)
  if (life.isClosed && life.errors.length === 0) expect(Math.min(Infinity, ...replayed), `${what}: replayed to bob`).toBeGreaterThan(Math.max(...life.seenByBob))
  for await (const { messageSeq, fromUID } of engine.messages.range(TEAM)) {
    if (fromUID !== 'bob') expect([...life.seenByBob, ...replayed], `${what}: what bob has got by now`).toContain(messageSeq)
  }

  for (const uid of ['ann', 'bob', 'cat']) {
    const { client } = await connectTestClient(engine, { uid, plaintext: true, deviceID: 'again' })
    for (const [from, clientMsgNo] of sentTexts) if (from === uid) sendAs(client, clientMsgNo)
  }
  await clock.advance(200)
  const stored: Message[] = []
  for await (const message of engine.messages.range(TEAM)) stored.push(message)
  expect(stored.map(({ messageSeq }) => messageSeq), what).toEqual(stored.map((_, index) => index + 1))
  const numbers = stored.map(({ clientMsgNo }) => clientMsgNo).filter((clientMsgNo) => clientMsgNo !== 'host')
  expect(numbers.toSorted(), what).toEqual(sentTexts.map(([, no]) => no).filter((no) => no !== 'host' && no !== 'to-dan').toSorted())
  await clock.advance(200)
  for (const { messageID } of [...stored, ...life.acked.values()]) expect([...told.messageIDs], `${what}: told to the webhook`).toContain(messageID)
  await engine.close({ drainMs: 0, signal: AbortSignal.abort() })
}

const SETTINGS: readonly Setting[] = ['alone', 'log']
const MOMENTS: readonly Moment[] = ['before', 'after']

describe.each(SETTINGS)('close of an engine with much under way (%s)', { timeout: 120_000 }, (setting) => {
  it('answers everything, writes positions and tells the webhook or leaves it to the next life', async () => {
    const life = await live(setting, () => undefined)
    expect(life.errors).toEqual([])
    expect([...life.acked.keys()].toSorted()).toEqual(sentTexts.map(([, clientMsgNo]) => clientMsgNo).toSorted())
    await check(life, 'no crash')
    // What stands around an engine is all called, so that what comes below is tried everywhere.
    const expected = ['cursors.advance', 'cursors.flush', 'db.write', 'outbox.add', 'peerPush.close', 'plugin.onClose', 'presence.leave', 'presence.offline', 'storage.close']
    if (setting === 'log') expected.push('replicator.close', 'replicator.propose', 'replicator.operate')
    else expected.push('peerPush.push') // a log brings it to the other nodes by itself
    for (const name of expected) expect(life.gates.names).toContain(name)
  })

  // P1
  it.each(MOMENTS)('loses nothing acknowledged when the process dies at any of its calls, %s it is carried out', async (moment) => {
    const { gates } = await live(setting, () => undefined)
    let crashCount = 0
    for (let at = 1; at <= gates.names.length; at++) {
      const life = await live(setting, () => ({ at, moment, kind: 'crash', happens: () => undefined }))
      if (life.gates.hasHappened) crashCount++
      await check(life, `${moment} call ${at} (${life.gates.names[at - 1] ?? 'none'})`)
    }
    expect(crashCount).toBe(gates.names.length)
  })

  // P8
  it.each(MOMENTS)('cut short by its signal at any of its calls, which never answers: it ends, lies to nobody, leaves no timer (%s)', async (moment) => {
    const { gates } = await live(setting, () => undefined)
    for (let at = 1; at <= gates.names.length; at++) {
      const life = await live(setting, (abort) => ({ at, moment, kind: 'hang', happens: () => abort.abort() }))
      const what = `${moment} call ${at} (${life.gates.names[at - 1] ?? 'none'})`
      expect(life.isClosed, what).toBe(true)
      expect(life.clock.pendingTimerCount, what).toBe(0)
      expect(life.engine.connections.list(), what).toEqual([])
      expect(life.gates.names, what).toContain('storage.close')
      await check(life, what)
    }
  })
})
