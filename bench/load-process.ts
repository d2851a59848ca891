/** The load, in a process of its own: one task, given as JSON; what it sees goes to the parent. */
import { runIdle } from './load/idle.ts'
import { runSoak } from './load/soak.ts'
import { runStorm } from './load/storm.ts'
import { runTraffic, type Span } from './load/traffic.ts'
import type { FromLoad, LoadTask } from './wire.ts'

const task = JSON.parse(process.argv[2]!) as LoadTask
const tell = (message: FromLoad): void => void process.send!(message)
const span: Span = { begin: () => tell({ type: 'begin' }), end: () => tell({ type: 'end' }) }

try {
  const result = await run()
  tell({ type: 'result', result })
} catch (error) {
  console.error(`load: ${(error as Error).stack}`)
  process.exit(1)
}
// Until the parent has asked the server what it wants to know, the connections stay.
process.on('message', () => process.exit(0))
process.on('disconnect', () => process.exit(0))

async function run(): Promise<unknown> {
  switch (task.task) {
    case 'traffic':
      return runTraffic(task.job, span)
    case 'storm':
      return runStorm(task.job, span)
    case 'idle':
      return runIdle(task.job, span)
    case 'soak':
      return runSoak(task.job, (progress) => tell({ type: 'progress', ...progress }))
  }
}
