/**
 * The payload encryption of wkproto 10 in one call each way: AES-128-CBC with PKCS#7, base64, and MD5 for the msgKey.
 *
 * AssemblyScript: `npm run build:wasm` compiles it into `../seal-module.ts`. Everything is a constant address or a local; there
 * is no heap, and nothing is imported. The caller fills `SECRET`, `SIGNED`, `PLAIN` and `MSG_KEY`, whose sizes it respects.
 *
 * No address and no branch depends on a key or a plaintext: where AES is usually done by tables in memory, here the tables
 * are of 16 bytes and looked up within a register (`swizzle`). The inversion in GF(256) is taken apart into look-ups
 * in GF(16), which is due to Mike Hamburg ("Accelerating AES with Vector Permute Instructions", CHES 2009); `buildTables`
 * derives the tables from the two fields.
 */

const BLOCK: usize = 16

export const MAX_PLAIN_BYTES: usize = 4096
export const MAX_SIGNED_BYTES: usize = 12288

/** in: 16 bytes of key, 16 bytes of IV */
export const SECRET = memory.data(32, 16)
/** out of `seal` and `sign`, in for `open`: 32 characters */
export const MSG_KEY = memory.data(32, 16)
/** in: plaintext, of which nothing is left when the call returns */
export const PLAIN = memory.data(4096 + 32, 16)
/** in and out: what is signed, fields first; behind them the payload as it travels, or, after `open`, the plaintext */
export const SIGNED = memory.data(12288 + 48, 16)

// One vector each: see buildTables.
const NIBBLES = memory.data<u8>([15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15], 16)
const INVERSE = memory.data(16, 16)
const SCALED_INVERSE = memory.data(16, 16)
const SEAL_IN = memory.data(32, 16)
const SEAL_ONCE = memory.data(32, 16)
const SEAL_TWICE = memory.data(32, 16)
const SEAL_LAST = memory.data(32, 16)
const OPEN_IN = memory.data(32, 16)
const OPEN_BY_14 = memory.data(32, 16)
const OPEN_BY_11 = memory.data(32, 16)
const OPEN_BY_13 = memory.data(32, 16)
const OPEN_BY_9 = memory.data(32, 16)
const OPEN_LAST = memory.data(32, 16)
/** used while the tables are built: the nibbles of a byte, and of the byte that `affine` makes it from */
const NIBBLES_OF = memory.data(256, 16)
const NIBBLES_OF_UNAFFINE = memory.data(256, 16)
const SHIFT_ROWS = memory.data(64, 16)
const UNSHIFT_ROWS = memory.data(64, 16)
const TRIPLES = memory.data<u8>([2, 1, 0, 255, 5, 4, 3, 255, 8, 7, 6, 255, 11, 10, 9, 255], 16)
const PACKED_TRIPLES = memory.data<u8>([2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, 255, 255, 255, 255], 16)
const TO_ALPHABET = memory.data<i8>([71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0], 16)
const HEX_DIGITS = memory.data<u8>([48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 97, 98, 99, 100, 101, 102], 16)

// What is cleared at the end of each call.
const FORGOTTEN_BYTES: usize = 528
const SEAL_KEYS = memory.data(528, 16)
const OPEN_KEYS = SEAL_KEYS + 176
/** three blocks of the encrypted sign text, and one vector beyond, because base64 is made from whole vectors */
const CIPHERTEXT = OPEN_KEYS + 176
/** their base64 text: exactly one block of MD5 */
const DIGEST_INPUT = CIPHERTEXT + 64
const DIGEST = DIGEST_INPUT + 64
const PACE = DIGEST + 16

// ---- The tables

/** Product in GF(2^bits) with the given reduction polynomial. */
function times(a: u32, b: u32, polynomial: u32, bits: u32): u32 {
  let product: u32 = 0
  for (; b != 0; b >>= 1) {
    if (b & 1) product ^= a
    a <<= 1
    if (a >> bits) a ^= polynomial
  }
  return product
}

/** In AES's own field. */
function times256(a: u32, b: u32): u32 {
  return times(a, b, 0x11b, 8)
}

function times16(a: u32, b: u32): u32 {
  return times(a, b, 0x13, 4)
}

/** a^14 is 1/a, and zero for zero. */
function inverse16(a: u32): u32 {
  let power: u32 = 1
  for (let i = 0; i < 14; i++) power = times16(power, a)
  return power
}

/** The S-box without its constant, behind the inversion. */
function affine(a: u32): u32 {
  let sum = a
  for (let i = 0; i < 4; i++) {
    a = ((a << 1) | (a >> 7)) & 0xff
    sum ^= a
  }
  return sum
}

/** GF(16) lies in AES's field as the polynomials in 0x5c, which solves g^4 + g + 1 = 0. */
function embed(nibble: u32): u32 {
  let sum: u32 = 0
  let power: u32 = 1
  for (let bit: u32 = 0; bit < 4; bit++) {
    if ((nibble >> bit) & 1) sum ^= power
    power = times256(power, 0x5c)
  }
  return sum
}

/**
 * Every byte is iA + jB, where i and j are of GF(16), and A + B = 1 and AB = n for n = 8: both solve t^2 + t + n = 0. It is kept as
 * the nibbles i and k = i + j. Its norm (iA + jB)(iB + jA) is N = ij + nk^2, so that its inverse is (j/N)A + (i/N)B.
 * With a = 1/n, io = 1/(1/i + a/k) + j = aN/(k + ai), and jo likewise with i and j exchanged. Then u = 1/io and v = 1/jo
 * hold the inverse: i/N = u + n(u + v) and j/N = v + n(u + v). A byte is inverted by six look-ups of 16 entries; the last two,
 * of u and of v, do whatever linear is to be done to the inverse as well. An index of 0x80 stands for infinity, whose inverse
 * is zero, which is what `swizzle` gives for it; thus x = 0 and the zeros on the way come out right.
 */
