import { LOBBY, type ChannelRef } from '../../wire.ts'
import { ChannelType } from './im.ts'
import type { Store } from './store.ts'

/** The address of a conversation within the page, so that Back, reload and bookmarks work: `#/lobby`, `#/@ann`. */
export function hashOf({ channelID, channelType }: ChannelRef): string {
  return channelType === ChannelType.Person ? `#/@${encodeURIComponent(channelID)}` : `#/${encodeURIComponent(channelID)}`
}

/** The conversation an address names, undefined for the list or for nonsense. */
export function channelOf(hash: string): ChannelRef | undefined {
  const match = /^#\/(@?)([A-Za-z0-9-]+)$/.exec(hash)
  if (match === null) return undefined
  const [, at, channelID = ''] = match
  if (at === '@') return { channelID, channelType: ChannelType.Person }
  return channelID === LOBBY.channelID ? LOBBY : undefined
}

export function titleOf({ channelID, channelType }: ChannelRef, store: Store): string {
  if (channelType === ChannelType.Person) return store.nameOf(channelID)
  return channelID === LOBBY.channelID ? LOBBY.name : channelID
}
