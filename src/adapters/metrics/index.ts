/**
 * The engine's metrics for Prometheus, in a registry of the package `prom-client`. Read when somebody asks the registry, and
 * never in between; an engine that is closed goes on being read until it is removed.
 */
import type { Metric, Registry } from 'prom-client'
import type { EngineMetrics } from '../../contracts/metrics.ts'
import { badOption } from '../../errors.ts'
import { DEFINITIONS, type Definition, type Sample } from './definitions.ts'

/** What is read: an `IMEngine`, or something that has its metrics. */
export interface MetricsSource {
  readonly nodeID: number
  metrics(): EngineMetrics
}

/** The engines of one registry. */
export interface RegisteredMetrics {
  /** One more engine, of another node. @throws TypeError when there is one of its `nodeID` */
  add(engine: MetricsSource): void
  /** It is not read any more. */
  remove(engine: MetricsSource): void
}

/**
 * Put the metrics of an engine into a registry, as `imengine_*`, each with the label `node`. Several engines of one process
 * share a registry by `add`.
 * @throws Error when the registry has them already; TypeError for what is no registry or no engine
 */
export function registerMetrics(registry: Pick<Registry, 'registerMetric'>, engine: MetricsSource): RegisteredMetrics {
  if (typeof registry?.registerMetric !== 'function') badOption('registry', 'a Registry of prom-client', registry)
  const engines = new Engines()
  engines.add(engine)
  for (const definition of DEFINITIONS) {
    // Not made of prom-client's classes: those count by themselves, and a histogram of theirs cannot be given what has been counted.
    // What a registry asks a metric for is these few members.
    registry.registerMetric(new SnapshotMetric(definition, engines) as unknown as Metric)
  }
  return engines
}

class Engines implements RegisteredMetrics {
  readonly #byNode = new Map<string, MetricsSource>()
  #snapshots: ReadonlyMap<string, EngineMetrics> | undefined

  add(engine: MetricsSource): void {
    if (typeof engine?.metrics !== 'function') badOption('engine', 'an IMEngine', engine)
    const node = String(engine.nodeID)
    if (this.#byNode.has(node)) badOption('engine.nodeID', 'another one for each engine of a registry', engine.nodeID)
    this.#byNode.set(node, engine)
  }

  remove(engine: MetricsSource): void {
    const node = String(engine.nodeID)
    if (this.#byNode.get(node) === engine) this.#byNode.delete(node)
  }

  /** One snapshot for all metrics: a registry asks for them in one go. */
  snapshots(): ReadonlyMap<string, EngineMetrics> {
    if (this.#snapshots === undefined) {
      this.#snapshots = new Map([...this.#byNode].map(([node, engine]) => [node, engine.metrics()]))
      queueMicrotask(() => (this.#snapshots = undefined))
    }
    return this.#snapshots
  }
}

/** A metric as a registry asks for it. */
class SnapshotMetric {
  /** a registry that speaks OpenMetrics takes `_total` off it */
  name: string
  readonly help: string
  readonly type: Definition['type']
  readonly labelNames: readonly string[]
  readonly aggregator = 'sum'
  readonly #definition: Definition
  readonly #engines: Engines

  constructor(definition: Definition, engines: Engines) {
    this.#definition = definition
    this.#engines = engines
    this.name = definition.name
    this.help = definition.help
    this.type = definition.type
    this.labelNames = ['node', ...definition.labelNames]
  }

  get(): Promise<{ readonly name: string; readonly help: string; readonly type: string; readonly aggregator: string; readonly values: readonly Sample[] }> {
    const { name, help, type, aggregator } = this
    const values = [...this.#engines.snapshots()].flatMap(([node, metrics]) =>
      this.#definition.samples(metrics).map((sample) => ({ ...sample, labels: { node, ...sample.labels } })),
    )
    return Promise.resolve({ name, help, type, aggregator, values })
  }

  /** What an engine has counted it has counted. */
  reset(): void {}
}
