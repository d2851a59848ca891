import type { AuthorizeSend, AuthorizeSendRequest } from '../contracts/authorize-send.ts'
import { badOption } from '../errors.ts'
import { ChannelType, MemberRole, personChannelUIDs, sourceKey, type ChannelInfo, type ChannelKey, type Member } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { refuse, type Outcome } from '../model/outcome.ts'
import { ReasonCode } from '../model/reason-code.ts'

/**
 * Whom a channel lets speak.
 * - 'person': anybody the receiver does not deny (or, with `personAllowlist`, whom the receiver allows).
 * - 'members': the channel must exist, and its members may speak, as far as its flags, lists, mutes and mode let them.
 * - 'open': as 'members', but it need not exist, and who is no member counts as an ordinary one.
 * - 'service': anybody, until it is disbanded.
 * - 'visitors': the visitor whose uid is the channel's id, and the members of the customer service channel of the same id.
 * - 'participants': the two uids that make up the channel's id, joined by `@`.
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

/** One check: a reason to refuse, or undefined. */
type Check = (request: AuthorizeSendRequest, key: ChannelKey, options: SendPolicyOptions) => MaybePromise<ReasonCode | undefined>

const CHECKS: Readonly<Record<ChannelRule, Check>> = {
  person: mayWriteTo,
  members: (request, key) => andThen(request.channels.channel(key), (info) => (info === undefined ? ReasonCode.ChannelNotExist : mayPost(request, key, info, 'members'))),
  open: (request, key) => andThen(request.channels.channel(key), (info) => mayPost(request, key, info, 'open')),
  service: (request, key) => andThen(request.channels.channel(key), disbanded),
  visitors: isVisitorOrStaff,
  participants: isParticipant,
}

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
    if (!Object.hasOwn(CHECKS, rule)) badOption(`rules[${type}]`, Object.keys(CHECKS).join(' or '), rule)
  }
  const rules: Readonly<Record<number, ChannelRule>> = { ...PROTOCOL_RULES, ...options.rules }
  return (request) => {
    const key = sourceKey(request.key)
    const verdict = andThen(request.channels.userFlags(request.uid), (flags) => {
      if (flags.system === true) return andThen(request.channels.channel(key), disbanded)
      if (flags.sendBanned) return ReasonCode.SendBan
      return CHECKS[rules[key.channelType] ?? 'members'](request, key, options)
    })
    return andThen(verdict, (reasonCode): Outcome => (reasonCode === undefined ? undefined : refuse(reasonCode)))
  }
}

/** One policy of several: asked in order, the first no counts. */
export function allOf(...policies: readonly AuthorizeSend[]): AuthorizeSend {
  policies.forEach((policy: unknown, index) => {
    if (typeof policy !== 'function') badOption(`policies[${index}]`, 'a function', policy)
  })
  const ask = (request: AuthorizeSendRequest, index: number): MaybePromise<Outcome> => {
    const policy = policies[index]
    if (policy === undefined) return undefined
    return andThen(policy(request), (outcome) => (outcome === undefined ? ask(request, index + 1) : outcome))
  }
  return (request) => ask(request, 0)
}

function mayWriteTo(request: AuthorizeSendRequest, key: ChannelKey, options: SendPolicyOptions): MaybePromise<ReasonCode | undefined> {
  const { channels, uid } = request
  const receiver = receiverOf(uid, key)
  const receivers = personKey(receiver)
  return inOrder(
    () => andThen(channels.channel(key), disbanded),
    () => andThen(channels.userFlags(receiver), (flags) => (flags.system === true ? 'enough' : undefined)),
    () => andThen(channels.isListed(receivers, 'deny', uid), (denied) => (denied ? ReasonCode.InBlacklist : undefined)),
    () => {
      if (options.blockBothWays !== true) return undefined
      return andThen(channels.isListed(personKey(uid), 'deny', receiver), (denied) => (denied ? ReasonCode.InBlacklist : undefined))
    },
    () => {
      if (options.personAllowlist !== true || receiver === uid) return undefined
      return andThen(channels.isListed(receivers, 'allow', uid), (allowed) => {
        if (allowed) return undefined
        return andThen(channels.channel(receivers), (info) => (info?.allowStranger === true ? undefined : ReasonCode.NotInWhitelist))
      })
    },
  )
}

