/** What a kick rule may look at. */
export interface Login {
  readonly uid: string
  readonly deviceID: string
  readonly deviceFlag: number
  readonly deviceLevel: number
}

/**
 * What becomes of an older connection of the same uid when a new login succeeds.
 * - 'keep': both stay.
 * - 'kick': it is told DISCONNECT(12) and closed after `kickLingerMs`.
 * - 'replace': it is closed after `kickLingerMs` without a word, so that a client which is not meant reconnects.
 */
export type KickVerdict = 'keep' | 'kick' | 'replace'

export type KickPolicy = (login: Login, existing: Login) => KickVerdict
