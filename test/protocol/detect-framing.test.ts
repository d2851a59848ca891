import { expect, test } from 'vitest'
import { detectFraming } from '../../src/protocol/detect-framing.ts'
import { loadVectors, vectorBytes, type FrameVector } from './vectors.ts'

interface JsonRpcVector {
  readonly name: string
  readonly direction: string
  readonly json: string
}

const fromClients = loadVectors<JsonRpcVector>('jsonrpc.json').filter((vector) => vector.direction === 'c2s')

test.each(fromClients)('json-rpc: $name', ({ json }) => {
  // A batch is not a form any server takes; it opens with a bracket and is left to the binary decoder to refuse.
  const expected = json.trimStart().startsWith('{') ? 'json-rpc' : 'wkproto'
  expect(detectFraming(Buffer.from(json))).toBe(expected)
  expect(detectFraming(Buffer.from(` \r\n\t${json}`))).toBe(expected)
})

test.each(loadVectors<FrameVector>('frames-c2s.json'))('wkproto: $name', (vector) => {
  expect(detectFraming(vectorBytes(vector))).toBe('wkproto')
})

test('nothing but white space decides nothing', () => {
  expect(detectFraming(new Uint8Array(0))).toBe(undefined)
  expect(detectFraming(Buffer.from(' \t\r\n '))).toBe(undefined)
  expect(detectFraming(Buffer.from(' \v{'))).toBe('wkproto')
})

test('one byte is enough', () => {
  expect(detectFraming(Buffer.from('{'))).toBe('json-rpc')
  expect(detectFraming(Uint8Array.of(0x10))).toBe('wkproto')
})
