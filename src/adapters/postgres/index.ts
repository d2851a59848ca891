/** `imengine/postgres`: storage in a PostgreSQL database, for one engine or several at once. */
export { postgresStorage, type PostgresStorage } from './storage.ts'
export type { PostgresStorageOptions } from './options.ts'
export type { AnyClient, AnyPool } from './database.ts'
export type { Retention } from './sweeper.ts'
