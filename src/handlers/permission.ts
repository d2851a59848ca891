import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import { ChannelType, isValidChannelID, isValidUID, type ChannelInfo, type ChannelKey } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { ReasonCode } from '../model/reason-code.ts'

export interface SendPermissionRequest {
  readonly uid: string
  /** the channel inside the engine */
  readonly key: ChannelKey
  /** as the client wrote it: the peer's uid in a person channel */
  readonly wireChannelID: string
}

/**
 * May this user send to this channel? The checks and their order: the id itself; a system user is stopped only by a
 * disbanded channel; a send ban wins before anything about the channel; then
 * - person: disbanded, a system user as receiver may always be written to, the receiver's deny list;
 * - everything else: the channel exists, is not banned, not disbanded; the sender is not denied, is a member, and is on the
 *   allow list when that has anyone.
 * Answers at once when the directory does. Source: docs/decisions/0006.
 */
export function sendPermission(
  directory: ChannelDirectory,
  systemUIDs: ReadonlySet<string>,
  request: SendPermissionRequest,
): MaybePromise<ReasonCode> {
  const { uid, key, wireChannelID } = request
  const isPerson = key.channelType === ChannelType.Person
  if (!(isPerson ? isValidUID(wireChannelID) : isValidChannelID(wireChannelID))) return ReasonCode.ChannelIDError
  if (systemUIDs.has(uid)) return andThen(directory.channel(key), disbanded)
  return andThen(directory.userFlags(uid), (flags) => {
    if (flags.sendBanned) return ReasonCode.SendBan
    return andThen(directory.channel(key), (info) =>
      isPerson ? mayWriteTo(directory, systemUIDs, info, request) : mayPost(directory, info, request),
    )
  })
}

function mayWriteTo(
  directory: ChannelDirectory,
  systemUIDs: ReadonlySet<string>,
  info: ChannelInfo | undefined,
  { uid, wireChannelID: receiver }: SendPermissionRequest,
): MaybePromise<ReasonCode> {
  if (info?.disband === true) return ReasonCode.Disband
  if (systemUIDs.has(receiver)) return ReasonCode.Success
  const receiversLists = { channelID: receiver, channelType: ChannelType.Person }
  return andThen(directory.isListed(receiversLists, 'deny', uid), (denied) =>
    denied ? ReasonCode.InBlacklist : ReasonCode.Success,
  )
}

function mayPost(
  directory: ChannelDirectory,
  info: ChannelInfo | undefined,
  { uid, key }: SendPermissionRequest,
): MaybePromise<ReasonCode> {
  if (info === undefined) return ReasonCode.ChannelNotExist
  if (info.ban) return ReasonCode.Ban
  if (info.disband) return ReasonCode.Disband
  return andThen(directory.isListed(key, 'deny', uid), (denied) => {
    if (denied) return ReasonCode.InBlacklist
    return andThen(directory.member(key, uid), (member) => {
      if (member === undefined) return ReasonCode.SubscriberNotExist
      return andThen(directory.isListEmpty(key, 'allow'), (everyone) => {
        if (everyone) return ReasonCode.Success
        return andThen(directory.isListed(key, 'allow', uid), (allowed) =>
          allowed ? ReasonCode.Success : ReasonCode.NotInWhitelist,
        )
      })
    })
  })
}

function disbanded(info: ChannelInfo | undefined): ReasonCode {
  return info?.disband === true ? ReasonCode.Disband : ReasonCode.Success
}

/** `then` without a promise when the value is here. */
function andThen<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return isPromise(value) ? value.then(next) : next(value)
}
