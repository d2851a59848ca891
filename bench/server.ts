/** The measured side, in a process of its own: an engine, or a relay that does the least a relay can do. */
import { createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { allowAnyToken, IMEngine } from 'imengine'
import { attachNetServer } from 'imengine/net'
import { RELAY_ACK_BYTES, RELAY_MESSAGE_BYTES, type FromServer, type Job } from './wire.ts'

const kind = process.argv[2] as Job['kind']
const server = createServer({ noDelay: true })
if (kind === 'relay') serveRelay(server)
else await serveEngine(server)
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
process.on('SIGINT', () => process.exit(0))
tell({ port: (server.address() as AddressInfo).port })

let cpu = process.cpuUsage()
process.on('message', (message) => {
  const { user, system } = process.cpuUsage(cpu)
  if (message === 'cpu') tell({ cpuMs: (user + system) / 1000 })
  cpu = process.cpuUsage()
})

function tell(message: FromServer): void {
  process.send?.(message)
}

async function serveEngine(server: Server): Promise<void> {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), plaintext: 'allow' })
  await engine.start()
  attachNetServer(engine, server)
}

/**
 * Sockets in pairs by the order they come: what one sends goes to the other, and an acknowledgement comes back. Parses
 * nothing, keeps nothing, and writes to each socket once per turn: the ceiling for anything that does more.
 */
function serveRelay(server: Server): void {
  const ack = Buffer.alloc(RELAY_ACK_BYTES)
  let single: Peer | undefined
  const dirty = new Set<Peer>()
  const flush = (): void => {
    for (const peer of dirty) {
      peer.socket.write(peer.out.length === 1 ? peer.out[0]! : Buffer.concat(peer.out))
      peer.out = []
    }
    dirty.clear()
  }
  const queue = (peer: Peer, bytes: Buffer): void => {
    peer.out.push(bytes)
    if (dirty.size === 0) setImmediate(flush)
    dirty.add(peer)
  }
  server.on('connection', (socket: Socket) => {
    const peer: Peer = { socket, out: [], rest: 0, other: undefined }
    if (single === undefined) {
      single = peer
    } else {
      peer.other = single
      single.other = peer
      single = undefined
    }
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      if (peer.other === undefined) return
      queue(peer.other, chunk)
      const bytes = peer.rest + chunk.length
      peer.rest = bytes % RELAY_MESSAGE_BYTES
      const count = (bytes - peer.rest) / RELAY_MESSAGE_BYTES
      if (count > 0) queue(peer, count === 1 ? ack : Buffer.alloc(count * RELAY_ACK_BYTES))
    })
  })
}

interface Peer {
  readonly socket: Socket
  out: Buffer[]
  /** bytes of a message that has not arrived whole */
  rest: number
  other: Peer | undefined
}
