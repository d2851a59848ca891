/** The measured side, in a process of its own: one server, given as JSON, until it is told to close. */
import { readFileSync } from 'node:fs'
import { serveAedes, serveMosquitto, serveSocketIO } from './servers/brokers.ts'
import { serveCodec } from './servers/codec.ts'
import { serveEngine } from './servers/engine.ts'
import type { Running } from './servers/listen.ts'
import { serveBare, serveRelay } from './servers/relay.ts'
import type { FromServer, Sample, ServerSpec, ToServer } from './wire.ts'

const spec = JSON.parse(process.argv[2]!) as ServerSpec | { readonly kind: 'bare'; readonly transport: ServerSpec['transport'] }
const running = await serve()
const tell = (message: FromServer): void => void process.send!(message)
process.on('message', (message: ToServer) => {
  if (message.type === 'sample') {
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

/** Of this process, or of another one that does the work. */
function sample(pid: number | undefined): Sample {
  if (pid === undefined) {
    const { user, system } = process.cpuUsage()
    const { rss, heapUsed, external } = process.memoryUsage()
    return { cpuMs: (user + system) / 1000, rssBytes: rss, heapUsedBytes: heapUsed, externalBytes: external }
  }
  // Fields 14 and 15, in hundredths of a second, behind a name that may hold anything; field 24 counts pages.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
  return { cpuMs: (Number(fields[11]) + Number(fields[12])) * 10, rssBytes: Number(fields[21]) * 4096, heapUsedBytes: 0, externalBytes: 0 }
}
