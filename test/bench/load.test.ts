import { describe, expect, it, onTestFinished } from 'vitest'
import { ReasonCode, refuse, type IMEngine } from 'imengine'
import { Histogram } from '../../bench/load/histogram.ts'
import { DeliveryCheck, FIRST_NUMBER, Sender } from '../../bench/load/sender.ts'
import { runTraffic } from '../../bench/load/traffic.ts'
import { serveEngine } from '../../bench/servers/engine.ts'
import { serveRelay } from '../../bench/servers/relay.ts'
import { NATS_SERVER, startNatsServers } from '../adapters/nats/servers.ts'
import { GROUP_ID, receiverUID, senderUID, type Job, type Result, type ServerSpec } from '../../bench/wire.ts'

const SILENT = { begin: () => undefined, end: () => undefined }
const PLAIN: ServerSpec = { kind: 'engine', transport: 'tcp', encryption: 'off', storage: 'memory' }
const PAIRS = { topology: 'pairs', senderCount: 3, receiverCount: 3, window: 4 } as const

/** A fraction of a second of load on an engine of the sources, in this very process. */
async function load(server: ServerSpec, shape: Pick<Job, 'topology' | 'senderCount' | 'receiverCount' | 'window'> & Partial<Job>, prepare?: (engine: IMEngine) => void): Promise<Result> {
  const running = server.kind === 'relay' ? await serveRelay(server.transport) : await serveEngine(server, prepare)
  onTestFinished(() => running.close())
  const { kind, transport, encryption } = server
  return runTraffic({ kind, transport, encryption, port: running.port, payloadBytes: 100, warmUpMs: 10, measureMs: 100, drainMs: 20_000, ...shape }, SILENT)
}

describe('the load of a benchmark', () => {
  it.each<[string, ServerSpec]>([
    ['plain over TCP', PLAIN],
    ['encrypted over TCP', { ...PLAIN, encryption: 'on' }],
    ['plain over WebSocket', { ...PLAIN, transport: 'ws' }],
    ['encrypted over WebSocket', { ...PLAIN, transport: 'ws', encryption: 'on' }],
    ['with a store on disk', { ...PLAIN, storage: 'level' }],
    ['the raw relay over TCP', { ...PLAIN, kind: 'relay' }],
    ['the raw relay over WebSocket', { ...PLAIN, kind: 'relay', transport: 'ws' }],
  ])('counts one delivery for each message that was acknowledged: %s', async (_, server) => {
    const result = await load(server, PAIRS)

    expect(result.checkedMessageCount).toBeGreaterThan(0)
    expect(result.checkedDeliveryCount).toBe(result.checkedMessageCount)
    expect(result.refusedCount).toBe(0)
  })

  it.skipIf(NATS_SERVER === undefined)('goes through a node of a cluster', async () => {
    const servers = await startNatsServers()
    onTestFinished(() => servers.close())
    const result = await load({ ...PLAIN, storage: 'level', cluster: { nodeID: 1, servers: servers.urls, replicas: 1, partitions: 1 } }, PAIRS)

    expect(result.checkedDeliveryCount).toBe(result.checkedMessageCount)
    expect(result.checkedMessageCount).toBeGreaterThan(0)
  })

  it('counts a delivery to every member but the one that sent, also when several send into one group', async () => {
    const subscribers = [senderUID(0), senderUID(1), receiverUID(0), receiverUID(1), receiverUID(2)]
    const server = { ...PLAIN, groups: [{ channelID: GROUP_ID, subscribers }] }
    const result = await load(server, { topology: 'group', senderCount: 2, receiverCount: 3, window: 2 })

    expect(result.checkedMessageCount).toBeGreaterThan(0)
    expect(result.checkedDeliveryCount).toBe(result.checkedMessageCount * 4)
  })

  it('keeps the channels of one receiver apart when every sender writes to everybody', async () => {
    const result = await load(PLAIN, { topology: 'matrix', spread: 'zipf', senderCount: 3, receiverCount: 4, window: 4 })

    expect(result.checkedDeliveryCount).toBe(result.checkedMessageCount)
  })

  it('sends what an open loop owes, however late', async () => {
    const result = await load(PLAIN, { ...PAIRS, window: 0, ratePerSecond: 1_000, batchCount: 2 })

    expect(result.checkedMessageCount).toBeGreaterThanOrEqual(100)
    expect(result.checkedDeliveryCount).toBe(result.checkedMessageCount)
  })

  it('fails when a message in the middle of a channel is withheld', async () => {
    const withhold = (engine: IMEngine): void =>
      void engine.use('EventPushOnline', function withholdOne({ messages }) {
        if (messages.some(({ messageSeq }) => messageSeq === 7)) return refuse(ReasonCode.NotAllowSend)
      }, { before: 'filterOnline' })

    await expect(load(PLAIN, PAIRS, withhold)).rejects.toThrow(/was delivered seq \d+ after \d+/)
  })

  it('fails when the last messages of one channel of several never come', async () => {
    const withhold = (engine: IMEngine): void =>
      void engine.use('EventPushOnline', function withholdTheRest({ messages }) {
        if (messages.some(({ messageSeq, fromUID }) => messageSeq >= 7 && fromUID === senderUID(2))) return refuse(ReasonCode.NotAllowSend)
      }, { before: 'filterOnline' })

    await expect(load(PLAIN, { ...PAIRS, drainMs: 300 }, withhold)).rejects.toThrow(/lost: 0 of \d+ messages were never acknowledged, \d+ of \d+ never delivered/)
  })

  it('fails when a SEND is refused', async () => {
    const forbid = (engine: IMEngine): void =>
      void engine.use('EventOnSend', function forbid({ frame }) {
        if (frame.clientSeq === FIRST_NUMBER + 5) return refuse(ReasonCode.NotAllowSend)
      })

    await expect(load(PLAIN, PAIRS, forbid)).rejects.toThrow('SENDACK with reason 11')
  })
})

