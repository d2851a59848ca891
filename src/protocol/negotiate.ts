import { FrameType, LATEST_VERSION, type ConnackPacket } from '../model/frames.ts'

/**
 * The version a connection speaks from its CONNECT on: the lower of the client's and ours; a client that says 0 gets 1.
 * Source: wkproto 4.
 */
export function negotiateVersion(connectVersion: number): number {
  return Math.min(Math.max(connectVersion, 1), LATEST_VERSION)
}

/** What the engine decides about a CONNACK; the rest follows from the version of the CONNECT it answers. */
export interface ConnackFields {
  /** CONNECT.version, as the client sent it */
  readonly connectVersion: number
  readonly reasonCode: number
  /** server clock minus client clock */
  readonly timeDiffMs: bigint
  /** unsigned 64-bit decimal */
  readonly nodeID: string
  /** both empty on refusal, and for a client that talks plain */
  readonly serverKey?: string
  readonly salt?: string
}

/**
 * The CONNACK for a CONNECT. It names the server's version only to clients above version 3: older ones do not expect the
 * byte, newer ones fall back to an older layout without it. Encode it with `negotiateVersion(connectVersion)`.
 * Source: wkproto 4.
 */
export function shapeConnack(fields: ConnackFields): ConnackPacket {
  const packet: ConnackPacket = {
    type: FrameType.CONNACK,
    timeDiffMs: fields.timeDiffMs,
    reasonCode: fields.reasonCode,
    serverKey: fields.serverKey ?? '',
    salt: fields.salt ?? '',
    nodeID: fields.nodeID,
  }
  if (fields.connectVersion <= 3) return packet
  return { ...packet, serverVersion: negotiateVersion(fields.connectVersion) }
}
