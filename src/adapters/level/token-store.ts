/**
 * Digests of tokens in the database. Power loss loses nothing that has resolved. A slow disk makes writes wait, and reads of
 * what is not known. Nothing has to be closed.
 */
import type { StoredToken, TokenStore } from '../../contracts/token-store.ts'
import { badOption, IMError, integerBetween } from '../../errors.ts'
import { DeviceLevel } from '../../model/device.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import type { Database } from './database.ts'
import { Tag, textKey } from './keys.ts'
import { KnownValues } from './known-values.ts'
import type { Writer } from './writer.ts'

export interface LevelTokenStoreOptions {
  readonly database: Database
  readonly writer: Writer
  /** tokens that are kept in memory, and that there are none */
  readonly maxCachedValues: number
}

const VERSION = 1
const DIGEST_BYTES = 32
/** version, device level */
const HEAD_BYTES = 2

export class LevelTokenStore implements TokenStore {
  readonly #writer: Writer
  readonly #known: KnownValues

  constructor({ database, writer, maxCachedValues }: LevelTokenStoreOptions) {
    this.#writer = writer
    this.#known = new KnownValues({ read: (keys) => database.getMany(keys), maxCount: maxCachedValues })
  }

  /** The database may hold something else than was known. */
  forget(): void {
    this.#known.forget()
  }

  token(uid: string, deviceFlag: number): MaybePromise<StoredToken | undefined> {
    const found = this.#known.get(tokenKey(uid, deviceFlag))
    return isPromise(found) ? found.then((row) => row && decode(uid, deviceFlag, row)) : found && decode(uid, deviceFlag, found)
  }

  putToken(uid: string, token: StoredToken): Promise<void> {
    return this.#write(tokenKey(uid, token.deviceFlag), encode(token))
  }

  removeToken(uid: string, deviceFlag: number): Promise<void> {
    return this.#write(tokenKey(uid, deviceFlag), undefined)
  }

  #write(key: Buffer, row: Buffer | undefined): Promise<void> {
    return this.#writer.write([key, row], () => this.#known.wrote(key, row))
  }
}

function tokenKey(uid: string, deviceFlag: number): Buffer {
  return textKey(Tag.Token, Buffer.from(uid), Buffer.alloc(1, integerBetween('deviceFlag', deviceFlag, 0, 255)))
}

/** @throws TypeError that does not show what came: it may be a token */
function encode({ digest, deviceLevel }: StoredToken): Buffer {
  if (!(digest instanceof Uint8Array) || digest.length !== DIGEST_BYTES) {
    badOption('digest', `a Uint8Array of ${DIGEST_BYTES} bytes`, digest instanceof Uint8Array ? digest.length : typeof digest)
  }
  if (deviceLevel !== DeviceLevel.Slave && deviceLevel !== DeviceLevel.Master) badOption('deviceLevel', '0 (slave) or 1 (master)', deviceLevel)
  const row = Buffer.alloc(HEAD_BYTES + DIGEST_BYTES) // not from the pool, which would stay with it
  row[0] = VERSION
  row[1] = deviceLevel
  row.set(digest, HEAD_BYTES)
  return row
}

function decode(uid: string, deviceFlag: number, row: Buffer): StoredToken {
  if (row[0] !== VERSION) throw new IMError('IM_STORE_FORMAT', { detail: `a token of version ${row[0]}`, context: { uid } })
  return { deviceFlag, digest: new Uint8Array(row.subarray(HEAD_BYTES)), deviceLevel: row[1] as DeviceLevel }
}
