import { expect, it } from 'vitest'
import { allowAnyToken, staticTokenVerifier } from '../../../src/adapters/memory/index.ts'

const ask = { uid: 'ann', token: '', deviceFlag: 0, deviceID: 'd', remoteAddress: undefined, signal: new AbortController().signal }

it('allowAnyToken says slave unless it is told otherwise', () => {
  expect(allowAnyToken()(ask)).toEqual({ ok: true, deviceLevel: 0 })
  expect(allowAnyToken({ deviceLevel: 1 })(ask)).toEqual({ ok: true, deviceLevel: 1 })
})

it('names of objects are no users', () => {
  const verifier = staticTokenVerifier({ ann: 'secret' })
  for (const uid of ['__proto__', 'constructor', 'toString']) expect(verifier({ ...ask, uid, token: 'secret' })).toEqual({ ok: false })
})

it('a user without tokens is refused', () => {
  expect(staticTokenVerifier({ ann: [] })({ ...ask, token: '' })).toEqual({ ok: false })
})

it('an empty token and an unknown level are mistakes of the host, and the message holds no token', () => {
  for (const none of [undefined, null, 'token', new Map([['ann', 'token']])]) expect(() => staticTokenVerifier(none as never)).toThrow(/tokens must be an object of uids and their tokens/)
  for (const token of [5, undefined, null, {}, [null], [[]]]) expect(() => staticTokenVerifier({ ann: token as never })).toThrow(/every token of "ann" must be a string/)
  expect(() => staticTokenVerifier({ ann: '' })).toThrow(/every token of "ann" must be a string of at least one character/)
  expect(() => staticTokenVerifier({ ann: [{ token: 'secret', deviceLevel: 2 as 1 }] })).toThrow(
    /^imengine: deviceLevel must be 0 \(slave\) or 1 \(master\), got 2$/,
  )
})
