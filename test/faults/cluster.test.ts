import { afterAll, describe, expect, it } from 'vitest'
import { NATS_SERVER, SERVERS_AGREE } from '../adapters/nats/servers.ts'
import { Cluster, NODE_COUNT } from './cluster/cluster.ts'
import { SCENARIOS, randomMix, type Scenario } from './cluster/scenarios.ts'
import { Stage } from './cluster/stage.ts'

/**
 * `CLUSTER_FULL=1 npx vitest run test/faults/cluster.test.ts` runs every scenario and ten mixes; `CLUSTER_SEEDS=7,8` runs those mixes,
 * `-t` picks a scenario. By default there are those that differ most, and no mix: what a test does is the same each time.
 */
const isFull = process.env['CLUSTER_FULL'] === '1'
const seeds = process.env['CLUSTER_SEEDS']?.split(',').map(Number) ?? Array.from({ length: isFull ? 10 : 0 }, (_, i) => i + 1)
const LIMIT_MS = 180_000

let cluster: Cluster | undefined
afterAll(() => cluster?.close())

async function play(scenario: Scenario, seed: number): Promise<void> {
  cluster ??= await Cluster.start(3)
  let stage: Stage | undefined
  try {
    stage = await Stage.open(cluster, { name: scenario.name, seed })
    await scenario.play(stage)
    await stage.leave()
    if (!stage.isSpent) return
    const spent = cluster
    cluster = undefined
    await spent.close()
  } catch (error) {
    await stage?.leave()
    stage?.note(`the nodes: ${JSON.stringify(await cluster?.statuses().catch(String))}`)
    // What it has left behind is of no use to the next one.
    const broken = cluster
    cluster = undefined
    await broken?.close()
    throw error instanceof Error && stage !== undefined && !error.message.includes('schedule:') ? new Error(stage.report(error.message), { cause: error }) : error
  }
}

describe.skipIf(NATS_SERVER === undefined)('three nodes, three servers and clients that go from node to node lose, double and turn round nothing', () => {
  for (const scenario of SCENARIOS) {
    it.skipIf(!isFull && (scenario.isDefault !== true || (scenario.failsServers === true && !SERVERS_AGREE)))(scenario.name, () => play(scenario, 1), LIMIT_MS)
  }
  for (const seed of seeds) {
    it(`a mix of everything, CLUSTER_SEEDS=${seed}`, () => play(randomMix(seed), seed), LIMIT_MS)
  }
  it('has all its nodes back in the end', async () => {
    if (cluster === undefined) return
    await cluster.settled()
    expect(cluster.ports().filter((port) => port !== undefined)).toHaveLength(NODE_COUNT)
  })
})
