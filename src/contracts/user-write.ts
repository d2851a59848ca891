import type { ChannelDirectory } from './channel-directory.ts'
import type { TokenStore } from './token-store.ts'

/** A write of the storage that may take back what a user was let in by: part, method and arguments, the uid first. */
export type UserWrite =
  | { readonly part: 'channels'; readonly call: 'setUserFlags'; readonly args: Readonly<Parameters<ChannelDirectory['setUserFlags']>> }
  | { readonly part: 'tokens'; readonly call: 'putToken'; readonly args: Readonly<Parameters<TokenStore['putToken']>> }
  | { readonly part: 'tokens'; readonly call: 'removeToken'; readonly args: Readonly<Parameters<TokenStore['removeToken']>> }
