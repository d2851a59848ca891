import assert from 'node:assert/strict'
import type { TokenVerifier, VerifyTokenRequest, VerifyTokenResult } from '../../contracts/token-verifier.ts'
import { DeviceLevel } from '../../model/device.ts'
import { ReasonCode } from '../../model/reason-code.ts'
import { casesOf, started, type ContractCase, type ContractOptions, type Opened, type Scenario } from './contract-case.ts'
import { HOSTILE_IDS } from './samples.ts'

/** Whom the verifier knows. */
export interface TokenSample {
  readonly uid: string
  readonly token: string
  /** what a successful answer must say, where it is certain */
  readonly deviceLevel?: DeviceLevel
}

export interface TokenVerifierContractOptions<O extends Opened<TokenVerifier>> extends ContractOptions<TokenVerifier, O> {
  /** one or more that must be let in */
  readonly accepted: readonly TokenSample[]
  /** true for a verifier that refuses nobody: then nothing is said about wrong tokens */
  readonly acceptsAnything?: boolean
}

/** The promises of a TokenVerifier. */
export function tokenVerifierContract<O extends Opened<TokenVerifier>>(
  options: TokenVerifierContractOptions<O>,
): ContractCase[] {
  const { accepted, acceptsAnything = false } = options
  return casesOf(options, [...acceptScenarios(accepted), ...(acceptsAnything ? [] : refuseScenarios(accepted))])
}

async function verify(verifier: TokenVerifier, over: Partial<VerifyTokenRequest>): Promise<VerifyTokenResult> {
  const signal = new AbortController().signal
  const request = { uid: 'ann', token: '', deviceFlag: 0, deviceID: 'd', remoteAddress: undefined, signal, ...over }
  return await started(() => verifier(request))
}

function assertAccepted(result: VerifyTokenResult, sample: TokenSample): void {
  assert.equal(result.ok, true, `${sample.uid} must be let in`)
  if (!result.ok) return
  const levels: readonly unknown[] = [undefined, DeviceLevel.Slave, DeviceLevel.Master]
  assert.ok(levels.includes(result.deviceLevel), 'deviceLevel must be 0, 1 or absent')
  if (sample.deviceLevel !== undefined) assert.equal(result.deviceLevel ?? DeviceLevel.Slave, sample.deviceLevel)
}

function assertRefused(result: VerifyTokenResult, what: string): void {
  assert.equal(result.ok, false, `${what} must be refused`)
  if (result.ok || result.reason === undefined) return
  assert.ok(Object.values(ReasonCode).includes(result.reason), 'a reason must be a reason code')
  assert.notEqual(result.reason, ReasonCode.Success, 'a refusal must not be told as success')
}

function acceptScenarios(accepted: readonly TokenSample[]): Scenario<TokenVerifier>[] {
  return [
    [
      'a right token is accepted, whatever the device and the address, as often as it is shown',
      async (verifier) => {
        for (const sample of accepted) {
          const { uid, token } = sample
          assertAccepted(await verify(verifier, { uid, token }), sample)
          assertAccepted(await verify(verifier, { uid, token }), sample)
          assertAccepted(await verify(verifier, { uid, token, deviceID: '👩‍👩‍👧', remoteAddress: '::1' }), sample)
        }
      },
    ],
    [
      'requests that overlap each get their own answer',
      async (verifier) => {
        const asked = Array.from({ length: 30 }, (_, i) => accepted[i % accepted.length] as TokenSample)
        const results = await Promise.all(asked.map(({ uid, token }) => verify(verifier, { uid, token })))
        for (const [i, result] of results.entries()) assertAccepted(result, asked[i] as TokenSample)
      },
    ],
  ]
}

function refuseScenarios(accepted: readonly TokenSample[]): Scenario<TokenVerifier>[] {
  return [
    [
      'a token that is almost right is refused as a value, not by a throw',
      async (verifier) => {
        for (const { uid, token } of accepted) {
          const flipped = String.fromCharCode((token.codePointAt(0) ?? 0) ^ 1) + token.slice(1)
          for (const wrong of ['', ' ', `${token} `, ` ${token}`, `${token}x`, token.slice(0, -1), flipped, `${token}\0`]) {
            assertRefused(await verify(verifier, { uid, token: wrong }), JSON.stringify(wrong))
          }
        }
      },
    ],
    [
      'a uid that is not known is refused, whatever token it shows',
      async (verifier) => {
        const known = accepted.map((sample) => sample.uid)
        const unknown = HOSTILE_IDS.filter((uid) => !known.includes(uid))
        for (const uid of [...unknown, 'toString', '']) {
          for (const token of ['', accepted[0]?.token ?? '']) {
            assertRefused(await verify(verifier, { uid, token }), JSON.stringify(uid.slice(0, 40)))
          }
        }
      },
    ],
    [
      "one user's token does not let another in",
      async (verifier) => {
        for (const { uid } of accepted) {
          for (const other of accepted) {
            if (accepted.some((sample) => sample.uid === uid && sample.token === other.token)) continue
            assertRefused(await verify(verifier, { uid, token: other.token }), `the token of ${other.uid}`)
          }
        }
      },
    ],
    [
      'a refusal does not spoil the right token that overlaps or follows it',
      async (verifier) => {
        const sample = accepted[0] as TokenSample
        const { uid, token } = sample
        const [wrong, right] = await Promise.all([verify(verifier, { uid, token: 'wrong' }), verify(verifier, { uid, token })])
        assertRefused(wrong, 'the wrong token')
        assertAccepted(right, sample)
        assertAccepted(await verify(verifier, { uid, token }), sample)
      },
    ],
  ]
}
