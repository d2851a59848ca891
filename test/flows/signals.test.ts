import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'

interface Started {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  readonly told: string[]
  /** resolves when it has told this */
  readonly until: (line: string) => Promise<void>
}

function start(...args: readonly string[]): Started {
  const file = fileURLToPath(new URL('signals-process.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const told: string[] = []
  const next = createInterface(child.stdout)[Symbol.asyncIterator]()
  const until = async (line: string): Promise<void> => {
    while (told.at(-1) !== line) {
      const { value, done } = (await next.next()) as IteratorResult<string, undefined>
      if (done === true) throw new Error(`the process has ended and never told '${line}', but ${told.join(', ')}`)
      told.push(value)
    }
  }
  return { child, exited: once(child, 'exit'), told, until }
}

test('SIGTERM begins an orderly end, a second one cuts it short, and the process ends by itself', async () => {
  const { child, exited, told, until } = start()
  await until('asked')
  child.kill('SIGTERM')
  await until('closing')
  child.kill('SIGTERM')
  await until('not answered')
  expect(await exited).toEqual([0, null])
  expect(told).toContain('IM_CLOSE_TIMEOUT')
})

test('SIGTERM while the engine starts ends it in order, too: what it has opened is closed, and start rejects', async () => {
  const { child, exited, told, until } = start('starting')
  await until('opening')
  child.kill('SIGTERM')
  await until('storage closed')
  expect(await exited).toEqual([0, null])
  expect(told).toContain('closing')
})
