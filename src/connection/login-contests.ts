import type { KickVerdict, Login } from '../contracts/kick-policy.ts'
import type { PeerKickRequest } from '../contracts/peer-push.ts'

/** A login that the other nodes are asked to make room for. */
export interface Contender {
  readonly login: Login
  /** not yet let in, nor refused, and its client is still there */
  readonly isWaiting: boolean
  /** it has met a login of another node, and stays: the others are asked once more before it is let in */
  contested: boolean
  /** while the others are being asked */
  asking: Promise<void> | undefined
  /** It has met one that takes its place. */
  yieldTo(verdict: 'kick' | 'replace'): void
}

export interface LoginContestsOptions {
  readonly nodeID: number
  readonly verdict: (login: Login, existing: Login) => KickVerdict
  /** never rejects */
  readonly askPeers: (request: PeerKickRequest) => Promise<void>
}

/**
 * Logins that are being let in on two nodes at the same moment. Each asks the other node for room and finds no connection there,
 * so asking alone would let both in. From its question to its place in the registry a login is therefore one that others meet,
 * and the node with the higher id decides:
 *
 * - A question from a higher node ends what the kick rules say it ends. It is answered when the questions of this node that
 *   would end the asking login have come to an end: one that is still on its way would otherwise arrive after that one was let
 *   in, be taken for newer, and leave nobody. Lower ids wait for higher ones never, so nobody waits in a circle.
 * - A question from a lower node is answered at once. The login here stays, and asks once more before it is let in: the other one
 *   may have begun after the first question came by.
 *
 * A login that has not asked yet needs no rule: its question comes later, and finds the other one asking or let in.
 */
export class LoginContests {
  readonly #options: LoginContestsOptions
  readonly #contenders = new Map<string, Set<Contender>>()

  constructor(options: LoginContestsOptions) {
    this.#options = options
  }

  /** Ask the other nodes to end what this login ends. Never rejects; `contested` says afterwards that it is to be done again. */
  ask(contender: Contender): Promise<void> {
    const { uid, deviceFlag, deviceID, deviceLevel } = contender.login
    const { nodeID, askPeers } = this.#options
    const others = this.#contenders.get(uid)
    if (others === undefined) this.#contenders.set(uid, new Set([contender]))
    else others.add(contender)
    contender.contested = false
    const asking = askPeers({ uid, deviceFlag, deviceID, deviceLevel, nodeID }).then(() => {
      contender.asking = undefined
      this.settled(contender)
    })
    contender.asking = asking
    return asking
  }

  /** It may have been let in, or have ended: forgotten then, once its question is over as well. */
  settled(contender: Contender): void {
    if (contender.isWaiting || contender.asking !== undefined) return
    const others = this.#contenders.get(contender.login.uid)
    if (others?.delete(contender) === true && others.size === 0) this.#contenders.delete(contender.login.uid)
  }

  /** Another node asks, on behalf of a login there. @returns what it waits for before it is answered */
  met(request: PeerKickRequest): Promise<void> | undefined {
    const { uid, nodeID } = request
    const contenders = this.#contenders.get(uid)
    // Who does not say where the login is cannot be compared with: only what is connected ends then.
    if (contenders === undefined || nodeID === undefined) return undefined
    const { verdict } = this.#options
    const waited: Promise<void>[] = []
    for (const contender of [...contenders]) {
      const fate = contender.isWaiting ? verdict(request, contender.login) : 'keep'
      if (nodeID < this.#options.nodeID) {
        if (fate !== 'keep') contender.contested = true
        continue
      }
      if (contender.asking !== undefined && verdict(contender.login, request) !== 'keep') waited.push(contender.asking)
      if (fate !== 'keep') contender.yieldTo(fate)
    }
    return waited.length === 0 ? undefined : Promise.all(waited).then(() => undefined)
  }
}
