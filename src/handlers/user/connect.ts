import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import type { Clock } from '../../contracts/clock.ts'
import type { ConnectingPort, PayloadCipher } from '../../contracts/connection-view.ts'
import type { ConnectContext, Steps } from '../../contracts/handler.ts'
import type { Login } from '../../contracts/kick-policy.ts'
import type { Presence, PresenceEntry } from '../../contracts/presence.ts'
import type { Random } from '../../contracts/random.ts'
import type { TokenVerifier, VerifyTokenResult } from '../../contracts/token-verifier.ts'
import { asIMError, IMError, type IMErrorContext } from '../../errors.ts'
import { isValidUID, type UserFlags } from '../../model/channel.ts'
import { DeviceLevel } from '../../model/device.ts'
import type { ConnectPacket } from '../../model/frames.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import { close, type Closing, type Outcome, type Refusal } from '../../model/outcome.ts'
import { ReasonCode } from '../../model/reason-code.ts'
import { acceptKeyAgreement } from '../../protocol/key-agreement.ts'
import { encode } from '../../protocol/encode.ts'
import type { SealModule } from '../../protocol/seal-module.ts'
import { shapeConnack } from '../../protocol/negotiate.ts'
import { EngineEvent } from '../engine-event.ts'

export interface ConnectServices {
  readonly verifyToken: TokenVerifier
  readonly channels: ChannelDirectory
  readonly presence: Presence | undefined
  /** end older logins on other nodes; never rejects: a node that cannot be reached must not lock everybody out */
  readonly kickOnPeers: ((contender: ConnectEvent) => Promise<void>) | undefined
  readonly nodeID: number
  readonly plaintext: 'refuse' | 'allow'
  /** what ciphers work with; undefined: node:crypto */
  readonly sealModule: () => SealModule | undefined
  readonly clock: Clock
  readonly random: Random
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** presence could not be told that a connection has gone: it is told with the next heartbeat */
  readonly owe: (entry: PresenceEntry) => void
  /**
   * End the connections that this login takes the place of, and take the new one into the registry: from then on pushes
   * reach it. @returns false when the user has as many connections as allowed
   */
  readonly makeRoom: (conn: ConnectingPort, login: Login) => boolean
  /** the connection is open: tell the host */
  readonly opened: (conn: ConnectingPort) => void
  /** stored messages that no device of the user has acknowledged */
  readonly offlineMessageCount: (uid: string) => Promise<number>
}

interface KeyAgreement {
  readonly cipher: PayloadCipher
  readonly serverKey: string
  readonly salt: string
}

/** EventConnect: who is it, may they, then end older logins, answer and open. Queued by connection. */
export const connectSteps: Steps<ConnectEvent> = { authenticate, loadSession, sendConnack }

export class ConnectEvent extends EngineEvent implements ConnectContext {
  readonly event = 'EventConnect'
  readonly conn: ConnectingPort
  readonly frame: ConnectPacket
  readonly serverTimeMs: number
  readonly services: ConnectServices
  deviceLevel: DeviceLevel = DeviceLevel.Slave
  /** undefined while nothing is agreed, and for a client that talks plain */
  agreement: KeyAgreement | undefined
  /** other nodes have been told that this connection is online */
  announced = false
  /** a login on another node has come in between, and gives way to this one: the others are told of this one once more */
  contested = false
  /** the other nodes are being told */
  asking: Promise<void> | undefined

