import { describe, it } from 'vitest'
import { memoryCursorStore, memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { checkStoreAgainstModel, checkUnreadAgainstModel } from '../store-model.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/memory` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)

describe('the memory message store answers as a plain list would, whatever is done to it in whatever order', () => {
  for (const maxMessagesPerChannel of [1, 4, 12]) {
    it(`with a bound of ${maxMessagesPerChannel}`, async () => {
      const bounds = { maxMessagesPerChannel }
      await checkStoreAgainstModel({ open: ({ nowMs }) => memoryMessageStore({ ...bounds, nowMs }), bounds, numRuns: 100, seed })
    })
  }

  it('without a bound that is reached', async () => {
    await checkStoreAgainstModel({ open: (environment) => memoryMessageStore(environment), numRuns: 200, seed })
  })

  it('with a retention', async () => {
    const bounds = { maxAgeMs: 4000 }
    await checkStoreAgainstModel({ open: ({ nowMs }) => memoryMessageStore({ ...bounds, nowMs }), bounds, numRuns: 100, seed })
  })

  it('and what is unread follows from its answers and those of the memory cursor store', async () => {
    const open = (environment: { readonly nowMs: () => number }) => ({
      messages: memoryMessageStore(environment),
      cursors: memoryCursorStore(),
    })
    await checkUnreadAgainstModel({ open, numRuns: 200, seed })
  })
})
