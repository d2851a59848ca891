import type { EngineMetrics, QueueMetrics } from '../../contracts/metrics.ts'
import type { LatencyHistogram } from '../../model/latency.ts'

export type Labels = Readonly<Record<string, string>>

/** One line of the text. A histogram's lines have names of their own. */
export interface Sample {
  readonly labels: Labels
  readonly value: number
  readonly metricName?: string
}

/** One metric: what it is called, and where its values are in a snapshot. */
export interface Definition {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  /** besides `node` */
  readonly labelNames: readonly string[]
  readonly samples: (metrics: EngineMetrics) => readonly Sample[]
}

type Value = (metrics: EngineMetrics) => number

function counter(name: string, help: string, value: Value): Definition {
  return { name, type: 'counter', help, labelNames: [], samples: (metrics) => [{ labels: {}, value: value(metrics) }] }
}

/** A counter or gauge with one line for each entry of a record. */
function byLabel(type: 'counter' | 'gauge', name: string, help: string, label: string, values: (metrics: EngineMetrics) => Readonly<Record<string, number>>): Definition {
  const samples = (metrics: EngineMetrics): Sample[] => Object.entries(values(metrics)).map(([text, value]) => ({ labels: { [label]: text }, value }))
  return { name, type, help, labelNames: [label], samples }
}

function byQueue(type: 'counter' | 'gauge', name: string, help: string, value: (queue: QueueMetrics) => number | undefined): Definition {
  const samples = ({ queues }: EngineMetrics): Sample[] =>
    Object.entries(queues).flatMap(([queue, metrics]) => {
      const number = value(metrics)
      return number === undefined ? [] : [{ labels: { queue }, value: number }]
    })
  return { name, type, help, labelNames: ['queue'], samples }
}

/** In seconds, and each bucket with all that the smaller ones have, as Prometheus wants them. */
function histogramSamples(name: string, labels: Labels, { counts, count, sumMs }: LatencyHistogram, boundsMs: readonly number[]): Sample[] {
  let sum = 0
  const buckets = boundsMs.map((boundMs, index): Sample => {
    sum += counts[index]!
    return { metricName: `${name}_bucket`, labels: { ...labels, le: String(boundMs / 1_000) }, value: sum }
  })
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count },
    { metricName: `${name}_sum`, labels, value: sumMs / 1_000 },
    { metricName: `${name}_count`, labels, value: count },
  ]
}

function histogram(name: string, help: string, latency: (metrics: EngineMetrics) => LatencyHistogram): Definition {
  const samples = (metrics: EngineMetrics): Sample[] => histogramSamples(name, {}, latency(metrics), metrics.latency.boundsMs)
  return { name, type: 'histogram', help, labelNames: [], samples }
}

const STEP_DURATION = 'imengine_step_duration_seconds'

/** Every metric, in the order of the table in docs/observability.md. */
export const DEFINITIONS: readonly Definition[] = [
  byLabel('gauge', 'imengine_connections', 'Sockets by state', 'state', ({ connections }) => connections.states),
  counter('imengine_connections_opened_total', 'Connections that were let in', ({ connections }) => connections.openedCount),
  {
    name: 'imengine_connections_refused_total',
    type: 'counter',
    help: 'Sockets that never became a connection',
    labelNames: ['cause', 'reason'],
    samples: ({ connections }) => connections.refused.map(({ cause, reason, count }) => ({ labels: { cause, reason }, value: count })),
  },
  byLabel('counter', 'imengine_connections_closed_total', 'Connections that have ended', 'cause', ({ connections }) => connections.closed),
  byLabel('counter', 'imengine_slow_consumers_total', 'Clients that did not read', 'action', ({ connections }) => ({ ...connections.slow })),
  byLabel('counter', 'imengine_frames_in_total', 'Frames that clients have sent', 'type', ({ framesIn }) => framesIn),
  byLabel('counter', 'imengine_sendacks_total', 'SENDs that were answered', 'reason', ({ sendacks }) => sendacks),
  counter('imengine_messages_stored_total', 'Messages stored on this node', ({ messages }) => messages.storedCount),
  counter('imengine_messages_repeated_total', 'Messages recognised as repeats', ({ messages }) => messages.repeatedCount),
  counter('imengine_messages_pushed_total', 'RECVs to connections of this node', ({ messages }) => messages.pushedCount),
  counter('imengine_messages_redelivered_total', 'RECVs sent again because no RECVACK came', ({ messages }) => messages.redeliveredCount),
  counter('imengine_messages_replayed_total', 'RECVs of messages that were missed', ({ messages }) => messages.replayedCount),
  counter('imengine_messages_undelivered_total', 'Messages stored and not delivered to somebody', ({ messages }) => messages.undeliveredCount),
  counter('imengine_replays_total', 'Logins that something was looked up for', ({ replayCount }) => replayCount),
  counter('imengine_webhook_before_send_total', 'Calls of beforeSend', ({ webhook }) => webhook.beforeSendCount),
  counter('imengine_webhook_delivered_total', 'Events that notify has taken', ({ webhook }) => webhook.deliveredCount),
  counter('imengine_webhook_failed_calls_total', 'Calls of notify that failed', ({ webhook }) => webhook.failedCallCount),
  counter('imengine_webhook_given_up_total', 'Events that are not told again', ({ webhook }) => webhook.givenUpCount),
  counter('imengine_peer_pushed_total', 'Messages that other nodes have confirmed', ({ peers }) => peers.pushedCount),
  counter('imengine_peer_failed_pushes_total', 'Pushes to other nodes that failed', ({ peers }) => peers.failedPushCount),
  counter('imengine_peer_given_up_total', 'Messages for other nodes that were given up', ({ peers }) => peers.givenUpCount),
  counter('imengine_peer_received_total', 'Messages that other nodes have pushed here', ({ peers }) => peers.receivedCount),
  counter('imengine_peer_kicks_total', 'Logins and kicks told to other nodes', ({ peers }) => peers.kickCount),
  counter('imengine_peer_failed_kicks_total', 'Of these, those that did not reach all of them', ({ peers }) => peers.failedKickCount),
  byLabel('counter', 'imengine_errors_total', 'Failures told by the fact error', 'code', ({ errors }) => ({ ...errors })),
  byQueue('gauge', 'imengine_queue_depth', 'What waits or is being handled', ({ depth }) => depth),
  byQueue('gauge', 'imengine_queue_capacity', 'The depth at which more is turned away', ({ capacity }) => capacity),
  byQueue('counter', 'imengine_queue_rejected_total', 'What was turned away at the bound', ({ rejectedCount }) => rejectedCount),
  byQueue('gauge', 'imengine_queue_oldest_seconds', 'How long the oldest has been there', ({ oldestMs }) => oldestMs / 1_000),
  histogram('imengine_send_to_sendack_seconds', 'From the arrival of a SEND to its SENDACK', ({ latency }) => latency.sendToSendack),
  histogram('imengine_send_to_recv_seconds', 'From the arrival of a SEND to its RECVs on this node', ({ latency }) => latency.sendToRecv),
  {
    name: STEP_DURATION,
    type: 'histogram',
    help: 'Single steps, of one event in stepTimesEvery',
    labelNames: ['event', 'step'],
    samples: ({ latency: { steps, boundsMs } }) =>
      steps.flatMap(({ event, step, latency }) => (latency.count === 0 ? [] : histogramSamples(STEP_DURATION, { event, step }, latency, boundsMs))),
  },
]
