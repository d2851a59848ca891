import { afterEach, describe, expect, test } from 'vitest'
import {
  ChannelType, memoryPresence, memoryStorage, ReasonCode, type BeforeSendRequest, type ChannelKey, type IMEngineOptions, type PresenceEntry, type VerifyTokenRequest,
  type WebhookEvent,
} from 'imengine'
import { FrameFlag, FrameType } from 'imengine/protocol'
import type { ConnectedTestClient } from 'imengine/testing'
import { openSocket } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

const ANNS = { channelID: 'anns', channelType: ChannelType.Group }
const BOBS = { channelID: 'bobs', channelType: ChannelType.Group }

type Call = (...args: never[]) => unknown
type Hangs = (...args: never[]) => boolean

/** `part` whose method hangs for the calls that `hangs` picks, once it is switched on. */
function hanging<T extends object>(part: T, method: string, trap: Trap): T {
  return new Proxy(part, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== 'function') return member
      const call = member.bind(target) as Call
      return name === method ? (...args: never[]) => (trap.catches(args) ? new Promise(() => undefined) : call(...args)) : call
    },
  })
}

class Trap {
  isSet = false
  caughtCount = 0
  readonly #hangs: Hangs

  constructor(hangs: Hangs) {
    this.#hangs = hangs
  }

