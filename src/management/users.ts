import type { ChannelDirectory, PageQuery } from '../contracts/channel-directory.ts'
import type { TokenStore } from '../contracts/token-store.ts'
import type { UserWrite } from '../contracts/user-write.ts'
import { badOption, IMError } from '../errors.ts'
import type { Page, UserFlags } from '../model/channel.ts'
import { DeviceFlag, DeviceLevel } from '../model/device.ts'
import { tokenDigest } from '../model/token-digest.ts'
import { checkDeviceFlag, checkUID, checkUIDs } from './check.ts'
import { inPieces, type Pause } from './pieces.ts'

/** A token for one kind of device. */
export interface TokenInput {
  readonly deviceFlag: number
  /** default slave; a login with a master token ends others of the same kind of device */
  readonly deviceLevel?: DeviceLevel
  /** 1 to 32767 bytes; only its digest is kept */
  readonly token: string
}

/** Users whom no check but "the channel is disbanded" stops. */
export interface SystemUsersAPI {
  /** At most `maxMembersPerCall`. */
  add(uids: readonly string[]): Promise<void>
  remove(uids: readonly string[]): Promise<void>
  /** Those that were added; those of the option `systemUIDs` count as well and are not listed. @throws IM_NOT_SUPPORTED */
  list(query?: PageQuery): Promise<Page<string>>
}

export interface UsersAPIOptions {
  readonly directory: ChannelDirectory
  readonly tokens: TokenStore | undefined
  readonly maxMembersPerCall: number
  readonly pause: Pause
  /**
   * End the user's connections to this node and tell the other nodes to, of one kind of device or of all, logins under way included.
   * @returns how many this node had
   */
  readonly kick: (uid: string, deviceFlag: number | undefined, reason: string) => Promise<{ readonly kickedCount: number }>
  /**
   * Make a write that takes back what the user was let in by, and end the connections to this node that were; with a log the
   * other nodes do the same when it comes to them. @returns how many this node had
   */
  readonly takeBack: (write: UserWrite, reason: string) => Promise<number>
  /** Tell the other nodes to, now: without a log nothing else does, and one that the log has not come to yet has them still. */
  readonly kickElsewhere: (uid: string, deviceFlag: number | undefined, reason: string) => Promise<void>
}

/** The kinds of device that `quitDevice` means when it is told none. */
const QUITTING_FLAGS: readonly number[] = [DeviceFlag.App, DeviceFlag.Web, DeviceFlag.Pc]

const MAX_TOKEN_BYTES = 32_767

/**
 * `engine.users`: the standing of users, and their tokens. Connections are ended on all nodes that a `peerPush` reaches, and with a
 * log on every node as it comes to what was written; those of this one are counted.
 */
export class UsersAPI {
  readonly system: SystemUsersAPI
  readonly #options: UsersAPIOptions
  readonly #directory: ChannelDirectory

  constructor(options: UsersAPIOptions) {
    const { directory, maxMembersPerCall, pause } = options
    this.#options = options
    this.#directory = directory
    const setSystem = async (uids: readonly string[], system: boolean): Promise<void> =>
      inPieces(checkUIDs('uids', uids, maxMembersPerCall), pause, async (piece) => {
        for (const uid of piece) await directory.setUserFlags(uid, { system })
      })
    this.system = {
      add: (uids) => setSystem(uids, true),
      remove: (uids) => setSystem(uids, false),
      list: async (query) => {
        if (directory.systemUIDs === undefined) throw new IMError('IM_NOT_SUPPORTED', { detail: 'the channel directory does not list system users' })
        return directory.systemUIDs(query)
      },
    }
  }

  async flags(uid: string): Promise<UserFlags> {
    return this.#directory.userFlags(checkUID('uid', uid))
  }

  /**
   * Set what is given, leave the rest. `banned` refuses the next CONNECT and leaves live connections alone (`ban` ends them);
   * `sendBanned` and `system` hold for the next SEND.
   */
  async setFlags(uid: string, flags: Partial<UserFlags>): Promise<void> {
    checkUID('uid', uid)
    if (typeof flags !== 'object' || flags === null) badOption('flags', 'an object', flags)
    for (const name of ['banned', 'sendBanned', 'system'] as const) {
      if (flags[name] !== undefined && typeof flags[name] !== 'boolean') badOption(name, 'true or false', flags[name])
    }
    await this.#directory.setUserFlags(uid, flags)
  }