const NORM: u32 = 8
const B: u32 = 0xa2

/** The byte kept as these two nibbles. */
function byteOf(i: u32, k: u32): u32 {
  return embed(i) ^ times256(embed(k), B)
}

/** What `lookUp` does to an inverse: `factor` times it for the next round, or the byte itself at the end. */
function buildOutput(table: usize, isSealing: bool, factor: u32, isLast: bool): void {
  for (let index: u32 = 1; index < 16; index++) {
    const part = inverse16(index)
    const both = times16(NORM, part)
    let fromU = byteOf(both, part)
    let fromV = byteOf(part ^ both, part)
    if (isSealing) {
      fromU = affine(fromU)
      fromV = affine(fromV)
    }
    fromU = times256(fromU, factor)
    fromV = times256(fromV, factor)
    if (!isLast) {
      const nibbles = isSealing ? NIBBLES_OF : NIBBLES_OF_UNAFFINE
      fromU = load<u8>(nibbles + fromU)
      fromV = load<u8>(nibbles + fromV)
    }
    store<u8>(table + index, fromU)
    store<u8>(table + BLOCK + index, fromV)
  }
}

function buildTables(): void {
  for (let i: u32 = 0; i < 16; i++) for (let k: u32 = 0; k < 16; k++) store<u8>(NIBBLES_OF + byteOf(i, k), (i << 4) | k)
  for (let x: u32 = 0; x < 256; x++) store<u8>(NIBBLES_OF_UNAFFINE + affine(x), load<u8>(NIBBLES_OF + x))
  for (let nibble: u32 = 0; nibble < 16; nibble++) {
    store<u8>(INVERSE + nibble, nibble == 0 ? 0x80 : inverse16(nibble))
    store<u8>(SCALED_INVERSE + nibble, nibble == 0 ? 0x80 : inverse16(times16(NORM, nibble)))
    store<u8>(SEAL_IN + nibble, load<u8>(NIBBLES_OF + nibble))
    store<u8>(SEAL_IN + BLOCK + nibble, load<u8>(NIBBLES_OF + (nibble << 4)))
    store<u8>(OPEN_IN + nibble, load<u8>(NIBBLES_OF_UNAFFINE + nibble))
    store<u8>(OPEN_IN + BLOCK + nibble, load<u8>(NIBBLES_OF_UNAFFINE + (nibble << 4)))
  }
  buildOutput(SEAL_ONCE, true, 1, false)
  buildOutput(SEAL_TWICE, true, 2, false)
  buildOutput(SEAL_LAST, true, 1, true)
  buildOutput(OPEN_BY_14, false, 14, false)
  buildOutput(OPEN_BY_11, false, 11, false)
  buildOutput(OPEN_BY_13, false, 13, false)
  buildOutput(OPEN_BY_9, false, 9, false)
  buildOutput(OPEN_LAST, false, 1, true)
  // Vector `down` of four takes, for each place in a column, the byte that is `down` rows further in the shifted state.
  for (let column: usize = 0; column < 4; column++) {
    for (let row: usize = 0; row < 4; row++) {
      for (let down: usize = 0; down < 4; down++) {
        const from = (row + down) & 3
        const at = down * BLOCK + 4 * column + row
        store<u8>(SHIFT_ROWS + at, 4 * ((column + from) & 3) + from)
        store<u8>(UNSHIFT_ROWS + at, 4 * ((column - from) & 3) + from)
      }
    }
  }
}
buildTables()

// ---- AES-128

@inline
function swizzle(table: v128, indices: v128): v128 {
  return v128.swizzle(table, indices)
}

/** A linear map of bytes: `table` for the low nibbles, the next vector for the high ones. */
@inline
function mapBytes(table: usize, bytes: v128): v128 {
  const low = v128.and(bytes, i8x16.splat(15))
  const high = v128.and(v128.shr<u16>(bytes, 4), i8x16.splat(15))
  return v128.xor(swizzle(v128.load(table), low), swizzle(v128.load(table, BLOCK), high))
}

/** io of (i, j), and jo of (j, i). */
@inline
function half(x: v128, y: v128, scaled: v128, inverse: v128): v128 {
  return v128.xor(swizzle(inverse, v128.xor(swizzle(inverse, x), scaled)), y)
}

@inline
function lookUp(table: usize, io: v128, jo: v128): v128 {
  return v128.xor(swizzle(v128.load(table), io), swizzle(v128.load(table, BLOCK), jo))
}

@inline
function sealRound(state: v128, key: usize): v128 {
  const nibbles = v128.load(NIBBLES)
  const inverse = v128.load(INVERSE)
  const k = v128.and(state, nibbles)
  const i = v128.and(v128.shr<u16>(state, 4), nibbles)
  const j = v128.xor(i, k)
  const scaled = swizzle(v128.load(SCALED_INVERSE), k)
  const io = half(i, j, scaled, inverse)
  const jo = half(j, i, scaled, inverse)
  const once = lookUp(SEAL_ONCE, io, jo)
  const twice = lookUp(SEAL_TWICE, io, jo)
  const above = v128.xor(swizzle(once, v128.load(SHIFT_ROWS, 32)), swizzle(once, v128.load(SHIFT_ROWS, 48)))
  const own = v128.xor(v128.load(key), swizzle(twice, v128.load(SHIFT_ROWS)))
  return v128.xor(v128.xor(above, own), swizzle(v128.xor(once, twice), v128.load(SHIFT_ROWS, 16)))
}

@inline
function sealLast(state: v128, key: usize): v128 {
  const nibbles = v128.load(NIBBLES)
  const inverse = v128.load(INVERSE)
  const k = v128.and(state, nibbles)
  const i = v128.and(v128.shr<u16>(state, 4), nibbles)
  const j = v128.xor(i, k)
  const scaled = swizzle(v128.load(SCALED_INVERSE), k)
  const substituted = lookUp(SEAL_LAST, half(i, j, scaled, inverse), half(j, i, scaled, inverse))
  return v128.xor(swizzle(substituted, v128.load(SHIFT_ROWS)), v128.load(key))
}

