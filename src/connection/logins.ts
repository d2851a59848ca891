import type { KickPolicy, KickVerdict, Login } from '../contracts/kick-policy.ts'
import { badOption } from '../errors.ts'
import type { ConnectionRegistry } from './connection-registry.ts'
import type { Connection } from './connection.ts'
import { defaultKickPolicy } from './kick-policy.ts'

export interface LoginsOptions {
  readonly registry: ConnectionRegistry
  readonly kickPolicy: KickPolicy | undefined
  readonly maxConnectionsPerUID: number
  /** a connection of the user has ended, and no newer one is about to take its place */
  readonly went: (uid: string) => void
}

/** Which connections of a user are here, and which of them a newer login ends. */
export class Logins {
  readonly #options: LoginsOptions
  readonly #kickPolicy: KickPolicy
  /** whose older connections are being ended for a newer one */
  #replacing: string | undefined

  constructor(options: LoginsOptions) {
    this.#options = options
    this.#kickPolicy = options.kickPolicy ?? defaultKickPolicy
  }

  /** End what this login takes the place of, and let it in. @returns false when the user has as many connections as allowed */
  makeRoom(connection: Connection, login: Login): boolean {
    const { registry, maxConnectionsPerUID, went } = this.#options
    const verdicts = registry.of(login.uid).map((other) => this.verdict(login, other.login))
    const stayingCount = verdicts.filter((verdict) => verdict === 'keep').length
    if (stayingCount >= maxConnectionsPerUID) return false
    // Between the end of the old ones and the new one the user is not gone.
    this.#replacing = login.uid
    try {
      this.endOthers(login)
      // Ending them has called listeners of the host, which may have ended this one.
      if (connection.isAuthenticating) registry.register(connection)
    } finally {
      this.#replacing = undefined
      went(login.uid)
    }
    return true
  }

  /** A login here, or on another node: its kick rules hold for the connections of this one that came before `beforeMs`. */
  endOthers(login: Login, beforeMs = Infinity): void {
    for (const other of this.#options.registry.of(login.uid)) {
      if (other.connectedAtMs >= beforeMs) continue
      const verdict = this.verdict(login, other.login)
      if (verdict !== 'keep') other.kick(verdict, verdict === 'kick' ? 'login in other device' : '')
    }
  }

  /** An open connection has ended. */
  left(connection: Connection): void {
    if (connection.uid !== this.#replacing) this.#options.went(connection.uid)
  }

  /** What a login makes of one that was there before it. @throws TypeError  the host's policy answers something else */
  verdict(login: Login, existing: Login): KickVerdict {
    const verdict = this.#kickPolicy(login, existing)
    if (verdict === 'keep' || verdict === 'kick' || verdict === 'replace') return verdict
    return badOption("the kick policy's answer", "'keep', 'kick' or 'replace'", verdict)
  }
}
