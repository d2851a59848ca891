import { rm } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { bundle, runChild } from './bundle.ts'
import { DEFECTS } from './defects.ts'
import type { Planted } from './node.ts'
import { planOf, type Action, type Plan } from './plan.ts'
import { part, report, shrink } from './shrink.ts'
import { run } from './world.ts'

const PART_COUNT = 8
const SEEDS_PER_PART = 25

/** What has to have happened in all runs together, or they have shown nothing. */
const MEANT: readonly string[] = [
  'connect', 'send', 'resend', 'burst', 'ping', 'leave', 'garbage', 'stall', 'say', 'member', 'crash', 'close', 'disk', 'net', 'hang', 'jump', 'revise',
  'noPersist', 'command', 'refused', 'rewritten', 'edited', 'recalled',
  'stored', 'IM_STORE_UNAVAILABLE', 'IM_PEER_UNREACHABLE', 'IM_REPLICATION_TIMEOUT', 'IM_PRESENCE_UNAVAILABLE', 'IM_HANDLER_FAILED', 'IM_WEBHOOK_FAILED',
]

describe('a simulated world', { timeout: 120_000 }, () => {
  const seen = new Set<string>()

  for (let index = 0; index < PART_COUNT; index++) {
    const first = 1 + index * SEEDS_PER_PART
    test(`keeps every promise with seeds ${first} to ${first + SEEDS_PER_PART - 1}`, async () => {
      for (let seed = first; seed < first + SEEDS_PER_PART; seed++) {
        const plan = planOf(seed)
        const { violations, counts } = await run(plan)
        for (const name of Object.keys(counts)) seen.add(name)
        if (violations.length > 0) expect.fail(report(plan, await shrink(plan)))
      }
    })
  }

  test('has met everything that it is made of', () => {
    expect(MEANT.filter((name) => !seen.has(name))).toEqual([])
  })

  test('has the same history again, in this process and in another', async () => {
    const seeds = [3, 4, 5, 6, 7, 8]
    expect(new Set(seeds.map((seed) => planOf(seed).setup.topology)).size).toBe(3)
    const hashes: string[] = []
    for (const seed of seeds) hashes.push((await run(planOf(seed))).hash)
    for (const [index, seed] of seeds.entries()) expect((await run(planOf(seed))).hash, `seed ${seed}`).toBe(hashes[index])
    const program = await bundle('again')
    try {
      expect((await runChild(program, { firstSeed: seeds[0]!, seedCount: seeds.length })).hashes).toEqual(hashes)
    } finally {
      await rm(program)
    }
    expect(new Set(hashes).size).toBe(seeds.length)
  })
})

describe('a broken promise', { timeout: 120_000 }, () => {
  const planted = DEFECTS.find(({ found }) => found[0] === 'P1')!.planted!

  test('is told with the shortest history that breaks it, and with how to see it again', async () => {
    const plan = planOf(1, { topology: 'single' })
    const shrunk = await shrink(plan, planted())
    expect(shrunk.result.violations[0]?.promise).toBe('P1')
    expect(shrunk.kept.length).toBeLessThan(5)
    for (const left of shrunk.kept) {
      const { violations } = await run(part(plan, shrunk.kept.filter((index) => index !== left)), planted())
      expect(violations[0]?.promise).not.toBe('P1')
    }
    const text = report(plan, shrunk, ' --topology single')
    expect(text).toContain(`npm run simulate -- --seed 1 --topology single --keep ${shrunk.kept.join(',')}`)
    expect((await run(part(plan, shrunk.kept), planted())).hash).toBe(shrunk.result.hash)
  })

  test('is found in a life that follows one whose store has failed', async () => {
    const { seed, setup } = planOf(1, { topology: 'single' })
    const [device] = setup.devices
    const ann = { ...device!, uid: 'ann', deviceID: 'ann-0', isEncrypted: false, ackProbability: 1 }
    const devices = [ann, { ...ann, uid: 'bob', deviceID: 'bob-0' }]
    const target = { channelID: 'club', channelType: 2 } as const
    const connects = (atMs: number): Action[] => devices.map((_, index) => ({ atMs, kind: 'connect', device: index, node: 0 }))
    const actions: Action[] = [
      ...connects(100),
      { atMs: 500, kind: 'disk', node: 0, mostMs: 20, failing: 1, isForWrites: true, forMs: 1_000 },
      { atMs: 600, kind: 'send', device: 0, target, no: 'lost', size: 1 },
      { atMs: 2_000, kind: 'crash', node: 0, forMs: 500 },
      ...connects(3_000),
      { atMs: 3_500, kind: 'send', device: 0, target, no: 'kept', size: 1 },
      { atMs: 8_000, kind: 'close', node: 0, forMs: 500 },
    ]
    const plan: Plan = { seed, setup: { ...setup, disk: 'sync', hasWebhook: false, hasPlugin: false, devices }, actions }
    const sound = await run(plan)
    expect([sound.violations, sound.counts['IM_STORE_UNAVAILABLE']]).toEqual([[], 1])
    const neverFlushes: Planted = { storage: (storage) => ({ ...storage, cursors: { ...storage.cursors, flush: () => undefined } }) }
    expect((await run(plan, neverFlushes)).violations.map(({ promise }) => promise)).toEqual(['P8'])
  })

  test('is none without the defect', async () => {
    expect((await run(planOf(1, { topology: 'single' }))).violations).toEqual([])
  })
})
