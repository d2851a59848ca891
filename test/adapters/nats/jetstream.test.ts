import { headers, type NatsConnection } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { JetStream } from '../../../src/adapters/nats/jetstream.ts'

const INFO = { config: { name: 'log' }, created: 'today', state: { first_seq: 1, last_seq: 3, messages: 3 } }

function answering(answer: object): JetStream {
  const nats = { request: () => Promise.resolve({ json: () => answer }) } as unknown as NatsConnection
  return new JetStream(nats, headers)
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

describe('what servers say of an entry', () => {
  const publish = (answer: object): Promise<number> => answering(answer).publish('subject', Buffer.from('entry'), { stream: 'log', messageID: 'id', timeoutMs: 1_000 })

  it('is where it is, also when it was there already', async () => {
    expect(await publish({ stream: 'log', seq: 7 })).toBe(7)
    expect(await publish({ stream: 'log', seq: 7, duplicate: true })).toBe(7)
  })

  // Older servers say 0 of one that they have not agreed on yet: it may still be at no place at all.
  it.each([
    ['0', { stream: 'log', seq: 0, duplicate: true }],
    ['that it is in process', { error: { code: 409, err_code: 10_158, description: 'duplicate message id is in process' } }],
  ])('is no place as long as they say %s', async (_what, answer) => {
    await expect(publish(answer)).rejects.toMatchObject({ kind: 'refused', code: 10_158 })
  })
})
