/** What a node reads while the servers have lost a leader: a real server, and a JetStream that answers some questions when the test says so. */
import { headers, type Msg, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { JetStream } from '../../../src/adapters/nats/jetstream.ts'
import { encodeEntry } from '../../../src/adapters/nats/log-entry.ts'
import { LogFollower } from '../../../src/adapters/nats/log-follower.ts'
import { checkLogOptions, type LogProblem, type NatsLogOptions } from '../../../src/adapters/nats/log-options.ts'
import { configOf } from '../../../src/adapters/nats/log-streams.ts'
import { Gate, Recorder } from '../../../src/testing/suites/recorder.ts'
import { connectionTo, logName } from './log.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

const boot = '0123456789abcdef'

class SlowJetStream extends JetStream {
  /** what was asked, in order */
  readonly asked = new Recorder<'info' | 'consumer' | 'entry'>()
  /** consumers */
  readonly made = new Recorder<string>()
  /** the first question of its kind waits for this, and then fails as one without an answer does */
  infoGate: Gate | undefined
  /** every consumer waits for this */
  consumerGate: Gate | undefined

  override async streamInfo(stream: string, timeoutMs: number) {
    this.asked.add('info')
    const gate = this.infoGate
    this.infoGate = undefined
    if (gate === undefined) return super.streamInfo(stream, timeoutMs)
    await gate.opened
    throw new Error('no answer')
  }

  override async createConsumer(stream: string, startSeq: number, timeoutMs: number) {
    this.asked.add('consumer')
    await this.consumerGate?.opened
    const consumer = await super.createConsumer(stream, startSeq, timeoutMs)
    this.made.add(consumer)
    return consumer
  }

  override entryAt(stream: string, seq: number, timeoutMs: number) {
    this.asked.add('entry')
    return super.entryAt(stream, seq, timeoutMs)
  }
}

/** With every entry comes that a thousand are behind it. */
function exaggerating(nats: NatsConnection): NatsConnection {
  const changed = (message: Msg): Msg => Object.create(message, { reply: { value: message.reply?.replace(/\d+$/, '1000') } }) as Msg
  const subscribe: NatsConnection['subscribe'] = (subject, options) =>
    nats.subscribe(subject, { ...options, callback: (error, message) => void options?.callback?.(error, changed(message)) })
  return Object.create(nats, { subscribe: { value: subscribe } }) as NatsConnection
}

describe.skipIf(NATS_SERVER === undefined)('a follower', () => {
  const connection = (): ReturnType<typeof connectionTo> => (held ??= connectionTo(servers.urls))
  let held: ReturnType<typeof connectionTo> | undefined
  let servers: NatsServers
  let nats: NatsConnection
  let jetStream: SlowJetStream
  let follower: LogFollower
  let name: string
  let applied: Recorder<number>
  let problems: LogProblem[]

  beforeAll(async () => {
    servers = await startNatsServers()
    nats = await connection().acquire()
  })

  beforeEach(() => make({}))

  async function make(over: Partial<NatsLogOptions>, through = nats): Promise<void> {
    name = logName()
    applied = new Recorder()
    problems = []
    const limits = checkLogOptions({ name, ...over })
    jetStream = new SlowJetStream(through, headers)
    await jetStream.createStream(configOf(limits, 0), 5_000)
    follower = new LogFollower({
      log: `${name}_log_0`,
      limits,
      jetStream,
      host: { nodeID: 1, apply: () => [], operate: () => undefined, isolated: () => undefined },
      isConnected: () => true,
      maxPayloadBytes: () => 1_048_576,
      recover: undefined,
      applied: ({ number }) => applied.add(number),
      moved: () => undefined,
      report: (problem) => void problems.push(problem),
    })
  }

  afterEach(() => follower.close())

  afterAll(async () => {
    await held?.release()
    await servers?.close()
  })

  const publish = async (number: number): Promise<void> => {
    await nats.request(`${name}.log.0`, encodeEntry({ nodeID: 9, boot, number }, []))
  }

  it('fetches entry by entry while no consumer can be made, and goes on with the consumer, everything once and in order', async () => {
    jetStream.consumerGate = new Gate()
    await publish(1)
    await publish(2)
    follower.start(0)
    await applied.untilCount(2)
    await publish(3) // it was waited for
    await applied.untilCount(3)
    expect(follower.isFollowing).toBe(false)
    jetStream.consumerGate.open()
    await until(() => follower.isFollowing, 10_000, 'there is no consumer')
    for (const number of [4, 5]) await publish(number)
    await applied.untilCount(5)
    expect(applied.items).toEqual([1, 2, 3, 4, 5])
    expect(follower).toMatchObject({ appliedSeq: 5, lastSeq: 5, isFollowing: true, stopped: undefined })
    expect(jetStream.asked.items.filter((what) => what === 'consumer')).toHaveLength(1)
    expect(problems).toEqual([])
  })

  it('goes on with the consumer although all that its first pull brings has been fetched', async () => {
    await make({ maxApplyCount: 2 })
    jetStream.consumerGate = new Gate()
    for (let number = 1; number <= 5; number++) await publish(number)
    follower.start(0)
    await applied.untilCount(5)
    jetStream.consumerGate.open()
    await until(() => follower.isFollowing, 10_000, 'there is no consumer')
    for (let number = 6; number <= 9; number++) await publish(number)
    await applied.untilCount(9)
    expect(applied.items).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(jetStream.made.items).toHaveLength(1)
  })

  it('keeps its consumer when a pull has brought all that it asked for', async () => {
    await make({ maxApplyCount: 2 })
    follower.start(0)
    for (let number = 1; number <= 20; number++) {
      await publish(number)
      await applied.untilCount(number)
    }
    expect(jetStream.made.items).toHaveLength(1)
    expect(problems).toEqual([])
  })

  it('knows where the stream ends although a server says that far more is behind an entry', async () => {
    await make({}, exaggerating(nats))
    await publish(1)
    await publish(2)
    follower.start(0)
    await applied.untilCount(2)
    expect(follower).toMatchObject({ appliedSeq: 2, lastSeq: 2 })
  })

  it('asks for another consumer when a leader is elected while it waits for one, and gives up the one that comes late', async () => {
    const late = (jetStream.consumerGate = new Gate())
    await publish(1)
    follower.start(0)
    await jetStream.asked.until(() => jetStream.asked.items.includes('consumer'))
    jetStream.consumerGate = undefined
    follower.elected()
    await until(() => follower.isFollowing, 10_000, 'there is no consumer')
    late.open()
    const names = async (): Promise<string[]> => ((await nats.request(`$JS.API.CONSUMER.NAMES.${name}_log_0`)).json<{ consumers?: string[] }>().consumers ?? [])
    await jetStream.made.untilCount(2)
    await until(async () => (await names()).length === 1, 10_000, 'the late one is still there')
    await publish(2)
    await applied.untilCount(2)
    expect(applied.items).toEqual([1, 2])
  })

  it('asks anew as soon as there is a leader, and not when an answer to what it had asked before is given up', async () => {
    const lost = (jetStream.infoGate = new Gate())
    await publish(1)
    follower.start(0)
    await jetStream.asked.untilCount(1)
    follower.elected()
    await applied.untilCount(1) // the gate is closed still
    lost.open()
    expect(problems).toEqual([])
  })

  it('keeps the consumer that it has when a leader is elected', async () => {
    await publish(1)
    follower.start(0)
    await applied.untilCount(1)
    follower.elected()
    await publish(2)
    await applied.untilCount(2)
    expect(jetStream.asked.items.filter((what) => what === 'consumer')).toHaveLength(1)
  })

  it('that fetches what is no entry stops before it', async () => {
    jetStream.consumerGate = new Gate()
    await publish(1)
    await nats.request(`${name}.log.0`, 'no entry')
    await publish(3)
    follower.start(0)
    await applied.untilCount(1)
    jetStream.consumerGate.open()
    await until(() => follower.stopped !== undefined, 10_000, 'it has not stopped')
    expect(follower.stopped).toMatchObject({ code: 'IM_LOG_FORMAT' })
    expect(applied.items).toEqual([1])
  })

  it('hears of the leaders of its own stream', async () => {
    const elected = new Recorder<string>()
    const end = jetStream.watchLeaders([`${name}_log_0`], (stream) => elected.add(stream))
    nats.publish(`$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${name}_log_1`, '{}')
    nats.publish(`$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${name}_log_0`, '{}')
    await elected.untilCount(1)
    end()
    nats.publish(`$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${name}_log_0`, '{}')
    await nats.flush()
    expect(elected.items).toEqual([`${name}_log_0`])
  })
})
