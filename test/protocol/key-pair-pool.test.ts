import { describe, expect, test } from 'vitest'
import { agreeWith, ClientKeyAgreement } from '../../src/protocol/key-agreement.ts'
import { makeKeyPair, type KeyPair } from '../../src/protocol/key-pair.ts'
import { KeyPairPool } from '../../src/protocol/key-pair-pool.ts'

/** A pool whose threads and timer move only when the test says so. */
function stagePool(maxCount: number) {
  const asked: ((pair: KeyPair | undefined) => void)[] = []
  const timers = new Set<() => void>()
  let madeCount = 0
  const pool = new KeyPairPool({
    maxCount,
    make: (made) => asked.push(made),
    later: (_delayMs, fire) => {
      timers.add(fire)
      return () => timers.delete(fire)
    },
  })
  return {
    pool,
    asked,
    timers,
    /** Everything that is under way ends, and every timer fires, until nothing is left. @returns how many were under way at most */
    settle(pair = (): KeyPair | undefined => ({ publicKeyText: `pair ${++madeCount}` }) as KeyPair): number {
      let most = 0
      while (asked.length + timers.size > 0) {
        most = Math.max(most, asked.length)
        for (const made of asked.splice(0)) made(pair())
        for (const fire of [...timers]) {
          timers.delete(fire)
          fire()
        }
      }
      return most
    },
  }
}

describe('KeyPairPool', () => {
  test('makes nothing before the first pair is asked for', () => {
    const { pool, asked, timers } = stagePool(10)
    expect([pool.count, asked.length, timers.size]).toEqual([0, 0, 0])
    expect(pool.take()).toBeUndefined()
    expect(asked).toHaveLength(1)
  })

  test('fills up to its bound and no further, four at a time at most', () => {
    const { pool, settle } = stagePool(10)
    pool.take()
    expect(settle()).toBe(4)
    expect(pool.count).toBe(10)
  })

  test('counts what is under way towards the bound', () => {
    const { pool, asked } = stagePool(2)
    for (let count = 0; count < 5; count++) pool.take()
    expect(asked).toHaveLength(2)
  })

  test('hands out each pair once, and is full again afterwards', () => {
    const { pool, settle } = stagePool(5)
    pool.take()
    settle()
    const taken = Array.from({ length: 5 }, () => pool.take()?.publicKeyText)
    expect(new Set(taken).size).toBe(5)
    expect(taken).not.toContain(undefined)
    expect(pool.take()).toBeUndefined()
    settle()
    expect(pool.count).toBe(5)
    expect(taken).not.toContain(pool.take()?.publicKeyText)
  })

  test('waits for a timer between one batch and the next, which alone would keep no process alive', () => {
    const { pool, asked, timers } = stagePool(10)
    pool.take()
    asked.splice(0)[0]!({} as KeyPair)
    expect([asked.length, timers.size]).toEqual([0, 1])
  })

  test('does not go on by itself after a failure', () => {
    const { pool, asked, settle } = stagePool(10)
    pool.take()
    settle(() => undefined)
    expect(pool.count).toBe(0)
    expect(pool.take()).toBeUndefined()
    expect(asked).toHaveLength(1)
  })

  test('forgets everything when it is closed, also what is still under way', () => {
    const { pool, asked, timers, settle } = stagePool(5)
    pool.take()
    settle()
    pool.take()
    asked[0]!({} as KeyPair)
    expect(timers.size).toBe(0) // full again
    pool.take()
    pool.take()
    pool.close()
    settle()
    expect([pool.count, timers.size]).toEqual([0, 0])
    expect(pool.take()).toBeUndefined()
    expect(asked).toHaveLength(0)
  })

  test('a close while it waits takes the timer back', () => {
    const { pool, asked, timers } = stagePool(5)
    pool.take()
    asked.splice(0)[0]!({} as KeyPair)
    expect(timers.size).toBe(1)
    pool.close()
    expect(timers.size).toBe(0)
  })
})

test('a pair that was made ahead agrees with a client as any other', async () => {
  const pair = await new Promise<KeyPair | undefined>(makeKeyPair)
  const client = new ClientKeyAgreement()
  const server = agreeWith(pair!, client.clientKey, (count) => new Uint8Array(count))
  expect(server.serverKey).toBe(pair!.publicKeyText)
  const text = Buffer.from('what both ends can read')
  expect(client.complete(server.serverKey, server.salt).openPayload(server.cipher.sealPayload(text))).toEqual(new Uint8Array(text))
})
