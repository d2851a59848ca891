import { chanceOf, type Chance } from './chance.ts'

export type Topology =
  /** one node and its disk */
  | 'single'
  /** nodes with one database, as with PostgreSQL and Redis */
  | 'shared'
  /** nodes with a disk each under one log, as with NATS */
  | 'log'

export interface Device {
  readonly deviceID: string
  readonly uid: string
  readonly deviceFlag: number
  readonly isMaster: boolean
  readonly version: number
  readonly isEncrypted: boolean
  readonly framing: 'stream' | 'message'
  readonly delivery: 'deferred' | 'sync'
  /** of a RECV to be acknowledged */
  readonly ackProbability: number
}

/** What does not change during a run. */
export interface Setup {
  readonly topology: Topology
  readonly nodeCount: number
  /** 'sync' answers within the call, as memory does */
  readonly disk: 'sync' | 'quick' | 'slow'
  readonly outboxPrecedes: boolean
  readonly hasWebhook: boolean
  readonly hasPlugin: boolean
  readonly devices: readonly Device[]
}

/** A channel as a sender names it: a group, or the other user. */
export interface Target {
  readonly channelID: string
  readonly channelType: 1 | 2
}

/**
 * What is out of the ordinary about a SEND: kept nowhere, a command, or something that the host's plugin refuses or changes.
 */
export type Kind = 'noPersist' | 'command' | 'refused' | 'rewritten'

export type Hanging = 'beforeSend' | 'notify' | 'verifier' | 'handler'

/** One thing that is done to the world. Nodes and devices go by their index; what is begun ends by itself after `forMs`. */
export type Action = { readonly atMs: number } & (
  | { readonly kind: 'connect'; readonly device: number; readonly node: number }
  | { readonly kind: 'send'; readonly device: number; readonly target: Target; readonly no: string; readonly size: number; readonly as?: Kind }
  /** the same number again, by whatever device of that user */
  | { readonly kind: 'resend'; readonly device: number; readonly no: string; readonly isOther: boolean }
  | { readonly kind: 'burst'; readonly device: number; readonly target: Target; readonly no: string; readonly count: number }
  | { readonly kind: 'revise'; readonly node: number; readonly no: string; readonly how: 'edit' | 'recall'; readonly text: string }
  | { readonly kind: 'ping'; readonly device: number }
  | { readonly kind: 'leave'; readonly device: number; readonly how: 'end' | 'vanish' | 'midframe' }
  | { readonly kind: 'garbage'; readonly device: number; readonly byteCount: number }
  | { readonly kind: 'stall'; readonly device: number; readonly forMs: number }
  | { readonly kind: 'say'; readonly node: number; readonly target: Target; readonly uid: string; readonly no: string }
  | { readonly kind: 'member'; readonly node: number; readonly channelID: string; readonly uid: string; readonly joins: boolean }
  | { readonly kind: 'crash'; readonly node: number; readonly forMs: number }
  | { readonly kind: 'close'; readonly node: number; readonly forMs: number }
  | { readonly kind: 'disk'; readonly node: number; readonly mostMs: number; readonly failing: number; readonly isForWrites: boolean; readonly forMs: number }
  | { readonly kind: 'net'; readonly node: number; readonly losing: number; readonly repeating: number; readonly mostMs: number; readonly forMs: number }
  | { readonly kind: 'hang'; readonly node: number; readonly what: Hanging; readonly how: 'hang' | 'throw'; readonly forMs: number }
  | { readonly kind: 'jump'; readonly node: number; readonly byMs: number }
)

export interface Plan {
  readonly seed: number
  readonly setup: Setup
  readonly actions: readonly Action[]
}

export interface PlanOptions {
  readonly nodeCount?: number | undefined
  readonly topology?: Topology | undefined
  readonly actionCount?: number | undefined
}

/** Everything after this belongs to the end of a run: faults are over, and what was promised has to come true. */
export const PLAN_MS = 20_000

