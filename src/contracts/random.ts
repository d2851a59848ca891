/** Chance as the engine sees it: salts, key pairs' seeds and made-up ids. Replace it only in tests. */
export interface Random {
  /** `count` unpredictable bytes */
  bytes(count: number): Uint8Array
}
