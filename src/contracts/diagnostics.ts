import type { CloseCause } from './handler.ts'

/** Published on `imengine:connect` when a client is let in, or is not. Never holds a token. */
export interface ConnectDiagnostic {
  readonly nodeID: number
  readonly connectionID: string
  readonly uid: string
  readonly deviceFlag: number
  readonly remoteAddress: string | undefined
  readonly outcome: 'opened' | 'refused'
  /** of a refusal */
  readonly cause: CloseCause | undefined
  /** the reason code that CONNACK told, by name; otherwise what was wrong, if that is known */
  readonly reason: string | undefined
  /** when the socket came, and when it was decided; milliseconds since 1970 */
  readonly startedAtMs: number
  readonly endedAtMs: number
}

/** Published on `imengine:send` when a SEND is answered. Never holds a payload. */
export interface SendDiagnostic {
  readonly nodeID: number
  readonly connectionID: string
  readonly uid: string
  /** as the sender names the channel: in a person channel the peer's uid */
  readonly channelID: string
  readonly channelType: number
  readonly clientMsgNo: string
  /** '0' and 0 unless it was accepted */
  readonly messageID: string
  readonly messageSeq: number
  /** the reason code, by name */
  readonly reason: string
  readonly payloadBytes: number
  /** when the frame came in, and when it was answered; milliseconds since 1970 */
  readonly startedAtMs: number
  readonly endedAtMs: number
}

/** Published on `imengine:commit` when a channel's batch has been decided: what is in it is stored, and committed where there is a log. */
export interface CommitDiagnostic {
  readonly nodeID: number
  readonly channelID: string
  readonly channelType: number
  /** without repeats, and without what was refused */
  readonly messages: readonly { readonly messageID: string; readonly messageSeq: number; readonly fromUID: string; readonly clientMsgNo: string }[]
  readonly startedAtMs: number
  readonly endedAtMs: number
}

/** Published on `imengine:push` when messages of a channel have been given to connections of this node; once for each page of receivers. */
export interface PushDiagnostic {
  readonly nodeID: number
  readonly channelID: string
  readonly channelType: number
  readonly messageIDs: readonly string[]
  /** receivers they were for, connections of theirs on this node, and other nodes that were handed them */
  readonly uidCount: number
  readonly connectionCount: number
  readonly nodeCount: number
  readonly startedAtMs: number
  readonly endedAtMs: number
}

/** One of Node's diagnostics channels: what is not listened to is not made. */
export interface DiagnosticChannel<M> {
  readonly hasSubscribers: boolean
  publish(message: M): void
}

/** The diagnostics channels of the process, and which node is speaking. */
export interface Diagnostics {
  readonly nodeID: number
  readonly connect: DiagnosticChannel<ConnectDiagnostic>
  readonly send: DiagnosticChannel<SendDiagnostic>
  readonly commit: DiagnosticChannel<CommitDiagnostic>
  readonly push: DiagnosticChannel<PushDiagnostic>
}