  constructor(conn: ConnectingPort, frame: ConnectPacket, services: ConnectServices) {
    super()
    this.conn = conn
    this.frame = frame
    this.services = services
    this.serverTimeMs = services.clock.nowMs()
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  get verifyToken(): TokenVerifier {
    return this.services.verifyToken
  }

  get channels(): ChannelDirectory {
    return this.services.channels
  }

  offlineMessageCount(): Promise<number> {
    return this.services.offlineMessageCount(this.frame.uid)
  }

  get login(): Login {
    const { uid, deviceID, deviceFlag } = this.frame
    return { uid, deviceID, deviceFlag, deviceLevel: this.deviceLevel }
  }

  get presenceEntry(): PresenceEntry {
    const { uid, deviceFlag } = this.frame
    const { connectionID } = this.conn
    return { uid, nodeID: this.services.nodeID, connectionID, deviceFlag, deviceLevel: this.deviceLevel }
  }

  get isWaiting(): boolean {
    return !this.isOver && !this.conn.closed
  }

  /** A login on another node takes the place of this one, which is not in yet: it is told so as one would be that is. */
  yieldTo(verdict: 'kick' | 'replace'): void {
    if (verdict === 'kick') this.conn.refuse(ReasonCode.ConnectKick, this.connack(ReasonCode.ConnectKick), 'kicked')
    else this.conn.end('kicked')
  }

  /** Why this CONNECT is none, whoever answers for it: checked before the chain, so that no replaced step can forget it. */
  get unacceptable(): ReasonCode | undefined {
    if (!isValidUID(this.frame.uid)) return ReasonCode.AuthFail // `@` would forge person channels
    if (this.frame.clientKey === '' && this.services.plaintext === 'refuse') return ReasonCode.ClientKeyIsEmpty
    return undefined
  }

  describe(): IMErrorContext {
    return { uid: this.frame.uid, connectionID: this.conn.connectionID }
  }

  /** CONNACK in the layout of this client. Keys only with success. */
  connack(reasonCode: ReasonCode): Uint8Array {
    const agreed = reasonCode === ReasonCode.Success ? this.agreement : undefined
    const packet = shapeConnack({
      connectVersion: this.frame.version,
      reasonCode,
      timeDiffMs: BigInt.asIntN(64, BigInt(this.serverTimeMs) - this.frame.clientTimestampMs),
      nodeID: String(this.services.nodeID),
      ...(agreed === undefined ? {} : { serverKey: agreed.serverKey, salt: agreed.salt }),
    })
    return encode(packet, this.conn.version)
  }

  finish(result: undefined | Refusal | Closing | IMError): void {
    if (result instanceof IMError) this.services.report(result)
    if (result !== undefined) {
      const reasonCode = result instanceof IMError ? ReasonCode.SystemError : result.reasonCode
      this.conn.refuse(reasonCode, this.connack(reasonCode))
    }
    if (this.announced && this.conn.closed) this.withdraw()
  }

  /** The client has gone, or was refused, after other nodes were told that it is here. */
  withdraw(): void {
    const failed = (reason: unknown): void => {
      this.services.report(asIMError(reason, 'IM_PRESENCE_UNAVAILABLE', this.describe()))
      this.services.owe(this.presenceEntry)
    }
    try {
      const told = this.services.presence?.offline(this.presenceEntry)
      if (isPromise(told)) told.then(undefined, failed)
    } catch (reason) {
      failed(reason)
    }
  }
}

function authenticate(ctx: ConnectEvent): Outcome | Promise<Outcome> {
  const { uid, token, deviceFlag, deviceID } = ctx.frame
  const { remoteAddress } = ctx.conn
  const verdict = ctx.verifyToken({
    uid,
    token,
    deviceFlag,
    deviceID,
    remoteAddress,
    // Most verifiers answer at once and never look at it, and making one costs as much as the rest of the chain.
    get signal() {
      return ctx.signal
    },
  })
  return isPromise(verdict) ? verdict.then((answer) => judge(ctx, answer)) : judge(ctx, verdict)
}

function judge(ctx: ConnectEvent, answer: VerifyTokenResult): Outcome {
  if (typeof answer?.ok !== 'boolean') {
    throw new IMError('IM_VERIFIER_FAILED', { detail: 'it must answer { ok: true } or { ok: false }', context: ctx.describe() })
  }
  if (!answer.ok) return close(answer.reason ?? ReasonCode.AuthFail) // throws for what is no reason to refuse
  ctx.deviceLevel = answer.deviceLevel ?? DeviceLevel.Slave
}

/** In the last step: agreeing on a key is the most expensive part, and nobody gets it who is not let in. */
function agreeOnKey(ctx: ConnectEvent): Outcome {
  if (ctx.frame.clientKey === '') return
  try {
    const { random, sealModule } = ctx.services
    ctx.agreement = acceptKeyAgreement(ctx.frame.clientKey, (count) => random.bytes(count), sealModule())
  } catch (error) {
    if (error instanceof IMError && error.code === 'IM_BAD_KEY') return close(ReasonCode.AuthFail, error.message)
    throw error
  }
}

function loadSession(ctx: ConnectEvent): Outcome | Promise<Outcome> {
  const flags = ctx.channels.userFlags(ctx.frame.uid)
  return isPromise(flags) ? flags.then(refuseBanned) : refuseBanned(flags)
}

function refuseBanned(flags: UserFlags): Outcome {
  if (flags.banned) return close(ReasonCode.Ban)
}

function sendConnack(ctx: ConnectEvent): Outcome | Promise<Outcome> {
  if (ctx.conn.closed) return // they left while we asked
  const refused = agreeOnKey(ctx)
  if (refused !== undefined) return refused
  const announced = announce(ctx)
  return isPromise(announced) ? announced.then(() => admit(ctx)) : admit(ctx)
}

/** Tell the other nodes before the client is told that it is in: what they push from then on finds it. */
function announce(ctx: ConnectEvent): MaybePromise<void> {
  const { presence, kickOnPeers } = ctx.services
  if (presence === undefined) return kickOnPeers?.(ctx)
  ctx.announced = true
  const failed = (reason: unknown): never => {
    throw asIMError(reason, 'IM_PRESENCE_UNAVAILABLE', { ...ctx.describe(), event: ctx.event, step: 'sendConnack' })
  }
  try {
    const told = presence.online(ctx.presenceEntry)
    if (isPromise(told)) {
      return told.then(() => {
        // Told too late: the client has been refused, and this node must not be named as the one that has it.
        if (ctx.isOver || ctx.conn.closed) ctx.withdraw()
        else return kickOnPeers?.(ctx)
      }, failed)
    }
  } catch (reason) {
    failed(reason)
  }
  return kickOnPeers?.(ctx)
}

/** One synchronous piece: nothing can happen between ending the older logins, the registry and CONNACK. */
function admit(ctx: ConnectEvent): Outcome | Promise<Outcome> {
  if (ctx.conn.closed) return
  if (ctx.contested) return ctx.services.kickOnPeers!(ctx).then(() => admit(ctx))
  if (!ctx.services.makeRoom(ctx.conn, ctx.login)) return close(ReasonCode.RateLimit, 'too many connections of this user')
  ctx.conn.admit({
    deviceLevel: ctx.deviceLevel,
    cipher: ctx.agreement?.cipher,
    connack: ctx.connack(ReasonCode.Success),
  })
  ctx.services.opened(ctx.conn)
}
