/** Bytes that grow while they are written. Numbers: bytes big-endian, or variable, 7 bits a byte, lowest first. */
export class ByteWriter {
  #bytes: Buffer
  #length = 0

  constructor(sizeHint = 256) {
    this.#bytes = Buffer.allocUnsafe(sizeHint)
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
  }

  /** A whole number from 0 to 2^53 - 1. */
  number(value: number): void {
    this.#reserve(8)
    let rest = value
    while (rest > 127) {
      this.#bytes[this.#length++] = (rest % 128) | 128
      rest = Math.floor(rest / 128)
    }
    this.#bytes[this.#length++] = rest
  }

  double(value: number): void {
    this.#reserve(8)
    this.#length = this.#bytes.writeDoubleBE(value, this.#length)
  }

  bytes(value: Uint8Array): void {
    this.number(value.length)
    this.raw(value)
  }

  text(value: string): void {
    const byteCount = Buffer.byteLength(value)
    this.number(byteCount)
    this.#reserve(byteCount)
    this.#length += this.#bytes.write(value, this.#length)
  }

  raw(value: Uint8Array): void {
    this.#reserve(value.length)
    this.#bytes.set(value, this.#length)
    this.#length += value.length
  }

  /** What has been written; the writer is not used any more. */
  end(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#length + count))
    this.#bytes.copy(grown, 0, 0, this.#length)
    this.#bytes = grown
  }
}

/** Bytes that do not say what they should. Never leaves the decoders. */
export class UnreadableBytes extends Error {}

/** Reads what `ByteWriter` has written, from somebody who may be hostile. @throws UnreadableBytes from every method */
export class ByteReader {
  readonly #bytes: Buffer
  #offset: number

  constructor(bytes: Buffer, offset = 0) {
    this.#bytes = bytes
    this.#offset = offset
  }

  get isAtEnd(): boolean {
    return this.#offset === this.#bytes.length
  }

  byte(): number {
    return this.#bytes[this.#take(1)]!
  }

  number(): number {
    let value = 0
    let factor = 1
    for (let count = 0; count < 8; count++) {
      const next = this.byte()
      value += (next & 127) * factor
      if (!Number.isSafeInteger(value)) break
      if (next < 128) return value
      factor *= 128
    }
    throw new UnreadableBytes('a number is too large')
  }

  /** How many things follow, each of at least one byte: a lie about it costs no memory. */
  count(): number {
    const count = this.number()
    if (count > this.#bytes.length - this.#offset) throw new UnreadableBytes('a count is larger than what follows')
    return count
  }

  double(): number {
    return this.#bytes.readDoubleBE(this.#take(8))
  }

  /** A view. */
  bytes(): Buffer {
    return this.raw(this.number())
  }

  text(): string {
    return this.bytes().toString('utf8')
  }

  raw(count: number): Buffer {
    const start = this.#take(count)
    return this.#bytes.subarray(start, start + count)
  }

  #take(count: number): number {
    const start = this.#offset
    if (count > this.#bytes.length - start) throw new UnreadableBytes('cut short')
    this.#offset = start + count
    return start
  }
}

/** What `read` returns; undefined for bytes that are not what it expects. */
export function readable<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof UnreadableBytes) return undefined
    throw error
  }
}
