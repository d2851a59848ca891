import { createHash } from 'node:crypto'
import { levelStorage } from 'imengine/level'
import { describe, expect, it } from 'vitest'
import { isPromise } from '../../../src/model/maybe-promise.ts'
import { diskFull, WatchedLevel } from './watched-level.ts'

const digestOf = (token: string): Buffer => createHash('sha256').update(token).digest()

async function opened() {
  const level = new WatchedLevel()
  const clock = { nowMs: 0 }
  const storage = levelStorage({ db: level, nowMs: () => clock.nowMs })
  await storage.open()
  await storage.ready()
  return { level, clock, tokens: storage.tokens }
}

describe('LevelTokenStore', () => {
  it('answers at once what it has been asked or told before, that there is none included', async () => {
    const { tokens, level } = await opened()
    await tokens.putToken('ann', { deviceFlag: 1, digest: digestOf('a'), deviceLevel: 1 })
    expect(isPromise(tokens.token('bob', 1))).toBe(true)
    await tokens.token('bob', 1)
    level.readCount = 0
    expect([tokens.token('ann', 1), tokens.token('bob', 1)]).toEqual([{ deviceFlag: 1, digest: new Uint8Array(digestOf('a')), deviceLevel: 1 }, undefined])
    expect(level.readCount).toBe(0)
  })

  it('is not changed by what is done to an answer', async () => {
    const { tokens } = await opened()
    await tokens.putToken('ann', { deviceFlag: 0, digest: digestOf('a'), deviceLevel: 0 })
    ;(await tokens.token('ann', 0))!.digest.fill(0)
    expect(Buffer.from((await tokens.token('ann', 0))!.digest)).toEqual(digestOf('a'))
  })

  it('shows nothing of a write that has failed, and after another one what is there', async () => {
    const { tokens, level, clock } = await opened()
    await tokens.putToken('ann', { deviceFlag: 0, digest: digestOf('a'), deviceLevel: 0 })
    const [put, removal] = [() => tokens.putToken('ann', { deviceFlag: 0, digest: digestOf('b'), deviceLevel: 1 }), () => tokens.removeToken('ann', 0)]
    level.failure = diskFull()
    for (const write of [put, removal]) await expect(write()).rejects.toMatchObject({ code: 'IM_STORE_FULL', retryable: true })
    expect(Buffer.from((await tokens.token('ann', 0))!.digest)).toEqual(digestOf('a'))
    level.failure = undefined
    level.lateFailure = diskFull()
    clock.nowMs += 1_000
    await expect(put()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.lateFailure = undefined
    clock.nowMs += 1_000
    await tokens.removeToken('bob', 0)
    expect(Buffer.from((await tokens.token('ann', 0))!.digest)).toEqual(digestOf('b')) // it was written after all
  })

  it('takes a digest and nothing else, and does not show what it was given instead', async () => {
    const { tokens } = await opened()
    const put = (over: object): unknown => tokens.putToken('ann', { deviceFlag: 0, digest: digestOf('a'), deviceLevel: 0, ...over })
    expect(() => put({ digest: 'my secret token' })).toThrow(new TypeError('imengine: digest must be a Uint8Array of 32 bytes, got "string"'))
    expect(() => put({ digest: Buffer.from('my secret token') })).toThrow(new TypeError('imengine: digest must be a Uint8Array of 32 bytes, got 15'))
    expect(() => put({ deviceLevel: 2 })).toThrow(/deviceLevel must be 0 \(slave\) or 1 \(master\), got 2/)
    for (const deviceFlag of [-1, 256, 0.5]) {
      expect(() => put({ deviceFlag })).toThrow(/deviceFlag must be an integer from 0 to 255/)
      expect(() => tokens.token('ann', deviceFlag)).toThrow(TypeError)
      expect(() => tokens.removeToken('ann', deviceFlag)).toThrow(TypeError)
    }
    expect(await tokens.token('ann', 0)).toBeUndefined()
  })
})