  /** May not connect any more; live connections are ended unless `disconnect` is false. */
  async ban(uid: string, options: { readonly disconnect?: boolean } = {}): Promise<{ readonly kickedCount: number }> {
    const { disconnect = true } = options
    if (typeof disconnect !== 'boolean') badOption('disconnect', 'true or false', disconnect)
    const write: UserWrite = { part: 'channels', call: 'setUserFlags', args: [checkUID('uid', uid), { banned: true }] }
    if (disconnect) return this.#takeBack([write], undefined, 'banned')
    await this.#directory.setUserFlags(...write.args)
    return { kickedCount: 0 }
  }

  async unban(uid: string): Promise<void> {
    await this.#directory.setUserFlags(checkUID('uid', uid), { banned: false })
  }

  /** May connect and receive, and not send, from the next SEND on. */
  async setSendBan(uid: string, sendBanned: boolean): Promise<void> {
    checkUID('uid', uid)
    if (typeof sendBanned !== 'boolean') badOption('sendBanned', 'true or false', sendBanned)
    await this.#directory.setUserFlags(uid, { sendBanned })
  }

  /**
   * Give the user a token for one kind of device, in place of the one before; `staticTokenVerifier(storage.tokens)` lets them
   * in with it. A master token ends live connections of that kind of device, with DISCONNECT 12.
   * @throws IM_NOT_SUPPORTED when the storage keeps no tokens
   */
  async setToken(uid: string, input: TokenInput): Promise<{ readonly kickedCount: number }> {
    checkUID('uid', uid)
    if (typeof input !== 'object' || input === null) throw new TypeError('imengine: the token must be an object { deviceFlag, token }')
    const { deviceFlag, deviceLevel = DeviceLevel.Slave, token } = input
    checkDeviceFlag(deviceFlag)
    if (deviceLevel !== DeviceLevel.Slave && deviceLevel !== DeviceLevel.Master) badOption('deviceLevel', '0 (slave) or 1 (master)', deviceLevel)
    const tokens = this.#tokens()
    const write: UserWrite = { part: 'tokens', call: 'putToken', args: [uid, { deviceFlag, deviceLevel, digest: tokenDigest(checkToken(token)) }] }
    if (deviceLevel === DeviceLevel.Master) return this.#takeBack([write], [deviceFlag], 'a new token was set')
    await tokens.putToken(...write.args)
    return { kickedCount: 0 }
  }

  /**
   * The token lets nobody in any more; without a `deviceFlag` those of APP, WEB and PC. Live connections stay.
   * @throws IM_NOT_SUPPORTED when the storage keeps no tokens
   */
  async removeToken(uid: string, deviceFlag?: number): Promise<void> {
    checkUID('uid', uid)
    if (deviceFlag !== undefined) checkDeviceFlag(deviceFlag)
    const tokens = this.#tokens()
    for (const flag of deviceFlag === undefined ? QUITTING_FLAGS : [deviceFlag]) await tokens.removeToken(uid, flag)
  }

  /**
   * Sign a kind of device out, or APP, WEB and PC: its token goes, where the storage keeps tokens, then its connections get
   * DISCONNECT 12.
   */
  async quitDevice(uid: string, deviceFlag?: number): Promise<{ readonly kickedCount: number }> {
    checkUID('uid', uid)
    if (deviceFlag !== undefined) checkDeviceFlag(deviceFlag)
    const flags = deviceFlag === undefined ? QUITTING_FLAGS : [deviceFlag]
    const reason = 'signed out'
    if (this.#options.tokens !== undefined) {
      return this.#takeBack(flags.map((flag): UserWrite => ({ part: 'tokens', call: 'removeToken', args: [uid, flag] })), flags, reason)
    }
    let kickedCount = 0
    for (const flag of flags) kickedCount += (await this.#options.kick(uid, flag, reason)).kickedCount
    return { kickedCount }
  }

  /** @param flags  the kinds of device that they are about; undefined: all. What is written is written before anybody else is told */
  async #takeBack(writes: readonly UserWrite[], flags: readonly number[] | undefined, reason: string): Promise<{ readonly kickedCount: number }> {
    let kickedCount = 0
    for (const write of writes) kickedCount += await this.#options.takeBack(write, reason)
    for (const flag of flags ?? [undefined]) await this.#options.kickElsewhere(writes[0]!.args[0], flag, reason)
    return { kickedCount }
  }

  #tokens(): TokenStore {
    const { tokens } = this.#options
    if (tokens === undefined) throw new IMError('IM_NOT_SUPPORTED', { detail: 'the storage keeps no tokens' })
    return tokens
  }
}

/** The error says nothing of what came: it may be a token. */
function checkToken(token: unknown): string {
  if (typeof token === 'string' && token !== '' && token.isWellFormed() && Buffer.byteLength(token) <= MAX_TOKEN_BYTES) return token
  throw new TypeError(`imengine: token must be well-formed text of 1 to ${MAX_TOKEN_BYTES} bytes`)
}
