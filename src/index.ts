/** `imengine`: the public names. Nothing is defined here. */
export { IMEngine, type CloseOptions } from './engine.ts'
export { LIMITS, type IMEngineOptions, type Limits } from './config.ts'
export { ERRORS, IMError, type IMErrorCode, type IMErrorContext } from './errors.ts'

export { channelInfo, ChannelType, MemberRole, personChannelID, personChannelUIDs } from './model/channel.ts'
export type { ChannelFlags, ChannelInfo, ChannelKey, ChannelMode, Member, Page, UserFlags } from './model/channel.ts'
export { DeviceFlag, DeviceLevel } from './model/device.ts'
export { FrameFlag } from './model/frames.ts'
export type { ConnectPacket, SendPacket } from './model/frames.ts'
export type { LatencyHistogram } from './model/latency.ts'
export type { MaybePromise } from './model/maybe-promise.ts'
export { Setting, type Message, type Revision } from './model/message.ts'
export { close, refuse, type Closing, type Outcome, type Refusal } from './model/outcome.ts'
export { ReasonCode, reasonName } from './model/reason-code.ts'

export type { WaitSignal } from './contracts/abort-group.ts'
export type { AuthorizeSend, AuthorizeSendRequest } from './contracts/authorize-send.ts'
export type { ChannelDirectory, ChannelList, PageQuery } from './contracts/channel-directory.ts'
export type { Clock } from './contracts/clock.ts'
export type { ConnectionView, PayloadCipher } from './contracts/connection-view.ts'
export type { Cursor, CursorStore, CursorUpdate } from './contracts/cursor-store.ts'
export type { CommitDiagnostic, ConnectDiagnostic, PushDiagnostic, SendDiagnostic } from './contracts/diagnostics.ts'
export type { ConnectionInfo, Facts, IsOffline, OnlineDevice, PresenceChange } from './contracts/facts.ts'
export type {
  CloseCause,
  ConnCloseContext,
  ConnectContext,
  DistributeContext,
  EventContext,
  EventContexts,
  EventName,
  EventState,
  Handler,
  OnSendContext,
  PingContext,
  PushOnlineContext,
  RecvAckContext,
} from './contracts/handler.ts'
export type { KickPolicy, KickVerdict, Login } from './contracts/kick-policy.ts'
export type { Logger } from './contracts/logger.ts'
export type {
  ConnectionState,
  EngineMetrics,
  InboundFrame,
  QueueMetrics,
  QueueName,
  RefusedConnections,
  StepLatency,
} from './contracts/metrics.ts'
export type { MessageRecords } from './contracts/message-records.ts'
export type {
  AppendBatch,
  AppendResult,
  ChannelSummary,
  DueRemovals,
  LogPosition,
  MessageChange,
  MessageStore,
  RangeQuery,
  Removal,
  SweepResult,
} from './contracts/message-store.ts'
export type { Outbox, OutboxEntry } from './contracts/outbox.ts'
export type { PeerKickRequest, PeerPush, PeerPushHost, PeerPushRequest } from './contracts/peer-push.ts'
export type { Presence, PresenceEntry } from './contracts/presence.ts'
export type { Random } from './contracts/random.ts'
export type { LogEntry, Replicator, ReplicatorHost, ReplicatorStatus } from './contracts/replicator.ts'
export type { AcceptInfo, Socket, SocketAcceptor, SocketEvents } from './contracts/socket.ts'
export type { Storage } from './contracts/storage.ts'
export type { StoredToken, TokenStore } from './contracts/token-store.ts'
export type { MessageTrace, TraceStep } from './contracts/trace.ts'
export type { TokenVerifier, VerifyTokenRequest, VerifyTokenResult } from './contracts/token-verifier.ts'
export type { BeforeSendAnswer, BeforeSendRequest, Webhook, WebhookEvent } from './contracts/webhook.ts'

export type { UseOptions, WatchOptions } from './events/chain-registry.ts'
export type { ChannelsAPI, CreateOptions } from './management/channels.ts'
export type { CommandsAPI } from './management/commands.ts'
export type { ConnectionFilter, ConnectionsAPI } from './management/connections.ts'
export type { Conversation, ConversationsAPI } from './management/conversations.ts'
export type { ChannelExplanation, ExplainAsk } from './management/explain.ts'
export type { HistoryPage, HistoryQuery } from './management/history.ts'
export type { ClientMsgNoQuery, MessagesAPI, SendReceipt, SendResult, SeqQuery } from './management/messages.ts'
export type { ListAPI } from './management/lists.ts'
export type { PresenceAPI, PresenceListener, PresentDevice, UserPresence } from './management/presence.ts'
export type { NotReady, NotReadyReason, Readiness } from './management/readiness.ts'
export type { ReviseOptions } from './management/revisions.ts'
export type { SendRequest, UserSendRequest } from './management/send-request.ts'
export type { MemberInput, SubscribersAPI } from './management/subscribers.ts'
export type { SystemUsersAPI, TokenInput, UsersAPI } from './management/users.ts'
export type {
  Plugin,
  PluginHost,
  PluginInfo,
  PluginMessagesAPI,
  PluginsAPI,
  PluginSendRequest,
  PluginStep,
  PluginTimers,
} from './plugins/plugin.ts'

export { allowAnyToken, staticTokenVerifier, type StaticToken, type StaticTokens } from './adapters/memory/index.ts'
export {
  memoryChannelDirectory,
  memoryCursorStore,
  memoryMessageStore,
  memoryOutbox,
  memoryPeerHub,
  memoryPresence,
  memoryReplicatorHub,
  memoryStorage,
  memoryTokenStore,
  type MemoryMessageStoreOptions,
  type MemoryPeerHub,
  type MemoryPeerHubOptions,
  type MemoryPresenceOptions,
  type MemoryReplicatorHub,
  type MemoryReplicatorHubOptions,
  type MemoryStorage,
} from './adapters/memory/index.ts'
export { allOf, sendPolicy, type ChannelRule, type SendPolicyOptions } from './handlers/send-policy.ts'
export { defaultKickPolicy } from './connection/kick-policy.ts'
