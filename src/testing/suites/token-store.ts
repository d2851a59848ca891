import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { StoredToken, TokenStore } from '../../contracts/token-store.ts'
import { DeviceFlag, DeviceLevel } from '../../model/device.ts'
import {
  casesOf,
  durableCasesOf,
  started,
  type ContractCase,
  type DurableContractOptions,
  type DurableScenario,
  type Opened,
  type Scenario,
} from './contract-case.ts'
import { HOSTILE_IDS } from './samples.ts'

/** The promises of a TokenStore. */
export function tokenStoreContract<O extends Opened<TokenStore>>(options: DurableContractOptions<TokenStore, O>): ContractCase[] {
  return [...casesOf(options, scenarios), ...durableCasesOf(options, survivalScenarios)]
}

const { App, Web, Pc, System } = DeviceFlag
const { Slave, Master } = DeviceLevel

function tokenOf(text: string, over: Partial<StoredToken> = {}): StoredToken {
  return { deviceFlag: App, digest: new Uint8Array(createHash('sha256').update(text).digest()), deviceLevel: Slave, ...over }
}

async function assertToken(store: TokenStore, uid: string, expected: StoredToken): Promise<void> {
  const found = await store.token(uid, expected.deviceFlag)
  assert.ok(found !== undefined, `the token of ${uid.slice(0, 40)} is missing`)
  assert.ok(found.digest instanceof Uint8Array, 'a digest must be a Uint8Array')
  assert.deepEqual({ ...found, digest: hex(found.digest) }, { ...expected, digest: hex(expected.digest) })
}

function hex(digest: Uint8Array): string {
  return Buffer.from(digest).toString('hex')
}

const scenarios: readonly Scenario<TokenStore>[] = [
  [
    'who has been given no token has none, and to remove it does nothing',
    async (store) => {
      assert.equal(await store.token('nobody', App), undefined)
      await store.removeToken('nobody', App)
      await store.putToken('ann', tokenOf('one'))
      assert.equal(await store.token('ann', Web), undefined)
      await store.removeToken('ann', Web)
      await store.removeToken('bob', App)
      await assertToken(store, 'ann', tokenOf('one'))
    },
  ],
  [
    'a token comes back as it was put, whatever it is worth',
    async (store) => {
      for (const deviceLevel of [Slave, Master]) {
        await store.putToken('ann', tokenOf('one', { deviceLevel }))
        await assertToken(store, 'ann', tokenOf('one', { deviceLevel }))
      }
    },
  ],
  [
    'a token replaces the one of its user and kind of device, and no other',
    async (store) => {
      await store.putToken('ann', tokenOf('app'))
      await store.putToken('ann', tokenOf('web', { deviceFlag: Web }))
      await store.putToken('bob', tokenOf('bob'))
      await store.putToken('ann', tokenOf('new', { deviceLevel: Master }))
      await assertToken(store, 'ann', tokenOf('new', { deviceLevel: Master }))
      await assertToken(store, 'ann', tokenOf('web', { deviceFlag: Web }))
      await assertToken(store, 'bob', tokenOf('bob'))
    },
  ],
  [
    'what has been removed is gone, alone, and may be put again',
    async (store) => {
      await store.putToken('ann', tokenOf('app'))
      await store.putToken('ann', tokenOf('web', { deviceFlag: Web }))
      await store.putToken('bob', tokenOf('bob'))
      await store.removeToken('ann', App)
      await store.removeToken('ann', App)
      assert.equal(await store.token('ann', App), undefined)
      await assertToken(store, 'ann', tokenOf('web', { deviceFlag: Web }))
      await assertToken(store, 'bob', tokenOf('bob'))
      await store.putToken('ann', tokenOf('again'))
      await assertToken(store, 'ann', tokenOf('again'))
    },
  ],
  [
    'every kind of device has its own token',
    async (store) => {
      const deviceFlags = [App, Web, Pc, System, 255]
      for (const deviceFlag of deviceFlags) await store.putToken('ann', tokenOf(`of ${deviceFlag}`, { deviceFlag }))
      for (const deviceFlag of deviceFlags) await assertToken(store, 'ann', tokenOf(`of ${deviceFlag}`, { deviceFlag }))
    },
  ],
  [
    'users whatever their uids are kept apart',
    async (store) => {
      const uids = [...HOSTILE_IDS, 'ann', 'ann0', 'ann1', 'ann\0']
      for (const uid of uids) await store.putToken(uid, tokenOf(`of ${uid}`, { deviceFlag: Web }))
      for (const uid of uids) {
        await assertToken(store, uid, tokenOf(`of ${uid}`, { deviceFlag: Web }))
        assert.equal(await store.token(uid, App), undefined)
      }
      assert.equal(await store.token('toString', Web), undefined)
      await store.putToken('u', tokenOf('of u', { deviceFlag: 11 }))
      await store.putToken('u1', tokenOf('of u1', { deviceFlag: 1 }))
      await assertToken(store, 'u', tokenOf('of u', { deviceFlag: 11 }))
      await assertToken(store, 'u1', tokenOf('of u1', { deviceFlag: 1 }))
    },
  ],
  [
    'what the caller does to its objects afterwards does not reach the store',
    async (store) => {
      const token = tokenOf('one')
      const put = started(() => store.putToken('ann', token))
      token.digest.fill(0)
      Object.assign(token, { deviceFlag: Web, deviceLevel: Master })
      await put
      await assertToken(store, 'ann', tokenOf('one'))
      assert.equal(await store.token('ann', Web), undefined)
    },
  ],
  [
    'writes that overlap are all there once they have resolved',
    async (store) => {
      const uids = Array.from({ length: 50 }, (_, i) => `u${i}`)
      await Promise.all(uids.map((uid) => started(() => store.putToken(uid, tokenOf(uid)))))
      for (const uid of uids) await assertToken(store, uid, tokenOf(uid))
    },
  ],
]

const survivalScenarios: readonly DurableScenario<TokenStore>[] = [
  {
    name: 'after a restart every token that was put last is there, and what was removed is not',
    before: async (store) => {
      await store.putToken('ann', tokenOf('old'))
      await store.putToken('ann', tokenOf('new', { deviceLevel: Master }))
      await store.putToken('ann', tokenOf('web', { deviceFlag: Web }))
      await store.putToken('bob', tokenOf('bob'))
      await store.removeToken('ann', Web)
      for (const uid of HOSTILE_IDS) await store.putToken(uid, tokenOf(uid))
    },
    after: async (store) => {
      await assertToken(store, 'ann', tokenOf('new', { deviceLevel: Master }))
      assert.equal(await store.token('ann', Web), undefined)
      await assertToken(store, 'bob', tokenOf('bob'))
      for (const uid of HOSTILE_IDS) await assertToken(store, uid, tokenOf(uid))
    },
  },
]
