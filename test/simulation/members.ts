import { GROUPS, MEMBERS } from './plan.ts'
import { channelName, sourceOf } from './ledger.ts'
import type { SimTime } from './time.ts'

interface Standing {
  state: 'in' | 'out' | 'unknown'
  sinceMs: number
  pendingCount: number
}

/** Who is in which group, as far as it can be known: while a change is on its way, or has failed, nobody knows. */
export class Members {
  readonly #time: SimTime
  readonly #standings = new Map<string, Standing>()

  constructor(time: SimTime) {
    this.#time = time
    for (const group of GROUPS) {
      for (const uid of MEMBERS[group]!) this.#of(channelName({ channelID: group, channelType: 2 }), uid).state = 'in'
    }
  }

  /** A change begins. @returns what to call with how it has ended */
  changing(channel: string, uid: string, joins: boolean): (isDone: boolean) => void {
    const standing = this.#of(channel, uid)
    standing.state = 'unknown'
    standing.pendingCount++
    return (isDone) => {
      standing.pendingCount--
      standing.sinceMs = this.#time.nowMs
      standing.state = isDone && standing.pendingCount === 0 ? (joins ? 'in' : 'out') : 'unknown'
    }
  }

  /** Certainly a member, for so long already. */
  isIn(name: string, uid: string, forMs: number): boolean {
    const channel = sourceOf(name)
    if (channel.startsWith('1:')) return channel.slice(2).split('@').includes(uid)
    const { state, sinceMs } = this.#of(channel, uid)
    return state === 'in' && (sinceMs === 0 || this.#time.nowMs - sinceMs >= forMs)
  }

  /** Since when the user is certainly none; undefined when they may be one. */
  outSinceMs(name: string, uid: string): number | undefined {
    const channel = sourceOf(name)
    if (channel.startsWith('1:')) return channel.slice(2).split('@').includes(uid) ? undefined : 0
    const { state, sinceMs } = this.#of(channel, uid)
    return state === 'out' ? sinceMs : undefined
  }

  #of(channel: string, uid: string): Standing {
    const name = `${channel}/${uid}`
    let standing = this.#standings.get(name)
    if (standing === undefined) this.#standings.set(name, (standing = { state: 'out', sinceMs: 0, pendingCount: 0 }))
    return standing
  }
}
