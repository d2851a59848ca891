import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { stage, TEAM } from '../support.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const texts = ['', 'hello', '用户😀', 'x'.repeat(1_536), 'x'.repeat(1_537), 'y'.repeat(30_000)]

test.each(['auto', 'wasm', 'node'] as const)("payloadCrypto '%s': what is sent encrypted arrives, short and long", async (payloadCrypto) => {
  const { connect, errors } = await stage({ payloadCrypto })
  const { client: ann } = await connect('ann')
  const { client: bob } = await connect('bob')
  expect(bob.cipher).not.toBe(undefined)
  for (const payload of texts) {
    await ann.send({ ...TEAM, payload })
    expect((await bob.nextRecv()).text).toBe(payload)
  }
  expect(errors).toEqual([])
})

/** In a process of its own, because `WebAssembly` belongs to all of it. */
function withoutWebAssembly(payloadCrypto: string): string {
  const script = `
    const { allowAnyToken, IMEngine } = await import('./src/index.ts')
    const { connectTestClient } = await import('./src/testing/index.ts')
    delete globalThis.WebAssembly // tsx needs it; the engine looks for it when it is made, or later
    const lines = []
    const logger = { debug() {}, info() {}, warn: (_fields, message) => lines.push(message), error() {} }
    try {
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), logger, payloadCrypto: '${payloadCrypto}' })
      await engine.start()
      const { client: ann } = await connectTestClient(engine, { uid: 'ann' })
      const { client: bob } = await connectTestClient(engine, { uid: 'bob' })
      await ann.send({ channelID: 'bob', channelType: 1, payload: 'hello' })
      console.log((await bob.nextRecv()).text, lines.length, lines[0])
      await engine.close()
    } catch (error) {
      console.log(error.name, error.message)
    }`
  return execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { cwd: root, encoding: 'utf8' }).trim()
}

test("where there is no WebAssembly, 'auto' works by node:crypto and says so once", () => {
  expect(withoutWebAssembly('auto')).toMatch(/^hello 1 WebAssembly with SIMD is not to be had here/)
})

test("where there is no WebAssembly, 'wasm' is a TypeError of the constructor, and 'node' works", () => {
  expect(withoutWebAssembly('wasm')).toMatch(/^TypeError imengine: options\.payloadCrypto must be 'auto' or 'node' where/)
  expect(withoutWebAssembly('node')).toBe('hello 0 undefined')
})
