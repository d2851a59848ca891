import assert from 'node:assert/strict'
import type { Presence, PresenceEntry } from '../../contracts/presence.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { casesOf, started, type ContractCase, type ContractOptions, type Opened, type Scenario } from './contract-case.ts'
import { HOSTILE_IDS } from './samples.ts'

export interface PresenceContractOptions<O extends Opened<Presence>> extends ContractOptions<Presence, O> {
  /** Let `ms` pass for this Presence. Without it the promises about silent nodes are not checked. */
  advance?(opened: O, ms: number): MaybePromise<void>
  /** default 1000: the heartbeat interval to test with; where time is real, a short one keeps the suite short */
  readonly intervalMs?: number
}

/** The promises of a Presence. */
export function presenceContract<O extends Opened<Presence>>(options: PresenceContractOptions<O>): ContractCase[] {
  return [...casesOf(options, scenarios), ...expiryCases(options)]
}

function entry(uid: string, nodeID: number, connectionID: string, over: Partial<PresenceEntry> = {}): PresenceEntry {
  return { uid, nodeID, connectionID, deviceFlag: 0, deviceLevel: 0, ...over }
}

async function located(presence: Presence, ...uids: string[]): Promise<Record<string, readonly number[]>> {
  return Object.fromEntries([...(await presence.locate(uids))].map(([uid, nodeIDs]) => [uid, [...nodeIDs]]))
}

async function devicesOf(presence: Presence, uid: string): Promise<PresenceEntry[]> {
  const entries = (await presence.devices(uid)).map((found) => ({ ...found }))
  return entries.sort((a, b) => a.nodeID - b.nodeID || (a.connectionID < b.connectionID ? -1 : 1))
}

const scenarios: readonly Scenario<Presence>[] = [
  [
    'who is not connected is in no answer',
    async (presence) => {
      assert.deepEqual(await located(presence, 'ann', 'bob'), {})
      assert.deepEqual(await located(presence), {})
      assert.deepEqual(await presence.devices('ann'), [])
    },
  ],
  [
    'a user is on every node that holds a connection of theirs: ascending, each node once',
    async (presence) => {
      for (const one of [entry('ann', 12, 'a'), entry('ann', 3, 'a'), entry('ann', 12, 'b'), entry('bob', 3, 'b')]) {
        await presence.online(one)
      }
      assert.deepEqual(await located(presence, 'ann', 'bob', 'cleo', 'ann'), { ann: [3, 12], bob: [3] })
    },
  ],
  [
    'devices lists every connection of a user and nobody else',
    async (presence) => {
      const entries = [
        entry('ann', 1, 'a', { deviceFlag: 1, deviceLevel: 1 }),
        entry('ann', 1, 'b', { deviceFlag: 2 }),
        entry('ann', 2, 'a'),
      ]
      for (const one of [...entries, entry('bob', 2, 'b')]) await presence.online(one)
      assert.deepEqual(await devicesOf(presence, 'ann'), entries)
    },
  ],
  [
    'online twice is one connection',
    async (presence) => {
      await presence.online(entry('ann', 1, 'a'))
      await presence.online(entry('ann', 1, 'a'))
      assert.equal((await presence.devices('ann')).length, 1)
      await presence.offline(entry('ann', 1, 'a'))
      assert.deepEqual(await presence.devices('ann'), [])
      assert.deepEqual(await located(presence, 'ann'), {})
    },
  ],
  [
    'offline ends the one connection, and a node only with the last of them',
    async (presence) => {
      for (const one of [entry('ann', 1, 'a'), entry('ann', 1, 'b'), entry('ann', 2, 'a')]) await presence.online(one)
      await presence.offline(entry('ann', 1, 'a'))
      assert.deepEqual(await located(presence, 'ann'), { ann: [1, 2] })
      await presence.offline(entry('ann', 1, 'b'))
      assert.deepEqual(await located(presence, 'ann'), { ann: [2] })
      await presence.offline(entry('ann', 2, 'a'))
      assert.deepEqual(await located(presence, 'ann'), {})
    },
  ],
  [
    'offline of an unknown connection, or twice, does nothing',
    async (presence) => {
      await presence.online(entry('ann', 1, 'a'))
      for (const unknown of [entry('ann', 1, 'b'), entry('ann', 2, 'a'), entry('bob', 3, 'c')]) await presence.offline(unknown)
      assert.deepEqual(await located(presence, 'ann', 'bob'), { ann: [1] })
      await presence.offline(entry('ann', 1, 'a'))
      await presence.offline(entry('ann', 1, 'a'))
      assert.deepEqual(await located(presence, 'ann'), {})
    },
  ],
  [
    'calls that overlap end in what was called last',
    async (presence) => {
      const calls = Array.from({ length: 30 }, (_, i) =>
        started(() => (i % 2 === 0 ? presence.online(entry('ann', 1, 'a')) : presence.offline(entry('ann', 1, 'a')))),
      )
      await Promise.all([...calls, started(() => presence.online(entry('ann', 2, 'z')))])
      assert.deepEqual(await located(presence, 'ann'), { ann: [2] })
    },
  ],
  [
    'leave forgets every entry of the node and of no other',
    async (presence) => {
      for (const one of [entry('ann', 1, 'a'), entry('bob', 1, 'b'), entry('ann', 2, 'a')]) await presence.online(one)
      await presence.leave(1)
      await presence.leave(9)
      assert.deepEqual(await located(presence, 'ann', 'bob'), { ann: [2] })
      await presence.online(entry('bob', 1, 'c'))
      assert.deepEqual(await located(presence, 'bob'), { bob: [1] })
    },
  ],
  [
    'a heartbeat neither adds nor removes anybody',
    async (presence) => {
      await presence.online(entry('ann', 1, 'a'))
      await presence.heartbeat(1, 60_000)
      await presence.heartbeat(2, 60_000)
      assert.deepEqual(await located(presence, 'ann'), { ann: [1] })
    },
  ],
  [
    'uids and connection ids whatever their text are kept apart',
    async (presence) => {
      for (const [i, id] of HOSTILE_IDS.entries()) await presence.online(entry(id, i + 1, id))
      const found = await presence.locate(HOSTILE_IDS)
      assert.deepEqual(HOSTILE_IDS.map((id) => found.get(id)), HOSTILE_IDS.map((_, i) => [i + 1]))
      for (const [i, id] of HOSTILE_IDS.entries()) {
        assert.deepEqual(await devicesOf(presence, id), [entry(id, i + 1, id)])
        await presence.offline(entry(id, i + 1, id))
      }
      assert.equal((await presence.locate(HOSTILE_IDS)).size, 0)
    },
  ],
  [
    'many uids are located in one question',
    async (presence) => {
      const uids = Array.from({ length: 2000 }, (_, i) => `u${i}`)
      await Promise.all(uids.map((uid, i) => started(() => presence.online(entry(uid, i % 3, `c${i}`)))))
      const found = await presence.locate([...uids, 'nobody'])
      assert.equal(found.size, 2000)
      assert.deepEqual(uids.map((uid) => found.get(uid)), uids.map((_, i) => [i % 3]))
    },
  ],
]

