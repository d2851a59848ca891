/** Every contract that storage or other nodes stand behind, answered from this process's memory. */
export { allowAnyToken, staticTokenVerifier, type StaticToken } from './token-verifier.ts'
export { memoryChannelDirectory } from './channel-directory.ts'
export { memoryCursorStore } from './cursor-store.ts'
export { memoryMessageStore, type MemoryMessageStoreOptions } from './message-store.ts'
export { memoryPeerHub, type MemoryPeerHub, type MemoryPeerHubOptions } from './peer-hub.ts'
export { memoryPresence, type MemoryPresenceOptions } from './presence.ts'
export { memoryReplicatorHub, type MemoryReplicatorHub, type MemoryReplicatorHubOptions } from './replicator-hub.ts'
export { memoryStorage } from './storage.ts'
