import { ChannelType, DeviceFlag, memoryStorage, type Facts } from 'imengine'
import { describe, expect, test } from 'vitest'
import { heard } from '../connection/raw.ts'
import { deferred, stage, storageWith, TEAM, type Stage } from '../support.ts'

/** Sends "1", "2" … to the team as ann, who is not connected. */
async function say({ engine }: Stage, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })
}

const textsOf = ({ client }: { client: { messages: readonly { text: string }[] } }): string[] => client.messages.map(({ text }) => text)

const numbers = (first: number, last: number): string[] => Array.from({ length: last - first + 1 }, (_, index) => String(first + index))

describe('at login', () => {
  test('a user gets what came while they were away, oldest first, and not again once it is acknowledged', async () => {
    const made = await stage()
    await say(made, '1', '2', '3')
    const first = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(first)).toEqual(['1', '2', '3'])
    expect(first.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([1, 2, 3])
    first.client.end()
    await made.clock.settle()
    const second = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(second)).toEqual([])
  })

  test('what was pushed and not acknowledged comes again, without DUP and without what was acknowledged behind it', async () => {
    const made = await stage()
    const first = await made.connect('bob', { autoAck: false })
    await say(made, '1', '2', '3')
    await made.clock.settle()
    first.client.ack(first.client.messages[0]!)
    await made.clock.settle()
    first.client.end()
    await made.clock.settle()
    const second = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(second)).toEqual(['2', '3'])
    expect(second.client.messages.map(({ flags }) => flags & 8)).toEqual([0, 0])
  })

  test('who leaves while the store is still being asked gets nothing that is said from then on', async () => {
    const gate = deferred()
    const base = memoryStorage()
    const summaries: typeof base.messages.summaries = (uid, keys) => gate.promise.then(() => base.messages.summaries(uid, keys))
    const made = await stage({ storage: storageWith(base, { summaries }) })
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await say(made, '2')
    gate.resolve()
    await made.clock.settle()
    expect(textsOf(bob)).not.toContain('2')
  })

  const other = { channelID: 'other', channelType: ChannelType.Group }
  test.each([['the channel that is replayed', TEAM], ['another channel', other]])('what is pushed of %s just when the replay comes to its end is there, a moment earlier or later', async (_name, key) => {
    const moments = async (count: number): Promise<void> => {
      for (let moment = 0; moment < count; moment++) await Promise.resolve()
    }
    for (let ahead = -40; ahead <= 40; ahead++) {
      const [replaying, pushing] = [deferred(), deferred()]
      const storage = memoryStorage()
      const hidden = storage.cursors.hidden.bind(storage.cursors)
      storage.cursors.hidden = (...query) => replaying.promise.then(() => hidden(...query))
      const made = await stage({ storage })
      await made.engine.channels.create(other, { subscribers: ['bob'] })
      await say(made, '1')
      made.engine.use('EventPushOnline', () => pushing.promise, { name: 'ask' })
      const bob = await made.connect('bob')
      await made.clock.settle()
      await made.engine.messages.send({ ...key, fromUID: 'ann', payload: Buffer.from('2') })
      await made.clock.settle()
      const replay = moments(Math.max(0, -ahead)).then(replaying.resolve)
      const push = moments(Math.max(0, ahead)).then(pushing.resolve)
      await Promise.all([replay, push])
      await made.clock.settle()
      expect(textsOf(bob), `ahead by ${ahead}`).toEqual(['1', '2'])
    }
  })

  test('who has left gets nothing that is said while the store forgets where they stood', async () => {
    const [asking, forgetting] = [deferred(), deferred()]
    const base = memoryStorage()
    const summaries: typeof base.messages.summaries = (uid, keys) => asking.promise.then(() => base.messages.summaries(uid, keys))
    const remove = base.cursors.remove.bind(base.cursors)
    base.cursors.remove = (key, uids) => forgetting.promise.then(() => remove(key, uids))
    const made = await stage({ storage: storageWith(base, { summaries }) })
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    const removing = made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await made.clock.settle()
    await say(made, '2')
    asking.resolve()
    await made.clock.settle()
    expect(textsOf(bob)).not.toContain('2')
    forgetting.resolve()
    await removing
    await made.clock.settle()
    expect(textsOf(bob)).not.toContain('2')
  })

  test.each(['before', 'after'] as const)('a removal that the directory turns down delays nothing: what was missed comes first, also with a message %s it is found', async (when) => {
    const asking = deferred()
    const base = memoryStorage()
    const summaries: typeof base.messages.summaries = (uid, keys) => asking.promise.then(() => base.messages.summaries(uid, keys))
    base.channels.removeMembers = () => Promise.reject(new Error('disk'))
    const made = await stage({ storage: storageWith(base, { summaries }) })
    await say(made, 'missed')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await expect(made.engine.channels.subscribers.remove(TEAM, ['bob'])).rejects.toThrow()
    if (when === 'before') await say(made, 'live')
    await made.clock.settle()
    asking.resolve()
    await made.clock.settle()
    if (when === 'after') await say(made, 'live')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['missed', 'live'])
  })

  test('who leaves and joins again while the store is still being asked gets what was pushed to them, and nothing of what was said in between', async () => {
    const asking = deferred()
    const base = memoryStorage()
    const summaries: typeof base.messages.summaries = (uid, keys) => asking.promise.then(() => base.messages.summaries(uid, keys))
    const made = await stage({ storage: storageWith(base, { summaries }) })
    const bob = await made.connect('bob', { autoAck: false })
    await made.clock.settle()
    await say(made, 'pushed')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await say(made, 'without bob')
    await made.clock.settle()
    await made.engine.channels.subscribers.add(TEAM, ['bob'])
    await say(made, 'after')
    await made.clock.settle()
    asking.resolve()
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['pushed', 'after'])
  })

  test('acknowledgements in any order move the position once there is no gap', async () => {
    const made = await stage()
    const bob = await made.connect('bob', { autoAck: false })
    await say(made, ...numbers(1, 6))
    await made.clock.settle()
    for (const index of [4, 1, 3, 0]) bob.client.ack(bob.client.messages[index]!) // 3 is missing
    await made.clock.settle()
    bob.client.end()
    const again = await made.connect('bob', { autoAck: false })
    await made.clock.settle()
    expect(textsOf(again)[0]).toBe('3')
    again.client.ack(again.client.messages[0]!)
    await made.clock.settle()
    again.client.end()
    const last = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(last)).toEqual(['6'])
  })

  test('what another device of the user has sent since the login comes, although the replay has found it before its push has', async () => {
    const [finding, pushing] = [deferred(), deferred()]
    const base = memoryStorage()
    let isHeld = false
    const storage = storageWith(base, { summaries: async (uid, keys) => (isHeld && (await finding.promise), base.messages.summaries(uid, keys)) })
    const members = storage.channels.members.bind(storage.channels)
    storage.channels.members = async (key, query) => (isHeld && (await pushing.promise), members(key, query))
    const made = await stage({ storage, limits: { subscriberCacheMs: 0 } })
    const phone = await made.connect('bob', { deviceFlag: DeviceFlag.App, autoAck: false })
    await say(made, 'missed')
    await made.clock.settle()
    isHeld = true
    const web = await made.connect('bob', { deviceFlag: DeviceFlag.Web })
    await phone.client.send({ ...TEAM, payload: 'from the phone' })
    finding.resolve()
    await made.clock.settle()
    expect(textsOf(web)).toEqual(['missed'])
    pushing.resolve()
    await made.clock.settle()
    expect(textsOf(web)).toEqual(['missed', 'from the phone'])
  })

  test('own messages are not replayed, and leave no gap behind', async () => {
    const storage = memoryStorage()
    const made = await stage({ storage })
    const bob = await made.connect('bob')
    await bob.client.send({ ...TEAM, payload: 'mine' })
    await say(made, 'theirs')
    await made.clock.settle()
    bob.client.end()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual([])
    await made.clock.advance(2_000)
    expect(await storage.cursors.cursor('bob', TEAM)).toMatchObject({ deliveredSeq: 2 })
  })

  test("people's channels are replayed, under the name the receiver knows, also when they have never been online", async () => {
    const made = await stage()
    await made.engine.messages.send({ channelID: 'zoe', channelType: ChannelType.Person, fromUID: 'ann', payload: Buffer.from('psst') })
    const zoe = await made.connect('zoe')
    await made.clock.settle()
    expect(zoe.client.messages).toMatchObject([{ text: 'psst', channelID: 'ann', fromUID: 'ann', channelType: ChannelType.Person }])
  })

  test('who joined later is not sent what was said before, and who left nothing', async () => {
    const made = await stage()
    await say(made, 'old')
    await made.engine.channels.subscribers.add(TEAM, ['dan'])
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await say(made, 'new')
    const [dan, bob] = [await made.connect('dan'), await made.connect('bob')]
    await made.clock.settle()
    expect([textsOf(dan), textsOf(bob)]).toEqual([['new'], []])
  })

  test('the channel with the latest message comes first, and at most maxReplay in all', async () => {
    const made = await stage({ limits: { maxReplay: 3 } })
    const other = { channelID: 'other', channelType: ChannelType.Group }
    await made.engine.channels.create(other, { subscribers: ['bob'] })
    await say(made, 'a', 'b', 'c')
    await made.clock.advance(1_000)
    for (const text of ['x', 'y']) await made.engine.messages.send({ ...other, fromUID: 'ann', payload: Buffer.from(text) })
    const bob = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['x', 'y', 'a'])
  })

  test('at most maxReplayPerChannel, and the next login goes on from there', async () => {
    const made = await stage({ limits: { maxReplayPerChannel: 4 } })
    await say(made, ...numbers(1, 10))
    for (const expected of [numbers(1, 4), numbers(5, 8), numbers(9, 10), []]) {
      const bob = await made.connect('bob')
      await made.clock.settle()
      expect(textsOf(bob)).toEqual(expected)
      bob.client.end()
      await made.clock.settle()
    }
  })

  test('beyond the bound live messages come at once, and what lies between is not lost', async () => {
    const made = await stage({ limits: { maxReplayPerChannel: 2 } })
    await say(made, '1', '2', '3')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await say(made, 'live')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['1', '2', 'live'])
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual(['3']) // the live one has been acknowledged
  })

  test.each([
    ['of the same channel', { maxReplayPerChannel: 2, maxReplay: 4 }, TEAM],
    ['of a channel beyond the bound', { maxReplay: 2 }, other],
    ['of a channel that had nothing', { maxReplay: 2 }, { channelID: 'new', channelType: ChannelType.Group }],
  ])('a message %s that comes while the replay is at its bound is live, too', async (_name, limits, key) => {
    const gate = deferred()
    const storage = memoryStorage()
    const hidden = storage.cursors.hidden.bind(storage.cursors)
    storage.cursors.hidden = (...query) => gate.promise.then(() => hidden(...query))
    const made = await stage({ storage, limits })
    const send = (to: typeof TEAM, text: string): Promise<unknown> => made.engine.messages.send({ ...to, fromUID: 'ann', payload: Buffer.from(text) })
    for (const channelID of ['other', 'new']) await made.engine.channels.create({ channelID, channelType: ChannelType.Group }, { subscribers: ['bob'] })
    for (const text of ['a', 'b']) await send(other, text)
    await made.clock.advance(1)
    await say(made, '1', '2', '3')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await send(key, 'live')
    await send(key, 'lively')
    await made.clock.settle()
    gate.resolve()
    await made.clock.settle()
    await send(key, 'liveliest')
    await made.clock.settle()
    const replayed = key === TEAM ? ['1', '2', 'live', 'lively', 'a', 'b'] : ['1', '2', 'live', 'lively']
    expect(textsOf(bob)).toEqual([...replayed, 'liveliest'])
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual(key === TEAM ? ['3'] : ['3', 'a']) // what lies between is not lost
  })

  test('recalled messages, expired ones, and those the user has deleted are passed over and leave no gap', async () => {
    const storage = memoryStorage()
    const made = await stage({ storage })
    const send = async (text: string, expireSec = 0): Promise<string> =>
      (await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text), expireSec })).messageID
    await send('1')
    await made.engine.messages.recall(await send('recalled'))
    await send('expired', 1)
    await made.engine.messages.deleteFor('bob', [await send('deleted')])
    await send('5')
    await made.clock.advance(1_100)
    const bob = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['1', '5'])
    await made.clock.advance(2_000)
    expect(await storage.cursors.cursor('bob', TEAM)).toMatchObject({ deliveredSeq: 5 })
  })

  test("nothing comes with offline: 'none'", async () => {
    const made = await stage({ offline: 'none' })
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual([])
    await say(made, 'live')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['live'])
  })

  test('positions are in the store cursorFlushMs after an acknowledgement, and at the end of the engine', async () => {
    const storage = memoryStorage()
    const made = await stage({ storage, limits: { cursorFlushMs: 500 } })
    await made.connect('bob')
    await say(made, '1')
    await made.clock.settle()
    const delivered = async (): Promise<number> => (await storage.cursors.cursor('bob', TEAM)).deliveredSeq
    expect(await delivered()).toBe(0)
    await made.clock.advance(700)
    expect(await delivered()).toBe(1)
    await say(made, '2')
    await made.clock.settle()
    const closing = made.engine.close()
    await made.clock.advance(10_000)
    await closing
    expect(await delivered()).toBe(2)
  })

  test('a connect handler can ask how many messages wait', async () => {
    const made = await stage()
    await say(made, '1', '2')
    await made.engine.messages.send({ channelID: 'bob', channelType: ChannelType.Person, fromUID: 'ann', payload: Buffer.from('psst') })
    const counts: number[] = []
    made.engine.use('EventConnect', async function countMissed(ctx) {
      counts.push(await ctx.offlineMessageCount())
    })
    const bob = await made.connect('bob')
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    await made.connect('bob')
    expect(counts).toEqual([3, 0])
  })
})

