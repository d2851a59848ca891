/**
 * Token verifiers that need nobody else: nothing to lose, nothing to wait for, nothing to close. A host that knows its
 * users' tokens only by asking somebody writes a function of its own (a TokenVerifier is one) or uses an HTTP verifier.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { TokenStore } from '../../contracts/token-store.ts'
import type { TokenVerifier, VerifyTokenRequest, VerifyTokenResult } from '../../contracts/token-verifier.ts'
import { badOption } from '../../errors.ts'
import { DeviceLevel } from '../../model/device.ts'
import { isPromise } from '../../model/maybe-promise.ts'
import { tokenDigest } from '../../model/token-digest.ts'

/**
 * Lets everybody in as anybody. For development, and for servers that only trusted programs can reach: there is no default
 * verifier so that an open server has to be asked for by this name.
 */
export function allowAnyToken(options: { readonly deviceLevel?: DeviceLevel } = {}): TokenVerifier {
  const deviceLevel = checkDeviceLevel(options.deviceLevel ?? DeviceLevel.Slave)
  return () => ({ ok: true, deviceLevel })
}

/** One token of a user, and what a connection made with it is worth (default slave). */
export interface StaticToken {
  readonly token: string
  readonly deviceLevel?: DeviceLevel
}

/** Users and their tokens. A single string is one token at slave level. */
export type StaticTokens = Readonly<Record<string, string | readonly StaticToken[]>>

/**
 * Knows every user's tokens from the start, or asks a `TokenStore` for the one of the user and kind of device, as
 * `engine.users.setToken` has set it.
 *
 * Only digests are kept, and they are compared in constant time; an unknown uid does the same work as a known one with one
 * token, so that an answer's time tells neither a token nor who exists. How long the store takes is its own. A store that
 * fails makes the verifier fail: the client gets CONNACK 15, and not "wrong token".
 * @throws TypeError for what holds no tokens, and for an empty token, which would let in whoever sends none
 */
export function staticTokenVerifier(tokens: StaticTokens | TokenStore): TokenVerifier {
  if (typeof tokens !== 'object' || tokens === null || tokens instanceof Map) badOption('tokens', 'an object of uids and their tokens, or a store of tokens', tokens)
  return isTokenStore(tokens) ? storedTokens(tokens) : listedTokens(tokens)
}

interface Known {
  readonly digest: Uint8Array
  readonly deviceLevel: DeviceLevel
}

function isTokenStore(tokens: StaticTokens | TokenStore): tokens is TokenStore {
  return typeof tokens.token === 'function'
}

function listedTokens(entries: StaticTokens): TokenVerifier {
  const byUID = new Map(Object.entries(entries).map(([uid, tokens]) => [uid, digestsOf(uid, tokens)]))
  const nobody = [unknownToken()]
  return (request) => judge(request, byUID.get(request.uid) ?? nobody)
}

function storedTokens(store: TokenStore): TokenVerifier {
  const nobody = unknownToken()
  return (request) => {
    const stored = store.token(request.uid, request.deviceFlag)
    return isPromise(stored) ? stored.then((late) => judge(request, [late ?? nobody])) : judge(request, [stored ?? nobody])
  }
}

/** No token has this digest: it is the right length for a comparison that has to fail. */
function unknownToken(): Known {
  return { digest: randomBytes(32), deviceLevel: DeviceLevel.Slave }
}

function judge({ token }: VerifyTokenRequest, known: readonly Known[]): VerifyTokenResult {
  const presented = tokenDigest(token)
  let matched: DeviceLevel | undefined
  for (const { digest, deviceLevel } of known) {
    if (timingSafeEqual(digest, presented)) matched = deviceLevel
  }
  return matched === undefined || token === '' ? { ok: false } : { ok: true, deviceLevel: matched }
}

function digestsOf(uid: string, tokens: string | readonly StaticToken[]): Known[] {
  const list: readonly (StaticToken | null)[] = Array.isArray(tokens) ? (tokens as readonly StaticToken[]) : [{ token: tokens as string }]
  return list.map((each) => {
    const { token, deviceLevel } = each ?? {}
    if (typeof token !== 'string' || token === '') {
      throw new TypeError(`imengine: every token of ${JSON.stringify(uid)} must be a string of at least one character`)
    }
    return { digest: tokenDigest(token), deviceLevel: checkDeviceLevel(deviceLevel ?? DeviceLevel.Slave) }
  })
}

function checkDeviceLevel(level: DeviceLevel): DeviceLevel {
  if (level !== DeviceLevel.Slave && level !== DeviceLevel.Master) badOption('deviceLevel', '0 (slave) or 1 (master)', level)
  return level
}
