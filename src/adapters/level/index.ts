/** `imengine/level`: storage in a folder that survives the process. */
export { levelStorage, type LevelStorage, type LevelStorageOptions } from './storage.ts'
export type { AnyLevel } from './database.ts'
export type { Retention } from './sweeper.ts'
