import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeBase64, encodeBase64 } from '../../src/protocol/base64.ts'
import { fuzz } from './arbitraries.ts'
import { readable } from './readable.ts'

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')

test('every byte string comes back from its text, which is the one Node writes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (original) => {
      const text = encodeBase64(original)
      expect(text.toString('latin1')).toBe(Buffer.from(original).toString('base64'))
      expect(readable(decodeBase64(text))).toBe(readable(original))
    }),
    fuzz(500),
  )
})

const near = fc.string({ unit: fc.constantFrom(...'AZaz09+/=-_ \n!\u0000ÿ'), maxLength: 12 })

test('a text is taken only when it is exactly what its bytes are written as', () => {
  fc.assert(
    fc.property(near, (text) => {
      const canonical = Buffer.from(text, 'base64').toString('base64') === text
      expect(decodeBase64(bytes(text)) !== undefined).toBe(canonical)
    }),
    fuzz(3_000),
  )
})

test.each(['A', 'AA', 'AAA', 'AB==', 'AAB=', '====', 'A===', 'AA=A', 'AAAA====', 'AA==AAAA', ' AAAA', 'AAAA\n', 'AA-_', 'AAA\u00c1'])(
  '%j is refused',
  (text) => {
    expect(decodeBase64(bytes(text))).toBe(undefined)
  },
)
