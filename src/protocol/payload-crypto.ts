import { badOption } from '../errors.ts'
import { SealModule } from './seal-module.ts'

/**
 * What the ciphers of one engine work with, as its option `payloadCrypto` says: loaded when the first one asks, and only once.
 * @param missing  told, once, that 'auto' has to do without
 * @throws TypeError  at once: 'wasm' was asked for and cannot be had
 */
export function sealModuleFor(
  choice: 'auto' | 'wasm' | 'node',
  missing: () => void,
  load: () => SealModule | undefined = SealModule.load,
): () => SealModule | undefined {
  if (choice === 'node') return () => undefined
  if (choice === 'wasm') {
    const module = load() ?? badOption('options.payloadCrypto', "'auto' or 'node' where WebAssembly with SIMD cannot be had", choice)
    return () => module
  }
  let isLoaded = false
  let module: SealModule | undefined
  return () => {
    if (isLoaded) return module
    isLoaded = true
    module = load()
    if (module === undefined) missing()
    return module
  }
}