@inline
function sealFirst(block: v128): v128 {
  return v128.xor(mapBytes(SEAL_IN, block), v128.load(SEAL_KEYS))
}

@inline
function sealBlock(block: v128): v128 {
  let state = sealFirst(block)
  for (let key = SEAL_KEYS + BLOCK; key < SEAL_KEYS + 10 * BLOCK; key += BLOCK) state = sealRound(state, key)
  return sealLast(state, SEAL_KEYS + 10 * BLOCK)
}

@inline
function openRound(state: v128, key: usize): v128 {
  const nibbles = v128.load(NIBBLES)
  const inverse = v128.load(INVERSE)
  const k = v128.and(state, nibbles)
  const i = v128.and(v128.shr<u16>(state, 4), nibbles)
  const j = v128.xor(i, k)
  const scaled = swizzle(v128.load(SCALED_INVERSE), k)
  const io = half(i, j, scaled, inverse)
  const jo = half(j, i, scaled, inverse)
  const by14 = swizzle(lookUp(OPEN_BY_14, io, jo), v128.load(UNSHIFT_ROWS))
  const by11 = swizzle(lookUp(OPEN_BY_11, io, jo), v128.load(UNSHIFT_ROWS, 16))
  const by13 = swizzle(lookUp(OPEN_BY_13, io, jo), v128.load(UNSHIFT_ROWS, 32))
  const by9 = swizzle(lookUp(OPEN_BY_9, io, jo), v128.load(UNSHIFT_ROWS, 48))
  return v128.xor(v128.xor(v128.xor(by14, by11), v128.xor(by13, by9)), v128.load(key))
}

@inline
function openFirst(block: v128): v128 {
  return v128.xor(mapBytes(OPEN_IN, block), v128.load(OPEN_KEYS, 160))
}

@inline
function openLast(state: v128): v128 {
  const nibbles = v128.load(NIBBLES)
  const inverse = v128.load(INVERSE)
  const k = v128.and(state, nibbles)
  const i = v128.and(v128.shr<u16>(state, 4), nibbles)
  const j = v128.xor(i, k)
  const scaled = swizzle(v128.load(SCALED_INVERSE), k)
  const inverted = lookUp(OPEN_LAST, half(i, j, scaled, inverse), half(j, i, scaled, inverse))
  return v128.xor(swizzle(inverted, v128.load(UNSHIFT_ROWS)), v128.load(OPEN_KEYS))
}

/** The S-box of each byte. */
@inline
function substitute(bytes: v128): v128 {
  const state = mapBytes(SEAL_IN, bytes)
  const inverse = v128.load(INVERSE)
  const k = v128.and(state, i8x16.splat(15))
  const i = v128.and(v128.shr<u16>(state, 4), i8x16.splat(15))
  const j = v128.xor(i, k)
  const scaled = swizzle(v128.load(SCALED_INVERSE), k)
  const substituted = lookUp(SEAL_LAST, half(i, j, scaled, inverse), half(j, i, scaled, inverse))
  return v128.xor(substituted, i8x16.splat(0x63))
}

/** The S-box's constant passes through ShiftRows and MixColumns unchanged, so that it is part of the round keys. */
function expandKey(): void {
  let key = v128.load(SECRET)
  let constant: u32 = 1
  const zero = i8x16.splat(0)
  v128.store(SEAL_KEYS, mapBytes(SEAL_IN, key))
  v128.store(OPEN_KEYS, key)
  for (let at: usize = BLOCK; ; at += BLOCK) {
    const rotated = v128.shuffle<u8>(key, key, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12)
    key = v128.xor(key, v128.shuffle<u32>(zero, key, 0, 4, 5, 6))
    key = v128.xor(key, v128.shuffle<u32>(zero, key, 0, 0, 4, 5))
    key = v128.xor(v128.xor(key, substitute(rotated)), i32x4.splat(constant))
    v128.store(OPEN_KEYS + at, key)
    const withConstant = v128.xor(key, i8x16.splat(0x63))
    if (at == 10 * BLOCK) {
      v128.store(SEAL_KEYS + at, withConstant)
      return
    }
    v128.store(SEAL_KEYS + at, mapBytes(SEAL_IN, withConstant))
    constant = times256(constant, 2)
  }
}

@inline
function twiceEach(bytes: v128): v128 {
  const reduction = v128.and(v128.lt<i8>(bytes, i8x16.splat(0)), i8x16.splat(0x1b))
  return v128.xor(v128.add<u8>(bytes, bytes), reduction)
}

/** From the round keys that `expandKey` has left in OPEN_KEYS: InvMixColumns of those in the middle. */
function turnKeys(): void {
  for (let at: usize = BLOCK; at < 10 * BLOCK; at += BLOCK) {
    // [14 11 13 9] is [2 3 1 1] times [5 0 4 0]: first 5 of a row and 4 of the one two below, then as MixColumns.
    let key = v128.load(OPEN_KEYS + at)
    const by4 = twiceEach(twiceEach(key))
    key = v128.xor(key, v128.xor(by4, v128.shuffle<u8>(by4, by4, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)))
    const by2 = twiceEach(key)
    const next = v128.shuffle<u8>(key, key, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12)
    const sum = v128.xor(by2, next)
    const last = v128.shuffle<u8>(key, key, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14)
    key = v128.xor(v128.xor(sum, last), v128.shuffle<u8>(sum, sum, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12))
    v128.store(OPEN_KEYS + at, mapBytes(OPEN_IN, v128.xor(key, i8x16.splat(0x63))))
  }
  const last = OPEN_KEYS + 10 * BLOCK
  v128.store(last, mapBytes(OPEN_IN, v128.xor(v128.load(last), i8x16.splat(0x63))))
}

