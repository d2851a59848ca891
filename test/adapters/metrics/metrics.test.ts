import { memoryStorage } from 'imengine'
import { registerMetrics } from 'imengine/metrics'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { page, tableRows } from '../../docs/markdown.ts'
import { deferred, stage, storageWith, TEAM } from '../../support.ts'

const text = (payload: string) => ({ ...TEAM, payload })

/** The lines of one metric, without HELP and TYPE. */
function linesOf(rendered: string, name: string): string[] {
  return rendered.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
}

describe('registerMetrics', () => {
  test('renders what has happened, as Prometheus reads it', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      nodeID: 7,
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
      limits: { stepTimesEvery: 1 },
    })
    const registry = new Registry()
    registerMetrics(registry, engine)
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const sent = ann.send(text('one'))
    await clock.advance(30)
    held.resolve()
    await sent
    await bob.nextRecv()
    await ann.send({ ...text('two'), channelID: 'nowhere' })
    await bob.ping()
    const rendered = await registry.metrics()
    expect(rendered).toContain('# HELP imengine_connections Sockets by state\n# TYPE imengine_connections gauge\n')
    expect(linesOf(rendered, 'imengine_connections')).toEqual([
      'imengine_connections{node="7",state="new"} 0', 'imengine_connections{node="7",state="authenticating"} 0',
      'imengine_connections{node="7",state="open"} 2', 'imengine_connections{node="7",state="closing"} 0',
    ])
    expect(linesOf(rendered, 'imengine_connections_opened_total')).toEqual(['imengine_connections_opened_total{node="7"} 2'])
    expect(linesOf(rendered, 'imengine_sendacks_total')).toEqual([
      'imengine_sendacks_total{node="7",reason="Success"} 1', 'imengine_sendacks_total{node="7",reason="ChannelNotExist"} 1',
    ])
    expect(rendered).toContain('imengine_frames_in_total{node="7",type="SEND"} 2\n')
    expect(rendered).toContain('imengine_messages_stored_total{node="7"} 1\n')
    expect(rendered).toContain('imengine_queue_capacity{node="7",queue="channel"} 200000\n')
    expect(rendered).not.toContain('imengine_queue_capacity{node="7",queue="send"}')
    expect(linesOf(rendered, 'imengine_send_to_recv_seconds_bucket')).toEqual(
      ['0.0005', '0.001', '0.0025', '0.005', '0.01', '0.025', '0.05', '0.1', '0.25', '0.5', '1', '2.5', '5', '10', '+Inf'].map(
        (bound, index) => `imengine_send_to_recv_seconds_bucket{node="7",le="${bound}"} ${index < 6 ? 0 : 1}`,
      ),
    )
    expect(linesOf(rendered, 'imengine_send_to_recv_seconds_sum')).toEqual(['imengine_send_to_recv_seconds_sum{node="7"} 0.03'])
    expect(linesOf(rendered, 'imengine_send_to_recv_seconds_count')).toEqual(['imengine_send_to_recv_seconds_count{node="7"} 1'])
    expect(rendered).toContain('imengine_step_duration_seconds_sum{node="7",event="EventChannelDistribute",step="store"} 0.03\n')
  })

  test('tells engines of one process apart by the label node, until one is removed', async () => {
    const one = await stage({ nodeID: 1 })
    const two = await stage({ nodeID: 2 })
    const registry = new Registry()
    const registered = registerMetrics(registry, one.engine)
    registered.add(two.engine)
    await two.connect('ann')
    const opened = async () => linesOf(await registry.metrics(), 'imengine_connections_opened_total')
    expect(await opened()).toEqual(['imengine_connections_opened_total{node="1"} 0', 'imengine_connections_opened_total{node="2"} 1'])
    registered.remove(one.engine)
    expect(await opened()).toEqual(['imengine_connections_opened_total{node="2"} 1'])
  })

  test('takes one snapshot for all metrics, and another one the next time', async () => {
    const { engine } = await stage()
    let askedCount = 0
    const registry = new Registry()
    registerMetrics(registry, { nodeID: 1, metrics: () => (askedCount++, engine.metrics()) })
    await registry.metrics()
    expect(askedCount).toBe(1)
    await registry.getMetricsAsJSON()
    expect(askedCount).toBe(2)
  })

  test('stands beside other metrics, with labels that all of them have, and in OpenMetrics', async () => {
    const { engine } = await stage()
    const registry = new Registry()
    registry.setDefaultLabels({ app: 'chat' })
    registerMetrics(registry, engine)
    expect(await registry.metrics()).toContain('imengine_connections_opened_total{node="1",app="chat"} 0')
    const openMetrics = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
    openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
    registerMetrics(openMetrics, engine)
    expect(await openMetrics.metrics()).toContain('# TYPE imengine_connections_opened counter\nimengine_connections_opened_total{node="1"} 0')
  })

  test('refuses what is no registry, no engine, and a second engine of the same node', async () => {
    const { engine } = await stage()
    expect(() => registerMetrics({} as Registry, engine)).toThrow(new TypeError('imengine: registry must be a Registry of prom-client, got a Object'))
    expect(() => registerMetrics(new Registry(), {} as typeof engine)).toThrow('imengine: engine must be an IMEngine')
    const registry = new Registry()
    const registered = registerMetrics(registry, engine)
    expect(() => registered.add({ nodeID: 1, metrics: () => engine.metrics() })).toThrow('imengine: engine.nodeID must be another one')
    expect(() => registerMetrics(registry, engine)).toThrow('already been registered')
  })

  test('docs/observability.md lists every metric with its type, its labels and what it means, and no other', async () => {
    const { engine } = await stage()
    const registry = new Registry()
    registerMetrics(registry, engine)
    const rows = tableRows(page('docs/observability.md'), ['metric', 'type', 'labels', 'meaning'])
    const metrics = registry.getMetricsAsArray() as unknown as { name: string; type: string; labelNames: string[]; help: string }[]
    expect(rows).toEqual(metrics.map(({ name, type, labelNames, help }) => [name, type, labelNames.join(' '), help]))
  })
})
