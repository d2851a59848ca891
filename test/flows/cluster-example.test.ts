import { spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ChannelType, DeviceFlag, ReasonCode } from 'imengine'
import type { TestClient } from 'imengine/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runChaos } from '../../examples/cluster/chaos.ts'
import { Cluster } from '../../examples/cluster/cluster.ts'
import { natsServerVersion } from '../../examples/cluster/nats-servers.ts'
import { SERVERS_AGREE } from '../adapters/nats/servers.ts'
import { webSocketClient } from '../docs/real-client.ts'

const PROGRAM = fileURLToPath(new URL('../../examples/cluster/start.ts', import.meta.url))
const HAS_NATS = natsServerVersion() !== undefined
// eslint-disable-next-line no-console -- a skipped test must be heard
if (!HAS_NATS) console.warn('SKIPPED: the test of examples/cluster needs a nats-server: apt-get install nats-server')

it('the cluster, without a nats-server, says what to install', () => {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', PROGRAM, '--chaos', '1'], { env: { ...process.env, PATH: '' }, encoding: 'utf8' })
  expect(stderr).toContain('apt-get install nats-server')
  expect(stderr).not.toContain(' at ') // no stack
  expect(status).toBe(1)
})

describe.skipIf(!HAS_NATS)('the chat on three nodes', { timeout: 180_000 }, () => {
  let folder: string
  let cluster: Cluster
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'imengine-cluster-'))
    cluster = await Cluster.start({ dataDir: folder, ports: [0, 0, 0], offline: 'push' })
  }, 120_000)
  afterAll(async () => {
    await cluster?.close()
    await rm(folder, { recursive: true, force: true })
  }, 60_000)

  const url = (node: number, path: string): string => `http://127.0.0.1:${cluster.ports[node]}${path}`

  async function login(node: number, name: string, { token, cookie }: { token?: string; cookie?: string } = {}) {
    const headers = { 'content-type': 'application/json', ...(cookie === undefined ? {} : { cookie }) }
    const response = await fetch(url(node, '/api/login'), { method: 'POST', headers, body: JSON.stringify({ name, token }) })
    const session = (await response.json()) as { uid: string; token: string }
    return { status: response.status, cookie: response.headers.get('set-cookie')?.split(';')[0] ?? '', ...session }
  }

  async function connected(node: number, { uid, token }: { uid: string; token: string }): Promise<TestClient> {
    const client = await webSocketClient(cluster.ports[node]!, '/ws')
    expect((await client.connect({ uid, token, deviceFlag: DeviceFlag.Web })).reasonCode).toBe(ReasonCode.Success)
    return client
  }

  const text = (content: string): string => JSON.stringify({ type: 1, content })

  it('is one chat: a page, names and messages on every node', async () => {
    for (const node of [0, 1, 2]) expect((await fetch(url(node, '/'))).status).toBe(200)
    const ann = await login(0, 'Ann')
    const bob = await login(2, 'Bob')
    const [annHere, bobThere] = [await connected(0, ann), await connected(2, bob)]
    // Node 1 lets her write to Bob as soon as it has heard of him.
    await expect.poll(async () => (await annHere.send({ channelID: 'bob', channelType: ChannelType.Person, payload: text('hello') })).reasonCode, { timeout: 20_000 }).toBe(ReasonCode.Success)
    expect(await bobThere.nextRecv()).toMatchObject({ fromUID: 'ann', messageSeq: 1, text: text('hello') })
    await expect.poll(async () => await (await fetch(url(1, '/api/people'), { headers: { authorization: `Bearer ${ann.token}` } })).json(), { timeout: 20_000 }).toMatchObject({
      people: [{ uid: 'ann', online: true }, { uid: 'bob', online: true }],
    })
    annHere.end()
    bobThere.end()
  })

  it('gives a name to one of two who take it on two nodes at once, and to its owner on every node', async () => {
    const claims = await Promise.all([login(0, 'Cat'), login(1, 'Cat')])
    expect(claims.map(({ status }) => status).sort()).toEqual([200, 409])
    const cat = claims.find(({ status }) => status === 200)!
    await expect.poll(async () => (await login(2, 'Cat')).status, { timeout: 20_000 }).toBe(409)
    for (const node of [0, 1, 2]) {
      expect(await login(node, 'cat', { token: cat.token })).toMatchObject({ status: 200, uid: 'cat', token: cat.token })
      expect(await login(node, 'Cat', { cookie: cat.cookie })).toMatchObject({ status: 200, uid: 'cat', token: cat.token })
    }
  })

  it('is there on the other nodes for whoever loses theirs, with what was said', async () => {
    const [dan, eve] = [await login(0, 'Dan'), await login(1, 'Eve')]
    const there = await connected(1, eve)
    await expect.poll(async () => (await there.send({ channelID: 'dan', channelType: ChannelType.Person, payload: text('one') })).reasonCode, { timeout: 20_000 }).toBe(ReasonCode.Success)
    const here = await connected(0, dan)
    await cluster.killNode(0)
    await here.closed
    expect((await there.send({ channelID: 'dan', channelType: ChannelType.Person, payload: text('two') })).messageSeq).toBe(2)
    expect((await login(2, 'Dan', { token: dan.token })).status).toBe(200)
    const again = await connected(2, dan)
    const headers = { authorization: `Bearer ${dan.token}` }
    const conversations = async (): Promise<unknown> => (await fetch(url(2, '/api/conversations'), { headers })).json()
    await expect.poll(conversations, { timeout: 20_000 }).toMatchObject({
      conversations: expect.arrayContaining([expect.objectContaining({ channelID: 'eve', lastSeq: 2 })]) as unknown,
    })
    await cluster.startNode(0)
    again.end()
    there.end()
  })

  it.skipIf(!SERVERS_AGREE && process.env['CLUSTER_FULL'] !== '1')('loses nothing in a round of chaos', async () => {
    const steps: string[] = []
    const result = await runChaos(cluster, { rounds: 1, say: (step) => steps.push(step) })
    expect(steps).toHaveLength(3)
    expect(result.lostCount).toBe(0)
    expect(result.acknowledgedCount).toBe(result.sentCount)
    expect(result.receivedCount).toBe(result.sentCount)
    expect(result.acknowledgedCount).toBeGreaterThanOrEqual(160)
  })
})