export const UIDS = ['ann', 'bob', 'cat', 'dan'] as const
export const GROUPS = ['team', 'club'] as const

/** Who is in which group from the beginning. */
export const MEMBERS: Readonly<Record<string, readonly string[]>> = { team: UIDS, club: ['ann', 'bob'] }

/** What is going to be done, all of it decided beforehand: any part of it can be done alone. */
export function planOf(seed: number, options: PlanOptions = {}): Plan {
  const chance = chanceOf(seed, 'plan')
  const setup = setupOf(seed, chance.of('setup'), options)
  const actions: Action[] = setup.devices.map((_device, device) => ({ atMs: chance.between(0, 300), kind: 'connect', device, node: chance.below(setup.nodeCount) }))
  const dice = chance.of('actions')
  const numbers: string[] = []
  const count = options.actionCount ?? dice.between(30, 65)
  for (let index = 0; index < count; index++) {
    const action = actionOf(dice, setup, dice.between(300, PLAN_MS), index, numbers)
    if (action !== undefined) actions.push(action, ...aftermath(dice, setup, action, index))
  }
  return { seed, setup, actions: actions.sort((a, b) => a.atMs - b.atMs) }
}

function setupOf(seed: number, chance: Chance, options: PlanOptions): Setup {
  const { nodeCount: asked } = options
  const drawn = chance.pick<Topology>(['single', 'single', 'shared', 'log'])
  const topology = options.topology ?? (asked === undefined ? drawn : asked === 1 ? 'single' : drawn === 'single' ? 'log' : drawn)
  return {
    topology,
    nodeCount: topology === 'single' ? 1 : (asked ?? chance.between(2, 3)),
    disk: chance.pick(['sync', 'quick', 'quick', 'slow'] as const),
    outboxPrecedes: chance.happens(0.5),
    hasWebhook: chance.happens(0.5),
    // From the first one on, every promise of the process costs more: the seeds before are done by then.
    hasPlugin: chance.happens(0.3) && seed % 200 > 160,
    devices: UIDS.flatMap((uid) =>
      Array.from({ length: chance.between(1, 2) }, (_, index): Device => ({
        deviceID: `${uid}-${index}`,
        uid,
        deviceFlag: chance.below(2),
        isMaster: chance.happens(0.3),
        version: chance.pick([2, 3, 4, 5]),
        isEncrypted: chance.happens(0.15),
        framing: chance.happens(0.3) ? 'message' : 'stream',
        delivery: chance.happens(0.3) ? 'sync' : 'deferred',
        ackProbability: chance.pick([0, 0.7, 1, 1]),
      })),
    ),
  }
}

