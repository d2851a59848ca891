/** The measured side, in a process of its own: one server, given as JSON, until it is told to close. */
import { serveAedes, serveMosquitto, serveSocketIO } from './servers/brokers.ts'
import { serveCodec } from './servers/codec.ts'
import { serveEngine } from './servers/engine.ts'
import type { Running } from './servers/listen.ts'
import { sampleOf } from './sample-process.ts'
import { serveBare, serveRelay } from './servers/relay.ts'
import type { FromServer, Inspection, Sample, ServerSpec, ToServer } from './wire.ts'

const spec = JSON.parse(process.argv[2]!) as ServerSpec | { readonly kind: 'bare'; readonly transport: ServerSpec['transport'] }
const running = await serve()
const tell = (message: FromServer): void => void process.send!(message)
process.on('message', (message: ToServer) => {
  if (message.type === 'inspect') {
    tell({ type: 'inspection', ...inspect() })
  } else if (message.type === 'sample') {
    if (message.collectGarbage === true) for (let round = 0; round < 3; round++) gc!()
    tell({ type: 'sample', ...sample(running.pid) })
  } else {
    void running.close().then(() => process.exit(0))
  }
})
process.on('disconnect', () => void running.close().finally(() => process.exit(0)))
process.on('SIGINT', () => undefined) // the parent ends us, and what we have in a temporary folder
tell({ type: 'listening', port: running.port })

function serve(): Promise<Running> {
  switch (spec.kind) {
    case 'engine':
      return serveEngine(spec)
    case 'relay':
      return serveRelay(spec.transport)
    case 'codec':
      return serveCodec()
    case 'bare':
      return serveBare(spec.transport)
    case 'aedes':
      return serveAedes()
    case 'mosquitto':
      return serveMosquitto()
    case 'socket.io':
      return serveSocketIO()
  }
}

function inspect(): Inspection {
  for (let round = 0; round < 3; round++) gc!()
  const handles: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) handles[kind] = (handles[kind] ?? 0) + 1
  const { heapUsed, rss, external } = process.memoryUsage()
  return { heapUsedBytes: heapUsed, rssBytes: rss, externalBytes: external, handles, connectionCount: running.connectionCount?.() ?? 0 }
}

/** Of this process, or of another one that does the work. */
function sample(pid: number | undefined): Sample {
  if (pid === undefined) {
    const { user, system } = process.cpuUsage()
    const { rss, heapUsed, external } = process.memoryUsage()
    return { cpuMs: (user + system) / 1000, rssBytes: rss, heapUsedBytes: heapUsed, externalBytes: external }
  }
  return sampleOf(pid)
}
