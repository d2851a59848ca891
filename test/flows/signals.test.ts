import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'

test('SIGTERM begins an orderly end, a second one cuts it short, and the process ends by itself', async () => {
  const file = fileURLToPath(new URL('signals-process.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', file], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const told: string[] = []
  const next = createInterface(child.stdout)[Symbol.asyncIterator]()
  const until = async (line: string): Promise<void> => {
    while (told.at(-1) !== line) {
      const { value, done } = (await next.next()) as IteratorResult<string, undefined>
      if (done === true) throw new Error(`the process has ended and never told '${line}', but ${told.join(', ')}`)
      told.push(value)
    }
  }
  await until('asked')
  child.kill('SIGTERM')
  await until('closing')
  child.kill('SIGTERM')
  await until('not answered')
  expect(await exited).toEqual([0, null])
  expect(told).toContain('IM_CLOSE_TIMEOUT')
})
