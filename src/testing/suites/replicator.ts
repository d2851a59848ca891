import assert from 'node:assert/strict'
import type { AppendResult, LogPosition } from '../../contracts/message-store.ts'
import type { LogEntry, Replicator, ReplicatorHost } from '../../contracts/replicator.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import type { Message } from '../../model/message.ts'
import { casesOf, started, type ContractCase, type ContractOptions, type Opened, type Scenario } from './contract-case.ts'
import { Gate, Recorder, turns } from './recorder.ts'
import { assertSameMessages, channel, HOSTILE_IDS, ROOM, sampleMessage, sampleMessages } from './samples.ts'

/** The promises of a Replicator. `open` gives three of one new log, none of them started: they become nodes 1, 2 and 3. */
export function replicatorContract<O extends Opened<readonly Replicator[]>>(
  options: ContractOptions<readonly Replicator[], O>,
): ContractCase[] {
  return casesOf(options, scenarios)
}

/** A node whose store only counts: its seqs start at 1000 times its id, so that it shows whose answer one is. */
class CountingHost implements ReplicatorHost {
  readonly nodeID: number
  readonly applied = new Recorder<LogEntry>()
  readonly operated = new Recorder<Uint8Array>()
  /** runs before an entry counts as applied; a throw is a failed apply */
  beforeApply: (entry: LogEntry) => Promise<void> | undefined = () => undefined
  readonly #lastSeq = new Map<string, number>()
  readonly #busy = new Set<string>()
  readonly #positions = new Map<string, number>()

  constructor(nodeID: number) {
    this.nodeID = nodeID
  }

  logPosition(log: string): number {
    return this.#positions.get(log) ?? 0
  }

