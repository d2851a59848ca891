import { createHash } from 'node:crypto'
import type { AppendResult } from '../../contracts/message-store.ts'
import { IMError } from '../../errors.ts'
import type { AppendCall, Entry, Part } from './append-call.ts'
import type { Channels, KnownChannel } from './channels.ts'
import type { Database } from './database.ts'
import { unsignedOf } from './message-row.ts'
import { textKey, type Texts } from './texts.ts'

export interface AppendHost {
  readonly database: Database
  readonly texts: Texts
  readonly channels: Channels
}

interface Answer {
  readonly place: number
  readonly old_seq: string
  readonly old_id: string | null
  readonly digest: Buffer | null
}

/** A message that the statement asks the server to store, under its place among them, and those that repeat it in the same statement. */
interface Candidate {
  readonly call: AppendCall
  readonly entry: Entry
  /** of its channel among those of the statement, from 1 */
  readonly at: number
}

/** What the server has said about a candidate: new, or what it repeats. */
interface Fate {
  readonly messageID: string
  readonly messageSeq: number
  /** of the payload the original came with; undefined for a new message */
  readonly digest: Buffer | undefined
}

/** Several calls of `append` as one statement, which is one transaction. @returns per call what `append` answers */
export async function appendAll(calls: readonly AppendCall[], host: AppendHost): Promise<AppendResult[][][]> {
  const { database } = host
  const parts = calls.flatMap((call) => call.parts)
  await host.texts.keep([...calls.flatMap((call) => call.longUIDs), ...parts.flatMap(({ uids, listedID }) => [...uids, listedID])])
  const known = await host.channels.forWriting(new Map(parts.map(({ name, key }) => [name, key])))
  // The order in which the server locks them; `at` is a place in it.
  const channels = [...known].sort(([, a], [, b]) => compareNos(a.no, b.no))
  const places = new Map(channels.map(([name], index) => [name, index + 1]))

  const candidates: Candidate[] = []
  const firsts = new Map<string, number>()
  // Per message: the place of the candidate that stands for it.
  const standIns = calls.map((call) =>
    call.parts.map(({ name, entries }) => {
      const at = places.get(name)!
      return entries.map((entry) => {
        const repeated = entry.repeatKey === null ? undefined : firsts.get(`${at}:${entry.repeatKey}`)
        if (repeated !== undefined) return repeated
        candidates.push({ call, entry, at })
        if (entry.repeatKey !== null) firsts.set(`${at}:${entry.repeatKey}`, candidates.length)
        return candidates.length
      })
    }),
  )

  const unlisted = unlistedOf(parts, known)
  const answers = await database.query<Answer>(
    `SELECT * FROM ${database.s}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
    [channels.map(([, { no }]) => no), ...columnsOf(calls, candidates), unlisted.map(({ uid }) => textKey(uid)), unlisted.map(({ listedID }) => textKey(listedID))],
  )
  for (const { channel } of unlisted) channel.isListed = true

  const fates = fatesOf(candidates, answers)
  return calls.map((call, callIndex) =>
    call.parts.map(({ entries }, partIndex) =>
      entries.map((entry, index) => {
        const standIn = standIns[callIndex]![partIndex]![index]!
        const candidate = candidates[standIn - 1]!
        const { messageID, messageSeq, digest } = fates[standIn - 1]!
        if (digest === undefined && candidate.entry === entry) return { status: 'stored', messageID, messageSeq }
        const payload = call.payloadOf(entry)
        const isSame = digest === undefined ? payload.equals(candidate.call.payloadOf(candidate.entry)) : digest.equals(sha256(payload))
        return { status: isSame ? 'duplicate' : 'conflict', messageID, messageSeq }
      }),
    ),
  )
}

function columnsOf(calls: readonly AppendCall[], candidates: readonly Candidate[]): unknown[] {
  const bases = new Map<AppendCall, number>()
  let bytes = 0
  for (const call of calls) {
    bases.set(call, bytes)
    bytes += call.content.length
  }
  const entries = candidates.map(({ entry }) => entry)
  return [
    candidates.map(({ at }) => at),
    entries.map(({ signedID }) => signedID),
    entries.map(({ sentMs }) => sentMs),
    entries.map(({ expiresMs }) => expiresMs),
    entries.map(({ repeatKey }) => repeatKey),
    entries.map(({ bits }) => bits),
    candidates.map(({ call, entry }) => bases.get(call)! + entry.start + 1),
    entries.map(({ fromBytes }) => fromBytes),
    entries.map(({ noBytes }) => noBytes),
    entries.map(({ topicBytes }) => topicBytes),
    entries.map(({ payloadBytes }) => payloadBytes),
    calls.length === 1 ? calls[0]!.content : Buffer.concat(calls.map(({ content }) => content)),
  ].map((column) => (Array.isArray(column) ? arrayText(column as (string | number | null)[]) : column))
}

/** As the server reads an array of numbers; the driver would quote each of them. */
function arrayText(values: readonly (string | number | null)[]): string {
  return `{${values.map((value) => value ?? 'NULL').join(',')}}`
}

function fatesOf(candidates: readonly Candidate[], answers: readonly Answer[]): Fate[] {
  const fates: Fate[] = []
  const lastSeqs: number[] = []
  for (const { place, old_seq, old_id, digest } of answers) {
    if (place < 0) lastSeqs[-place] = Number(old_seq)
    else fates[place - 1] = { messageID: unsignedOf(old_id!), messageSeq: Number(old_seq), digest: digest! }
  }
  return candidates.map(({ entry, at }, index) => {
    const lastSeq = lastSeqs[at]
    if (lastSeq === undefined) throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'the answer does not fit the question' })
    const repeated = fates[index]
    if (repeated !== undefined) return repeated
    lastSeqs[at] = lastSeq + 1
    return { messageID: entry.messageID, messageSeq: lastSeq + 1, digest: undefined }
  })
}

/** Person channels that are not known to be among those of their users. */
function unlistedOf(parts: readonly Part[], known: ReadonlyMap<string, KnownChannel>): { readonly uid: string; readonly listedID: string; readonly channel: KnownChannel }[] {
  return parts.flatMap(({ name, uids, listedID }) => {
    const channel = known.get(name)!
    return channel.isListed ? [] : uids.map((uid) => ({ uid, listedID, channel }))
  })
}

function compareNos(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0)
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}
