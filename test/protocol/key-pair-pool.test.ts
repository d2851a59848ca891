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
  const fire = (): void => {
    for (const each of [...timers]) {
      timers.delete(each)
      each()
    }
  }
  return {
    pool,
    asked,
    timers,
    fire,
    /** Everything that is under way ends, and every timer fires, until nothing is left. @returns how many were under way at most */
    settle(pair = (): KeyPair | undefined => ({ publicKeyText: `pair ${++madeCount}` }) as KeyPair): number {
      let most = 0
      while (asked.length + timers.size > 0) {
        most = Math.max(most, asked.length)
        for (const made of asked.splice(0)) made(pair())
        fire()
      }
      return most
    },
  }
}

describe('KeyPairPool', () => {
  test('makes nothing before the first pair is asked for', () => {
    const { pool, asked, timers, settle } = stagePool(10)
    expect([pool.count, asked.length, timers.size]).toEqual([0, 0, 0])
    expect(pool.take()).toBeUndefined()
    settle()
    expect(pool.count).toBe(10)
  })

  test('fills up to its bound and no further, eight at a time at most', () => {
    const { pool, settle } = stagePool(20)
    pool.take()
    expect(settle()).toBe(8)
    expect(pool.count).toBe(20)
  })

  test('counts what is under way towards the bound', () => {
    const { pool, asked, fire } = stagePool(2)
    pool.take()
    fire()
    pool.take()
    fire()
    expect(asked).toHaveLength(2)
  })

  test('makes none while pairs are asked for', () => {
    const { pool, asked, fire } = stagePool(10)
    pool.take()
    for (let count = 0; count < 5; count++) {
      pool.take()
      fire()
      expect(asked).toHaveLength(0)
    }
    fire()
    expect(asked).toHaveLength(8)
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
    const { pool, asked, timers, fire } = stagePool(10)
    pool.take()
    fire()
    for (const made of asked.splice(0)) made({} as KeyPair)
    expect([asked.length, timers.size]).toEqual([0, 1])
  })

  test('does not go on by itself after a failure', () => {
    const { pool, asked, timers, settle } = stagePool(10)
    pool.take()
    settle(() => undefined)
    expect([pool.count, asked.length, timers.size]).toEqual([0, 0, 0])
    pool.take()
    expect(timers.size).toBe(1)
  })

  test('forgets everything when it is closed, also what is still under way', () => {
    const { pool, asked, timers, settle, fire } = stagePool(20)
    pool.take()
    fire()
    for (const made of asked.splice(0)) made({} as KeyPair)
    fire()
    expect([pool.count, asked.length]).toEqual([8, 8])
    pool.close()
    settle()
    expect([pool.count, timers.size]).toEqual([0, 0])
    expect(pool.take()).toBeUndefined()
    expect([asked.length, timers.size]).toEqual([0, 0])
  })

  test('a close while it waits takes the timer back', () => {
    const { pool, timers } = stagePool(5)
    pool.take()
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
