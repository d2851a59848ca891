import type { IMError } from '../errors.ts'
import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import type { ReasonCode } from '../model/reason-code.ts'
import type { CloseCause } from './handler.ts'
import type { WebhookEvent } from './webhook.ts'

/** One live connection, as facts and listings show it. */
export interface ConnectionInfo {
  readonly connectionID: string
  readonly uid: string
  readonly deviceID: string
  readonly deviceFlag: number
  readonly deviceLevel: number
  readonly version: number
  readonly remoteAddress: string | undefined
  readonly connectedAtMs: number
}

/** A device of a user that is connected now. */
export interface OnlineDevice {
  readonly deviceFlag: number
  readonly deviceLevel: number
}

/** Does a user whose connected devices these are count as offline, so that a push service may want to wake another one? */
export type IsOffline = (receiver: { readonly uid: string; readonly devices: readonly OnlineDevice[] }) => boolean

/** A user's first connection has come, or the last one has gone, on this node. */
export interface PresenceChange {
  readonly uid: string
  readonly online: boolean
  /** kinds of device that are connected to this node, ascending; empty when `online` is false */
  readonly deviceFlags: readonly number[]
}

/** What the engine tells its host after it has happened. A listener cannot veto; one that throws is reported and ignored. */
export interface Facts {
  connected: [ConnectionInfo]
  disconnected: [ConnectionInfo & { readonly cause: CloseCause }]
  /** a socket that never became a connection: which limit, time-out or answer ended it */
  connectionRefused: [
    { readonly connectionID: string; readonly remoteAddress: string | undefined; readonly uid: string; readonly cause: CloseCause; readonly reasonCode: ReasonCode | undefined; readonly detail: string | undefined },
  ]
  /** messages of one channel that are stored (and committed), in seq order */
  messageStored: [{ readonly key: ChannelKey; readonly messages: readonly Message[] }]
  /** `channelID` as the sender names the channel: in a person channel the peer's uid */
  messageRefused: [
    { readonly fromUID: string; readonly channelID: string; readonly channelType: number; readonly clientMsgNo: string; readonly reasonCode: ReasonCode; readonly message: string | undefined },
  ]
  /**
   * These users count as offline (`isOffline`; by default: not connected) when the messages went out; the sender is never
   * among them. `devices` has what is connected of those who have something connected all the same. Computed only while
   * somebody listens. With a replicator by the node that has proposed the messages, if there is a `presence` to ask
   */
  offlineMessage: [
    {
      readonly key: ChannelKey
      readonly messages: readonly Message[]
      readonly uids: readonly string[]
      readonly devices: ReadonlyMap<string, readonly OnlineDevice[]>
    },
  ]
  /** a message has been edited or recalled; it is as it is now */
  messageRevised: [{ readonly key: ChannelKey; readonly message: Message }]
  /** a connection that did not read was cut ('disconnected') or had pushes left out ('skipped') */
  slowConsumer: [{ readonly connection: ConnectionInfo; readonly action: 'disconnected' | 'skipped' }]
  /**
   * stored, but not (all) delivered, because another node did not confirm, members could not be read, the store answered
   * too late, or the last redelivery was not acknowledged: the history has them
   */
  undelivered: [{ readonly key: ChannelKey; readonly messages: readonly Message[]; readonly nodeID: number | undefined; readonly uid: string | undefined }]
  /** a user's first connection has come, or the last one has gone, on this node */
  presenceChanged: [PresenceChange]
  /** this node has lost the others of its cluster, or has them again; see the option `whenIsolated` */
  isolated: [{ readonly nodeID: number; readonly isIsolated: boolean }]
  /** the webhook has not taken these in all the time it had: it is not told again */
  webhookGivenUp: [{ readonly events: readonly WebhookEvent[]; readonly tryCount: number; readonly error: IMError }]
  error: [IMError]
}

/** How parts of the engine tell a fact. Never throws. */
export interface FactSink {
  emit<K extends keyof Facts>(name: K, ...args: Facts[K]): void
  has(name: keyof Facts): boolean
}
