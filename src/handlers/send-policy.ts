import type { AuthorizeSend, AuthorizeSendRequest } from '../contracts/authorize-send.ts'
import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import { badOption } from '../errors.ts'
import {
  ChannelType,
  communityKey,
  MemberRole,
  personChannelUIDs,
  sourceKey,
  type ChannelInfo,
  type ChannelKey,
  type Member,
  type UserFlags,
} from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { refuse, type Outcome } from '../model/outcome.ts'
import { ReasonCode } from '../model/reason-code.ts'

/**
 * Whom a channel lets speak.
 * - 'person': anybody the receiver does not deny (or, with `personAllowlist`, whom the receiver allows).
 * - 'members': the channel must exist, and its members may speak, as far as its flags, lists, mutes and mode let them.
 * - 'open': as 'members', but it need not exist, and who is no member counts as an ordinary one. A topic that does not exist
 *   is its community under another name: the community's rule is asked as well.
 * - 'service': anybody, until it is disbanded.
 * - 'visitors': the visitor whose uid is the channel's id, and the members of the customer service channel of the same id.
 * - 'participants': the two uids that make up the channel's id, joined by `@`, as far as one may write to the other.
 */
export type ChannelRule = 'person' | 'members' | 'open' | 'service' | 'visitors' | 'participants'

export interface SendPolicyOptions {
  /**
   * Who is not on the receiver's allow list may not write to them (13), unless the receiver's own channel, (uid, person), has
   * `allowStranger`; default false: everybody may
   */
  readonly personAllowlist?: boolean
  /** who denies somebody cannot write to them either (4); default false: the deny list stops one direction */
  readonly blockBothWays?: boolean
  /** by type of channel, where it is not to be the protocol's; types the protocol does not know are 'members' */
  readonly rules?: Readonly<Record<number, ChannelRule>>
}

/** Source: the reference server's third version, which knows types 1 to 12. */
const PROTOCOL_RULES: Readonly<Record<number, ChannelRule>> = {
  [ChannelType.Person]: 'person',
  [ChannelType.Group]: 'members',
  [ChannelType.CustomerService]: 'service',
  [ChannelType.Community]: 'open',
  [ChannelType.CommunityTopic]: 'open',
  [ChannelType.Info]: 'service',
  [ChannelType.Data]: 'open',
  [ChannelType.Temp]: 'open',
  [ChannelType.Live]: 'open',
  [ChannelType.Visitors]: 'visitors',
  [ChannelType.Agent]: 'participants',
  [ChannelType.AgentGroup]: 'open',
}

/** A SEND on its way through the checks. One object and plain functions: a directory that answers at once costs no closure. */
interface Case {
  readonly request: AuthorizeSendRequest
  readonly uid: string
  readonly channels: ChannelDirectory
  /** of the channel itself, also for one of its commands */
  readonly key: ChannelKey
  readonly rule: ChannelRule
  readonly rules: Readonly<Record<number, ChannelRule>>
  readonly options: SendPolicyOptions
  info: ChannelInfo | undefined
  member: Member | undefined
}

/** A reason to refuse, or nothing. */
type Verdict = MaybePromise<ReasonCode | undefined>

/**
 * The engine's own answer to "may they send?", with what can be chosen about it. Asked in this order, the first no counts: a
 * system user is stopped only by a disbanded channel; a send ban of the sender wins before anything about the channel; then
 * the rule of the channel's type. A command channel (`<id>____cmd`) follows the channel it belongs to. Answers at once when
 * the directory does.
 * @throws TypeError for an unknown rule
 * Source: docs/decisions/0006.
 */
export function sendPolicy(options: SendPolicyOptions = {}): AuthorizeSend {
  for (const [type, rule] of Object.entries(options.rules ?? {})) {
    if (!Object.hasOwn(RULES, rule)) badOption(`rules[${type}]`, Object.keys(RULES).join(' or '), rule)
  }
  const rules: Readonly<Record<number, ChannelRule>> = { ...PROTOCOL_RULES, ...options.rules }
  return (request) => {
    const { uid, channels } = request
    const key = sourceKey(request.key)
    const rule = rules[key.channelType] ?? 'members'
    const verdict = then({ request, uid, channels, key, rule, rules, options, info: undefined, member: undefined }, channels.userFlags(uid), judgeSender)
    return isPromise(verdict) ? verdict.then(outcomeOf) : outcomeOf(verdict)
  }
}

/** One policy of several: asked in order, the first no counts. */
export function allOf(...policies: readonly AuthorizeSend[]): AuthorizeSend {
  policies.forEach((policy: unknown, index) => {
    if (typeof policy !== 'function') badOption(`policies[${index}]`, 'a function', policy)
  })
  const ask = (request: AuthorizeSendRequest, first: number): MaybePromise<Outcome> => {
    for (let index = first; index < policies.length; index++) {
      const outcome = policies[index]!(request)
      if (isPromise(outcome)) return outcome.then((late) => (late === undefined ? ask(request, index + 1) : late))
      if (outcome !== undefined) return outcome
    }
    return undefined
  }
  return (request) => ask(request, 0)
}

function judgeSender(asked: Case, { system, sendBanned }: UserFlags): Verdict {
  if (system === true) return then(asked, asked.channels.channel(asked.key), unlessDisbanded)
  if (sendBanned) return ReasonCode.SendBan
  return RULES[asked.rule](asked)
}

// ---- 'person'

function mayWriteTo(asked: Case): Verdict {
  return then(asked, asked.channels.channel(asked.key), judgePair)
}

function judgePair(asked: Case, info: ChannelInfo | undefined): Verdict {
  if (info?.disband === true) return ReasonCode.Disband
  return then(asked, asked.channels.userFlags(receiverOf(asked)), judgeReceiver)
}