  // Answers at once where it can: a replicator must not count on time passing while entries are applied.
  apply(entries: readonly LogEntry[], position?: LogPosition): MaybePromise<AppendResult[][]> {
    const names = entries.map((entry) => channelKeyString(entry.key))
    for (const name of names) assert.ok(!this.#busy.has(name), 'entries of one channel must be applied one after the other')
    const waits = entries.map((entry) => this.beforeApply(entry)).filter((wait) => wait !== undefined)
    if (waits.length === 0) return this.#countAll(entries, position)
    for (const name of names) this.#busy.add(name)
    return Promise.all(waits)
      .finally(() => names.forEach((name) => this.#busy.delete(name)))
      .then(() => this.#countAll(entries, position))
  }

  beforeOperate: (operation: Uint8Array) => void = () => undefined

  operate(operation: Uint8Array, position?: LogPosition): Uint8Array {
    this.beforeOperate(operation)
    this.#keep(position)
    this.operated.add(operation)
    return Uint8Array.of(this.nodeID, ...operation)
  }

  #countAll(entries: readonly LogEntry[], position: LogPosition | undefined): AppendResult[][] {
    this.#keep(position)
    return entries.map((entry) => this.#count(entry))
  }

  #keep(position: LogPosition | undefined): void {
    if (position === undefined) return
    assert.ok(position.index > this.logPosition(position.log), 'positions of a log go forwards')
    this.#positions.set(position.log, position.index)
  }

  #count(entry: LogEntry): AppendResult[] {
    const name = channelKeyString(entry.key)
    const results = entry.messages.map(({ messageID }) => {
      const messageSeq = (this.#lastSeq.get(name) ?? 1000 * this.nodeID) + 1
      this.#lastSeq.set(name, messageSeq)
      return { status: 'stored' as const, messageID, messageSeq }
    })
    this.applied.add(entry)
    return results
  }

  isolated(): void {
    // Nothing here is ever cut off.
  }

  idsOf(key: ChannelKey): string[] {
    const entries = this.applied.items.filter((entry) => channelKeyString(entry.key) === channelKeyString(key))
    return entries.flatMap((entry) => entry.messages.map((message) => message.messageID))
  }
}

/** Start all of them. */
async function cluster(replicators: readonly Replicator[]): Promise<readonly [Node, Node, Node]> {
  const nodes = replicators.map((replicator, i) => new Node(replicator, new CountingHost(i + 1)))
  for (const node of nodes) await node.replicator.start(node.host)
  const [first, second, third] = nodes
  assert.ok(first && second && third, 'open must give three replicators')
  return [first, second, third]
}

class Node {
  readonly replicator: Replicator
  readonly host: CountingHost

  constructor(replicator: Replicator, host: CountingHost) {
    this.replicator = replicator
    this.host = host
  }

  propose(
    key: ChannelKey,
    messages: readonly Message[],
    signal = new AbortController().signal,
  ): Promise<readonly AppendResult[]> {
    return started(() => this.replicator.propose(key, messages.map((message) => ({ ...message, ...key })), signal))
  }
}

const seqs = (results: readonly AppendResult[]): number[] => results.map((result) => result.messageSeq)

const scenarios: readonly Scenario<readonly Replicator[]>[] = [
  [
    'propose resolves with what apply gave on the proposing node',
    async (replicators) => {
      const [one, two] = await cluster(replicators)
      assert.deepEqual(seqs(await one.propose(ROOM, sampleMessages(1, 2))), [1001, 1002])
      assert.deepEqual(seqs(await two.propose(ROOM, sampleMessages(3, 5))), [2003, 2004, 2005])
      assert.deepEqual(seqs(await one.propose(channel('other'), [sampleMessage(6)])), [1001])
    },
  ],
  [
    'a proposal made the moment the one before has resolved is applied too',
    async (replicators) => {
      const [one] = await cluster(replicators)
      const { signal } = new AbortController()
      for (let n = 1; n <= 20; n++) {
        // Straight from one promise to the next call: a turn in between would let a replicator come to rest first.
        const results = await one.replicator.propose(ROOM, [sampleMessage(n)], signal)
        assert.deepEqual(seqs(results), [1000 + n])
      }
    },
  ],
  [
    'gather, where there is one, lets messages go while and after others are proposed',
    async (replicators) => {
      const [one] = await cluster(replicators)
      for (let n = 1; n <= 20; n++) {
        const proposed = one.propose(ROOM, [sampleMessage(n)])
        await Promise.all(Array.from({ length: 10 }, async () => one.replicator.gather?.(ROOM, 1, 100)))
        assert.deepEqual(seqs(await proposed), [1000 + n])
      }
    },
  ],
  [
    'operate, where there is one, resolves with what the host gave on the proposing node, and reaches every node in one order',
    async (replicators) => {
      const nodes = await cluster(replicators)
      if (replicators[0]?.operate === undefined) return
      const operate = (node: Node, operation: Uint8Array): Promise<unknown> =>
        started(() => node.replicator.operate!('lane', operation, new AbortController().signal))
      const operation = Uint8Array.of(0, 255, 10)
      const [, two] = nodes
      assert.deepEqual([...((await operate(two, operation)) as Uint8Array)], [2, 0, 255, 10])
      operation.fill(7)
      const all = nodes.flatMap((node, index) => Array.from({ length: 10 }, (_, n) => operate(node, Uint8Array.of(index, n))))
      await Promise.all(all)
      for (const { host } of nodes) await host.operated.untilCount(31)
      const [expected, ...others] = nodes.map(({ host }) => host.operated.items)
      assert.deepEqual([...expected![0]!], [0, 255, 10])
      for (const operated of others) assert.deepEqual(operated.map(String), expected!.map(String))
    },
  ],
  [
    'an operation in the lane of a channel comes in order with the messages of it on every node',
    async (replicators) => {
      const nodes = await cluster(replicators)
      if (replicators[0]?.operate === undefined) return
      const orders = new Map(nodes.map((node) => [node, [] as string[]]))
      for (const node of nodes) {
        node.host.beforeApply = (entry) => void orders.get(node)!.push(...entry.messages.map((message) => message.messageID))
        node.host.beforeOperate = (operation) => void orders.get(node)!.push(`operation ${operation[0]}`)
      }
      const lane = channelKeyString(ROOM)
      await Promise.all(
        Array.from({ length: 12 }, (_, n) => {
          const node = nodes[(n % 3) as 0 | 1 | 2]
          return n % 2 === 0 ? node.propose(ROOM, [sampleMessage(n + 1)]) : started(() => node.replicator.operate!(lane, Uint8Array.of(n), new AbortController().signal))
        }),
      )
      for (const { host } of nodes) await host.applied.untilCount(6)
      for (const { host } of nodes) await host.operated.untilCount(6)
      const [expected, ...others] = orders.values()
      for (const order of others) assert.deepEqual(order, expected)
    },
  ],
  [
    'every node applies every entry, also those of others, with its key, its messages and the proposing node',
    async (replicators) => {
      const nodes = await cluster(replicators)
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
      const messages = HOSTILE_IDS.map((id, i) => sampleMessage(i + 1, { fromUID: id, clientMsgNo: id, payload: bytes }))
      for (const [i, id] of HOSTILE_IDS.entries()) {
        await nodes[i % 2 === 0 ? 0 : 2].propose(channel(id), messages.slice(i, i + 1))
      }
      for (const { host } of nodes) {
        await host.applied.untilCount(HOSTILE_IDS.length)
        for (const [i, id] of HOSTILE_IDS.entries()) {
          const entry = host.applied.items.find((applied) => applied.key.channelID === id)
          assert.equal(entry?.key.channelType, ROOM.channelType)
          assert.equal(entry.nodeID, i % 2 === 0 ? 1 : 3)
          assertSameMessages(entry.messages, messages.slice(i, i + 1).map((message) => ({ ...message, ...channel(id) })))
        }
      }
    },
  ],
  [
    'when all nodes propose at once, the entries of a channel are applied once each, in one order on every node',
    async (replicators) => {
      const nodes = await cluster(replicators)
      for (const { host } of nodes) host.beforeApply = () => turns(1)
      const keys = [channel('a'), channel('b')]
      const proposals = Array.from({ length: 60 }, (_, i) =>
        nodes[(i % 3) as 0 | 1 | 2].propose(keys[i % 2] ?? ROOM, sampleMessages(2 * i + 1, 2 * i + 2)),
      )
      await Promise.all(proposals)
      for (const { host } of nodes) await host.applied.untilCount(60)
      for (const key of keys) {
        const [expected, ...others] = nodes.map(({ host }) => host.idsOf(key))
        assert.equal(new Set(expected).size, 60)
        for (const ids of others) assert.deepEqual(ids, expected)
      }
    },
  ],
  [
    'what the caller does to its arrays after propose does not reach any node',
    async (replicators) => {
      const nodes = await cluster(replicators)
      const messages = sampleMessages(1, 2)
      const key = { ...ROOM }
      const proposed = started(() => nodes[0].replicator.propose(key, messages, new AbortController().signal))
      messages.length = 0
      key.channelID = 'elsewhere'
      await proposed
      for (const { host } of nodes) {
        await host.applied.untilCount(1)
        assert.deepEqual(host.idsOf(ROOM), sampleMessages(1, 2).map((message) => message.messageID))
      }
    },
  ],
  [
    'an aborted wait ends in IM_REPLICATION_TIMEOUT, and the node goes on',
    async (replicators) => {
      const [one, two] = await cluster(replicators)
      const gate = new Gate()
      const patience = new AbortController()
      one.host.beforeApply = () => {
        patience.abort()
        return gate.opened
      }
      await assert.rejects(one.propose(ROOM, [sampleMessage(1)], patience.signal), { code: 'IM_REPLICATION_TIMEOUT' })
      gate.open()
      one.host.beforeApply = () => undefined
      assert.equal((await one.propose(ROOM, [sampleMessage(2)])).length, 1)
      await two.host.applied.until(() => two.host.idsOf(ROOM).includes(sampleMessage(2).messageID))
    },
  ],
  [
    'a proposal whose signal is aborted already ends in IM_REPLICATION_TIMEOUT',
    async (replicators) => {
      const [one] = await cluster(replicators)
      await assert.rejects(one.propose(ROOM, [sampleMessage(1)], AbortSignal.abort()), { code: 'IM_REPLICATION_TIMEOUT' })
      assert.equal((await one.propose(ROOM, [sampleMessage(2)])).length, 1)
    },
  ],
  [
    'an entry that a node failed to apply is given to it again, before any later entry of the channel',
    async (replicators) => {
      const nodes = await cluster(replicators)
      const [one, two] = nodes
      const failuresLeft = new Map([[one, 2], [two, 1]])
      for (const node of [one, two]) {
        node.host.beforeApply = (entry) => {
          const left = failuresLeft.get(node) ?? 0
          if (entry.messages[0]?.messageID !== sampleMessage(1).messageID || left === 0) return undefined
          failuresLeft.set(node, left - 1)
          throw new Error('the store is not there')
        }
      }
      const results = await Promise.all([one.propose(ROOM, [sampleMessage(1)]), one.propose(ROOM, [sampleMessage(2)])])
      assert.equal(results.flat().length, 2)
      const [expected, ...others] = await Promise.all(
        nodes.map(async ({ host }) => {
          await host.applied.untilCount(2)
          return host.idsOf(ROOM)
        }),
      )
      assert.deepEqual([...(expected ?? [])].sort(), [1, 2].map((n) => sampleMessage(n).messageID))
      for (const ids of others) assert.deepEqual(ids, expected)
    },
  ],
  [
    'after close a node proposes and applies nothing more; the others go on; closing twice does no harm',
    async (replicators) => {
      const [one, two, three] = await cluster(replicators)
      await one.propose(ROOM, [sampleMessage(1)])
      await two.host.applied.untilCount(1)
      await two.replicator.close()
      await two.replicator.close()
      await assert.rejects(two.propose(ROOM, [sampleMessage(2)]))
      await one.propose(ROOM, [sampleMessage(3)])
      await three.host.applied.until(() => three.host.idsOf(ROOM).includes(sampleMessage(3).messageID))
      await turns()
      assert.deepEqual(two.host.idsOf(ROOM), [sampleMessage(1).messageID])
    },
  ],
  [
    'close ends the waits of its own node in a rejection',
    async (replicators) => {
      const [one] = await cluster(replicators)
      const gate = new Gate()
      const applying = new Gate()
      one.host.beforeApply = () => {
        applying.open()
        return gate.opened
      }
      const first = one.propose(ROOM, [sampleMessage(1)])
      await applying.opened
      // Proposed while the first is being applied, so that no log can have gathered the two.
      const outcomes = Promise.allSettled([first, one.propose(ROOM, [sampleMessage(2)])])
      const closed = started(() => one.replicator.close())
      gate.open()
      await closed
      // The first may have been applied in time; the second cannot.
      assert.equal((await outcomes)[1]?.status, 'rejected')
    },
  ],
]
