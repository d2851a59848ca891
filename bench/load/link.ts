/** A client's socket as the load generator needs it: units are found by their length alone, and writes leave together. */
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Transport } from '../wire.ts'

/** @returns the length of the unit that starts at `at`, header included; 0 while its header has not arrived whole */
export type MeasureUnit = (bytes: Buffer, at: number) => number

export interface LinkOptions {
  readonly port: number
  readonly transport: Transport
  readonly measureUnit: MeasureUnit
  /** WebSocket: default `/`, and messages of bytes */
  readonly path?: string
  readonly isText?: boolean
  /** What goes wrong while reading: the run has failed. */
  readonly fail: (error: Error) => void
}

const NOTHING = Buffer.alloc(0)
/**
 * A client masks what it sends on a WebSocket. Four equal bytes that are not zero cost the server what any mask costs it, and
 * let a frame that is masked already be changed in one place.
 */
const MASK = 0x5a

export class Link {
  /** The unit is bytes[from .. to); it stays as it is for the length of the call only. */
  onUnit: (bytes: Buffer, from: number, to: number) => void = () => undefined
  /** Before and after the units of one chunk. */
  onChunk: () => void = () => undefined
  afterChunk: () => void = () => undefined
  /** Where `reserve` has made room. */
  out: Buffer = Buffer.allocUnsafe(4096)
  /** XOR every byte of a unit with it. */
  readonly mask: number
  readonly #socket: Socket
  readonly #options: LinkOptions
  readonly #isWS: boolean
  #used = 0
  #rest: Buffer = NOTHING
  #isClosing = false

  /** @returns a link that is connected and, on a WebSocket, upgraded */
  static async open(options: LinkOptions): Promise<Link> {
    const socket = connect({ port: options.port, host: '127.0.0.1', noDelay: true })
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    const early = options.transport === 'ws' ? await upgrade(socket, options.path ?? '/') : NOTHING
    return new Link(socket, options, early)
  }

  private constructor(socket: Socket, options: LinkOptions, early: Buffer) {
    this.#socket = socket
    this.#options = options
    this.#isWS = options.transport === 'ws'
    this.mask = this.#isWS ? MASK : 0
    const guarded = (chunk: Buffer): void => {
      try {
        this.#read(chunk)
      } catch (error) {
        options.fail(error as Error)
      }
    }
    socket.on('data', guarded)
    socket.on('error', (error) => this.#ended(error))
    socket.on('close', () => this.#ended(new Error('the server has closed a connection')))
    if (early.length > 0) setImmediate(() => guarded(early))
  }

  /** A whole unit as it travels: on a WebSocket with its header in front, and masked. */
  pack(unit: Uint8Array): Buffer {
    if (!this.#isWS) return Buffer.from(unit)
    const headBytes = this.headBytes(unit.length)
    const packed = Buffer.alloc(headBytes + unit.length)
    packed[0] = this.#options.isText === true ? 0x81 : 0x82
    if (unit.length < 126) {
      packed[1] = 0x80 | unit.length
    } else {
      packed[1] = 0x80 | 126
      packed.writeUInt16BE(unit.length, 2)
    }
    packed.fill(MASK, headBytes - 4, headBytes)
    for (let index = 0; index < unit.length; index++) packed[headBytes + index] = unit[index]! ^ MASK
    return packed
  }

  /** What `pack` puts in front of a unit of this length. */
  headBytes(unitBytes: number): number {
    return this.#isWS ? (unitBytes < 126 ? 6 : 8) : 0
  }

  /** Room for something that goes out with the next `flush`. @returns where it starts in `out` */
  reserve(byteCount: number): number {
    const at = this.#used
    if (at + byteCount > this.out.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.out.length * 2, at + byteCount))
      this.out.copy(larger, 0, 0, at)
      this.out = larger
    }
    this.#used += byteCount
    return at
  }

  write(packed: Uint8Array): void {
    const at = this.reserve(packed.length)
    this.out.set(packed, at)
  }

  flush(): void {
    if (this.#used === 0) return
    // A copy, because what the kernel does not take at once has to stay as it is.
    this.#socket.write(Buffer.from(this.out.subarray(0, this.#used)))
    this.#used = 0
  }

  close(): void {
    this.#isClosing = true
    this.#socket.destroy()
  }

  /** Stop telling what becomes of it: the process ends, and the sockets with it. */
  forget(): void {
    this.#isClosing = true
  }

  #ended(error: Error): void {
    if (this.#isClosing) return
    this.#isClosing = true
    this.#options.fail(error)
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    this.onChunk()
    const end = this.#isWS ? this.#scanMessages(bytes) : this.#scanStream(bytes)
    this.#rest = end === bytes.length ? NOTHING : bytes.subarray(end)
    this.afterChunk()
  }

  #scanStream(bytes: Buffer): number {
    const { measureUnit } = this.#options
    let at = 0
    while (at < bytes.length) {
      const length = measureUnit(bytes, at)
      if (length === 0 || at + length > bytes.length) break
      this.onUnit(bytes, at, at + length)
      at += length
    }
    return at
  }

  /** Messages of a server: never masked, and here never cut into several frames. */
  #scanMessages(bytes: Buffer): number {
    let at = 0
    while (at + 2 <= bytes.length) {
      let from = at + 2
      let length = bytes[at + 1]!
      if (length === 126) {
        if (at + 4 > bytes.length) break
        length = bytes.readUInt16BE(at + 2)
        from = at + 4
      } else if (length > 126) {
        throw new Error('a WebSocket frame is masked or longer than any message of a benchmark')
      }
      if (from + length > bytes.length) break
      const opcode = bytes[at]! & 0x0f
      if (opcode === 8) throw new Error(`the server has closed a WebSocket: ${length >= 2 ? bytes.readUInt16BE(from) : 'no code'}`)
      if (opcode === 1 || opcode === 2) this.onUnit(bytes, from, from + length)
      at = from + length
    }
    return at
  }
}

async function upgrade(socket: Socket, path: string): Promise<Buffer> {
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`,
  )
  return new Promise((resolve, reject) => {
    let answer: Buffer = NOTHING
    const onData = (chunk: Buffer): void => {
      answer = Buffer.concat([answer, chunk])
      const end = answer.indexOf('\r\n\r\n')
      if (end === -1) return
      socket.off('data', onData).off('close', onClose)
      if (answer.toString('latin1', 0, 12) === 'HTTP/1.1 101') resolve(answer.subarray(end + 4))
      else reject(new Error(`no WebSocket: ${answer.toString('latin1', 0, 100)}`))
    }
    const onClose = (): void => reject(new Error('the server has closed a connection before the upgrade'))
    socket.on('data', onData).once('close', onClose)
  })
}

/** Frames of wkproto and of MQTT: a byte, then the remaining length, 7 bits a byte. */
export function measureVarint(bytes: Buffer, at: number): number {
  const second = bytes[at + 1]
  if (second === undefined) return 0
  if (second < 0x80) return 2 + second
  let length = second & 0x7f
  for (let index = 2, shift = 7; index < 5; index++, shift += 7) {
    const byte = bytes[at + index]
    if (byte === undefined) return 0
    length |= (byte & 0x7f) << shift
    if (byte < 0x80) return index + 1 + length
  }
  throw new Error('a remaining length of more than four bytes')
}
