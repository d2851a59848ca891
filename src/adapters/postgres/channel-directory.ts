/**
 * Channels, members, lists and user flags in the database. Power loss loses nothing that has resolved. A slow server makes
 * calls wait, up to the time limit. Nothing has to be closed. There is no `changeCount`: other engines write here, too.
 */
import type { ChannelDirectory, ChannelList, PageQuery } from '../../contracts/channel-directory.ts'
import { badOption, integerBetween } from '../../errors.ts'
import { CHANNEL_MODES, MemberRole, type ChannelInfo, type ChannelKey, type Member, type Page, type UserFlags } from '../../model/channel.ts'
import type { Database } from './database.ts'
import { pageOf, pageStart } from './paging.ts'
import { textKey, type Texts } from './texts.ts'

const LISTS: readonly ChannelList[] = ['deny', 'allow']

/** Rows that one statement removes or writes. */
const MAX_ROWS = 5_000

interface MemberRow {
  readonly uid_key: Buffer
  readonly role: MemberRole
  readonly muted_until_ms: string | null
}

interface InfoRow {
  readonly ban: boolean
  readonly disband: boolean
  readonly send_ban: boolean
  readonly allow_stranger: boolean
  readonly mode: number
}

/** A listing is in the order of the bytes of what it lists. */
export class PostgresChannelDirectory implements ChannelDirectory {
  readonly #database: Database
  readonly #texts: Texts

  constructor(database: Database, texts: Texts) {
    this.#database = database
    this.#texts = texts
  }