function judgeReceiver(asked: Case, { system }: UserFlags): Verdict {
  if (system === true) return undefined
  return then(asked, asked.channels.isListed(personKey(receiverOf(asked)), 'deny', asked.uid), unlessDenied)
}

function unlessDenied(asked: Case, denied: boolean): Verdict {
  if (denied) return ReasonCode.InBlacklist
  if (asked.options.blockBothWays !== true) return unlessStranger(asked, false)
  return then(asked, asked.channels.isListed(personKey(asked.uid), 'deny', receiverOf(asked)), unlessStranger)
}

function unlessStranger(asked: Case, denies: boolean): Verdict {
  if (denies) return ReasonCode.InBlacklist
  const { options, channels, uid } = asked
  const receiver = receiverOf(asked)
  if (options.personAllowlist !== true || receiver === uid) return undefined
  return then(asked, channels.isListed(personKey(receiver), 'allow', uid), (_, allowed) => {
    if (allowed) return undefined
    return then(asked, channels.channel(personKey(receiver)), (__, info) => (info?.allowStranger === true ? undefined : ReasonCode.NotInWhitelist))
  })
}

function receiverOf({ uid, key: { channelID } }: Case): string {
  const pair = personChannelUIDs(channelID)
  if (pair === undefined) return channelID
  return pair[0] === uid ? pair[1] : pair[0]
}

/** A person's own lists and flags hang on this. */
function personKey(uid: string): ChannelKey {
  return { channelID: uid, channelType: ChannelType.Person }
}

// ---- 'members' and 'open': what a host has said about a channel holds, whether or not it has members

function mayPost(asked: Case): Verdict {
  return then(asked, asked.channels.channel(asked.key), judgeFlags)
}

function judgeFlags(asked: Case, info: ChannelInfo | undefined): Verdict {
  if (info === undefined && asked.rule === 'members') return ReasonCode.ChannelNotExist
  if (info?.ban === true) return ReasonCode.Ban
  if (info?.disband === true) return ReasonCode.Disband
  if (info?.sendBan === true) return ReasonCode.SendBan
  asked.info = info
  return then(asked, asked.channels.isListed(asked.key, 'deny', asked.uid), judgeDenied)
}

function judgeDenied(asked: Case, denied: boolean): Verdict {
  if (denied) return ReasonCode.InBlacklist
  return then(asked, asked.channels.member(asked.key, asked.uid), judgeMember)
}

function judgeMember(asked: Case, member: Member | undefined): Verdict {
  if (member === undefined && asked.rule === 'members') return ReasonCode.SubscriberNotExist
  if (member?.mutedUntilMs !== undefined && member.mutedUntilMs > asked.request.nowMs) return ReasonCode.SendBan
  asked.member = member
  return then(asked, asked.channels.isListEmpty(asked.key, 'allow'), judgeAllowList)
}

function judgeAllowList(asked: Case, everyone: boolean): Verdict {
  if (everyone) return judgeMode(asked, true)
  return then(asked, asked.channels.isListed(asked.key, 'allow', asked.uid), judgeMode)
}

function judgeMode(asked: Case, allowed: boolean): Verdict {
  if (!allowed) return ReasonCode.NotInWhitelist
  const { info, member } = asked
  const role = member?.role ?? MemberRole.Member
  if (info?.mode === 'muted' && role === MemberRole.Member) return ReasonCode.SendBan
  if (info?.mode === 'announcement' && role !== MemberRole.Owner) return ReasonCode.NotAllowSend
  return info === undefined ? askCommunity(asked) : undefined
}

/** What is said in a topic that nobody has created reaches the members of the community, who must be spared it as they are there. */
function askCommunity(asked: Case): Verdict {
  const key = communityKey(asked.key)
  if (key === undefined) return undefined
  const rule = asked.rules[ChannelType.Community] ?? 'members'
  return RULES[rule]({ ...asked, key, rule, info: undefined, member: undefined })
}

// ---- 'service', 'visitors', 'participants'

function mayAsk(asked: Case): Verdict {
  return then(asked, asked.channels.channel(asked.key), unlessDisbanded)
}

function isVisitorOrStaff(asked: Case): Verdict {
  const { channels, key, uid } = asked
  return then(asked, channels.channel(key), (_, info) => {
    if (info?.disband === true) return ReasonCode.Disband
    if (key.channelID === uid) return undefined
    const desk = { channelID: key.channelID, channelType: ChannelType.CustomerService }
    return then(asked, channels.member(desk, uid), (__, member) => (member === undefined ? ReasonCode.SubscriberNotExist : undefined))
  })
}

function isParticipant(asked: Case): Verdict {
  if (personChannelUIDs(asked.key.channelID)?.includes(asked.uid) !== true) return ReasonCode.NotAllowSend
  return mayWriteTo(asked) // any client can make up such an id, and it reaches a person all the same
}

function unlessDisbanded(_: Case, info: ChannelInfo | undefined): Verdict {
  return info?.disband === true ? ReasonCode.Disband : undefined
}

const RULES: Readonly<Record<ChannelRule, (asked: Case) => Verdict>> = {
  person: mayWriteTo,
  members: mayPost,
  open: mayPost,
  service: mayAsk,
  visitors: isVisitorOrStaff,
  participants: isParticipant,
}

function outcomeOf(reasonCode: ReasonCode | undefined): Outcome {
  return reasonCode === undefined ? undefined : refuse(reasonCode)
}

/** Go on with the answer: now when it is here, later when it is a promise. */
function then<T>(asked: Case, answer: MaybePromise<T>, next: (asked: Case, answer: T) => Verdict): Verdict {
  return isPromise(answer) ? answer.then((late) => next(asked, late)) : next(asked, answer)
}
