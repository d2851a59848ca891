import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { JetStreamFailure, type JetStream } from '../../../src/adapters/nats/jetstream.ts'
import { decodeEntry } from '../../../src/adapters/nats/log-entry.ts'
import { checkLogOptions, type NatsLogOptions } from '../../../src/adapters/nats/log-options.ts'
import { LogProposer } from '../../../src/adapters/nats/log-proposer.ts'
import { IMError } from '../../../src/errors.ts'
import { channelKeyString } from '../../../src/model/channel.ts'
import { Recorder } from '../../../src/testing/suites/recorder.ts'
import { message, room } from './log.ts'

/** One try to publish, for the test to answer. */
interface Try {
  readonly messageID: string
  readonly numbers: readonly string[]
  readonly bytes: Uint8Array
  /** at this place, default 1 */
  readonly stored: (seq?: number) => void
  readonly fails: (kind: JetStreamFailure['kind'], code?: number) => void
}

let tries: Recorder<Try>
let isConnected: boolean
let proposer: LogProposer
let divergences: IMError[]
let problemCount: number

beforeEach(() => start({ maxInFlightCount: 2, maxEntryCount: 3 }))

function start(options: Partial<NatsLogOptions>): void {
  tries = new Recorder()
  isConnected = true
  divergences = []
  problemCount = 0
  let number = 0
  const publish: JetStream['publish'] = (_subject, bytes, { messageID }) =>
    new Promise((resolve, reject) => {
      const { batches, operation } = decodeEntry(bytes)
      const numbers = operation === undefined ? batches.flatMap(({ messages }) => messages.map(({ clientMsgNo }) => clientMsgNo)) : [String(operation)]
      const fails: Try['fails'] = (kind, code = 0) => reject(new JetStreamFailure(kind, code, kind))
      tries.add({ messageID, numbers, bytes, stored: (seq = 1) => resolve(seq), fails })
    })
  const streamInfo: JetStream['streamInfo'] = () => Promise.reject(new JetStreamFailure('refused', 10_059, 'not found'))
  proposer = new LogProposer({
    log: 'log',
    subject: 'subject',
    nodeID: 7,
    boot: '0123456789abcdef',
    limits: checkLogOptions({ name: 'a', ...options }),
    jetStream: { publish, streamInfo } as JetStream,
    isConnected: () => isConnected,
    maxPayloadBytes: () => 1_048_576,
    nextNumber: () => ++number,
    know: () => undefined,
    diverged: (error) => {
      divergences.push(error)
      proposer.end(error) // as the follower does when it is stopped
    },
    report: () => void problemCount++,
  })
}

afterEach(() => proposer.end(new IMError('IM_REPLICATION_TIMEOUT')))

/** Rejections are looked at later, or not at all. */
function propose(channelID: string, clientMsgNo: string, signal = new AbortController().signal) {
  const outcome = proposer.propose(room(channelID), [message(room(channelID), clientMsgNo)], signal)
  outcome.catch(() => undefined)
  return outcome
}

