import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, inject, vi } from 'vitest'
import type { RunRequest } from './run.ts'

// Runs in the worker, before every test file, and before it has loaded any of the source.

const request = JSON.parse(inject('mutation' as never)) as RunRequest
const { mutantID, hitLimit, testsOf, folder } = request

// Writing down all that is reached is slow.
if (mutantID === undefined) vi.setConfig({ testTimeout: 60_000 })

mkdirSync(folder, { recursive: true })
writeFileSync(join(folder, 'pid'), String(process.pid))

/** mutants reached, by test; '' is what runs outside of any test, as the file loads */
const reached = new Map<string, Set<number>>()
const hits = new Map<number, number>()
let current = new Set<number>()
reached.set('', current)

let hitCount = 0
const isMutant =
  mutantID === undefined
    ? (id: number): boolean => {
        current.add(id)
        hits.set(id, (hits.get(id) ?? 0) + 1)
        return false
      }
    : (id: number): boolean => {
        // In an endless loop something is reached without end. An error might be caught, and the loop go on.
        if (++hitCount > hitLimit) process.kill(process.pid, 'SIGKILL')
        return id === mutantID
      }
Reflect.set(globalThis, 'isMutant', isMutant)

beforeEach(({ task, skip }) => {
  const name = nameOf(task)
  const tests = testsOf?.[task.file.filepath]
  if (tests !== undefined && !tests.includes(name)) skip()
  current = new Set()
  reached.set(name, current)
})

afterEach(() => {
  current = reached.get('')!
})

afterAll(() => {
  if (mutantID !== undefined) return
  const record = { reached: [...reached].map(([name, ids]) => [name, [...ids]]), hits: [...hits] }
  writeFileSync(join(folder, 'reached.json'), JSON.stringify(record))
})

interface Named {
  readonly name: string
  readonly suite?: Named | undefined
}

function nameOf(task: Named): string {
  return task.suite === undefined ? task.name : `${nameOf(task.suite)} > ${task.name}`
}
