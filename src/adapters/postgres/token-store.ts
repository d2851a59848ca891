/**
 * Digests of tokens in the database. Power loss loses nothing that has resolved. A slow server makes calls wait, up to the
 * time limit. Nothing has to be closed.
 */
import type { StoredToken, TokenStore } from '../../contracts/token-store.ts'
import { badOption, integerBetween } from '../../errors.ts'
import { DeviceLevel } from '../../model/device.ts'
import type { Database } from './database.ts'
import { textKey, type Texts } from './texts.ts'

const DIGEST_BYTES = 32

export class PostgresTokenStore implements TokenStore {
  readonly #database: Database
  readonly #texts: Texts

  constructor(database: Database, texts: Texts) {
    this.#database = database
    this.#texts = texts
  }

  async token(uid: string, deviceFlag: number): Promise<StoredToken | undefined> {
    checkFlag(deviceFlag)
    const [row] = await this.#database.query<{ digest: Buffer; device_level: number }>(
      `SELECT digest, device_level FROM ${this.#database.s}.tokens WHERE uid_key = $1 AND device_flag = $2`,
      [textKey(uid), deviceFlag],
    )
    return row && { deviceFlag, digest: new Uint8Array(row.digest), deviceLevel: row.device_level as DeviceLevel }
  }

  /** @throws TypeError that does not show what came: it may be a token */
  async putToken(uid: string, { deviceFlag, digest, deviceLevel }: StoredToken): Promise<void> {
    checkFlag(deviceFlag)
    if (!(digest instanceof Uint8Array) || digest.length !== DIGEST_BYTES) {
      badOption('digest', `a Uint8Array of ${DIGEST_BYTES} bytes`, digest instanceof Uint8Array ? digest.length : typeof digest)
    }
    if (deviceLevel !== DeviceLevel.Slave && deviceLevel !== DeviceLevel.Master) badOption('deviceLevel', '0 (slave) or 1 (master)', deviceLevel)
    const copy = Buffer.from(digest)
    await this.#texts.keep([uid])
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.tokens VALUES ($1, $2, $3, $4)
        ON CONFLICT (uid_key, device_flag) DO UPDATE SET digest = EXCLUDED.digest, device_level = EXCLUDED.device_level`,
      [textKey(uid), deviceFlag, copy, deviceLevel],
    )
  }

  async removeToken(uid: string, deviceFlag: number): Promise<void> {
    checkFlag(deviceFlag)
    await this.#database.query(`DELETE FROM ${this.#database.s}.tokens WHERE uid_key = $1 AND device_flag = $2`, [textKey(uid), deviceFlag])
  }
}

function checkFlag(deviceFlag: number): void {
  integerBetween('deviceFlag', deviceFlag, 0, 255)
}