function operate(lane: string, number: string): void {
  proposer.operate(lane, Buffer.from(number), new AbortController().signal).catch(() => undefined)
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** As if it had come back through the log. */
function applied({ bytes }: Try, seq = 1): void {
  const entry = decodeEntry(bytes)
  proposer.applied(entry, entry.batches.map(({ messages }) => messages.map(({ messageID }, i) => ({ status: 'stored' as const, messageID, messageSeq: i + 1 }))), seq)
}

describe('entries on their way', () => {
  it('never have messages of one channel twice, while it is not known whether the first is in the log', async () => {
    void propose('a', 'a1')
    void propose('b', 'b1')
    await turn()
    void propose('a', 'a2')
    for (const number of ['c1', 'c2', 'c3']) void propose('c', number)
    void propose('a', 'a3')
    await turn()
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a1', 'b1'], ['c1', 'c2', 'c3']])
    tries.items[1]!.stored()
    await turn()
    tries.items[0]!.fails('timeout')
    await tries.untilCount(3)
    expect([tries.items[2]!.numbers, tries.items[2]!.messageID]).toEqual([['a1', 'b1'], tries.items[0]!.messageID])
    tries.items[2]!.stored()
    await tries.untilCount(4)
    expect(tries.items[3]!.numbers).toEqual(['a2', 'a3'])
  })

  it('never do so either when what came in one turn is too much for one entry', async () => {
    for (const n of [1, 2, 3, 4]) void propose('a', `a${n}`)
    for (const n of [1, 2, 3]) void propose('b', `b${n}`)
    await turn()
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a1', 'a2', 'a3'], ['b1', 'b2', 'b3']])
    void propose('a', 'a5')
    for (const { stored } of tries.items) stored()
    await tries.untilCount(3)
    expect(tries.items[2]!.numbers).toEqual(['a4', 'a5'])
  })

  it('have what was proposed for one lane in the order of the calls, whatever waits and whenever answers come', async () => {
    const lane = fc.constantFrom('a', 'b', 'c')
    const step = fc.oneof(
      fc.record({ kind: fc.constantFrom('propose' as const, 'operate' as const), lane }),
      fc.record({ kind: fc.constant('turn' as const) }),
      fc.record({ kind: fc.constant('answer' as const), which: fc.nat(3) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        tries = new Recorder()
        const open: Try[] = []
        let seenCount = 0
        const look = (): void => {
          open.push(...tries.items.slice(seenCount))
          seenCount = tries.items.length
        }
        let count = 0
        for (const each of steps) {
          if (each.kind === 'propose') void propose(each.lane, `${each.lane}${++count}`)
          else if (each.kind === 'operate') operate(channelKeyString(room(each.lane)), `${each.lane}${++count}`)
          else await turn()
          look()
          if (each.kind === 'answer') open.splice(each.which % Math.max(1, open.length), 1)[0]?.stored()
        }
        // A turn each for an answer to be heard, and for the next entry.
        for (let idleCount = 0; idleCount < 3; idleCount = open.length > 0 ? 0 : idleCount + 1) {
          open.shift()?.stored()
          await turn()
          look()
        }
        const places = tries.items.flatMap(({ numbers }) => numbers)
        expect(places).toHaveLength(count)
        for (const name of ['a', 'b', 'c']) {
          const ofLane = places.filter((number) => number.startsWith(name)).map((number) => Number(number.slice(1)))
          expect(ofLane).toEqual(ofLane.toSorted((x, y) => x - y))
        }
      }),
      { numRuns: 300 },
    )
  })

  it('are no more than their bound; what is proposed meanwhile waits for the next', async () => {
    for (const channel of ['a', 'b', 'c']) {
      for (const n of [1, 2]) void propose(channel, `${channel}${n}`)
      void propose(`${channel}'`, `${channel}3`)
      await turn()
    }
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a1', 'a2', 'a3'], ['b1', 'b2', 'b3']])
    tries.items[1]!.stored()
    await tries.untilCount(3)
    expect(tries.items[2]!.numbers).toEqual(['c1', 'c2', 'c3'])
  })

  it('and have room let others wait, until they fill one or it is answered', async () => {
    for (const channel of ['a', 'b', 'c']) {
      void propose(channel, channel)
      await turn()
    }
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a']])
    void propose('d', 'd')
    await turn()
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a'], ['b', 'c', 'd']])
    void propose('e', 'e')
    tries.items[0]!.stored()
    await turn()
    expect(tries.items).toHaveLength(2)
    tries.items[1]!.stored()
    await tries.untilCount(3)
    expect(tries.items[2]!.numbers).toEqual(['e'])
  })

  it('let nobody wait any more when a first try has told nothing', async () => {
    void propose('a', 'a')
    await turn()
    void propose('b', 'b')
    await turn()
    expect(tries.items).toHaveLength(1)
    tries.items[0]!.fails('timeout')
    await tries.untilCount(2)
    expect(tries.items[1]!.numbers).toEqual(['b'])
  })

  it('are tried again while the servers say that they are on their way, and nobody is told of a problem', async () => {
    const outcome = propose('a', 'a1')
    await turn()
    tries.items[0]!.fails('refused', 10_158)
    await tries.untilCount(2)
    tries.items[1]!.stored(3)
    applied(tries.items[1]!, 3)
    expect(await outcome).toMatchObject([{ messageSeq: 1 }])
    expect(problemCount).toBe(0)
  })

  it('let an operation go, which has an entry of its own, and what was ready before it', async () => {
    void propose('a', 'a')
    await turn()
    void propose('b', 'b')
    operate('lane', 'op')
    await turn()
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a'], ['b']])
    tries.items[0]!.stored()
    await tries.untilCount(3)
    expect(tries.items[2]!.numbers).toEqual(['op'])
  })

  it('whose entry comes back through the log need no answer', async () => {
    const first = propose('a', 'a1')
    await turn()
    void propose('a', 'a2')
    applied(tries.items[0]!)
    expect(await first).toMatchObject([{ messageSeq: 1 }])
    await tries.untilCount(2)
    expect(tries.items[1]!.numbers).toEqual(['a2'])
    tries.items[0]!.fails('timeout')
    await turn()
    await turn()
    expect(tries.items).toHaveLength(2)
  })

  it('wait while there is no connection, and go when it is back', async () => {
    isConnected = false
    void propose('a', 'a1')
    await turn()
    await turn()
    expect(tries.items).toEqual([])
    isConnected = true
    proposer.retry()
    await tries.untilCount(1)
  })

  it('are tried again under the same id the moment there is somebody to answer, though the try before has not ended', async () => {
    const outcome = propose('a', 'a1')
    await turn()
    proposer.retry()
    await tries.untilCount(2)
    const [first, second] = tries.items
    expect(second!.messageID).toBe(first!.messageID)
    second!.stored(5)
    await turn()
    first!.fails('timeout')
    applied(second!, 5)
    expect(await outcome).toMatchObject([{ messageSeq: 1 }])
    await turn()
    expect(tries.items).toHaveLength(2)
    expect(divergences).toEqual([])
  })
})

describe('an entry that is confirmed at another place than it is read at', () => {
  it('is not acknowledged when that shows as it is read', async () => {
    const outcome = propose('a', 'a1')
    await turn()
    tries.items[0]!.stored(7)
    await turn()
    expect(divergences).toEqual([])
    applied(tries.items[0]!, 8)
    await expect(outcome).rejects.toMatchObject({ code: 'IM_LOG_DIVERGED', detail: 'log: confirmed at 7, and read at 8' })
    expect(divergences).toHaveLength(1)
  })

  it('lets nothing behind it be acknowledged when it shows only afterwards', async () => {
    const first = propose('a', 'a1')
    await turn()
    applied(tries.items[0]!, 8)
    expect(await first).toMatchObject([{ messageSeq: 1 }])
    const third = propose('a', 'a2')
    tries.items[0]!.stored(7)
    await expect(third).rejects.toMatchObject({ code: 'IM_LOG_DIVERGED' })
  })

  it('is found out by the answer to a try that was made again meanwhile', async () => {
    void propose('a', 'a1')
    await turn()
    proposer.retry()
    await tries.untilCount(2)
    applied(tries.items[1]!, 8)
    tries.items[0]!.stored(7)
    await turn()
    expect(divergences).toMatchObject([{ code: 'IM_LOG_DIVERGED', detail: 'log: confirmed at 7, and read at 8' }])
  })
})

describe('a wait that is given up', () => {
  it('ends the tries of its entry when nobody else waits for it, and lets the channel go on', async () => {
    const [one, two] = [new AbortController(), new AbortController()]
    const outcomes = [propose('a', 'a1', one.signal), propose('b', 'b1', two.signal)]
    await turn()
    one.abort()
    await expect(outcomes[0]).rejects.toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
    for (const number of ['a2', 'a3', 'a4']) void propose('a', number) // behind an entry for which its channel no longer waits
    await tries.untilCount(2)
    tries.items[0]!.fails('timeout')
    await tries.untilCount(3)
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['a1', 'b1'], ['a2', 'a3', 'a4'], ['a1', 'b1']])
    tries.items[1]!.stored()
    two.abort()
    tries.items[2]!.fails('timeout')
    await turn()
    void propose('c', 'c1')
    await tries.untilCount(4)
    expect(tries.items[3]!.numbers).toEqual(['c1'])
  })

  it('before anything was published leaves nothing that ever is, whether its channel was free or not', async () => {
    const patience = new AbortController()
    const ready = propose('a', 'ready', patience.signal)
    patience.abort()
    await expect(ready).rejects.toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
    void propose('b', 'b1')
    await turn()
    const again = new AbortController()
    const behind = propose('b', 'behind', again.signal)
    void propose('b', 'b2')
    again.abort()
    await expect(behind).rejects.toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
    tries.items[0]!.stored()
    await tries.untilCount(2)
    expect(tries.items.map(({ numbers }) => numbers)).toEqual([['b1'], ['b2']])
    expect(proposer.queuedCount).toBe(2)
  })
})

