/** Longest string on the wire in bytes: the reference codec reads the length as a signed 16-bit number (wkproto 3). */
export const MAX_STRING_BYTES = 32_767

/** Largest body the four length bytes can announce. */
export const MAX_BODY_BYTES = 268_435_455

/** Largest body the reference codec takes, and ours unless told otherwise: 1 MiB, inclusive (wkproto 2). */
export const DEFAULT_MAX_FRAME_BYTES = 1_048_576