describe('live messages during a replay', () => {
  /** A store whose `range` waits until it is let go. */
  async function held() {
    const storage = memoryStorage()
    const gates: (() => void)[] = []
    const range: typeof storage.messages.range = async (key, query) => {
      const { promise, resolve } = deferred()
      gates.push(resolve)
      await promise
      return storage.messages.range(key, query)
    }
    const made = await stage({ storage: storageWith(storage, { range }) })
    const letGo = async (): Promise<void> => {
      gates.splice(0).forEach((resolve) => resolve())
      await made.clock.settle()
    }
    return { ...made, gates, letGo }
  }

  test('come behind it, once, in order', async () => {
    const made = await held()
    await say(made, '1', '2')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await say(made, '3') // stored before the page is read: the replay finds it, and its push must not come as well
    await made.clock.settle()
    expect(textsOf(bob)).toEqual([])
    await made.letGo()
    await say(made, '4')
    await made.clock.settle()
    while (made.gates.length > 0) await made.letGo()
    await say(made, '5')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['1', '2', '3', '4', '5'])
  })

  test('of a channel with nothing to replay come while another one is replayed only in their own order', async () => {
    const made = await held()
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.messages.send({ channelID: 'bob', channelType: ChannelType.Person, fromUID: 'ann', payload: Buffer.from('first words') })
    await made.clock.settle()
    while (made.gates.length > 0) await made.letGo()
    expect(textsOf(bob)).toEqual(['1', 'first words'])
  })

  test('that are stored nowhere are not held back', async () => {
    const made = await held()
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('typing'), noPersist: true })
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['typing'])
    while (made.gates.length > 0) await made.letGo()
    expect(textsOf(bob)).toEqual(['typing', '1'])
  })

  test('of a live channel, which is never replayed, are not held back', async () => {
    const made = await held()
    const live = { channelID: 'stream', channelType: ChannelType.Live }
    await made.engine.channels.create(live, { subscribers: ['bob'] })
    await made.engine.messages.send({ ...live, fromUID: 'ann', payload: Buffer.from('before') })
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.messages.send({ ...live, fromUID: 'ann', payload: Buffer.from('now') })
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['now'])
    while (made.gates.length > 0) await made.letGo()
    expect(textsOf(bob)).toEqual(['now', '1'])
  })

  test('come as usual after a replay that fails, which is reported', async () => {
    const storage = memoryStorage()
    let isBroken = true
    const range: typeof storage.messages.range = (key, query) => {
      if (isBroken) throw new Error('disk')
      return storage.messages.range(key, query)
    }
    const made = await stage({ storage: storageWith(storage, { range }) })
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.advance(5_000) // it is tried three times
    expect(made.errors).toMatchObject([{ code: 'IM_STORE_UNAVAILABLE', context: { uid: 'bob', ...TEAM } }])
    await say(made, '2')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['2'])
    isBroken = false
    bob.client.end()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual(['1']) // 2 was acknowledged
  })

  test('a client that leaves in the middle ends its replay, and the rest waits for it', async () => {
    const made = await held()
    await say(made, '1')
    const bob = await made.connect('bob')
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    while (made.gates.length > 0) await made.letGo()
    expect(textsOf(bob)).toEqual([])
    const again = await made.connect('bob')
    while (made.gates.length > 0 || textsOf(again).length === 0) await made.letGo()
    expect(textsOf(again)).toEqual(['1'])
    expect(made.errors).toEqual([])
  })
})

