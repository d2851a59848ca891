/**
 * What the engine needs of a transport: anything that carries bytes both ways. The host implements it (or uses
 * `imengine/ws`, `imengine/net`) and hands it to `engine.accept`, which gives back where to put what arrives.
 */
export interface Socket {
  /**
   * Write one chunk. The engine never changes `bytes` afterwards, and the socket may keep them until they are sent; but the
   * same bytes may go to other sockets, too, so it must neither change nor transfer them.
   * @returns false when the transport wants no more for now: the engine then holds its frames back until `drained()`.
   * May throw: the connection is closed then, nothing else happens.
   */
  send(bytes: Uint8Array): boolean | void
  /**
   * 'message': several frames at once, one behind the other; `ends` says where each of them ends. Each is a message of its own.
   * Used where it is there, for a transport that can write them faster together; the rules of `send` hold.
   */
  sendFrames?(frames: Uint8Array, ends: readonly number[]): void
  /** Close after what was sent has left. `code` and `reason` are WebSocket's, for transports that have them. */
  close(code?: number, reason?: string): void
  /** Close at once and throw away what waits; `close` is used where this is missing. */
  destroy?(): void
  /** Bytes accepted by `send` that have not left this process. Counts towards `maxOutboundBytes`. */
  readonly bufferedBytes: number
  /**
   * 'stream' (default): frames may be glued into one `send`. 'message': every `send` is exactly one frame, as clients on
   * WebSocket need it (wkproto, transport).
   */
  readonly framing?: 'stream' | 'message'
  /** Stop and go on delivering `receive`: called when the engine has more work of this client than it may hold. */
  pause?(): void
  resume?(): void
  /** Around the frames of one flush, so that a transport with messages can still write them in one system call. */
  cork?(): void
  uncork?(): void
}

/** What the transport tells the engine about one socket, as methods of this object. Calls after `closed()` do nothing. None of them throws. */
export interface SocketEvents {
  /** Bytes that arrived, in any cut. The engine copies what it keeps; the buffer may be reused after the call. */
  receive(chunk: Uint8Array): void
  /** The transport can take more after a `send` that returned false. */
  drained(): void
  /** The socket is gone, whoever closed it. */
  closed(): void
}

/** What is known about a socket before its first byte. */
export interface AcceptInfo {
  /** for limits per address and for the token verifier; without it the per-address limit does not apply */
  readonly remoteAddress?: string
}

/** The one method of the engine that an attach helper needs. */
export interface SocketAcceptor {
  /**
   * Take over one socket. Never throws: a socket that cannot be served (engine not running, limit reached) is closed and
   * the returned object ignores everything.
   */
  accept(socket: Socket, info?: AcceptInfo): SocketEvents
}
