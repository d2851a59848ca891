import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decimalFromHalves, isUint64, isUint64Decimal, writeUint64Decimal } from '../../src/model/int64.ts'
import { fuzz, uint64 } from '../protocol/arbitraries.ts'

function halves(value: bigint): { high: number; low: number } {
  return { high: Number(value >> 32n), low: Number(value & 0xffff_ffffn) }
}

test('digits and halves are the same number, over the whole range', () => {
  fc.assert(
    fc.property(uint64, (value) => {
      const { high, low } = halves(value)
      expect(decimalFromHalves(high, low)).toBe(String(value))
    }),
    fuzz(20_000),
  )
})

test('digits are told from those of every other number without being made', () => {
  fc.assert(
    fc.property(uint64, fc.constantFrom(0n, 1n, 10n, 1n << 32n, 1n << 63n), (value, difference) => {
      const { high, low } = halves(BigInt.asUintN(64, value + difference))
      expect(isUint64(String(value), high, low)).toBe(difference === 0n)
    }),
    fuzz(20_000),
  )
})

test('digits are written as eight bytes at their place and nowhere else', () => {
  fc.assert(
    fc.property(uint64, fc.nat({ max: 3 }), (value, offset) => {
      const expected = Buffer.alloc(12, 0xee)
      expected.writeBigUInt64BE(value, offset)
      const target = Buffer.alloc(12, 0xee)
      expect(writeUint64Decimal(target, offset, String(value))).toBe(true)
      expect(target.equals(expected)).toBe(true)
    }),
    fuzz(5_000),
  )
})

const notIDs = ['', '-1', '+1', ' 1', '1 ', '1.0', '1e3', '0x10', '12a', '٣', '18446744073709551616', '99999999999999999999', '100000000000000000000']
test.each(notIDs)('%j is no id, and writes nothing', (text) => {
  const target = Buffer.alloc(8, 0xee)
  expect(writeUint64Decimal(target, 0, text)).toBe(false)
  expect(target.equals(Buffer.alloc(8, 0xee))).toBe(true)
  expect(isUint64Decimal(text)).toBe(false)
})

test('an id has one spelling', () => {
  fc.assert(
    fc.property(uint64, (value) => {
      expect(isUint64Decimal(String(value))).toBe(true)
      expect(isUint64Decimal(`0${value}`)).toBe(false)
    }),
    fuzz(500),
  )
})