describe('a replay that is overtaken', () => {
  /** A storage whose `cursors.hidden`, asked between reading a page and sending it, waits until it is let go. */
  async function heldBeforeSending() {
    const storage = memoryStorage()
    const hidden = storage.cursors.hidden.bind(storage.cursors)
    const gates: (() => void)[] = []
    storage.cursors.hidden = async (...query) => {
      const { promise, resolve } = deferred()
      gates.push(resolve)
      await promise
      return hidden(...query)
    }
    const made = await stage({ storage })
    const letGo = async (): Promise<void> => {
      do {
        gates.splice(0).forEach((resolve) => resolve())
        await made.clock.settle()
      } while (gates.length > 0)
    }
    return { ...made, storage, letGo }
  }

  test('by a recall shows nothing of what was recalled, also not later', async () => {
    const made = await heldBeforeSending()
    const { messageID } = await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('SECRET') })
    await say(made, 'ok')
    const bob = await made.connect('bob', { autoAck: false })
    await made.clock.settle()
    await made.engine.messages.recall(messageID)
    await made.letGo()
    await made.clock.advance(61_000)
    expect(new Set(textsOf(bob))).toEqual(new Set(['ok']))
  })

  test('by the end of a membership sends nothing that was said after it', async () => {
    const made = await heldBeforeSending()
    await say(made, 'before')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await say(made, 'bob is gone')
    await made.letGo()
    expect(textsOf(bob)).toEqual(['before'])
  })

  test('by the end of a membership goes on with what was said before it, however many pages that is', async () => {
    const made = await heldBeforeSending()
    await say(made, ...numbers(1, 120))
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await say(made, 'bob is gone')
    await made.letGo()
    expect(textsOf(bob)).toEqual(numbers(1, 120))
  })

  test('by a membership that ends and begins again sends what was said in either, and nothing of what was said in between', async () => {
    const made = await heldBeforeSending()
    await say(made, 'before')
    const bob = await made.connect('bob', { autoAck: false }) // an acknowledgement would bring up where they stand since they are back
    await made.clock.settle()
    await say(made, 'meanwhile')
    await made.clock.settle()
    for (const round of ['first', 'second']) {
      await made.engine.channels.subscribers.remove(TEAM, ['bob'])
      await say(made, `without bob, the ${round} time`)
      await made.clock.settle()
      await made.engine.channels.subscribers.add(TEAM, ['bob'])
      await say(made, `after the ${round} time`)
      await made.clock.settle()
    }
    await made.letGo()
    await say(made, 'live')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['before', 'meanwhile', 'after the first time', 'after the second time', 'live'])
    for (const message of bob.client.messages) bob.client.ack(message)
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.letGo()
    expect(textsOf(again)).toEqual([])
  })

  test('by a new membership sends all that is said in it, also when that is more than are told apart', async () => {
    const count = 10_002
    const most = 20_000
    const limits = { maxReplayPerChannel: most, maxReplay: most, maxUnackedRecvs: most }
    const storage = memoryStorage({ maxMessagesPerChannel: most })
    const replaying = deferred()
    const hidden = storage.cursors.hidden.bind(storage.cursors)
    storage.cursors.hidden = (...query) => replaying.promise.then(() => hidden(...query))
    const made = await stage({ storage, limits })
    await say(made, 'before')
    const bob = await made.connect('bob')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await made.engine.channels.subscribers.add(TEAM, ['bob'])
    const texts = numbers(1, count)
    for (let first = 0; first < count; first += 1_000) {
      await made.engine.messages.sendMany(texts.slice(first, first + 1_000).map((text) => ({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })))
    }
    await made.clock.settle()
    replaying.resolve()
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['before', ...texts])
  })

  test.each([[0, 'by nothing'], [1, 'by a new membership']] as const)('asks %i times whether the user is a member when it is overtaken %s', async (count, _how) => {
    const made = await heldBeforeSending()
    await say(made, 'before')
    const bob = await made.connect('bob', { autoAck: false })
    await made.clock.settle()
    await bob.client.send({ ...TEAM, payload: 'own' }) // which is not pushed to this device, so it is not held back
    if (count > 0) {
      await made.engine.channels.subscribers.remove(TEAM, ['bob'])
      await say(made, 'without bob')
      await made.engine.channels.subscribers.add(TEAM, ['bob'])
    }
    await say(made, 'after')
    await made.clock.settle()
    const asked: string[] = []
    const member = made.storage.channels.member.bind(made.storage.channels)
    made.storage.channels.member = (key, uid) => (asked.push(uid), member(key, uid))
    await made.letGo()
    expect(textsOf(bob)).toEqual(['before', 'after'])
    expect(asked).toEqual(Array.from({ length: count }, () => 'bob'))
  })

  test('by another device that acknowledges and sends gets all that was pushed to this one, too', async () => {
    const made = await heldBeforeSending()
    const phone = await made.connect('bob', { deviceFlag: DeviceFlag.App })
    await made.clock.settle()
    await made.engine.messages.send({ channelID: 'bob', channelType: ChannelType.Person, fromUID: 'cat', payload: Buffer.from('first') })
    phone.client.end()
    await made.clock.settle()
    const again = await made.connect('bob', { deviceFlag: DeviceFlag.App })
    await made.letGo()
    await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('m0') })
    await made.clock.settle()
    await made.engine.conversations.delete('bob', { channelID: 'cat', channelType: ChannelType.Person })
    await made.engine.messages.send({ channelID: 'dan', channelType: ChannelType.Person, fromUID: 'bob', payload: Buffer.from('x'), clientMsgNo: 'to-dan' })
    const web = await made.connect('bob', { deviceFlag: DeviceFlag.Web })
    await say(made, 'm1', 'm2')
    await again.client.send({ ...TEAM, payload: 'own from phone' })
    await made.letGo()
    await say(made, 'm3')
    await made.clock.settle()
    expect(textsOf(web).filter((text) => text.startsWith('m') || text.startsWith('own'))).toEqual(['m1', 'm2', 'own from phone', 'm3'])
  })
})

