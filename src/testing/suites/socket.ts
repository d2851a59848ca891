import assert from 'node:assert/strict'
import type { AcceptInfo, Socket, SocketAcceptor, SocketEvents } from '../../contracts/socket.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import type { ContractCase, Opened } from './contract-case.ts'
import { Recorder, turns } from './recorder.ts'

/** The client's end of a transport, as the suite steers it. `socketPair().client` is one. */
export interface SocketFarEnd {
  write(bytes: Uint8Array): void
  /** called with what arrives; where the transport has messages, once for each */
  onData(listener: (chunk: Uint8Array) => void): void
  /** leave in order: what was written arrives first */
  end(): void
  pauseReading(): void
  resumeReading(): void
  /** resolves when the connection is gone, whoever ended it */
  readonly closed: Promise<unknown>
}

export interface SocketContractOptions {
  /** Connect one client through the transport under test to `acceptor`, which stands for the engine. */
  open(acceptor: SocketAcceptor): MaybePromise<Opened<SocketFarEnd>>
}

/** The promises of a Socket together with what its transport owes to SocketEvents. */
export function socketContract({ open }: SocketContractOptions): ContractCase[] {
  return scenarios.map(([name, check]) => ({
    name,
    run: async () => {
      const near = new NearEnd()
      const opened = await open(near)
      const far = new FarEnd(opened.subject)
      try {
        await near.happened.until(() => near.acceptedCount === 1)
        await check(near, far)
      } finally {
        far.end.resumeReading()
        await opened.close?.()
      }
    },
  }))
}

/** The engine's place: takes one socket and writes down what its transport reports. */
class NearEnd implements SocketAcceptor, SocketEvents {
  readonly happened = new Recorder<string>()
  acceptedCount = 0
  closedCount = 0
  drainedCount = 0
  info: AcceptInfo = {}
  received: Uint8Array[] = []
  receivedBytes = 0
  onReceive: (chunk: Uint8Array) => void = () => {}
  #socket: Socket | undefined

  get socket(): Socket {
    assert.ok(this.#socket !== undefined, 'the transport has given a socket to the acceptor')
    return this.#socket
  }

  accept(socket: Socket, info: AcceptInfo = {}): SocketEvents {
    this.#socket = socket
    this.info = info
    this.acceptedCount++
    this.happened.look()
    return this
  }

  receive(chunk: Uint8Array): void {
    assert.equal(this.closedCount, 0, 'nothing arrives after closed()')
    this.received.push(Uint8Array.from(chunk))
    this.receivedBytes += chunk.length
    this.onReceive(chunk)
    this.happened.add('receive')
  }

  drained(): void {
    this.drainedCount++
    this.happened.add('drained')
  }

  closed(): void {
    this.closedCount++
    this.happened.add('closed')
  }
}

/** The client's place. */
class FarEnd {
  readonly end: SocketFarEnd
  readonly happened = new Recorder<Uint8Array>()
  receivedBytes = 0
  isClosed = false

  constructor(end: SocketFarEnd) {
    this.end = end
    end.onData((chunk) => {
      this.receivedBytes += chunk.length
      this.happened.add(Uint8Array.from(chunk))
    })
    void end.closed.then(() => {
      this.isClosed = true
      this.happened.look()
    })
  }
}

/** Bytes that differ from place to place, so that a lost, doubled or moved piece shows. */
function pattern(byteCount: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: byteCount }, (_, i) => (i * 31 + (i >> 8) * 7 + seed) & 0xff))
}

const SIZES = [1, 2, 125, 126, 127, 1000, 65_535, 65_536, 200_000]

/** Resolves when nothing that was sent is left in this process, which a transport need not announce. */
async function untilSent(socket: Socket): Promise<void> {
  for (let i = 0; i < 10_000 && socket.bufferedBytes > 0; i++) await turns(1)
  assert.equal(socket.bufferedBytes, 0, 'bufferedBytes returns to 0 when everything has left')
}