describe('what cannot succeed', () => {
  it.each([
    ['denied', 0, 'IM_LOG_UNFIT'],
    ['too-large', 0, 'IM_ENTRY_TOO_LARGE'],
    ['refused', 10_054, 'IM_ENTRY_TOO_LARGE'],
    ['refused', 10_060, 'IM_LOG_REPLACED'],
    ['no-responders', 0, 'IM_LOG_REPLACED'],
  ] as const)('because it is %s %i is %s at once, and is not tried again', async (kind, code, expected) => {
    const outcome = propose('a', 'a1')
    await turn()
    tries.items[0]!.fails(kind, code)
    await expect(outcome).rejects.toMatchObject({ code: expected })
    expect(tries.items).toHaveLength(1)
    expect(proposer.queuedCount).toBe(0)
  })
})

describe('messages that are not proposed yet', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'], now: 1_700_000_000_000 })
    start({ maxInFlightCount: 2 })
  })
  afterEach(() => void vi.useRealTimers())

  /** Of each channel one, or `count`; proposed when they are let go, as the engine does. */
  function gather(channelIDs: string, count = 1, bytes = 100): void {
    for (const channelID of channelIDs.split(' ')) {
      const over = proposer.gather(count, bytes)
      if (over === undefined) void propose(channelID, channelID)
      else void over.then(() => void propose(channelID, channelID))
    }
  }

  const turns = async (): Promise<void> => {
    for (let count = 0; count < 4; count++) await turn()
  }

  const sent = (): string[] => tries.items.map(({ numbers }) => numbers.join(' '))

  const PERIOD_MS = 48
  const sincePlaceMs = (): number => (Date.now() + ((7 * (Math.sqrt(5) - 1)) / 2 % 1) * PERIOD_MS) % PERIOD_MS

  /** As many entries as it takes to know how long they take; none of them is seen any more. */
  async function fly(flightMs: number): Promise<void> {
    for (let count = 0; count < 15; count++) {
      void propose('flying', 'flying')
      await turns()
      vi.advanceTimersByTime(flightMs)
      tries.items[count]!.stored()
      applied(tries.items[count]!)
      await turns()
    }
    tries = new Recorder()
  }

  /** Entries take so long that there is one in 48 ms, and one has left as this node's place in them had just come. */
  async function underWay(): Promise<void> {
    await fly(40)
    vi.advanceTimersByTime(100)
    while (sincePlaceMs() > 1) vi.advanceTimersByTime(1)
    gather('first')
    await turns()
    expect(sent()).toEqual(['first'])
  }

  it('are proposed at once when nothing is on its way, and have an entry together when they come in one turn', async () => {
    expect(proposer.gather(1, 100)).toBeUndefined()
    gather('a b c d e')
    await turns()
    expect(sent()).toEqual(['a b c d e'])
  })

  it('gather while an entry is on its way: a few leave as soon as it is answered, together', async () => {
    await underWay()
    gather('a')
    await turns()
    gather('b c')
    await turns()
    expect(sent()).toHaveLength(1)
    tries.items[0]!.stored()
    await turns()
    expect(sent().slice(1)).toEqual(['a b c'])
  })

  it('gather beyond that when they are four or more, until this node’s place in the period', async () => {
    await underWay()
    gather('a b c')
    tries.items[0]!.stored()
    gather('d')
    await turns()
    vi.advanceTimersByTime(PERIOD_MS - 2 - sincePlaceMs())
    gather('e')
    await turns()
    expect(sent()).toHaveLength(1)
    vi.advanceTimersByTime(3)
    await turns()
    expect(sent().slice(1)).toEqual(['a b c d e'])
  })

  it('of which a few come after an answer go at once, and let nobody who has been let go wait for the next period', async () => {
    await underWay()
    tries.items[0]!.stored()
    await turns()
    gather('a b c')
    await turn() // they are let go
    gather('d e f')
    await turns()
    expect(sent().slice(1)).toEqual(['a b c'])
  })

  it('are let go when they are worth an entry, period or not', async () => {
    await underWay()
    tries.items[0]!.stored()
    await turns()
    gather('a b c d')
    await turns()
    expect(sent()).toHaveLength(1)
    gather('e', 252)
    await turns()
    expect(sent().slice(1)).toEqual(['a b c d e'])
  })

  it('are let go while another entry is on its way when they would fill one', async () => {
    await underWay()
    gather('a', 1_023)
    await turns()
    expect(sent()).toHaveLength(1)
    gather('b')
    await turns()
    expect(sent().slice(1)).toEqual(['a b'])
  })

  it('are let go while another entry is on its way when their bytes would fill one', async () => {
    await underWay()
    gather('a b', 1, 65_535)
    await turns()
    expect(sent()).toHaveLength(1)
    gather('c', 1, 2)
    await turns()
    expect(sent().slice(1)).toEqual(['a b c'])
  })

  it('are proposed when the answer to another entry is long in coming, so that their time to be answered runs', async () => {
    await underWay()
    let isLetGo = false
    void proposer.gather(1, 100)!.then(() => (isLetGo = true))
    vi.advanceTimersByTime(PERIOD_MS + 249)
    await turns()
    expect(isLetGo).toBe(false)
    vi.advanceTimersByTime(1)
    await turns()
    expect(isLetGo).toBe(true)
    expect(sent()).toHaveLength(1)
  })

  it('do not wait for another turn when their handlers take their time after they have been let go', async () => {
    await underWay()
    tries.items[0]!.stored()
    await turns()
    const slow = 'a b c d'.split(' ').map((channelID) => ({ channelID, over: proposer.gather(1, 100)! }))
    gather('quick')
    await turns()
    expect(sent()).toHaveLength(1)
    vi.advanceTimersByTime(PERIOD_MS + 1)
    await Promise.all(slow.map(({ over }) => over))
    await turns()
    expect(sent().slice(1)).toEqual(['quick'])
    for (const { channelID } of slow) void propose(channelID, channelID)
    await turns()
    expect(sent()).toHaveLength(2)
    tries.items[1]!.stored()
    await turns()
    expect(sent().slice(2)).toEqual(['a b c d'])
    tries.items[2]!.stored()
    gather('e f g h') // the next have a turn of their own again
    void propose('i', 'i')
    await turns()
    expect(sent()).toHaveLength(3)
  })

  it('are not let go because others before them had waited for long', async () => {
    await underWay()
    gather('a')
    vi.advanceTimersByTime(PERIOD_MS + 200)
    tries.items[0]!.stored()
    await turns()
    expect(sent().slice(1)).toEqual(['a'])
    let isLetGo = false
    void proposer.gather(1, 100)!.then(() => (isLetGo = true))
    vi.advanceTimersByTime(100)
    await turns()
    expect(isLetGo).toBe(false)
  })

  it('do not lose their place to an operation', async () => {
    await underWay()
    tries.items[0]!.stored()
    vi.advanceTimersByTime(PERIOD_MS)
    operate('lane', 'operation')
    await turns()
    gather('a b c d')
    await turns()
    expect(sent().slice(1)).toEqual(['operation'])
    tries.items[1]!.stored()
    await turns()
    expect(sent().slice(2)).toEqual(['a b c d'])
  })

  it('are proposed while a try has told nothing, so that their time to be answered runs, though no other entry may leave', async () => {
    start({ maxInFlightCount: 1 })
    await underWay()
    let isLetGo = false
    void proposer.gather(1, 100)!.then(() => (isLetGo = true))
    tries.items[0]!.fails('timeout')
    await turns()
    expect(isLetGo).toBe(true)
    expect(proposer.gather(1, 100)).toBeUndefined()
  })

  it('are let go at the end, and none gathers after it', async () => {
    await underWay()
    const over = proposer.gather(1, 100)
    proposer.end(new IMError('IM_REPLICATION_TIMEOUT'))
    await expect(over).resolves.toBeUndefined()
    expect(proposer.gather(1, 100)).toBeUndefined()
  })

  it.each([
    ['do not gather where entries are not to be held', 40, { entryPeriodMs: 0 }],
    ['do not gather where entries take little time', 9, {}],
  ])('%s', async (_what, flightMs, options) => {
    start(options)
    await fly(flightMs)
    void propose('b', 'b')
    await turns()
    expect(sent()).toEqual(['b'])
    expect(proposer.gather(1, 100)).toBeUndefined()
  })
})