/** PKCS#7 behind the text, up to whole blocks. @returns the length with it */
@inline
function pad(text: usize, byteCount: usize): usize {
  const paddingBytes = BLOCK - (byteCount & 15)
  v128.store(text + byteCount, i8x16.splat(<i8>paddingBytes))
  return byteCount + paddingBytes
}

// ---- Base64

/** 12 bytes to 16 characters. */
@inline
function encode12(bytes: v128): v128 {
  const triples = swizzle(bytes, v128.load(TRIPLES))
  const first = v128.and(v128.shr<u32>(triples, 18), i32x4.splat(0x3f))
  const second = v128.and(v128.shr<u32>(triples, 4), i32x4.splat(0x3f00))
  const third = v128.and(v128.shl<u32>(triples, 10), i32x4.splat(0x3f0000))
  const fourth = v128.and(v128.shl<u32>(triples, 24), i32x4.splat(0x3f000000))
  const sixBits = v128.or(v128.or(first, second), v128.or(third, fourth))
  // 0 for a lower case letter, 1 to 12 for what comes behind, 13 for an upper case letter
  const group = v128.or(v128.sub_sat<u8>(sixBits, i8x16.splat(51)), v128.and(v128.lt<i8>(sixBits, i8x16.splat(26)), i8x16.splat(13)))
  return v128.add<u8>(sixBits, swizzle(v128.load(TO_ALPHABET), group))
}

/** Base64 text of whole blocks, behind which a vector of zeros stands. @returns its length */
@inline
function encodeBlocks(bytes: usize, byteCount: usize, text: usize): usize {
  const end = bytes + byteCount
  let at = text
  for (; bytes < end; bytes += 12, at += 16) v128.store(at, encode12(v128.load(bytes)))
  const over = byteCount % 3
  const length = ((byteCount + 2) / 3) * 4
  if (over != 0) {
    store<u8>(text + length - 1, 0x3d)
    if (over == 1) store<u8>(text + length - 2, 0x3d)
  }
  return length
}

@inline
function between(text: v128, first: i8, last: i8): v128 {
  return v128.lt<u8>(v128.sub<u8>(text, i8x16.splat(first)), i8x16.splat(last - first + 1))
}

/**
 * The bytes behind strict base64 text, in its own place. @returns how many, or -1 unless it is exactly the text that
 * `encodeBlocks` gives for them
 */
function decodeText(text: usize, length: usize): i32 {
  if (length == 0 || (length & 3) != 0) return -1
  const end = text + length
  let paddingCount = 0
  if (load<u8>(end - 1) == 0x3d) {
    paddingCount = load<u8>(end - 2) == 0x3d ? 2 : 1
    // Of `A`, all bits are zero: if the bytes beyond the end come out as zero, the unused bits were.
    store<u8>(end - 1, 0x41)
    if (paddingCount == 2) store<u8>(end - 2, 0x41)
  }
  v128.store(end, i8x16.splat(0x41))
  let valid = i8x16.splat(-1)
  let to = text
  for (let at = text; at < end; at += 16, to += 12) {
    const characters = v128.load(at)
    const upper = between(characters, 0x41, 0x5a)
    const lower = between(characters, 0x61, 0x7a)
    const digit = between(characters, 0x30, 0x39)
    const plus = v128.eq<u8>(characters, i8x16.splat(0x2b))
    const slash = v128.eq<u8>(characters, i8x16.splat(0x2f))
    valid = v128.and(valid, v128.or(v128.or(v128.or(upper, lower), v128.or(digit, plus)), slash))
    const letters = v128.or(v128.and(upper, i8x16.splat(-65)), v128.and(lower, i8x16.splat(-71)))
    const others = v128.or(v128.or(v128.and(digit, i8x16.splat(4)), v128.and(plus, i8x16.splat(19))), v128.and(slash, i8x16.splat(16)))
    const sixBits = v128.add<u8>(characters, v128.or(letters, others))
    const first = v128.shl<u32>(v128.and(sixBits, i32x4.splat(0x3f)), 18)
    const second = v128.shl<u32>(v128.and(sixBits, i32x4.splat(0x3f00)), 4)
    const third = v128.shr<u32>(v128.and(sixBits, i32x4.splat(0x3f0000)), 10)
    const fourth = v128.shr<u32>(sixBits, 24)
    v128.store(to, swizzle(v128.or(v128.or(first, second), v128.or(third, fourth)), v128.load(PACKED_TRIPLES)))
  }
  if (!v128.all_true<u8>(valid)) return -1
  const byteCount: i32 = <i32>(length >>> 2) * 3 - paddingCount
  let beyond: u32 = 0
  for (let i = 0; i < paddingCount; i++) beyond |= load<u8>(text + byteCount + i)
  return beyond == 0 ? byteCount : -1
}

// ---- MD5

@inline
function f(a: u32, b: u32, c: u32, d: u32, word: usize, shift: u32, constant: u32): u32 {
  return b + rotl<u32>(a + load<u32>(DIGEST_INPUT + 4 * word) + constant + (d ^ (b & (c ^ d))), shift)
}

@inline
function g(a: u32, b: u32, c: u32, d: u32, word: usize, shift: u32, constant: u32): u32 {
  return b + rotl<u32>(a + load<u32>(DIGEST_INPUT + 4 * word) + constant + (c & ~d) + (b & d), shift)
}

@inline
function h(a: u32, b: u32, c: u32, d: u32, word: usize, shift: u32, constant: u32): u32 {
  return b + rotl<u32>(a + load<u32>(DIGEST_INPUT + 4 * word) + constant + (b ^ (c ^ d)), shift)
}

@inline
function i(a: u32, b: u32, c: u32, d: u32, word: usize, shift: u32, constant: u32): u32 {
  return b + rotl<u32>(a + load<u32>(DIGEST_INPUT + 4 * word) + constant + (c ^ (b | ~d)), shift)
}