describe('a client that does not read much', () => {
  test('gets a backlog larger than what may wait for it, once it reads, and is not cut off', async () => {
    const made = await stage({ limits: { maxOutboundBytes: 100_000 } })
    for (let index = 0; index < 40; index++) await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.alloc(5_000, 97) })
    const bob = await made.connect('bob')
    await made.clock.advance(2_000)
    expect(bob.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1))
    expect(bob.pair.client.socketEnd).toBeUndefined()
  })

  test('keeps nobody else waiting', async () => {
    const made = await stage({ limits: { maxOutboundBytes: 20_000, maxConcurrentReplays: 1 } })
    await made.engine.channels.create({ channelID: 'large', channelType: ChannelType.Group }, { subscribers: ['slow'] })
    for (let index = 0; index < 8; index++) {
      await made.engine.messages.send({ channelID: 'large', channelType: ChannelType.Group, fromUID: 'ann', payload: Buffer.alloc(5_000, 97) })
    }
    await say(made, 'hello')
    const slow = await made.connect('slow')
    slow.pair.client.pauseReading()
    const bob = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(bob)).toEqual(['hello'])
  })
})

describe('positions', () => {
  test.each(['recall', 'deleteFor'] as const)('are not held up by a message that was taken back before it was acknowledged (%s)', async (how) => {
    const made = await stage()
    const bob = await made.connect('bob', { autoAck: false })
    const ids: string[] = []
    for (const text of ['1', '2', '3']) ids.push((await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })).messageID)
    await made.clock.settle()
    if (how === 'recall') await made.engine.messages.recall(ids[0]!)
    else await made.engine.messages.deleteFor('bob', [ids[0]!])
    await made.clock.settle()
    for (const message of bob.client.messages) bob.client.ack(message)
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual([])
  })

  test('are not held up by messages at the end of a channel that have expired', async () => {
    const made = await stage()
    await made.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('gone'), expireSec: 1 })
    await made.clock.advance(2_000)
    const bob = await made.connect('bob')
    await made.clock.settle()
    await say(made, 'new')
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect([textsOf(bob), textsOf(again)]).toEqual([['new'], []])
  })

  test('what was acknowledged behind a gap is not sent again while that is known', async () => {
    const made = await stage()
    const bob = await made.connect('bob', { autoAck: false })
    await say(made, '1', '2', '3')
    await made.clock.settle()
    bob.client.ack(bob.client.messages[2]!)
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(again)).toEqual(['1', '2'])
  })

  test('a store that throws once when it is asked for one does not stop acknowledgements from counting', async () => {
    const storage = memoryStorage()
    const cursor = storage.cursors.cursor.bind(storage.cursors)
    let isBroken = true
    storage.cursors.cursor = (uid, key) => {
      if (!isBroken) return cursor(uid, key)
      isBroken = false
      throw new Error('disk')
    }
    const made = await stage({ storage })
    const bob = await made.connect('bob')
    await say(made, '1', '2')
    await made.clock.settle()
    bob.client.end()
    await made.clock.settle()
    const second = await made.connect('bob') // one acknowledgement was lost with the failure
    await made.clock.settle()
    second.client.end()
    await made.clock.settle()
    const third = await made.connect('bob')
    await made.clock.settle()
    expect(textsOf(third)).toEqual([])
  })
})

