import { describe, it } from 'vitest'
import { systemClock, systemRandom } from '../../src/services/system.ts'
import {
  clockContract,
  FakeClock,
  loggerContract,
  randomContract,
  recordingLogger,
  seededRandom,
  socketContract,
  socketPair,
  webhookContract,
  type ContractCase,
} from '../../src/testing/index.ts'

function run(name: string, cases: readonly ContractCase[]): void {
  describe(name, () => {
    for (const contractCase of cases) it(contractCase.name, contractCase.run)
  })
}

run('FakeClock', clockContract({ open: () => ({ subject: new FakeClock() }), advance: ({ subject }, ms) => subject.advance(ms) }))
run('seededRandom', randomContract({ open: () => ({ subject: seededRandom(7) }) }))
// What the fakes stand for: the suites must not ask for more than the real thing does.
run('the clock of the system', clockContract({ open: () => ({ subject: systemClock() }) }))
run('the chance of the system', randomContract({ open: () => ({ subject: systemRandom() }) }))
run(
  'recordingLogger',
  loggerContract({
    open: () => ({ subject: recordingLogger() }),
    messages: ({ subject }) => subject.lines.map((line) => line.message),
  }),
)
// A Webhook is two functions: the host's own ones, called directly, keep every promise.
run('a webhook of two functions', webhookContract({ open: (far) => ({ subject: far }) }))

for (const framing of ['stream', 'message'] as const) {
  for (const delivery of ['deferred', 'sync'] as const) {
    run(
      `socketPair, ${framing}, ${delivery}`,
      socketContract({
        open: (acceptor) => {
          const pair = socketPair({ framing, delivery })
          pair.attach(acceptor.accept(pair.server))
          return { subject: pair.client, close: () => pair.client.destroy() }
        },
      }),
    )
  }
}