@inline
function startDigest(): void {
  store<u32>(DIGEST, 0x67452301)
  store<u32>(DIGEST, 0xefcdab89, 4)
  store<u32>(DIGEST, 0x98badcfe, 8)
  store<u32>(DIGEST, 0x10325476, 12)
}

/** DIGEST goes on by the 64 bytes of DIGEST_INPUT. */
function digestInput(): void {
  let a = load<u32>(DIGEST)
  let b = load<u32>(DIGEST, 4)
  let c = load<u32>(DIGEST, 8)
  let d = load<u32>(DIGEST, 12)
  a = f(a, b, c, d,  0,  7, 0xd76aa478)
  d = f(d, a, b, c,  1, 12, 0xe8c7b756)
  c = f(c, d, a, b,  2, 17, 0x242070db)
  b = f(b, c, d, a,  3, 22, 0xc1bdceee)
  a = f(a, b, c, d,  4,  7, 0xf57c0faf)
  d = f(d, a, b, c,  5, 12, 0x4787c62a)
  c = f(c, d, a, b,  6, 17, 0xa8304613)
  b = f(b, c, d, a,  7, 22, 0xfd469501)
  a = f(a, b, c, d,  8,  7, 0x698098d8)
  d = f(d, a, b, c,  9, 12, 0x8b44f7af)
  c = f(c, d, a, b, 10, 17, 0xffff5bb1)
  b = f(b, c, d, a, 11, 22, 0x895cd7be)
  a = f(a, b, c, d, 12,  7, 0x6b901122)
  d = f(d, a, b, c, 13, 12, 0xfd987193)
  c = f(c, d, a, b, 14, 17, 0xa679438e)
  b = f(b, c, d, a, 15, 22, 0x49b40821)
  a = g(a, b, c, d,  1,  5, 0xf61e2562)
  d = g(d, a, b, c,  6,  9, 0xc040b340)
  c = g(c, d, a, b, 11, 14, 0x265e5a51)
  b = g(b, c, d, a,  0, 20, 0xe9b6c7aa)
  a = g(a, b, c, d,  5,  5, 0xd62f105d)
  d = g(d, a, b, c, 10,  9, 0x02441453)
  c = g(c, d, a, b, 15, 14, 0xd8a1e681)
  b = g(b, c, d, a,  4, 20, 0xe7d3fbc8)
  a = g(a, b, c, d,  9,  5, 0x21e1cde6)
  d = g(d, a, b, c, 14,  9, 0xc33707d6)
  c = g(c, d, a, b,  3, 14, 0xf4d50d87)
  b = g(b, c, d, a,  8, 20, 0x455a14ed)
  a = g(a, b, c, d, 13,  5, 0xa9e3e905)
  d = g(d, a, b, c,  2,  9, 0xfcefa3f8)
  c = g(c, d, a, b,  7, 14, 0x676f02d9)
  b = g(b, c, d, a, 12, 20, 0x8d2a4c8a)
  a = h(a, b, c, d,  5,  4, 0xfffa3942)
  d = h(d, a, b, c,  8, 11, 0x8771f681)
  c = h(c, d, a, b, 11, 16, 0x6d9d6122)
  b = h(b, c, d, a, 14, 23, 0xfde5380c)
  a = h(a, b, c, d,  1,  4, 0xa4beea44)
  d = h(d, a, b, c,  4, 11, 0x4bdecfa9)
  c = h(c, d, a, b,  7, 16, 0xf6bb4b60)
  b = h(b, c, d, a, 10, 23, 0xbebfbc70)
  a = h(a, b, c, d, 13,  4, 0x289b7ec6)
  d = h(d, a, b, c,  0, 11, 0xeaa127fa)
  c = h(c, d, a, b,  3, 16, 0xd4ef3085)
  b = h(b, c, d, a,  6, 23, 0x04881d05)
  a = h(a, b, c, d,  9,  4, 0xd9d4d039)
  d = h(d, a, b, c, 12, 11, 0xe6db99e5)
  c = h(c, d, a, b, 15, 16, 0x1fa27cf8)
  b = h(b, c, d, a,  2, 23, 0xc4ac5665)
  a = i(a, b, c, d,  0,  6, 0xf4292244)
  d = i(d, a, b, c,  7, 10, 0x432aff97)
  c = i(c, d, a, b, 14, 15, 0xab9423a7)
  b = i(b, c, d, a,  5, 21, 0xfc93a039)
  a = i(a, b, c, d, 12,  6, 0x655b59c3)
  d = i(d, a, b, c,  3, 10, 0x8f0ccc92)
  c = i(c, d, a, b, 10, 15, 0xffeff47d)
  b = i(b, c, d, a,  1, 21, 0x85845dd1)
  a = i(a, b, c, d,  8,  6, 0x6fa87e4f)
  d = i(d, a, b, c, 15, 10, 0xfe2ce6e0)
  c = i(c, d, a, b,  6, 15, 0xa3014314)
  b = i(b, c, d, a, 13, 21, 0x4e0811a1)
  a = i(a, b, c, d,  4,  6, 0xf7537e82)
  d = i(d, a, b, c, 11, 10, 0xbd3af235)
  c = i(c, d, a, b,  2, 15, 0x2ad7d2bb)
  b = i(b, c, d, a,  9, 21, 0xeb86d391)
  store<u32>(DIGEST, load<u32>(DIGEST) + a)
  store<u32>(DIGEST, load<u32>(DIGEST, 4) + b, 4)
  store<u32>(DIGEST, load<u32>(DIGEST, 8) + c, 8)
  store<u32>(DIGEST, load<u32>(DIGEST, 12) + d, 12)
}

