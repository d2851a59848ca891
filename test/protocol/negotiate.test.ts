import { expect, test } from 'vitest'
import { LATEST_VERSION } from '../../src/model/frames.ts'
import { decode } from '../../src/protocol/decode.ts'
import { encode } from '../../src/protocol/encode.ts'
import { negotiateVersion, shapeConnack } from '../../src/protocol/negotiate.ts'
import { loadVectors } from './vectors.ts'

interface NegotiationVector {
  readonly name: string
  readonly connectVersion: number
  readonly latest: number
  readonly expect: {
    readonly connectionVersion: number
    readonly connackHasServerVersion: boolean
    readonly connackServerVersion: number | null
    readonly connackHasNodeId: boolean
  }
}

test.each(loadVectors<NegotiationVector>('negotiation.json'))('$name', (vector) => {
  expect(vector.latest).toBe(LATEST_VERSION)
  const version = negotiateVersion(vector.connectVersion)
  expect(version).toBe(vector.expect.connectionVersion)
  for (const reasonCode of [1, 2]) {
    const packet = shapeConnack({ connectVersion: vector.connectVersion, reasonCode, timeDiffMs: -5n, nodeID: '7' })
    expect(packet.serverVersion).toBe(vector.expect.connackServerVersion ?? undefined)
    const bytes = encode(packet, version)
    expect((bytes[0]! & 1) === 1).toBe(vector.expect.connackHasServerVersion)
    expect(decode(bytes, version)).toMatchObject({ frame: { nodeID: vector.expect.connackHasNodeId ? '7' : '0', timeDiffMs: -5n, reasonCode } })
  }
})

test('a client that says version 0 talks version 1', () => {
  expect(negotiateVersion(0)).toBe(1)
  expect(shapeConnack({ connectVersion: 0, reasonCode: 1, timeDiffMs: 0n, nodeID: '1' })).not.toHaveProperty('serverVersion')
})

test('keys and salt are handed on, and empty unless given', () => {
  const fields = { connectVersion: 5, reasonCode: 1, timeDiffMs: 0n, nodeID: '1' }
  expect(shapeConnack(fields)).toMatchObject({ serverKey: '', salt: '' })
  expect(shapeConnack({ ...fields, serverKey: 'k', salt: 's' })).toMatchObject({ serverKey: 'k', salt: 's' })
})
