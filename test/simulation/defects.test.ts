import { rm } from 'node:fs/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { bundle, runChild } from './bundle.ts'
import { DEFECTS } from './defects.ts'

/** So many seeds have to be enough. */
const SEED_COUNT = 40

const programs: string[] = []
afterAll(() => Promise.all(programs.map((program) => rm(program))))

async function programOf(name: string, ...patches: Parameters<typeof bundle>[1][]): Promise<string> {
  const program = await bundle(name, patches.flatMap((each) => each ?? []))
  programs.push(program)
  return program
}

describe('a defect that is planted is found', { timeout: 240_000 }, () => {
  for (const defect of DEFECTS) {
    test(defect.name, async () => {
      const program = await programOf(defect.name, defect.patches)
      const { broken } = await runChild(program, { firstSeed: 1, seedCount: SEED_COUNT, topology: defect.topology, defect: defect.name })
      expect(defect.found, JSON.stringify(broken)).toContain(broken?.promise)
    })
  }

  test('every promise has one', () => {
    expect([...new Set(DEFECTS.map(({ found }) => found[0]))].toSorted()).toEqual(['P1', 'P2', 'P3', 'P4', 'P5', 'P6', 'P7', 'P8'])
  })

  test('a text that is gone from the source is told', async () => {
    await expect(bundle('gone', [{ path: 'src/engine.ts', from: 'no such text', to: '' }])).rejects.toThrow('no longer has')
    await expect(bundle('nowhere', [{ path: 'src/nowhere.ts', from: 'a', to: '' }])).rejects.toThrow('not part of the engine')
  })
})