/** 32 characters, in lower case. */
@inline
function digestHex(half: usize): v128 {
  const bytes = v128.load(DIGEST)
  const low = swizzle(v128.load(HEX_DIGITS), v128.and(bytes, i8x16.splat(15)))
  const high = swizzle(v128.load(HEX_DIGITS), v128.and(v128.shr<u16>(bytes, 4), i8x16.splat(15)))
  return half == 0
    ? v128.shuffle<u8>(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    : v128.shuffle<u8>(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
}

// ---- The texts

/** Encrypt the next three blocks of the sign text while DIGEST takes in the text of the three before. @returns the last of them */
function sealAndDigest(at: usize, chain: v128): v128 {
  let a = load<u32>(DIGEST)
  let b = load<u32>(DIGEST, 4)
  let c = load<u32>(DIGEST, 8)
  let d = load<u32>(DIGEST, 12)
  let state: v128
  state = sealFirst(v128.xor(chain, v128.load(at)))
  a = f(a, b, c, d,  0,  7, 0xd76aa478)
  d = f(d, a, b, c,  1, 12, 0xe8c7b756)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 16)
  v128.store(PACE, state)
  c = f(c, d, a, b,  2, 17, 0x242070db)
  b = f(b, c, d, a,  3, 22, 0xc1bdceee)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 32)
  v128.store(PACE, state)
  a = f(a, b, c, d,  4,  7, 0xf57c0faf)
  d = f(d, a, b, c,  5, 12, 0x4787c62a)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 48)
  v128.store(PACE, state)
  c = f(c, d, a, b,  6, 17, 0xa8304613)
  b = f(b, c, d, a,  7, 22, 0xfd469501)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 64)
  v128.store(PACE, state)
  a = f(a, b, c, d,  8,  7, 0x698098d8)
  d = f(d, a, b, c,  9, 12, 0x8b44f7af)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 80)
  v128.store(PACE, state)
  c = f(c, d, a, b, 10, 17, 0xffff5bb1)
  b = f(b, c, d, a, 11, 22, 0x895cd7be)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 96)
  v128.store(PACE, state)
  a = f(a, b, c, d, 12,  7, 0x6b901122)
  d = f(d, a, b, c, 13, 12, 0xfd987193)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 112)
  v128.store(PACE, state)
  c = f(c, d, a, b, 14, 17, 0xa679438e)
  b = f(b, c, d, a, 15, 22, 0x49b40821)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 128)
  v128.store(PACE, state)
  a = g(a, b, c, d,  1,  5, 0xf61e2562)
  d = g(d, a, b, c,  6,  9, 0xc040b340)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 144)
  v128.store(PACE, state)
  c = g(c, d, a, b, 11, 14, 0x265e5a51)
  b = g(b, c, d, a,  0, 20, 0xe9b6c7aa)
  store<u32>(PACE, b, 16)
  state = sealLast(state, SEAL_KEYS + 160)
  v128.store(CIPHERTEXT, state)
  a = g(a, b, c, d,  5,  5, 0xd62f105d)
  d = g(d, a, b, c, 10,  9, 0x02441453)
  store<u32>(PACE, d, 16)
  state = sealFirst(v128.xor(state, v128.load(at, 16)))
  c = g(c, d, a, b, 15, 14, 0xd8a1e681)
  b = g(b, c, d, a,  4, 20, 0xe7d3fbc8)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 16)
  v128.store(PACE, state)
  a = g(a, b, c, d,  9,  5, 0x21e1cde6)
  d = g(d, a, b, c, 14,  9, 0xc33707d6)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 32)
  v128.store(PACE, state)
  c = g(c, d, a, b,  3, 14, 0xf4d50d87)
  b = g(b, c, d, a,  8, 20, 0x455a14ed)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 48)
  v128.store(PACE, state)
  a = g(a, b, c, d, 13,  5, 0xa9e3e905)
  d = g(d, a, b, c,  2,  9, 0xfcefa3f8)
  store<u32>(PACE, d, 16)
  state = sealRound(state, SEAL_KEYS + 64)
  v128.store(PACE, state)
  c = g(c, d, a, b,  7, 14, 0x676f02d9)
  b = g(b, c, d, a, 12, 20, 0x8d2a4c8a)
  store<u32>(PACE, b, 16)
  state = sealRound(state, SEAL_KEYS + 80)
  v128.store(PACE, state)
  a = h(a, b, c, d,  5,  4, 0xfffa3942)
  state = sealRound(state, SEAL_KEYS + 96)
  v128.store(PACE, state)
  d = h(d, a, b, c,  8, 11, 0x8771f681)
  store<u32>(PACE, d, 16)
  c = h(c, d, a, b, 11, 16, 0x6d9d6122)
  state = sealRound(state, SEAL_KEYS + 112)
  v128.store(PACE, state)
  b = h(b, c, d, a, 14, 23, 0xfde5380c)
  store<u32>(PACE, b, 16)
  a = h(a, b, c, d,  1,  4, 0xa4beea44)
  state = sealRound(state, SEAL_KEYS + 128)
  v128.store(PACE, state)
  d = h(d, a, b, c,  4, 11, 0x4bdecfa9)
  store<u32>(PACE, d, 16)
  c = h(c, d, a, b,  7, 16, 0xf6bb4b60)
  state = sealRound(state, SEAL_KEYS + 144)
  v128.store(PACE, state)
  b = h(b, c, d, a, 10, 23, 0xbebfbc70)
  store<u32>(PACE, b, 16)
  a = h(a, b, c, d, 13,  4, 0x289b7ec6)
  state = sealLast(state, SEAL_KEYS + 160)
  v128.store(CIPHERTEXT, state, 16)
  d = h(d, a, b, c,  0, 11, 0xeaa127fa)
  store<u32>(PACE, d, 16)
  c = h(c, d, a, b,  3, 16, 0xd4ef3085)
  state = sealFirst(v128.xor(state, v128.load(at, 32)))
  b = h(b, c, d, a,  6, 23, 0x04881d05)
  store<u32>(PACE, b, 16)
  a = h(a, b, c, d,  9,  4, 0xd9d4d039)
  state = sealRound(state, SEAL_KEYS + 16)
  v128.store(PACE, state)
  d = h(d, a, b, c, 12, 11, 0xe6db99e5)
  store<u32>(PACE, d, 16)
  c = h(c, d, a, b, 15, 16, 0x1fa27cf8)
  state = sealRound(state, SEAL_KEYS + 32)
  v128.store(PACE, state)
  b = h(b, c, d, a,  2, 23, 0xc4ac5665)
  store<u32>(PACE, b, 16)
  a = i(a, b, c, d,  0,  6, 0xf4292244)
  state = sealRound(state, SEAL_KEYS + 48)
  v128.store(PACE, state)
  d = i(d, a, b, c,  7, 10, 0x432aff97)
  store<u32>(PACE, d, 16)
  c = i(c, d, a, b, 14, 15, 0xab9423a7)
  state = sealRound(state, SEAL_KEYS + 64)
  v128.store(PACE, state)
  b = i(b, c, d, a,  5, 21, 0xfc93a039)
  store<u32>(PACE, b, 16)
  a = i(a, b, c, d, 12,  6, 0x655b59c3)
  state = sealRound(state, SEAL_KEYS + 80)
  v128.store(PACE, state)
  d = i(d, a, b, c,  3, 10, 0x8f0ccc92)
  store<u32>(PACE, d, 16)
  c = i(c, d, a, b, 10, 15, 0xffeff47d)
  state = sealRound(state, SEAL_KEYS + 96)
  v128.store(PACE, state)
  b = i(b, c, d, a,  1, 21, 0x85845dd1)
  store<u32>(PACE, b, 16)
  a = i(a, b, c, d,  8,  6, 0x6fa87e4f)
  state = sealRound(state, SEAL_KEYS + 112)
  v128.store(PACE, state)
  d = i(d, a, b, c, 15, 10, 0xfe2ce6e0)
  store<u32>(PACE, d, 16)
  c = i(c, d, a, b,  6, 15, 0xa3014314)
  state = sealRound(state, SEAL_KEYS + 128)
  v128.store(PACE, state)
  b = i(b, c, d, a, 13, 21, 0x4e0811a1)
  store<u32>(PACE, b, 16)
  a = i(a, b, c, d,  4,  6, 0xf7537e82)
  state = sealRound(state, SEAL_KEYS + 144)
  v128.store(PACE, state)
  d = i(d, a, b, c, 11, 10, 0xbd3af235)
  store<u32>(PACE, d, 16)
  c = i(c, d, a, b,  2, 15, 0x2ad7d2bb)
  state = sealLast(state, SEAL_KEYS + 160)
  v128.store(CIPHERTEXT, state, 32)
  b = i(b, c, d, a,  9, 21, 0xeb86d391)
  store<u32>(PACE, b, 16)
  store<u32>(DIGEST, load<u32>(DIGEST) + a)
  store<u32>(DIGEST, load<u32>(DIGEST, 4) + b, 4)
  store<u32>(DIGEST, load<u32>(DIGEST, 8) + c, 8)
  store<u32>(DIGEST, load<u32>(DIGEST, 12) + d, 12)
  return state
}

