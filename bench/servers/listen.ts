import type { AddressInfo, Server } from 'node:net'

/** A server that is up. */
export interface Running {
  readonly port: number
  /** the process whose CPU time counts, when it is another one */
  readonly pid?: number
  /** engine: clients that are logged in */
  readonly connectionCount?: () => number
  close(): Promise<void>
}

/** On any free port of loopback, with room for a storm of connections. @returns the port */
export async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve)
  })
  return (server.address() as AddressInfo).port
}
