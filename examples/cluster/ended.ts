import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

const LIMIT_MS = 15_000

/** Resolves when the process is gone; one that takes too long over it is killed. */
export async function ended(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const exit = once(child, 'exit')
  child.kill(signal)
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
  await exit
  clearTimeout(timer)
}
