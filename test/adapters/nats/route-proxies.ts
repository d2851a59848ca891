import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net'

/** One way from one server to another, as a pair of sockets. */
interface Link {
  readonly from: number
  readonly to: number
  readonly ends: readonly [Socket, Socket]
}

/**
 * What lies between the servers of a cluster: a TCP proxy for each pair and direction. One that is cut swallows what it is given
 * and ends nothing, as a network does that loses everything; healed, it ends what it has lost bytes of, and carries what is new.
 */
export class RouteProxies {
  readonly #servers: Server[] = []
  readonly #links = new Set<Link>()
  readonly #cut = new Set<number>()

  /** For `routeVia` of the servers. */
  readonly via = async (from: number, to: number, port: number): Promise<number> => {
    const server = createServer((near) => {
      const far = connect({ port, host: '127.0.0.1' })
      const link: Link = { from, to, ends: [near, far] }
      this.#links.add(link)
      for (const [source, sink] of [[near, far], [far, near]] as const) {
        source.on('data', (bytes) => {
          if (!this.#isCut(link) && !sink.destroyed) sink.write(bytes)
        })
        source.on('error', () => undefined)
        source.on('close', () => {
          this.#links.delete(link)
          sink.destroy()
        })
      }
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    this.#servers.push(server)
    return (server.address() as AddressInfo).port
  }

  /** Part one server from all others. */
  cut(index: number): void {
    this.#cut.add(index)
  }

  heal(index: number): void {
    const lost = [...this.#links].filter((link) => this.#isCut(link))
    this.#cut.delete(index)
    for (const { ends } of lost) for (const end of ends) end.destroy()
  }

  close(): void {
    for (const server of this.#servers.splice(0)) server.close()
    for (const { ends } of this.#links) for (const end of ends) end.destroy()
  }

  #isCut({ from, to }: Link): boolean {
    return this.#cut.has(from) || this.#cut.has(to)
  }
}