/**
 * DIGEST becomes the MD5 of the base64 text of the encrypted sign text, which is padded and of which everything before `at` is
 * done: `chain` is the last block of its ciphertext, and the first `filled` bytes of CIPHERTEXT wait for their text.
 */
function digestFrom(at: usize, end: usize, chain: v128, filled: usize): void {
  let isInputFull = false
  while (at < end) {
    if (isInputFull && filled == 0 && end - at >= 48) {
      chain = sealAndDigest(at, chain)
      at += 48
      encodeChunk()
      continue
    }
    chain = sealBlock(v128.xor(chain, v128.load(at)))
    v128.store(CIPHERTEXT + filled, chain)
    at += BLOCK
    filled += BLOCK
    if (filled == 48) {
      if (isInputFull) digestInput()
      encodeChunk()
      isInputFull = true
      filled = 0
    }
  }
  if (isInputFull) digestInput()
  finishDigest(filled, ((end - SIGNED + 2) / 3) * 4)
}

function digestSigned(byteCount: usize): void {
  startDigest()
  digestFrom(SIGNED, SIGNED + pad(SIGNED, byteCount), v128.load(SECRET, BLOCK), 0)
}

@inline
function encodeChunk(): void {
  v128.store(DIGEST_INPUT, encode12(v128.load(CIPHERTEXT)))
  v128.store(DIGEST_INPUT, encode12(v128.load(CIPHERTEXT, 12)), 16)
  v128.store(DIGEST_INPUT, encode12(v128.load(CIPHERTEXT, 24)), 32)
  v128.store(DIGEST_INPUT, encode12(v128.load(CIPHERTEXT, 36)), 48)
}

/** The last block: the text of the 0 to 2 blocks that are left, a bit, zeros and the length in bits. */
@inline
function finishDigest(restBytes: usize, textBytes: usize): void {
  const zero = i8x16.splat(0)
  v128.store(CIPHERTEXT + restBytes, zero)
  const restText = encodeBlocks(CIPHERTEXT, restBytes, DIGEST_INPUT)
  for (let at = restText; at < 64; at++) store<u8>(DIGEST_INPUT + at, 0)
  store<u8>(DIGEST_INPUT + restText, 0x80)
  store<u32>(DIGEST_INPUT, <u32>(textBytes << 3), 56)
  digestInput()
}

/** PLAIN encrypted in its place, and its text written. @returns the length of the text */
function sealPlain(byteCount: usize, text: usize): usize {
  const length = pad(PLAIN, byteCount)
  const end = PLAIN + length
  let chain = v128.load(SECRET, BLOCK)
  for (let at = PLAIN; at < end; at += BLOCK) {
    chain = sealBlock(v128.xor(chain, v128.load(at)))
    v128.store(at, chain)
  }
  v128.store(end, i8x16.splat(0))
  return encodeBlocks(PLAIN, length, text)
}

