import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import { badOption } from '../errors.ts'
import type { UserFlags } from '../model/channel.ts'
import { checkUID } from './check.ts'

/** `engine.users`: the standing of users. */
export class UsersAPI {
  readonly #directory: ChannelDirectory

  constructor(directory: ChannelDirectory) {
    this.#directory = directory
  }

  async flags(uid: string): Promise<UserFlags> {
    return this.#directory.userFlags(checkUID('uid', uid))
  }

  /**
   * Set what is given, leave the rest. `banned` refuses the next CONNECT and leaves live connections alone
   * (`connections.kick` ends them); `sendBanned` holds for the next SEND.
   */
  async setFlags(uid: string, flags: Partial<UserFlags>): Promise<void> {
    checkUID('uid', uid)
    if (typeof flags !== 'object' || flags === null) badOption('flags', 'an object', flags)
    for (const name of ['banned', 'sendBanned'] as const) {
      if (flags[name] !== undefined && typeof flags[name] !== 'boolean') badOption(name, 'true or false', flags[name])
    }
    await this.#directory.setUserFlags(uid, flags)
  }
}
