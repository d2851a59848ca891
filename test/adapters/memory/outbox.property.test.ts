import { it } from 'vitest'
import { memoryOutbox } from 'imengine'
import { checkOutboxAgainstModel } from '../outbox-model.ts'

it('memoryOutbox answers as an array would, whatever is done to it in whatever order', async () => {
  const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)
  await checkOutboxAgainstModel({ open: () => memoryOutbox(), reopen: (outbox) => outbox, numRuns: 300, seed })
})