/** @returns the length of the plaintext that is now where the text was, or -1 */
function openText(text: usize, length: usize): i32 {
  const byteCount = decodeText(text, length)
  if (byteCount <= 0 || (byteCount & 15) != 0) return -1
  turnKeys()
  const end = text + byteCount
  let chain = v128.load(SECRET, BLOCK)
  // Two at a time: of an odd number, the last one with what happens to stand behind it.
  for (let at = text; at < end; at += 2 * BLOCK) {
    const first = v128.load(at)
    const second = v128.load(at, BLOCK)
    let firstState = openFirst(first)
    let secondState = openFirst(second)
    for (let key = OPEN_KEYS + 9 * BLOCK; key > OPEN_KEYS; key -= BLOCK) {
      firstState = openRound(firstState, key)
      secondState = openRound(secondState, key)
    }
    v128.store(at, v128.xor(openLast(firstState), chain))
    v128.store(at, v128.xor(openLast(secondState), first), BLOCK)
    chain = second
  }
  const paddingBytes: u32 = load<u8>(end - 1)
  let isPadded = paddingBytes != 0 && paddingBytes <= 16
  if (isPadded) for (let at = end - paddingBytes; at < end; at++) if (load<u8>(at) != paddingBytes) isPadded = false
  if (isPadded) return byteCount - paddingBytes
  memory.fill(text, 0, byteCount)
  return -1
}

/** Nothing that the key can be learned from is left behind, nor what is needed to forge a msgKey. */
@inline
function forget(): void {
  const zero = i8x16.splat(0)
  v128.store(SECRET, zero)
  v128.store(SECRET, zero, BLOCK)
  for (let at = SEAL_KEYS; at < SEAL_KEYS + FORGOTTEN_BYTES; at += BLOCK) v128.store(at, zero)
}

// ---- What is called

/** PLAIN to its text at SIGNED. @returns the length of the text */
export function sealPayload(plainBytes: usize): usize {
  expandKey()
  const length = sealPlain(plainBytes, SIGNED)
  forget()
  return length
}

/** MSG_KEY becomes the one of the text at SIGNED. */
export function sign(signedBytes: usize): void {
  expandKey()
  digestSigned(signedBytes)
  v128.store(MSG_KEY, digestHex(0))
  v128.store(MSG_KEY, digestHex(1), 16)
  forget()
}

/**
 * PLAIN to its text behind the fields at SIGNED, and MSG_KEY of both. @returns the length of the text
 *
 * A block of CBC waits for the one before, which leaves most of the processor idle: so payload and sign text are encrypted
 * side by side, as far as the sign text is known already.
 */
export function seal(fieldBytes: usize, plainBytes: usize): usize {
  expandKey()
  startDigest()
  const end = PLAIN + pad(PLAIN, plainBytes)
  let payload = v128.load(SECRET, BLOCK)
  let signed = payload
  let signedAt = SIGNED
  let known = SIGNED + fieldBytes
  let filled: usize = 0
  let text = known
  let wholeFrom = PLAIN
  for (let at = PLAIN; at < end; at += BLOCK) {
    payload = sealFirst(v128.xor(payload, v128.load(at)))
    if (signedAt + BLOCK <= known) {
      signed = sealFirst(v128.xor(signed, v128.load(signedAt)))
      for (let key = SEAL_KEYS + BLOCK; key < SEAL_KEYS + 10 * BLOCK; key += BLOCK) {
        payload = sealRound(payload, key)
        signed = sealRound(signed, key)
      }
      signed = sealLast(signed, SEAL_KEYS + 10 * BLOCK)
      v128.store(CIPHERTEXT + filled, signed)
      signedAt += BLOCK
      filled += BLOCK
      if (filled == 48) {
        encodeChunk()
        digestInput()
        filled = 0
      }
    } else {
      for (let key = SEAL_KEYS + BLOCK; key < SEAL_KEYS + 10 * BLOCK; key += BLOCK) payload = sealRound(payload, key)
    }
    payload = sealLast(payload, SEAL_KEYS + 10 * BLOCK)
    v128.store(at, payload)
    if (at + BLOCK == wholeFrom + 48) {
      v128.store(text, encode12(v128.load(wholeFrom)))
      v128.store(text, encode12(v128.load(wholeFrom, 12)), 16)
      v128.store(text, encode12(v128.load(wholeFrom, 24)), 32)
      v128.store(text, encode12(v128.load(wholeFrom, 36)), 48)
      wholeFrom += 48
      text += 64
      known = text
    }
  }
  v128.store(end, i8x16.splat(0))
  text += encodeBlocks(wholeFrom, end - wholeFrom, text)
  const signedBytes = text - SIGNED
  digestFrom(signedAt, SIGNED + pad(SIGNED, signedBytes), signed, filled)
  v128.store(MSG_KEY, digestHex(0))
  v128.store(MSG_KEY, digestHex(1), 16)
  forget()
  return signedBytes - fieldBytes
}

/** The text at SIGNED to plaintext in its place. @returns its length, or -1 */
export function openPayload(textBytes: usize): i32 {
  expandKey()
  const length = openText(SIGNED, textBytes)
  forget()
  return length
}

/**
 * The same for the text behind the fields at SIGNED, if MSG_KEY, compared in constant time, is the one of both; nothing is
 * decrypted before. @returns the length of the plaintext, or -1
 */
export function open(fieldBytes: usize, textBytes: usize): i32 {
  expandKey()
  digestSigned(fieldBytes + textBytes)
  const difference = v128.or(v128.xor(v128.load(MSG_KEY), digestHex(0)), v128.xor(v128.load(MSG_KEY, 16), digestHex(1)))
  const length = v128.any_true(difference) ? -1 : openText(SIGNED + fieldBytes, textBytes)
  forget()
  return length
}
