/** How a connection talks. It is decided once, before any decoding, and holds for the life of the connection. */
export type Framing = 'json-rpc' | 'wkproto'

/**
 * Tells from the first bytes of a connection which of the two it talks: JSON-RPC when the first byte that is not white
 * space is `{`. Decoded as wkproto that byte would be a PING.
 * @returns undefined while there was nothing but white space: ask again with the next chunk, and drop this one
 * Source: wkproto 13, detection. No wkproto client starts with a white space byte: they are CONNACK and the reserved type.
 */
export function detectFraming(chunk: Uint8Array): Framing | undefined {
  for (let i = 0; i < chunk.length; i++) {
    const byte = chunk[i]
    if (byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d) continue
    return byte === 0x7b ? 'json-rpc' : 'wkproto'
  }
  return undefined
}