  async channel({ channelID, channelType }: ChannelKey): Promise<Required<ChannelInfo> | undefined> {
    const [row] = await this.#database.query<InfoRow>(
      `SELECT ban, disband, send_ban, allow_stranger, mode FROM ${this.#database.s}.channel_infos WHERE channel_type = $1 AND channel_key = $2`,
      [channelType, textKey(channelID)],
    )
    if (row === undefined) return undefined
    const { ban, disband, send_ban: sendBan, allow_stranger: allowStranger, mode } = row
    return { channelID, channelType, ban, disband, sendBan, allowStranger, mode: CHANNEL_MODES[mode] ?? 'normal' }
  }

  /** @throws TypeError for a mode that there is not */
  async putChannel(info: ChannelInfo): Promise<void> {
    const { ban = false, disband = false, sendBan = false, allowStranger = false, mode = 'normal' } = info
    const modeNo = CHANNEL_MODES.indexOf(mode)
    if (modeNo < 0) badOption('mode', CHANNEL_MODES.map((known) => `'${known}'`).join(' or '), mode)
    const place = placeOf(info)
    await this.#texts.keep([info.channelID])
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.channel_infos VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (channel_type, channel_key) DO UPDATE SET ban = EXCLUDED.ban, disband = EXCLUDED.disband,
          send_ban = EXCLUDED.send_ban, allow_stranger = EXCLUDED.allow_stranger, mode = EXCLUDED.mode`,
      [...place, ban, disband, sendBan, allowStranger, modeNo],
    )
  }

  /**
   * A channel of some thousand members goes at once. A larger one goes piece by piece, its info last, so that a crash in
   * between leaves a channel that still is there with fewer members, and can be removed again.
   */
  async removeChannel(key: ChannelKey): Promise<void> {
    const { s } = this.#database
    const place = placeOf(key)
    for (const table of ['members', 'listed']) {
      for (let count = MAX_ROWS; count === MAX_ROWS; ) {
        const more = await this.#database.query(
          `SELECT 1 AS one FROM ${s}.${table} WHERE channel_type = $1 AND channel_key = $2 LIMIT ${MAX_ROWS + 1}`,
          place,
        )
        if (more.length <= MAX_ROWS) break
        const gone = await this.#database.query(
          `DELETE FROM ${s}.${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${s}.${table} WHERE channel_type = $1 AND channel_key = $2 LIMIT ${MAX_ROWS})) RETURNING 1 AS one`,
          place,
        )
        count = gone.length
      }
    }
    await this.#database.query(
      `WITH m AS (DELETE FROM ${s}.members WHERE channel_type = $1 AND channel_key = $2),
          l AS (DELETE FROM ${s}.listed WHERE channel_type = $1 AND channel_key = $2)
        DELETE FROM ${s}.channel_infos WHERE channel_type = $1 AND channel_key = $2`,
      place,
    )
  }

  async member(key: ChannelKey, uid: string): Promise<Member | undefined> {
    const [row] = await this.#database.query<MemberRow>(
      `SELECT role, muted_until_ms FROM ${this.#database.s}.members WHERE channel_type = $1 AND channel_key = $2 AND uid_key = $3`,
      [...placeOf(key), textKey(uid)],
    )
    return row && memberOf(uid, row)
  }

  /** @throws TypeError for a role or a time that there is not */
  async putMembers(key: ChannelKey, members: readonly Member[]): Promise<void> {
    const rows = sortedRows(members, ({ uid }) => uid, ({ role, mutedUntilMs }) => {
      if (!Object.values(MemberRole).includes(role)) badOption('role', 'a member role', role)
      if (mutedUntilMs === undefined) return [role, null] as const
      const untilMs = mutedUntilMs > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : mutedUntilMs
      return [role, integerBetween('mutedUntilMs', untilMs, 0, Number.MAX_SAFE_INTEGER)] as const
    })
    if (rows.length === 0) return
    const place = placeOf(key)
    await this.#texts.keep([key.channelID, ...members.map(({ uid }) => uid)])
    // In the order of the keys: two engines that write the same members would otherwise wait for each other.
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.members (channel_type, channel_key, uid_key, role, muted_until_ms)
        SELECT $1, $2, g.u, g.r, g.t FROM unnest($3::bytea[], $4::smallint[], $5::bigint[]) WITH ORDINALITY g (u, r, t, ord) ORDER BY g.ord
        ON CONFLICT (channel_type, channel_key, uid_key) DO UPDATE SET role = EXCLUDED.role, muted_until_ms = EXCLUDED.muted_until_ms`,
      [...place, rows.map(({ key: uidKey }) => uidKey), rows.map(({ value: [role] }) => role), rows.map(({ value: [, untilMs] }) => untilMs)],
    )
  }

  async removeMembers(key: ChannelKey, uids: readonly string[]): Promise<void> {
    if (uids.length === 0) return
    await this.#database.query(
      `DELETE FROM ${this.#database.s}.members WHERE channel_type = $1 AND channel_key = $2 AND uid_key = ANY ($3::bytea[])`,
      [...placeOf(key), uids.map(textKey)],
    )
  }

  async members(key: ChannelKey, query: PageQuery = {}): Promise<Page<Member>> {
    const start = pageStart(query)
    const rows = await this.#database.query<MemberRow>(
      `SELECT uid_key, role, muted_until_ms FROM ${this.#database.s}.members
        WHERE channel_type = $1 AND channel_key = $2 AND ($3::bytea IS NULL OR uid_key > $3) ORDER BY uid_key LIMIT $4`,
      [...placeOf(key), start.last, start.limit + 1],
    )
    return pageOf(rows, start, ({ uid_key }) => uid_key, async (shown) => {
      const uids = await this.#texts.textsOf(shown.map(({ uid_key }) => uid_key))
      return shown.map((row, index) => memberOf(uids[index]!, row))
    })
  }

  async channelsOf(uid: string, query: PageQuery = {}): Promise<Page<ChannelKey>> {
    const start = pageStart(query)
    const [type, last] = start.last === undefined ? [-1, Buffer.alloc(0)] : [start.last[0] ?? 0, start.last.subarray(1)]
    const rows = await this.#database.query<{ channel_type: number; channel_key: Buffer }>(
      `SELECT channel_type, channel_key FROM ${this.#database.s}.members
        WHERE uid_key = $1 AND (channel_type, channel_key) > ($2, $3) ORDER BY channel_type, channel_key LIMIT $4`,
      [textKey(uid), type, last, start.limit + 1],
    )
    const cursorOf = ({ channel_type, channel_key }: (typeof rows)[number]): Buffer => Buffer.concat([Buffer.of(channel_type), channel_key])
    return pageOf(rows, start, cursorOf, async (shown) => {
      const ids = await this.#texts.textsOf(shown.map(({ channel_key }) => channel_key))
      return shown.map(({ channel_type }, index) => ({ channelID: ids[index]!, channelType: channel_type }))
    })
  }

  async isListed(key: ChannelKey, list: ChannelList, uid: string): Promise<boolean> {
    const rows = await this.#database.query(
      `SELECT 1 AS one FROM ${this.#database.s}.listed WHERE channel_type = $1 AND channel_key = $2 AND list = $3 AND uid_key = $4`,
      [...placeOf(key), listNo(list), textKey(uid)],
    )
    return rows.length > 0
  }

  async isListEmpty(key: ChannelKey, list: ChannelList): Promise<boolean> {
    const rows = await this.#database.query(
      `SELECT 1 AS one FROM ${this.#database.s}.listed WHERE channel_type = $1 AND channel_key = $2 AND list = $3 LIMIT 1`,
      [...placeOf(key), listNo(list)],
    )
    return rows.length === 0
  }

  async addToList(key: ChannelKey, list: ChannelList, uids: readonly string[]): Promise<void> {
    const listed = listNo(list)
    const rows = sortedRows(uids, (uid) => uid, () => undefined)
    if (rows.length === 0) return
    const place = placeOf(key)
    await this.#texts.keep([key.channelID, ...uids])
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.listed (channel_type, channel_key, list, uid_key)
        SELECT $1, $2, $3, g.u FROM unnest($4::bytea[]) WITH ORDINALITY g (u, ord) ORDER BY g.ord ON CONFLICT DO NOTHING`,
      [...place, listed, rows.map(({ key: uidKey }) => uidKey)],
    )
  }

  async removeFromList(key: ChannelKey, list: ChannelList, uids: readonly string[]): Promise<void> {
    const listed = listNo(list)
    if (uids.length === 0) return
    await this.#database.query(
      `DELETE FROM ${this.#database.s}.listed WHERE channel_type = $1 AND channel_key = $2 AND list = $3 AND uid_key = ANY ($4::bytea[])`,
      [...placeOf(key), listed, uids.map(textKey)],
    )
  }

  async listed(key: ChannelKey, list: ChannelList, query: PageQuery = {}): Promise<Page<string>> {
    const start = pageStart(query)
    const rows = await this.#database.query<{ uid_key: Buffer }>(
      `SELECT uid_key FROM ${this.#database.s}.listed
        WHERE channel_type = $1 AND channel_key = $2 AND list = $3 AND ($4::bytea IS NULL OR uid_key > $4) ORDER BY uid_key LIMIT $5`,
      [...placeOf(key), listNo(list), start.last, start.limit + 1],
    )
    return this.#pageOfUIDs(rows, start)
  }

  async userFlags(uid: string): Promise<UserFlags> {
    const [row] = await this.#database.query<{ banned: boolean; send_banned: boolean; system: boolean }>(
      `SELECT banned, send_banned, system FROM ${this.#database.s}.users WHERE uid_key = $1`,
      [textKey(uid)],
    )
    const known = { banned: row?.banned ?? false, sendBanned: row?.send_banned ?? false }
    return row?.system === true ? { ...known, system: true } : known
  }

  async setUserFlags(uid: string, { banned, sendBanned, system }: Partial<UserFlags>): Promise<void> {
    await this.#texts.keep([uid])
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.users AS u VALUES ($1, coalesce($2, false), coalesce($3, false), coalesce($4, false))
        ON CONFLICT (uid_key) DO UPDATE SET banned = coalesce($2, u.banned), send_banned = coalesce($3, u.send_banned), system = coalesce($4, u.system)`,
      [textKey(uid), banned ?? null, sendBanned ?? null, system ?? null],
    )
  }

  async systemUIDs(query: PageQuery = {}): Promise<Page<string>> {
    const start = pageStart(query)
    const rows = await this.#database.query<{ uid_key: Buffer }>(
      `SELECT uid_key FROM ${this.#database.s}.users WHERE system AND ($1::bytea IS NULL OR uid_key > $1) ORDER BY uid_key LIMIT $2`,
      [start.last, start.limit + 1],
    )
    return this.#pageOfUIDs(rows, start)
  }

  #pageOfUIDs(rows: readonly { readonly uid_key: Buffer }[], start: ReturnType<typeof pageStart>): Promise<Page<string>> {
    return pageOf(rows, start, ({ uid_key }) => uid_key, (shown) => this.#texts.textsOf(shown.map(({ uid_key }) => uid_key)))
  }
}

function placeOf({ channelID, channelType }: ChannelKey): [channelType: number, channelKey: Buffer] {
  return [channelType, textKey(channelID)]
}

function listNo(list: ChannelList): number {
  const number = LISTS.indexOf(list)
  return number >= 0 ? number : badOption('list', "'deny' or 'allow'", list)
}

function memberOf(uid: string, { role, muted_until_ms }: Pick<MemberRow, 'role' | 'muted_until_ms'>): Member {
  return muted_until_ms === null ? { uid, role } : { uid, role, mutedUntilMs: Number(muted_until_ms) }
}

/** By key, each once: the last one counts. */
function sortedRows<T, V>(items: readonly T[], text: (item: T) => string, value: (item: T) => V): { readonly key: Buffer; readonly value: V }[] {
  const rows = new Map(items.map((item) => [text(item), value(item)]))
  return [...rows].map(([uid, of]) => ({ key: textKey(uid), value: of })).sort((a, b) => Buffer.compare(a.key, b.key))
}
