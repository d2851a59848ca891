import { channelKeyString, type ChannelKey } from '../../model/channel.ts'

/**
 * Which partition a channel's messages go through: FNV-1a, 32 bits, over the UTF-8 bytes of `<channelType>:<channelID>`, the id
 * being the canonical one, modulo the count of partitions. It is part of the log's format: nodes that disagreed about it would
 * number a channel differently.
 */
export function partitionOf(key: ChannelKey, partitionCount: number): number {
  return partitionOfLane(channelKeyString(key), partitionCount)
}

/** The same for operations, whose lane may be the name of a channel. */
export function partitionOfLane(lane: string, partitionCount: number): number {
  if (partitionCount === 1) return 0
  const bytes = Buffer.from(lane)
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % partitionCount
}
