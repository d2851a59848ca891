import type * as Driver from 'classic-level'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { levelStorage } from 'imengine/level'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'

const sizes: unknown[] = []

/** The real one, which notes what it is given. */
vi.mock('classic-level', async (importOriginal) => {
  const original = await importOriginal<typeof Driver>()
  class ClassicLevel<K, V> extends original.ClassicLevel<K, V> {
    constructor(path: string, options: Driver.DatabaseOptions<K, V> & Driver.OpenOptions) {
      super(path, options)
      sizes.push(options.writeBufferSize)
    }
  }
  return { ...original, ClassicLevel }
})

let folder: string

beforeEach(async () => {
  sizes.length = 0
  folder = await mkdtemp(join(tmpdir(), 'imengine-buffer-'))
})
afterEach(async () => {
  vi.restoreAllMocks()
  await rm(folder, { recursive: true })
})

async function openAndClose(random: number, writeBufferBytes?: number): Promise<void> {
  vi.spyOn(Math, 'random').mockReturnValue(random)
  const storage = levelStorage({ path: folder, ...(writeBufferBytes === undefined ? {} : { writeBufferBytes }) })
  await storage.open()
  await storage.close()
}

it('a buffer is between half of what is allowed and all of it, drawn at each opening, so that nodes that store the same do not sort it together', async () => {
  for (const random of [0, 0.25, 0.999_999]) await openAndClose(random, 1 << 20)
  expect(sizes).toEqual([524_288, 655_360, 1_048_575])
})

it('by default it is 24 to 48 MiB', async () => {
  await openAndClose(0)
  await openAndClose(0.999_999_999)
  expect(sizes).toEqual([24 << 20, 48 << 20])
})
