import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { allowAnyToken, IMEngine, type CommitDiagnostic, type Logger, type PushDiagnostic, type SendDiagnostic } from 'imengine'
import { registerMetrics } from 'imengine/metrics'
import { attachNetServer } from 'imengine/net'
import { pino } from 'pino'
import { Registry } from 'prom-client'

// #region serve
/** For Prometheus and the load balancer: on a port that only they can reach. */
function operations(engine: IMEngine, registry: Registry) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.url === '/metrics') {
      response.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics())
    } else if (request.url === '/healthz') {
      const { ready, reasons } = engine.ready()
      response.writeHead(ready ? 200 : 503, { 'content-type': 'application/json' }).end(JSON.stringify({ ready, reasons }))
    } else {
      response.writeHead(404).end()
    }
  }
}
// #endregion

// #region spans
/** Spans of messages: one for each SEND, each batch that is stored, and each push. Whoever exports them is set up elsewhere. */
function traceMessages(): () => void {
  const tracer = trace.getTracer('imengine')
  const onSend = (told: unknown): void => {
    const { channelID, channelType, messageID, reason, payloadBytes, startedAtMs, endedAtMs } = told as SendDiagnostic
    const attributes = { 'im.channel': `${channelType}:${channelID}`, 'im.message_id': messageID, 'im.reason': reason, 'im.payload_bytes': payloadBytes }
    const span = tracer.startSpan('im send', { kind: SpanKind.SERVER, startTime: startedAtMs, attributes })
    if (reason !== 'Success') span.setStatus({ code: SpanStatusCode.ERROR, message: reason })
    span.end(endedAtMs)
  }
  const onCommit = (told: unknown): void => {
    const { channelID, channelType, messages, startedAtMs, endedAtMs } = told as CommitDiagnostic
    const attributes = { 'im.channel': `${channelType}:${channelID}`, 'im.message_ids': messages.map(({ messageID }) => messageID) }
    tracer.startSpan('im commit', { startTime: startedAtMs, attributes }).end(endedAtMs)
  }
  const onPush = (told: unknown): void => {
    const { channelID, channelType, messageIDs, connectionCount, startedAtMs, endedAtMs } = told as PushDiagnostic
    const attributes = { 'im.channel': `${channelType}:${channelID}`, 'im.message_ids': [...messageIDs], 'im.connections': connectionCount }
    tracer.startSpan('im push', { kind: SpanKind.PRODUCER, startTime: startedAtMs, attributes }).end(endedAtMs)
  }
  subscribe('imengine:send', onSend)
  subscribe('imengine:commit', onCommit)
  subscribe('imengine:push', onPush)
  return () => {
    unsubscribe('imengine:send', onSend)
    unsubscribe('imengine:commit', onCommit)
    unsubscribe('imengine:push', onPush)
  }
}
// #endregion

export async function start(wantedPort = 0, logger: Logger = pino()) {
  // #region wire
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), logger }) // pino(), for one
  const registry = new Registry()
  registerMetrics(registry, engine)
  const stopTracing = traceMessages()
  await engine.start()
  // #endregion

  const server = createServer()
  attachNetServer(engine, server)
  const handle = operations(engine, registry)
  const operationsServer = createHttpServer((request, response) => void handle(request, response))
  for (const [listener, port] of [[server, wantedPort], [operationsServer, 0]] as const) {
    await new Promise<void>((resolve) => listener.listen(port, '127.0.0.1', resolve))
  }
  const close = async (): Promise<void> => {
    stopTracing()
    server.close()
    operationsServer.close()
    await engine.close()
  }
  return { engine, port: (server.address() as AddressInfo).port, operationsPort: (operationsServer.address() as AddressInfo).port, close }
}
