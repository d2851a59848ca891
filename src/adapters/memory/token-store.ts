/** Digests of tokens in this process's memory. Power loss loses them. Every answer is synchronous. Nothing has to be closed. */
import type { StoredToken, TokenStore } from '../../contracts/token-store.ts'

/** A TokenStore for tests and development. It holds what it is given, without a bound. */
export function memoryTokenStore(): TokenStore {
  const byUID = new Map<string, Map<number, StoredToken>>()
  return {
    token: (uid, deviceFlag) => byUID.get(uid)?.get(deviceFlag),
    putToken: (uid, { deviceFlag, digest, deviceLevel }) => {
      const tokens = byUID.get(uid) ?? new Map<number, StoredToken>()
      byUID.set(uid, tokens.set(deviceFlag, Object.freeze({ deviceFlag, digest: new Uint8Array(digest), deviceLevel })))
    },
    removeToken: (uid, deviceFlag) => {
      const tokens = byUID.get(uid)
      tokens?.delete(deviceFlag)
      if (tokens?.size === 0) byUID.delete(uid)
    },
  }
}
