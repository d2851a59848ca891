import { randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { ChannelKey } from '../../model/channel.ts'
import type { Database } from './database.ts'
import { textKey, type Texts } from './texts.ts'

/** A channel's number in this database, which it keeps for ever. */
export interface KnownChannel {
  readonly no: string
  /** it is among its two users' person channels; nothing is, of other channels */
  isListed: boolean
}

/** The numbers of channels that are written to. Rows of channels are never removed, so what is known stays true. */
export class Channels {
  readonly #database: Database
  readonly #texts: Texts
  readonly #known: LRUCache<string, KnownChannel>

  constructor({ database, texts, maxCachedChannels }: { readonly database: Database; readonly texts: Texts; readonly maxCachedChannels: number }) {
    this.#database = database
    this.#texts = texts
    this.#known = new LRUCache({ max: maxCachedChannels })
  }

  forget(): void {
    this.#known.clear()
  }

  /** By `channelKeyString`, each once; those that are not there are made, with nothing in them. */
  async forWriting(keys: ReadonlyMap<string, ChannelKey>): Promise<ReadonlyMap<string, KnownChannel>> {
    const found = new Map<string, KnownChannel>()
    const missing: Missing[] = []
    for (const [name, key] of keys) {
      const channel = this.#known.get(name)
      if (channel === undefined) missing.push({ name, key, channelKey: textKey(key.channelID) })
      else found.set(name, channel)
    }
    if (missing.length === 0) return found
    // In one order everywhere: two engines that make the same channels would otherwise wait for each other.
    missing.sort((a, b) => a.key.channelType - b.key.channelType || Buffer.compare(a.channelKey, b.channelKey))
    await this.#texts.keep(missing.map(({ key }) => key.channelID))
    await this.#find(missing, found)
    const unmade = missing.filter(({ name }) => !found.has(name))
    if (unmade.length > 0) {
      await this.#make(unmade)
      await this.#find(unmade, found)
    }
    return found
  }

  async #find(missing: readonly Missing[], found: Map<string, KnownChannel>): Promise<void> {
    const rows = await this.#database.query<{ ord: string; no: string }>(
      `SELECT g.ord, c.no FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY g (t, k, ord)
        JOIN ${this.#database.s}.channels c ON c.channel_type = g.t AND c.channel_key = g.k`,
      parameters(missing),
    )
    for (const { ord, no } of rows) {
      const { name } = missing[Number(ord) - 1]!
      const channel: KnownChannel = { no, isListed: false }
      this.#known.set(name, channel)
      found.set(name, channel)
    }
  }

  async #make(missing: readonly Missing[]): Promise<void> {
    const nos = missing.map(() => (randomBytes(8).readBigUInt64BE() >> 1n).toString())
    await this.#database.query(
      `INSERT INTO ${this.#database.s}.channels (no, channel_type, channel_key)
        SELECT g.no, g.t, g.k FROM unnest($1::smallint[], $2::bytea[], $3::bigint[]) WITH ORDINALITY g (t, k, no, ord) ORDER BY g.ord
        ON CONFLICT (channel_type, channel_key) DO NOTHING`,
      [...parameters(missing), nos],
    )
  }
}

interface Missing {
  readonly name: string
  readonly key: ChannelKey
  readonly channelKey: Buffer
}

function parameters(missing: readonly Missing[]): unknown[] {
  return [missing.map(({ key }) => key.channelType), missing.map(({ channelKey }) => channelKey)]
}
