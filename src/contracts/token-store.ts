import type { DeviceLevel } from '../model/device.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

/** What is kept of a token: enough to recognise it, not to use it. */
export interface StoredToken {
  readonly deviceFlag: number
  /** SHA-256 of the token's UTF-8 bytes */
  readonly digest: Uint8Array
  /** what a connection made with it is worth */
  readonly deviceLevel: DeviceLevel
}

/**
 * The tokens a host has given its users: one per user and kind of device, as `engine.users.setToken` sets them and
 * `staticTokenVerifier(storage.tokens)` reads them. A write is visible to every read that starts after it has resolved.
 */
export interface TokenStore {
  token(uid: string, deviceFlag: number): MaybePromise<StoredToken | undefined>
  /** Replaces the one of this kind of device. The store keeps nothing it was given. */
  putToken(uid: string, token: StoredToken): MaybePromise<void>
  /** Removing what is not there does nothing. */
  removeToken(uid: string, deviceFlag: number): MaybePromise<void>
}