function actionOf(dice: Chance, setup: Setup, atMs: number, index: number, numbers: string[]): Action | undefined {
  const device = dice.below(setup.devices.length)
  const node = dice.below(setup.nodeCount)
  const isSpread = setup.topology !== 'single'
  const roll = dice.below(1000)
  const from = (least: number): boolean => roll >= least
  if (!from(380)) {
    numbers.push(`m${index}`)
    const as = dice.happens(0.3) ? { as: dice.pick(['noPersist', 'command', 'refused', 'rewritten'] as const) } : {}
    return { atMs, kind: 'send', device, target: targetOf(dice, setup.devices[device]!.uid), no: `m${index}`, size: dice.pick([1, 30, 200]), ...as }
  }
  if (!from(400)) return numbers.length === 0 ? undefined : { atMs, kind: 'revise', node, no: dice.pick(numbers), how: dice.pick(['edit', 'recall'] as const), text: `r${index}` }
  if (!from(470)) return numbers.length === 0 ? undefined : { atMs, kind: 'resend', device, no: dice.pick(numbers), isOther: dice.happens(0.2) }
  if (!from(510)) return { atMs, kind: 'burst', device, target: targetOf(dice, setup.devices[device]!.uid), no: `b${index}`, count: dice.between(5, 45) }
  if (!from(550)) return { atMs, kind: 'ping', device }
  if (!from(670)) return { atMs, kind: 'connect', device, node }
  if (!from(720)) return { atMs, kind: 'leave', device, how: dice.pick(['end', 'vanish', 'midframe'] as const) }
  if (!from(735)) return { atMs, kind: 'garbage', device, byteCount: dice.between(1, 300) }
  if (!from(750)) return { atMs, kind: 'stall', device, forMs: dice.between(100, 5_000) }
  if (!from(775)) return { atMs, kind: 'say', node, target: { channelID: dice.pick(GROUPS), channelType: 2 }, uid: 'host', no: `h${index}` }
  if (!from(825)) return { atMs, kind: 'member', node, channelID: dice.pick(GROUPS), uid: dice.pick(UIDS), joins: dice.happens(0.6) }
  if (!from(865)) return { atMs, kind: 'crash', node, forMs: dice.between(50, 4_000) }
  if (!from(885)) return { atMs, kind: 'close', node, forMs: dice.between(50, 4_000) }
  if (!from(930)) return { atMs, kind: 'disk', node, mostMs: dice.pick([20, 300, 4_000, 4_000]), failing: dice.pick([0, 0, 0.2, 1]), isForWrites: dice.happens(0.5), forMs: dice.between(200, 4_000) }
  if (!from(950)) return !isSpread ? undefined : { atMs, kind: 'net', node, losing: dice.pick([0, 0.3, 1]), repeating: dice.pick([0, 0.3]), mostMs: dice.pick([20, 500]), forMs: dice.between(200, 5_000) }
  if (!from(985)) return { atMs, kind: 'hang', node, what: dice.pick(['beforeSend', 'notify', 'verifier', 'handler'] as const), how: dice.pick(['hang', 'hang', 'throw'] as const), forMs: dice.between(200, 4_000) }
  return { atMs, kind: 'jump', node, byMs: dice.pick([-60_000, -5, 50, 3_600_000]) }
}

/** What is worth doing while something else has just happened, and would seldom come about by itself. */
function aftermath(dice: Chance, setup: Setup, action: Action, index: number): Action[] {
  const device = dice.below(setup.devices.length)
  const [soonMs, laterMs] = [action.atMs + dice.between(20, 150), action.atMs + dice.between(150, 400)]
  if (action.kind === 'hang') {
    return [0, 1, 2].flatMap((place): Action[] => {
      const each = (device + place) % setup.devices.length
      return [
        { atMs: soonMs, kind: 'send', device: each, target: targetOf(dice, setup.devices[each]!.uid), no: `m${index}-${place}`, size: 1 },
        { atMs: laterMs, kind: 'ping', device: each },
      ]
    })
  }
  // While it is on its way, or waits to be acknowledged.
  if (action.kind === 'send' && dice.happens(0.15)) {
    const [node, how] = [dice.below(setup.nodeCount), dice.pick(['edit', 'recall'] as const)]
    return [{ atMs: action.atMs + dice.between(40, 1_500), kind: 'revise', node, no: action.no, how, text: `r${index}` }]
  }
  if (action.kind === 'member') return [{ atMs: laterMs, kind: 'send', device, target: { channelID: action.channelID, channelType: 2 }, no: `m${index}`, size: 1 }]
  // Into a replay, and into the queue of a disk that takes longer than the engine waits.
  if (action.kind === 'connect' || action.kind === 'disk') {
    return [action.atMs + dice.between(20, 60), soonMs, laterMs].map((atMs, place) => ({ atMs, kind: 'send', device, target: { channelID: 'team', channelType: 2 }, no: `m${index}-${place}`, size: 1 }))
  }
  return []
}

function targetOf(dice: Chance, uid: string): Target {
  if (dice.happens(0.6)) return { channelID: dice.pick(GROUPS), channelType: 2 }
  return { channelID: dice.pick(UIDS.filter((other) => other !== uid)), channelType: 1 }
}
