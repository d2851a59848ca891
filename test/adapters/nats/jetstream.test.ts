import type { NatsConnection } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { JetStream } from '../../../src/adapters/nats/jetstream.ts'

const INFO = { config: { name: 'log' }, created: 'today', state: { first_seq: 1, last_seq: 3, messages: 3 } }

function answering(answer: object): JetStream {
  const nats = { request: () => Promise.resolve({ json: () => answer }) } as unknown as NatsConnection
  return new JetStream(nats, () => {
    throw new Error('nothing is published here')
  })
}

describe('what servers say of a stream', () => {
  it.each([
    ['a server alone', INFO],
    ['servers whose stream has a leader', { ...INFO, cluster: { name: 'c', leader: 'n1' } }],
  ])('counts when it comes from %s', async (_name, answer) => {
    expect((await answering(answer).streamInfo('log', 1_000)).state.last_seq).toBe(3)
  })

  // One that has lost the others says what it has, and a node that believed it would take itself for one that hears everything.
  it('counts for nothing when it knows of no leader', async () => {
    const asked = answering({ ...INFO, cluster: { name: 'c', replicas: [{ name: 'n1', current: false }] } }).streamInfo('log', 1_000)
    await expect(asked).rejects.toMatchObject({ kind: 'no-responders', message: 'log has no leader' })
  })
})