type Check = (near: NearEnd, far: FarEnd) => Promise<void>

const scenarios: readonly (readonly [name: string, check: Check])[] = [
  [
    'what is known before the first byte makes sense',
    async (near) => {
      assert.ok([undefined, 'stream', 'message'].includes(near.socket.framing))
      assert.equal(near.socket.bufferedBytes, 0)
      assert.notEqual(near.info.remoteAddress, '')
      assert.ok(['string', 'undefined'].includes(typeof near.info.remoteAddress))
    },
  ],
  [
    'what the client writes arrives whole and in order, in any cut',
    async (near, far) => {
      const written = SIZES.map(pattern)
      for (const bytes of written) far.end.write(bytes)
      const expected = Buffer.concat(written)
      await near.happened.until(() => near.receivedBytes >= expected.length)
      assert.ok(Buffer.concat(near.received).equals(expected))
    },
  ],
  [
    'what the engine sends arrives whole and in order; with messages, every send is one',
    async (near, far) => {
      const sent = SIZES.map(pattern)
      for (const bytes of sent) near.socket.send(bytes)
      const expected = Buffer.concat(sent)
      await far.happened.until(() => far.receivedBytes >= expected.length)
      assert.ok(Buffer.concat(far.happened.items).equals(expected))
      if (near.socket.framing === 'message') {
        assert.deepEqual(far.happened.items.map((chunk) => chunk.length), SIZES)
      }
      await untilSent(near.socket)
    },
  ],
  [
    'frames that are sent at once, where the socket takes them so, arrive each as one message, between those sent by themselves',
    async (near, far) => {
      const sent = SIZES.map(pattern)
      let byteCount = 0
      const ends = sent.map((frame) => (byteCount += frame.length))
      near.socket.send(pattern(7, 1))
      if (near.socket.sendFrames === undefined) for (const frame of sent) near.socket.send(frame)
      else near.socket.sendFrames(Buffer.concat(sent), ends)
      near.socket.send(pattern(9, 2))
      const expected = Buffer.concat([pattern(7, 1), ...sent, pattern(9, 2)])
      await far.happened.until(() => far.receivedBytes >= expected.length)
      assert.ok(Buffer.concat(far.happened.items).equals(expected))
      if (near.socket.framing === 'message') assert.deepEqual(far.happened.items.map((chunk) => chunk.length), [7, ...SIZES, 9])
      await untilSent(near.socket)
      near.socket.close()
      await near.happened.until(() => near.closedCount > 0)
      near.socket.sendFrames?.(pattern(3, 3), [1, 3]) // closed: nothing happens
    },
  ],
  [
    'the engine may send from within receive',
    async (near, far) => {
      near.onReceive = (chunk) => void near.socket.send(Uint8Array.from(chunk))
      const written = [pattern(10, 1), pattern(5000, 2), pattern(3, 3)]
      for (const bytes of written) far.end.write(bytes)
      await far.happened.until(() => far.receivedBytes >= 5013)
      assert.ok(Buffer.concat(far.happened.items).equals(Buffer.concat(written)))
    },
  ],
  [
    'what is sent between cork and uncork arrives like everything else',
    async (near, far) => {
      near.socket.cork?.()
      for (const seed of [1, 2, 3]) near.socket.send(pattern(100, seed))
      near.socket.uncork?.()
      near.socket.send(pattern(100, 4))
      await far.happened.until(() => far.receivedBytes >= 400)
      assert.ok(Buffer.concat(far.happened.items).equals(Buffer.concat([1, 2, 3, 4].map((seed) => pattern(100, seed)))))
    },
  ],
  [
    'close lets everything that was sent arrive first, and is reported once',
    async (near, far) => {
      const sent = pattern(300_000, 5)
      near.socket.send(sent)
      near.socket.close(1000, 'bye')
      await Promise.all([far.end.closed, near.happened.until(() => near.closedCount > 0)])
      assert.ok(Buffer.concat(far.happened.items).equals(sent))
      await turns()
      assert.equal(near.closedCount, 1)
    },
  ],
  [
    'close and destroy after close, and after the end, do nothing',
    async (near, far) => {
      near.socket.close()
      near.socket.close(1000)
      await near.happened.until(() => near.closedCount > 0)
      near.socket.close()
      near.socket.destroy?.()
      near.socket.pause?.()
      near.socket.resume?.()
      await far.end.closed
      await turns()
      assert.equal(near.closedCount, 1)
    },
  ],
  [
    'when the client leaves, what it wrote arrives first and closed comes once',
    async (near, far) => {
      far.end.write(pattern(100_000, 6))
      far.end.end()
      await near.happened.until(() => near.closedCount > 0)
      assert.ok(Buffer.concat(near.received).equals(pattern(100_000, 6)))
      near.socket.close()
      await turns()
      assert.equal(near.closedCount, 1)
      assert.equal(near.happened.items.at(-1), 'closed')
    },
  ],
  [
    'destroy ends a connection whose client does not read',
    async (near, far) => {
      if (near.socket.destroy === undefined) return
      far.end.pauseReading()
      near.socket.send(pattern(100_000, 7))
      near.socket.destroy()
      await near.happened.until(() => near.closedCount > 0)
      far.end.resumeReading()
      await far.end.closed
      assert.equal(near.closedCount, 1)
    },
  ],
  [
    'what a client does not read is in bufferedBytes; when it reads again all arrives, and drained follows a send of false',
    async (near, far) => {
      far.end.pauseReading()
      const chunk = pattern(65_536, 8)
      let sentBytes = 0
      let wasToldToWait = false
      // A network takes some megabytes into its own buffers before it makes anybody wait.
      for (let i = 0; i < 2000 && near.socket.bufferedBytes < 1_048_576; i++) {
        if (near.socket.send(chunk) === false) wasToldToWait = true
        sentBytes += chunk.length
        await turns(1)
      }
      assert.ok(near.socket.bufferedBytes >= 1_048_576, 'bytes that nobody reads are counted')
      assert.ok(near.socket.bufferedBytes <= sentBytes + 65_536, 'no more is counted than was sent, headers aside')
      assert.equal(far.isClosed, false)
      const drainedBefore = near.drainedCount
      far.end.resumeReading()
      await far.happened.until(() => far.receivedBytes >= sentBytes)
      assert.equal(far.receivedBytes, sentBytes)
      await untilSent(near.socket)
      if (wasToldToWait) await near.happened.until(() => near.drainedCount > drainedBefore)
    },
  ],
  [
    'between pause and resume nothing is received, and nothing is lost',
    async (near, far) => {
      if (near.socket.pause === undefined || near.socket.resume === undefined) return
      far.end.write(pattern(10, 1))
      await near.happened.until(() => near.receivedBytes === 10)
      near.socket.pause()
      near.socket.pause()
      for (const seed of [2, 3]) far.end.write(pattern(50_000, seed))
      await turns()
      assert.equal(near.receivedBytes, 10)
      near.socket.resume()
      await near.happened.until(() => near.receivedBytes >= 100_010)
      assert.ok(Buffer.concat(near.received).equals(Buffer.concat([pattern(10, 1), pattern(50_000, 2), pattern(50_000, 3)])))
    },
  ],
  [
    'pause from within receive stops at once',
    async (near, far) => {
      if (near.socket.pause === undefined || near.socket.resume === undefined) return
      near.onReceive = () => near.socket.pause?.()
      far.end.write(pattern(1000, 1))
      await near.happened.until(() => near.receivedBytes > 0)
      const before = near.received.length
      far.end.write(pattern(1000, 2))
      await turns()
      assert.equal(near.received.length, before)
      near.onReceive = () => {}
      near.socket.resume()
      await near.happened.until(() => near.receivedBytes >= 2000)
    },
  ],
]
