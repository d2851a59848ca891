/**
 * Why, as told to a client in CONNACK, SENDACK, SUBACK and DISCONNECT. Numbers are fixed by the wire (wkproto 1 to 5);
 * 26 to 29 exist only for clients of version 6.
 */
export const ReasonCode = {
  Unknown: 0,
  Success: 1,
  AuthFail: 2,
  SubscriberNotExist: 3,
  InBlacklist: 4,
  ChannelNotExist: 5,
  UserNotOnNode: 6,
  SenderOffline: 7,
  MsgKeyError: 8,
  PayloadDecodeError: 9,
  ForwardSendPacketError: 10,
  NotAllowSend: 11,
  ConnectKick: 12,
  NotInWhitelist: 13,
  QueryTokenError: 14,
  SystemError: 15,
  ChannelIDError: 16,
  NodeMatchError: 17,
  NodeNotMatch: 18,
  Ban: 19,
  NotSupportHeader: 20,
  ClientKeyIsEmpty: 21,
  RateLimit: 22,
  NotSupportChannelType: 23,
  Disband: 24,
  SendBan: 25,
  ChannelDeleting: 26,
  ProtocolUpgradeRequired: 27,
  IdempotencyConflict: 28,
  MessageSeqExhausted: 29,
} as const

export type ReasonCode = (typeof ReasonCode)[keyof typeof ReasonCode]

const names = new Map<number, string>(Object.entries(ReasonCode).map(([name, code]) => [code, name]))

/** May a refusal carry it? A code of one byte that does not mean success. */
export function isRefusalReason(code: unknown): code is ReasonCode {
  return typeof code === 'number' && Number.isInteger(code) && code > ReasonCode.Success && code <= 255
}

/** The name of a reason code as a log or a page shows it: `InBlacklist`; an unknown number is shown as itself. */
export function reasonName(code: number): string {
  return names.get(code) ?? String(code)
}
