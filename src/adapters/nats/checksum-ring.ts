import { crc32 } from 'node:zlib'

/** How many positions back a node can say what it has read. */
export const RING_COUNT = 4_096
const SLOT_BYTES = 4

/** What a node has read at the last positions of one stream, as the checksums that its entries carry. 16 KiB. */
export class ChecksumRing {
  readonly #bytes = Buffer.alloc(RING_COUNT * SLOT_BYTES)
  #first = 1
  #last = 0

  /** The oldest position that is held; beyond `last` when there is none. */
  get first(): number {
    return this.#first
  }

  get last(): number {
    return this.#last
  }

  add(seq: number, checksum: number): void {
    if (seq !== this.#last + 1) this.#first = seq // it goes on elsewhere, and what lies between was never read
    if (seq - this.#first >= RING_COUNT) this.#first = seq - RING_COUNT + 1
    this.#last = seq
    this.#bytes.writeUInt32BE(checksum, (seq % RING_COUNT) * SLOT_BYTES)
  }

  /** The checksum at a position that is held. */
  at(seq: number): number {
    return this.#bytes.readUInt32BE((seq % RING_COUNT) * SLOT_BYTES)
  }

  /** CRC-32 of the checksums of a range that is held, big-endian and in their order. */
  digest(from: number, to: number): number {
    const start = (from % RING_COUNT) * SLOT_BYTES
    const end = ((to % RING_COUNT) + 1) * SLOT_BYTES
    if (start < end) return crc32(this.#bytes.subarray(start, end))
    return crc32(this.#bytes.subarray(0, end), crc32(this.#bytes.subarray(start)))
  }
}