function expiryCases<O extends Opened<Presence>>(options: PresenceContractOptions<O>): ContractCase[] {
  const { open, advance, intervalMs = 1000 } = options
  if (advance === undefined) return []
  type Check = (presence: Presence, pass: (intervals: number) => Promise<void>) => Promise<void>
  const checks: readonly (readonly [string, Check])[] = [
    [
      'a node that sends heartbeats stays, however long',
      async (presence, pass) => {
        await presence.heartbeat(1, intervalMs)
        await presence.online(entry('ann', 1, 'a'))
        for (let i = 0; i < 5; i++) {
          await pass(1)
          await presence.heartbeat(1, intervalMs)
        }
        assert.deepEqual(await located(presence, 'ann'), { ann: [1] })
      },
    ],
    [
      'the entries of a node that has missed three heartbeats are gone from every answer, those of others stay',
      async (presence, pass) => {
        for (const nodeID of [1, 2]) {
          await presence.heartbeat(nodeID, intervalMs)
          await presence.online(entry('ann', nodeID, 'a'))
        }
        await pass(1.5)
        await presence.heartbeat(2, intervalMs)
        assert.deepEqual(await located(presence, 'ann'), { ann: [1, 2] })
        await pass(2)
        assert.deepEqual(await located(presence, 'ann'), { ann: [2] })
        assert.deepEqual(await devicesOf(presence, 'ann'), [entry('ann', 2, 'a')])
      },
    ],
    [
      'what a silent node had announced does not come back with its next heartbeat, only with being announced again',
      async (presence, pass) => {
        await presence.heartbeat(1, intervalMs)
        await presence.online(entry('ann', 1, 'a'))
        await presence.online(entry('bob', 1, 'b'))
        await pass(3.5)
        await presence.heartbeat(1, intervalMs)
        assert.deepEqual(await located(presence, 'ann', 'bob'), {})
        await presence.online(entry('ann', 1, 'a'))
        assert.deepEqual(await located(presence, 'ann', 'bob'), { ann: [1] })
      },
    ],
  ]
  return checks.map(([name, check]) => ({
    name,
    run: async () => {
      const opened = await open()
      try {
        await check(opened.subject, async (intervals) => await advance(opened, intervals * intervalMs))
      } finally {
        await opened.close?.()
      }
    },
  }))
}