  catches(args: never[]): boolean {
    if (!this.isSet || !this.#hangs(...args)) return false
    this.caughtCount++
    return true
  }
}

type Part = 'webhook' | 'tokenVerifier' | 'channels' | 'presence' | 'messages' | 'cursors'
/** What makes the engine ask. */
type Trigger = 'a SEND of ann' | 'a login of ann' | 'a logout of ann' | 'a RECVACK of ann' | 'a heartbeat' | 'a flush of cursors'

const isAnns = (key: ChannelKey): boolean => key.channelID === ANNS.channelID
const isAnn = (uid: string): boolean => uid === 'ann'
const always = (): boolean => true

const rows: [part: Part, method: string, trigger: Trigger, hangs: Hangs][] = [
  ['webhook', 'beforeSend', 'a SEND of ann', ({ fromUID }: BeforeSendRequest) => isAnn(fromUID)],
  ['webhook', 'notify', 'a SEND of ann', (events: readonly WebhookEvent[]) => events.some((event) => event.event === 'msg.notify')],
  ['tokenVerifier', '', 'a login of ann', ({ uid }: VerifyTokenRequest) => isAnn(uid)],
  ['channels', 'channel', 'a SEND of ann', isAnns],
  ['channels', 'member', 'a SEND of ann', isAnns],
  ['channels', 'isListed', 'a SEND of ann', isAnns],
  ['channels', 'isListEmpty', 'a SEND of ann', isAnns],
  ['channels', 'members', 'a SEND of ann', isAnns],
  ['channels', 'userFlags', 'a SEND of ann', isAnn],
  ['channels', 'userFlags', 'a login of ann', isAnn],
  ['presence', 'online', 'a login of ann', ({ uid }: PresenceEntry) => isAnn(uid)],
  ['presence', 'offline', 'a logout of ann', ({ uid }: PresenceEntry) => isAnn(uid)],
  ['presence', 'locate', 'a SEND of ann', (uids: readonly string[]) => uids.includes('eve')],
  ['presence', 'devices', 'a SEND of ann', (uid: string) => uid === 'eve'],
  ['presence', 'heartbeat', 'a heartbeat', always],
  ['messages', 'append', 'a SEND of ann', (batches: readonly { readonly key: ChannelKey }[]) => batches.some(({ key }) => isAnns(key))],
  ['channels', 'channelsOf', 'a login of ann', isAnn],
  ['messages', 'personChannelsOf', 'a login of ann', isAnn],
  ['messages', 'summaries', 'a login of ann', isAnn],
  ['messages', 'range', 'a login of ann', (key: ChannelKey) => isAnns(key)],
  ['cursors', 'cursors', 'a login of ann', isAnn],
  ['cursors', 'hidden', 'a login of ann', isAnn],
  ['cursors', 'cursor', 'a RECVACK of ann', isAnn],
  ['cursors', 'advance', 'a flush of cursors', always],
  ['cursors', 'flush', 'a flush of cursors', always],
]

const traps: Trap[] = []

// What is asked while the engine closes is answered, or every test would end with a wait of its own.
afterEach(() => {
  for (const trap of traps) trap.isSet = false
})

describe('PONG, RECVACK and other users wait for nobody', () => {
  // P6
  test.each(rows)('%s.%s hangs at %s', async (part, method, trigger, hangs) => {
    const trap = (traps[0] = new Trap(hangs))
    const storage = memoryStorage()
    const presence = memoryPresence()
    const notify = (): void => undefined
    const verify = (): { ok: true } => ({ ok: true })
    const parts = {
      webhook: { beforeSend: () => ({ code: 0 }), notify },
      presence,
      channels: storage.channels,
      messages: storage.messages,
      cursors: storage.cursors,
    }
    if (part !== 'tokenVerifier') Object.assign(parts, { [part]: hanging(parts[part], method, trap) })
    const options: IMEngineOptions = {
      tokenVerifier: (request) => (part === 'tokenVerifier' && trap.catches([request] as never[]) ? new Promise(() => undefined) : verify()),
      webhook: parts.webhook,
      presence: parts.presence,
      storage: { ...storage, channels: parts.channels, messages: parts.messages, cursors: parts.cursors },
      isOffline: () => true,
      limits: { idleTimeoutMs: 3_600_000, redeliverAfterMs: 30_000, subscriberCacheMs: 0, webhookBatchMs: 0 },
    }
    const { engine, clock, connect } = await stage(options)
    engine.on('offlineMessage', () => undefined) // or nobody would ask for devices
    const acked: string[] = []
    engine.use('EventRecvAck', function look(ctx) {
      if (ctx.conn.deviceID === 'laptop') acked.push(Buffer.from(ctx.message.payload).toString())
    }, { after: 'advanceCursor' })
    await engine.channels.create(ANNS, { subscribers: ['ann', 'cat', 'eve'] })
    await engine.channels.create(BOBS, { subscribers: ['ann', 'bob', 'dan'] })
    await presence.online({ uid: 'eve', nodeID: 2, connectionID: '1', deviceFlag: 0, deviceLevel: 0 })

    /** What a promise has come to without any time passing. */
    const now = async <T>(promise: Promise<T>): Promise<T | 'nothing yet'> => {
      let settled: T | 'nothing yet' = 'nothing yet'
      promise.then((value) => (settled = value), () => undefined)
      await clock.settle()
      return settled
    }
    const textsOf = ({ client }: ConnectedTestClient): string[] => client.messages.map(({ text, flags }) => `${text}${(flags & FrameFlag.Dup) === 0 ? '' : ' again'}`)

    const silent = { autoAck: false }
    const [phone, laptop, tablet] = [await connect('ann', { deviceID: 'phone', ...silent }), await connect('ann', { deviceID: 'laptop', ...silent }), await connect('ann', { deviceID: 'tablet', ...silent })]
    const bob = await connect('bob')
    const dan = await connect('dan')
    await engine.messages.send({ ...ANNS, fromUID: 'cat', payload: Buffer.from('missed') })
    await bob.client.send({ ...BOBS, payload: 'before' })
    await clock.settle()
    expect(textsOf(phone)).toEqual(['missed', 'before'])

    trap.isSet = true
    const waiting: unknown[] = []
    if (trigger === 'a SEND of ann') waiting.push(tablet.client.send({ ...ANNS, payload: 'hangs' }).catch(() => undefined))
    else if (trigger === 'a login of ann') waiting.push(openSocket(engine).client.connect({ uid: 'ann', deviceID: 'watch' }).catch(() => undefined))
    else if (trigger === 'a logout of ann') tablet.pair.client.destroy()
    else if (trigger === 'a RECVACK of ann') phone.client.ack(phone.client.messages[0]!)
    else if (trigger === 'a heartbeat') await clock.advance(engine.limits.presenceHeartbeatMs + engine.limits.timerTickMs)
    else {
      phone.client.ack(phone.client.messages[0]!)
      await clock.advance(engine.limits.cursorFlushMs + engine.limits.timerTickMs)
    }
    await clock.settle()
    expect(trap.caughtCount).toBeGreaterThan(0)
    const startMs = clock.monotonicMs()

    // ann's PONG, on the connection that waits and on another one
    expect(await now(phone.client.ping())).toMatchObject({ type: FrameType.PONG })
    if (trigger !== 'a logout of ann') expect(await now(tablet.client.ping())).toMatchObject({ type: FrameType.PONG })
    // the RECVACK of another connection of ann's
    for (const message of laptop.client.messages) laptop.client.ack(message)
    await clock.settle()
    expect(acked).toEqual(laptop.client.messages.map(({ text }) => text))
    // bob's message, to dan and to ann
    expect(await now(bob.client.send({ ...BOBS, payload: 'after' }))).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 2 })
    expect(textsOf(dan)).toEqual(['before', 'after'])
    expect(textsOf(laptop).filter((text) => text !== 'hangs')).toEqual(['missed', 'before', 'after'])
    laptop.client.ack(laptop.client.messages.at(-1)!)
    // bob out and in
    bob.pair.client.destroy()
    await clock.settle()
    expect(await presence.devices('bob')).toEqual([])
    const again = await now(connect('bob'))
    expect(again).toMatchObject({ connack: { reasonCode: ReasonCode.Success } })
    expect(await presence.devices('bob')).toHaveLength(1)
    if (again !== 'nothing yet') {
      expect(await now(again.client.send({ ...BOBS, payload: 'back', clientMsgNo: 'back' }))).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 3 })
      laptop.client.ack(laptop.client.messages.at(-1)!)
    }
    expect(textsOf(dan)).toEqual(['before', 'after', 'back'])
    await clock.settle()
    expect(clock.monotonicMs()).toBe(startMs)

