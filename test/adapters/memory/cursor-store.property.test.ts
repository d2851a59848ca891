import { it } from 'vitest'
import { memoryCursorStore } from '../../../src/adapters/memory/index.ts'
import { checkCursorsAgainstModel } from '../store-model.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/memory` looks elsewhere. */
it('the memory cursor store answers as plain objects would, whatever is done to it in whatever order', async () => {
  await checkCursorsAgainstModel({ open: memoryCursorStore, numRuns: 300, seed: Number(process.env['FUZZ_SEED'] ?? 20_260_101) })
})
