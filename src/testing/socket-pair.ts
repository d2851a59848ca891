import type { Socket, SocketEvents } from '../contracts/socket.ts'

export interface SocketPairOptions {
  /** 'stream' (default) as TCP, 'message' as WebSocket; the pair itself never cuts or glues chunks */
  readonly framing?: 'stream' | 'message'
  /**
   * 'deferred' (default): bytes and events arrive in a microtask, as a real transport never calls back from within a call.
   * 'sync': they arrive before `write` or `send` returns, except from within another delivery, which is finished first.
   */
  readonly delivery?: 'deferred' | 'sync'
  /** default 65 536: `send` returns false while more than this waits for a client that does not read */
  readonly highWaterBytes?: number
}

/** How a pair ended. `code` and `reason` are what the server gave to `close`. */
export interface SocketEnd {
  readonly by: 'server' | 'client'
  readonly code?: number
  readonly reason?: string
}

/** The end that a test holds. */
export interface SocketPairClient {
  /** Send bytes to the server; they are copied. Does nothing once closed. */
  write(bytes: Uint8Array): void
  /** Leave in order: what was written arrives first. */
  end(): void
  /** Vanish: what has not arrived yet, in either direction, is lost. */
  destroy(): void
  /** Stop taking what the server sends, as a client that hangs: it stays in the server's `bufferedBytes`. */
  pauseReading(): void
  resumeReading(): void
  /** Called with every chunk, one for each `send` of the server. What came before the first listener is in `chunks`. */
  onData(listener: (chunk: Uint8Array) => void): void
  /** everything that has been read, as it was cut by the server */
  readonly chunks: readonly Uint8Array[]
  /** `chunks` in one piece */
  readonly received: Uint8Array
  /** resolves when the pair is closed, whoever closed it; never rejects */
  readonly closed: Promise<SocketEnd>
  /** undefined while the pair is open */
  readonly socketEnd: SocketEnd | undefined
}

/** Two ends of a connection in memory: `server` goes to `engine.accept`, what that gives back to `attach`. */
export interface SocketPair {
  readonly server: Socket
  readonly client: SocketPairClient
  /** Say where what the client sends is to go. What it has sent before waits until then. */
  attach(connection: SocketEvents): void
  /** everything the server has sent, read by the client or not */
  readonly sentChunks: readonly Uint8Array[]
  /** the server has asked for nothing more with `pause` */
  readonly serverPaused: boolean
}

/**
 * A transport without a network, strict where a real one may be: a chunk given to `receive` is overwritten after the call,
 * because the buffer may be reused; a chunk given to `send` is kept, not copied, because the engine must not change it.
 */
export function socketPair(options: SocketPairOptions = {}): SocketPair {
  return new MemorySocketPair(options)
}

class MemorySocketPair implements SocketPair {
  readonly server: Socket
  readonly client: SocketPairClient
  readonly sentChunks: Uint8Array[] = []
  serverPaused = false

  readonly #highWaterBytes: number
  readonly #sync: boolean
  readonly #chunks: Uint8Array[] = []
  readonly #listeners: ((chunk: Uint8Array) => void)[] = []
  #connection: SocketEvents | undefined
  #toClient: Uint8Array[] = []
  #toServer: Uint8Array[] = []
  #bufferedBytes = 0
  #clientReads = true
  #corkDepth = 0
  #owesDrained = false
  /** set when one side wants to close: takes effect when what that side sent has arrived */
  #ending: SocketEnd | undefined
  #end: SocketEnd | undefined
  #resolveClosed: (end: SocketEnd) => void = () => {}
  #owesClosed = false
  #scheduled = false
  #moving = false

  constructor({ framing = 'stream', delivery = 'deferred', highWaterBytes = 65_536 }: SocketPairOptions) {
    this.#highWaterBytes = highWaterBytes
    this.#sync = delivery === 'sync'
    this.server = this.#makeServer(framing)
    this.client = this.#makeClient()
  }

  attach(connection: SocketEvents): void {
    this.#connection = connection
    this.#schedule()
  }