describe('the checks of a load', () => {
  const counts = { channelCount: 2, senderCount: 2 }

  it('takes each channel’s seqs one by one, and nothing twice', () => {
    const check = new DeliveryCheck('ann', counts, true)
    check.deliveredAt(0, 1, 0, FIRST_NUMBER)
    check.deliveredAt(1, 1, 1, FIRST_NUMBER)
    check.deliveredAt(0, 2, 0, FIRST_NUMBER + 1)

    expect(() => check.deliveredAt(0, 2, 0, FIRST_NUMBER + 2)).toThrow('seq 2 after 2')
    expect(() => check.deliveredAt(0, 4, 0, FIRST_NUMBER + 2)).toThrow('seq 4 after 2')
    expect(() => check.deliveredAt(0, 3, 0, FIRST_NUMBER + 1)).toThrow('message 1 of sender 0 twice')
    expect(check.deliveredCount).toBe(3)
  })

  it('leaves room for a sender’s own messages, but not for going back', () => {
    const check = new DeliveryCheck('ann', counts, false)
    check.deliveredAt(0, 3, 0, FIRST_NUMBER)

    expect(() => check.deliveredAt(0, 3, 1, FIRST_NUMBER)).toThrow('seq 3 after 3')
  })

  it('where nothing is numbered, takes the sender’s own numbers one by one', () => {
    const check = new DeliveryCheck('ann', counts, true)

    expect(() => check.delivered(0, FIRST_NUMBER + 1)).toThrow('message 1 of sender 0 after none')
    check.delivered(0, FIRST_NUMBER)
    expect(() => check.delivered(0, FIRST_NUMBER)).toThrow('message 0 of sender 0 after 0')
    expect(() => check.delivered(0, FIRST_NUMBER + 2)).toThrow('message 2 of sender 0 after 0')
  })

  it('takes one acknowledgement for a message that was sent, and counts in digits as in numbers', () => {
    const sender = new Sender(0, 16)
    expect(() => sender.acknowledged(FIRST_NUMBER)).toThrow('never sent')
    for (let count = 0; count < 12; count++) sender.sent(count)

    expect(sender.digits.toString()).toBe(String(sender.nextNumber))
    expect(sender.acknowledged(FIRST_NUMBER + 3)).toBe(3)
    expect(() => sender.acknowledged(FIRST_NUMBER + 3)).toThrow('acknowledged twice')
    expect(sender.underWayCount).toBe(11)
  })

  it('refuses to send over a message that is still under way', () => {
    const sender = new Sender(0, 4)
    for (let count = 0; count < 4; count++) sender.sent(0)

    expect(() => sender.sent(0)).toThrow('the server does not keep up')
  })

  it('gives quantiles that are never below what was measured, and at most 2 % above', () => {
    const histogram = new Histogram()
    for (let millis = 1; millis <= 1_000; millis++) histogram.add(millis)
    const { p50, p99, p999, max } = histogram.quantiles()

    for (const [measured, exact] of [[p50, 500], [p99, 990], [p999, 999], [max, 1_000]] as const) {
      expect(measured).toBeGreaterThanOrEqual(exact)
      expect(measured).toBeLessThanOrEqual(exact * 1.02)
    }
  })
})