/** What a host has said about the channel holds, whether or not it has members. */
function mayPost(
  { channels, uid, nowMs }: AuthorizeSendRequest,
  key: ChannelKey,
  info: ChannelInfo | undefined,
  rule: 'members' | 'open',
): MaybePromise<ReasonCode | undefined> {
  if (info?.ban === true) return ReasonCode.Ban
  if (info?.disband === true) return ReasonCode.Disband
  if (info?.sendBan === true) return ReasonCode.SendBan
  let member: Member | undefined
  return inOrder(
    () => andThen(channels.isListed(key, 'deny', uid), (denied) => (denied ? ReasonCode.InBlacklist : undefined)),
    () =>
      andThen(channels.member(key, uid), (found) => {
        member = found
        if (found === undefined && rule === 'members') return ReasonCode.SubscriberNotExist
        return (found?.mutedUntilMs ?? 0) > nowMs ? ReasonCode.SendBan : undefined
      }),
    () =>
      andThen(channels.isListEmpty(key, 'allow'), (everyone) => {
        if (everyone) return undefined
        return andThen(channels.isListed(key, 'allow', uid), (allowed) => (allowed ? undefined : ReasonCode.NotInWhitelist))
      }),
    () => maySpeak(info, member),
  )
}

function maySpeak(info: ChannelInfo | undefined, member: Member | undefined): ReasonCode | undefined {
  const role = member?.role ?? MemberRole.Member
  if (info?.mode === 'muted' && role === MemberRole.Member) return ReasonCode.SendBan
  if (info?.mode === 'announcement' && role !== MemberRole.Owner) return ReasonCode.NotAllowSend
  return undefined
}

function isVisitorOrStaff({ channels, uid }: AuthorizeSendRequest, key: ChannelKey): MaybePromise<ReasonCode | undefined> {
  return inOrder(
    () => andThen(channels.channel(key), disbanded),
    () => (key.channelID === uid ? 'enough' : undefined),
    () => {
      const desk = { channelID: key.channelID, channelType: ChannelType.CustomerService }
      return andThen(channels.member(desk, uid), (member) => (member === undefined ? ReasonCode.SubscriberNotExist : undefined))
    },
  )
}

function isParticipant({ channels, uid }: AuthorizeSendRequest, key: ChannelKey): MaybePromise<ReasonCode | undefined> {
  if (personChannelUIDs(key.channelID)?.includes(uid) !== true) return ReasonCode.NotAllowSend
  return andThen(channels.channel(key), disbanded)
}

function disbanded(info: ChannelInfo | undefined): ReasonCode | undefined {
  return info?.disband === true ? ReasonCode.Disband : undefined
}

function receiverOf(uid: string, key: ChannelKey): string {
  const [one, other] = personChannelUIDs(key.channelID) ?? [key.channelID, key.channelID]
  return one === uid ? other : one
}

/** A person's own lists and flags hang on this. */
function personKey(uid: string): ChannelKey {
  return { channelID: uid, channelType: ChannelType.Person }
}

type Question = () => MaybePromise<ReasonCode | 'enough' | undefined>

/** Ask until there is a reason to refuse, or one answers that nothing more need be asked. No promise while none comes. */
function inOrder(...questions: readonly Question[]): MaybePromise<ReasonCode | undefined> {
  const ask = (index: number): MaybePromise<ReasonCode | undefined> => {
    for (let next = index; next < questions.length; next++) {
      const answer = questions[next]!()
      if (isPromise(answer)) return answer.then((late) => (late === undefined ? ask(next + 1) : reasonIn(late)))
      if (answer !== undefined) return reasonIn(answer)
    }
    return undefined
  }
  return ask(0)
}

function reasonIn(answer: ReasonCode | 'enough'): ReasonCode | undefined {
  return answer === 'enough' ? undefined : answer
}

/** `then` without a promise when the value is here. */
function andThen<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return isPromise(value) ? value.then(next) : next(value)
}
