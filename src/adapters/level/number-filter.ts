import { READ_AHEAD, type Database } from './database.ts'
import { MAX_NUMBER_KEY_BYTES, Tag, writeNumberKey, type NumberText } from './keys.ts'

/** With 10 bits a number and so many probes, of numbers that were never used two in a hundred are looked up all the same. */
const PROBE_COUNT = 6

/** All probes of a number fall within 16 words, which a processor fetches at once. */
const BLOCK_WORDS = 16

export interface NumberFilterOptions {
  /** memory for it, rounded down to a power of two */
  readonly maxBytes: number
}

/**
 * A Bloom filter over all numbers in the database: most messages have a number that was never used, and what it says no to
 * need not be looked up, which costs more than to store the message. It says yes to everything until it has read the keys
 * that were there at the start, which happens beside other work. With more numbers than it has room for it says yes more
 * often, which costs time and nothing else.
 */
export class NumberFilter {
  readonly #bits: Uint32Array
  readonly #blockMask: number
  readonly #key = Buffer.allocUnsafe(MAX_NUMBER_KEY_BYTES)
  /** the database's own 32-bit number, so that nobody can choose client numbers that all look used */
  seed = 0
  #isComplete = false

  constructor({ maxBytes }: NumberFilterOptions) {
    const wordCount = 2 ** Math.floor(Math.log2(Math.max(4 * BLOCK_WORDS, maxBytes) / 4))
    this.#bits = new Uint32Array(wordCount)
    this.#blockMask = wordCount / BLOCK_WORDS - 1
  }

  /** It knows every number there is. */
  get isComplete(): boolean {
    return this.#isComplete
  }

  /** The hash of a number in a channel, never 0: what the other methods take. */
  hashOf(channelNo: number, number: NumberText): number {
    return this.#hash(this.#key, writeNumberKey(this.#key, channelNo, number))
  }

  /** Of the key, which is so long. */
  #hash(key: Buffer, length: number): number {
    let hash = this.seed
    let index = 1
    for (; index + 4 <= length; index += 4) {
      const word = key[index]! | (key[index + 1]! << 8) | (key[index + 2]! << 16) | (key[index + 3]! << 24)
      hash = Math.imul(hash ^ Math.imul(word, 0xcc9e_2d51), 0x1b87_3593)
      hash ^= hash >>> 15
    }
    for (; index < length; index++) hash = Math.imul(hash ^ key[index]!, 0x0100_0193)
    hash = Math.imul(hash ^ (hash >>> 16) ^ length, 0x85eb_ca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
    return hash ^ (hash >>> 16) || 1
  }

  /** False only for the hash of a key that is surely not in the database and in nothing that `add` was called for. */
  mayHave(hash: number): boolean {
    if (!this.#isComplete) return true
    const block = (hash & this.#blockMask) * BLOCK_WORDS
    let probes = Math.imul(hash, 0x9e37_79b1)
    for (let probe = 0; probe < PROBE_COUNT; probe++) {
      const bit = probes >>> 23 // 512 bits a block
      if ((this.#bits[block + (bit >>> 5)]! & (1 << (bit & 31))) === 0) return false
      probes = Math.imul(probes, 0x9e37_79b1) + 0x7f4a_7c15
    }
    return true
  }

  add(hash: number): void {
    const block = (hash & this.#blockMask) * BLOCK_WORDS
    let probes = Math.imul(hash, 0x9e37_79b1)
    for (let probe = 0; probe < PROBE_COUNT; probe++) {
      const bit = probes >>> 23
      this.#bits[block + (bit >>> 5)]! |= 1 << (bit & 31)
      probes = Math.imul(probes, 0x9e37_79b1) + 0x7f4a_7c15
    }
  }

  /**
   * Read what is there now, which another process may have written. Until it is done nothing is wrong, only slower;
   * `isStopped` ends it early.
   * @throws what the database throws; it then goes on saying yes
   */
  async fill(database: Database, isStopped: () => boolean): Promise<void> {
    this.#isComplete = false
    for await (const stride of database.keyStrides({ gte: Buffer.from([Tag.Number]), lt: Buffer.from([Tag.Number + 1]) })) {
      if (isStopped()) return
      for (const key of stride) this.add(this.#hash(key, key.length))
    }
    for await (const stride of database.strides({ gte: Buffer.from([Tag.Numbers]), lt: Buffer.from([Tag.Numbers + 1]), ...READ_AHEAD })) {
      if (isStopped()) return
      for (const [, list] of stride) for (let offset = 0; offset + 4 <= list.length; offset += 4) this.add(list.readInt32BE(offset))
    }
    this.#isComplete = !isStopped()
  }
}