describe('the fact offlineMessage', () => {
  type Offline = Facts['offlineMessage'][0]
  const summary = ({ uids, devices }: Offline) => [[...uids].sort(), Object.fromEntries(devices)]

  test('names those who are not connected, and no devices', async () => {
    const made = await stage()
    const offline = heard(made.engine, 'offlineMessage')
    await made.connect('bob')
    await say(made, '1')
    await made.clock.settle()
    expect(offline.map(summary)).toEqual([[['cat'], {}]])
  })

  test('is not told when nobody but the sender is offline', async () => {
    const made = await stage()
    const offline = heard(made.engine, 'offlineMessage')
    for (const uid of ['bob', 'cat']) await made.connect(uid)
    await say(made, 'from ann, who is offline')
    await made.clock.settle()
    expect(offline).toEqual([])
  })

  test('leaves each sender out of what is told of their own message, and of nobody else\'s', async () => {
    const made = await stage()
    const offline = heard(made.engine, 'offlineMessage')
    const cat = await made.connect('cat')
    await made.engine.messages.sendMany([
      { ...TEAM, fromUID: 'ann', payload: Buffer.from('1') }, { ...TEAM, fromUID: 'bob', payload: Buffer.from('2') }, { ...TEAM, fromUID: 'cat', payload: Buffer.from('3') },
    ])
    await made.clock.settle()
    expect(textsOf(cat)).toEqual(['1', '2', '3'])
    const told = offline.flatMap(({ messages, uids }) => messages.map(({ fromUID }) => [fromUID, ...uids.toSorted()]))
    expect(told).toEqual([['ann', 'bob'], ['bob', 'ann'], ['cat', 'ann', 'bob']])
  })

  test('names those whom isOffline calls so, with what they have connected', async () => {
    const made = await stage({ isOffline: ({ devices }) => !devices.some(({ deviceFlag }) => deviceFlag === DeviceFlag.App) })
    const offline = heard(made.engine, 'offlineMessage')
    await made.connect('bob', { deviceFlag: DeviceFlag.Web })
    await made.connect('cat', { deviceFlag: DeviceFlag.App })
    await say(made, '1')
    await made.clock.settle()
    expect(offline.map(summary)).toEqual([[['bob'], { bob: [{ deviceFlag: DeviceFlag.Web, deviceLevel: 0 }] }]])
  })

  test('is not told, but an error is, when isOffline throws; the message goes out', async () => {
    const made = await stage({
      isOffline: () => {
        throw new Error('no idea')
      },
    })
    const offline = heard(made.engine, 'offlineMessage')
    const bob = await made.connect('bob')
    await say(made, '1')
    await made.clock.settle()
    expect(offline).toEqual([])
    expect(made.errors).toMatchObject([{ code: 'IM_HANDLER_FAILED' }])
    expect(textsOf(bob)).toEqual(['1'])
  })
})