    await clock.advance(31_000)
    // Its RECVACKs have been heard; what hung may have come meanwhile, and nobody has acknowledged that.
    expect(textsOf(laptop).filter((text) => text.endsWith('again') && text !== 'hangs again')).toEqual([])
    expect(textsOf(phone)).toContain('before again')
  })

  test('that a connection has gone is told at once, whatever SENDs of its user hang', async () => {
    const presence = memoryPresence()
    const { connect, clock, engine } = await stage({ presence, webhook: { beforeSend: () => new Promise(() => undefined) } })
    const ended: string[] = []
    engine.use('EventConnClose', function look(ctx) {
      ended.push(ctx.conn.deviceID)
    })
    const phone = await connect('ann', { deviceID: 'phone' })
    const laptop = await connect('ann', { deviceID: 'laptop' })
    for (const { client } of [phone, laptop, phone]) void client.send({ ...ANNS, channelID: 'team', payload: 'hangs' }).catch(() => undefined)
    await clock.settle()
    phone.pair.client.destroy()
    await clock.settle()
    expect(ended).toEqual(['phone'])
    expect((await presence.devices('ann')).map(({ connectionID }) => connectionID)).toEqual(engine.connections.list({ uid: 'ann' }).map(({ connectionID }) => connectionID))
    laptop.pair.client.destroy()
    await clock.settle()
    expect(await presence.locate(['ann'])).toEqual(new Map())
  })
})

test('members that are asked for when nobody waits any more may fail: the rejection finds someone', async () => {
  const storage = memoryStorage()
  let askCount = 0
  let isHanging = false
  const channels = new Proxy(storage.channels, {
    get: (target, method: keyof typeof storage.channels) => {
      if (method !== 'members' || !isHanging) return target[method].bind(target)
      return () => (++askCount === 1 ? new Promise(() => undefined) : Promise.resolve().then(() => Promise.reject(new Error('it is closed'))))
    },
  })
  const { engine, clock } = await stage({ storage: { ...storage, channels }, limits: { subscriberCacheMs: 0 } })
  isHanging = true
  for (const text of ['one', 'two']) {
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) }) // stored, and waits for the members
  }
  const unhandled: unknown[] = []
  const hear = (reason: unknown): void => void unhandled.push(reason)
  process.on('unhandledRejection', hear)
  const closing = engine.close({ drainMs: 0 })
  await clock.advance(engine.limits.closeTimeoutMs + 1_000)
  await closing
  await new Promise((resolve) => setImmediate(resolve)) // Node tells of them between two turns
  process.off('unhandledRejection', hear)
  expect([askCount, unhandled]).toEqual([2, []])
})