  #makeServer(framing: 'stream' | 'message'): Socket {
    const bufferedBytes = (): number => this.#bufferedBytes
    return {
      framing,
      get bufferedBytes() {
        return bufferedBytes()
      },
      send: (bytes) => this.#send(bytes),
      close: (code, reason) => {
        const given = { ...(code !== undefined && { code }), ...(reason !== undefined && { reason }) }
        this.#endAfterSending({ by: 'server', ...given })
      },
      destroy: () => this.#finish({ by: 'server' }),
      pause: () => {
        this.serverPaused = true
      },
      resume: () => {
        this.serverPaused = false
        this.#schedule()
      },
      cork: () => {
        this.#corkDepth++
      },
      uncork: () => {
        this.#corkDepth--
        this.#schedule()
      },
    }
  }

  #makeClient(): SocketPairClient {
    const chunks = this.#chunks
    const socketEnd = (): SocketEnd | undefined => this.#end
    const setReading = (reads: boolean): void => {
      this.#clientReads = reads
      this.#schedule()
    }
    return {
      write: (bytes) => {
        if (this.#end !== undefined || this.#ending?.by === 'client') return
        this.#toServer.push(Uint8Array.from(bytes))
        this.#schedule()
      },
      end: () => this.#endAfterSending({ by: 'client' }),
      destroy: () => this.#finish({ by: 'client' }),
      pauseReading: () => setReading(false),
      resumeReading: () => setReading(true),
      onData: (listener) => void this.#listeners.push(listener),
      chunks,
      get received() {
        return Uint8Array.from(Buffer.concat(chunks))
      },
      closed: new Promise((resolve) => {
        this.#resolveClosed = resolve
      }),
      get socketEnd() {
        return socketEnd()
      },
    }
  }

  #send(bytes: Uint8Array): boolean {
    if (this.#end !== undefined || this.#ending?.by === 'server') return false
    this.sentChunks.push(bytes)
    this.#toClient.push(bytes)
    this.#bufferedBytes += bytes.length
    this.#schedule()
    if (this.#bufferedBytes > this.#highWaterBytes) this.#owesDrained = true
    return !this.#owesDrained
  }

  #endAfterSending(end: SocketEnd): void {
    this.#ending ??= end
    this.#schedule()
  }

  #finish(end: SocketEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#toClient = []
    this.#toServer = []
    this.#bufferedBytes = 0
    this.#owesDrained = false
    this.#owesClosed = true
    this.#resolveClosed(end)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#sync) {
      this.#moveAll()
    } else if (!this.#scheduled) {
      this.#scheduled = true
      queueMicrotask(() => {
        this.#scheduled = false
        this.#moveAll()
      })
    }
  }

  #moveAll(): void {
    if (this.#moving) return
    this.#moving = true
    try {
      while (this.#moveOne());
    } finally {
      this.#moving = false
    }
  }

  /** Do the next thing that can happen on this pair. @returns false when there is none */
  #moveOne(): boolean {
    const connection = this.#connection
    if (this.#clientReads && this.#corkDepth === 0) {
      const chunk = this.#toClient.shift()
      if (chunk !== undefined) return this.#read(chunk)
    }
    if (connection !== undefined && !this.serverPaused) {
      const chunk = this.#toServer.shift()
      if (chunk !== undefined) {
        connection.receive(chunk)
        chunk.fill(0xdd)
        return true
      }
    }
    if (connection !== undefined && this.#owesDrained && this.#toClient.length === 0) {
      this.#owesDrained = false
      connection.drained()
      return true
    }
    if (connection !== undefined && this.#owesClosed) {
      this.#owesClosed = false
      connection.closed()
      return true
    }
    if (this.#ending === undefined || this.#end !== undefined) return false
    const waiting = this.#ending.by === 'server' ? this.#toClient : this.#toServer
    if (waiting.length > 0) return false
    this.#finish(this.#ending)
    return true
  }

  #read(chunk: Uint8Array): true {
    this.#bufferedBytes -= chunk.length
    this.#chunks.push(chunk)
    for (const listener of this.#listeners) listener(chunk)
    return true
  }
}