test('two devices of a user share one position', async () => {
  const made = await stage()
  const phone = await made.connect('bob', { deviceFlag: DeviceFlag.App, autoAck: false })
  await made.connect('bob', { deviceFlag: DeviceFlag.Web })
  await say(made, '1')
  await made.clock.settle()
  phone.client.end()
  await made.clock.settle()
  const again = await made.connect('bob', { deviceFlag: DeviceFlag.App })
  await made.clock.settle()
  expect(textsOf(again)).toEqual([])
})

describe('a user without any conversation', () => {
  test('costs one question at login, and gets what comes later at once', async () => {
    const storage = memoryStorage()
    let askedCount = 0
    const made = await stage({
      storage: storageWith(storage, { personChannelsOf: (uid, query) => (askedCount++, storage.messages.personChannelsOf(uid, query)) }),
    })
    const zoe = await made.connect('zoe')
    await made.clock.settle()
    expect(askedCount).toBe(1)
    await made.engine.messages.send({ channelID: 'zoe', channelType: ChannelType.Person, fromUID: 'ann', payload: Buffer.from('hello') })
    await made.clock.settle()
    expect(textsOf(zoe)).toEqual(['hello'])
  })

  test('is looked up once and not twice by a store that answers by promises, but for the first login', async () => {
    const storage = memoryStorage()
    let askedCount = 0
    const made = await stage({
      storage: storageWith(storage, { personChannelsOf: async (uid, query) => (askedCount++, storage.messages.personChannelsOf(uid, query)) }),
    })
    await made.connect('zoe')
    await made.clock.settle()
    expect(askedCount).toBe(2)
    await made.connect('yan')
    await made.clock.settle()
    expect(askedCount).toBe(3)
  })

  test('is let in, and the failure told once, when the store throws or rejects at that question', async () => {
    for (const fails of [() => { throw new Error('down') }, () => Promise.reject(new Error('down'))]) {
      const made = await stage({ storage: storageWith(memoryStorage(), { personChannelsOf: fails }) })
      const zoe = await made.connect('zoe')
      await made.clock.advance(10_000)
      expect(made.errors.map(({ code }) => code)).toEqual(['IM_STORE_UNAVAILABLE'])
      await made.engine.messages.send({ channelID: 'zoe', channelType: ChannelType.Person, fromUID: 'ann', payload: Buffer.from('hello') })
      await made.clock.settle()
      expect(textsOf(zoe)).toEqual(['hello'])
    }
  })
})
