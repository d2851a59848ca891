import { IMError } from '../../errors.ts'
import type { Database, Query } from './database.ts'
import { sqlStateOf } from './failures.ts'
import { MIGRATIONS, SCHEMA_VERSION } from './schema.ts'

/** sha256(bytea) came with 11, MATERIALIZED with 12; older than 13 nobody should run. */
const LEAST_SERVER = 130_000

/** Changing a schema may have to go over all of it. */
const MIGRATION_TIMEOUT_MS = 600_000

/**
 * Bring the schema to this version, or find that it is. Several engines may start at once: one of them does it, and the
 * others wait. A role that finds the schema in order needs no right to change it.
 * @throws IM_STORE_FORMAT for a later version, or tables of somebody else; IM_NOT_SUPPORTED for an old server
 */
export async function migrate(database: Database): Promise<void> {
  await database.session(async (query) => {
    const [server] = (await query(`SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS text`)) as {
      readonly number: number
      readonly text: string
    }[]
    if (server!.number < LEAST_SERVER) {
      throw new IMError('IM_NOT_SUPPORTED', { detail: `PostgreSQL ${server!.text} is too old; 13 is the first that works` })
    }
    if ((await versionIn(database, query)) === SCHEMA_VERSION) return
    await query(`BEGIN`)
    await query(`SET LOCAL statement_timeout = ${MIGRATION_TIMEOUT_MS}`)
    await query(`SELECT pg_advisory_xact_lock(hashtext('imengine'), hashtext($1))`, [database.schema])
    await apply(database, query)
    await query(`COMMIT`)
  }, MIGRATION_TIMEOUT_MS)
}

async function apply(database: Database, query: Query): Promise<void> {
  const { s, schema } = database
  const version = await versionIn(database, query)
  try {
    // Where the schema is there already, the role need not have the right to make one.
    const found = await query(`SELECT 1 FROM pg_namespace WHERE nspname = $1`, [schema])
    if (found.length === 0) await query(`CREATE SCHEMA ${s}`)
    if (version === 0) await query(`CREATE TABLE ${s}.meta (name text PRIMARY KEY, value text NOT NULL)`)
    for (const migration of MIGRATIONS.slice(version)) await query(migration(s))
  } catch (error) {
    if (!/^42(P07|723)$/.test(sqlStateOf(error) ?? '')) throw error
    throw new IMError('IM_STORE_FORMAT', { detail: `the schema ${schema} holds something that imengine has not made`, cause: error })
  }
  await query(`INSERT INTO ${s}.meta VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value`, [String(SCHEMA_VERSION)])
}

/** 0 where there is nothing yet. @throws IM_STORE_FORMAT */
async function versionIn({ s, schema }: Database, query: Query): Promise<number> {
  const tables = await query(`SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta'`, [schema])
  if (tables.length === 0) return 0
  let rows: { readonly value: string }[]
  try {
    rows = (await query(`SELECT value FROM ${s}.meta WHERE name = 'version'`)) as { readonly value: string }[]
  } catch (cause) {
    if (sqlStateOf(cause) !== '42703') throw cause
    throw new IMError('IM_STORE_FORMAT', { detail: `the schema ${schema} holds something that imengine has not made`, cause })
  }
  const version = Number(rows[0]?.value)
  if (!Number.isInteger(version) || version < 1 || version > SCHEMA_VERSION) {
    throw new IMError('IM_STORE_FORMAT', { detail: `the schema ${schema} has version ${rows[0]?.value ?? 'none'}, this one knows ${SCHEMA_VERSION}` })
  }
  return version
}
