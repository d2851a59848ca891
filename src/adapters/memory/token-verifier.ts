/**
 * Token verifiers that need nobody else: nothing to lose, nothing to wait for, nothing to close. A host that knows its
 * users' tokens only by asking somebody writes a function of its own (a TokenVerifier is one) or uses an HTTP verifier.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { TokenVerifier } from '../../contracts/token-verifier.ts'
import { badOption } from '../../errors.ts'
import { DeviceLevel } from '../../model/device.ts'

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

/**
 * Knows every user's tokens from the start. A single string is one token at slave level.
 *
 * Only digests are kept, and they are compared in constant time; an unknown uid does the same work as a known one with one
 * token, so that an answer's time tells neither a token nor who exists.
 * @throws TypeError for an empty token, which would let in whoever sends none
 */
export function staticTokenVerifier(entries: Readonly<Record<string, string | readonly StaticToken[]>>): TokenVerifier {
  const byUID = new Map(Object.entries(entries).map(([uid, tokens]) => [uid, digestsOf(uid, tokens)]))
  // No token has this digest: it is the right length for a comparison that has to fail.
  const nobody = [{ digest: randomBytes(32), deviceLevel: DeviceLevel.Slave }]
  return ({ uid, token }) => {
    const presented = sha256(token)
    let matched: DeviceLevel | undefined
    for (const { digest, deviceLevel } of byUID.get(uid) ?? nobody) {
      if (timingSafeEqual(digest, presented)) matched = deviceLevel
    }
    return matched === undefined ? { ok: false } : { ok: true, deviceLevel: matched }
  }
}

function digestsOf(uid: string, tokens: string | readonly StaticToken[]): { digest: Buffer; deviceLevel: DeviceLevel }[] {
  const list: readonly StaticToken[] = typeof tokens === 'string' ? [{ token: tokens }] : tokens
  return list.map(({ token, deviceLevel }) => {
    if (typeof token !== 'string' || token === '') {
      throw new TypeError(`imengine: every token of ${JSON.stringify(uid)} must be a string of at least one character`)
    }
    return { digest: sha256(token), deviceLevel: checkDeviceLevel(deviceLevel ?? DeviceLevel.Slave) }
  })
}

function checkDeviceLevel(level: DeviceLevel): DeviceLevel {
  if (level !== DeviceLevel.Slave && level !== DeviceLevel.Master) badOption('deviceLevel', '0 (slave) or 1 (master)', level)
  return level
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest()
}
