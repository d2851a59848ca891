/**
 * 64-bit numbers as two uint32 halves and as decimal strings: message ids pass through here once per message and receiver.
 * Reading digits avoids BigInt; writing them above 2^53 does not, because two divisions and a joined string cost as much.
 */

const TWO_32 = 0x1_0000_0000
const MILLION = 1_000_000

/** The decimal digits of the unsigned 64-bit number `high * 2^32 + low`; both halves are uint32. */
export function decimalFromHalves(high: number, low: number): string {
  if (high < 0x20_0000) return String(high * TWO_32 + low) // below 2^53: exact as a number
  return ((BigInt(high) << 32n) | BigInt(low)).toString()
}

/** Is the decimal the unsigned 64-bit number `high * 2^32 + low`? Both halves are uint32, the decimal has no leading zero. */
export function isUint64(decimal: string, high: number, low: number): boolean {
  const digitCount = decimal.length
  const split = digitCount > 6 ? digitCount - 6 : 0
  let upper = 0
  let rest = 0
  for (let i = 0; i < split; i++) upper = upper * 10 + decimal.charCodeAt(i) - 48
  for (let i = split; i < digitCount; i++) rest = rest * 10 + decimal.charCodeAt(i) - 48
  const upperHigh = Math.floor(upper / TWO_32)
  const lowSum = (upper - upperHigh * TWO_32) * MILLION + rest
  const carry = Math.floor(lowSum / TWO_32)
  return upperHigh * MILLION + carry === high && lowSum - carry * TWO_32 === low
}

/** Is one decimal above the other? Both are of unsigned numbers and have no leading zero. */
export function isAbove(a: string, b: string): boolean {
  return a.length === b.length ? a > b : a.length > b.length
}

/**
 * Writes the eight bytes, big-endian, of an unsigned decimal, in one pass over its digits: once per message on the hot path.
 * @returns false, with nothing written, when the text is not 1 to 20 digits below 2^64
 */
export function writeUint64Decimal(target: Uint8Array, offset: number, decimal: string): boolean {
  const digitCount = decimal.length
  if (digitCount === 0 || digitCount > 20) return false
  // Split at 10^6, so that every intermediate stays below 2^53.
  const split = digitCount > 6 ? digitCount - 6 : 0
  let upper = 0
  let rest = 0
  for (let i = 0; i < split; i++) {
    const digit = decimal.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return false
    upper = upper * 10 + digit
  }
  for (let i = split; i < digitCount; i++) {
    const digit = decimal.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return false
    rest = rest * 10 + digit
  }
  const upperHigh = Math.floor(upper / TWO_32)
  const lowSum = (upper - upperHigh * TWO_32) * MILLION + rest
  const carry = Math.floor(lowSum / TWO_32)
  const high = upperHigh * MILLION + carry
  const low = lowSum - carry * TWO_32
  if (high >= TWO_32) return false
  target[offset] = high >>> 24
  target[offset + 1] = high >>> 16
  target[offset + 2] = high >>> 8
  target[offset + 3] = high
  target[offset + 4] = low >>> 24
  target[offset + 5] = low >>> 16
  target[offset + 6] = low >>> 8
  target[offset + 7] = low
  return true
}

/** True for what the API takes as an id: the decimal digits of an unsigned 64-bit number, no sign, no leading zero. */
export function isUint64Decimal(text: string): boolean {
  return /^(0|[1-9]\d{0,19})$/.test(text) && (text.length < 20 || text <= '18446744073709551615')
}
