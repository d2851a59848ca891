import type { ChannelKey } from '../../model/channel.ts'

/** Values by channel. No name is put together for it, and the hash of an id is worked out once for as long as its string lives. */
export class ChannelMap<V> {
  readonly #byType = new Map<number, Map<string, V>>()

  get({ channelID, channelType }: ChannelKey): V | undefined {
    return this.#byType.get(channelType)?.get(channelID)
  }

  set({ channelID, channelType }: ChannelKey, value: V): void {
    let byID = this.#byType.get(channelType)
    if (byID === undefined) this.#byType.set(channelType, (byID = new Map<string, V>()))
    byID.set(channelID, value)
  }

  delete({ channelID, channelType }: ChannelKey): void {
    const byID = this.#byType.get(channelType)
    byID?.delete(channelID)
    if (byID?.size === 0) this.#byType.delete(channelType)
  }
}
