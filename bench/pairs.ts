/** The job of W1, which the check of the ratios runs, too. */
import { interleave, runTraffic, type Run } from './measure.ts'
import type { EngineChoice } from './options.ts'
import type { Result, ServerSpec } from './wire.ts'

export interface OneToOneRow {
  readonly name: string
  readonly server: ServerSpec
  readonly window: number
  readonly runs: Run<Result>[]
}

export const ONE_TO_ONE_ENGINES: readonly EngineChoice[] = [
  { transport: 'tcp', encryption: 'off', storage: 'memory' },
  { transport: 'tcp', encryption: 'on', storage: 'memory' },
  { transport: 'tcp', encryption: 'off', storage: 'level' },
  { transport: 'tcp', encryption: 'on', storage: 'level' },
  { transport: 'ws', encryption: 'off', storage: 'memory' },
  { transport: 'ws', encryption: 'on', storage: 'memory' },
]
const PAIR_COUNT = 100

export function measureOneToOne(rows: readonly OneToOneRow[], times: { readonly runs: number; readonly measureMs: number; readonly warmUpMs: number }): Promise<OneToOneRow[]> {
  return interleave(rows, times.runs, ({ server, window }) =>
    runTraffic(server, {
      topology: 'pairs', senderCount: PAIR_COUNT, receiverCount: PAIR_COUNT, payloadBytes: 100, window,
      warmUpMs: times.warmUpMs, measureMs: times.measureMs, drainMs: 15_000,
    }),
  )
}
