import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { Patch } from './defects.ts'
import type { ChildRequest, ChildResult } from './child.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/**
 * The simulation and the engine as one program, with some of its sources changed on the way: `src` itself stays as it is.
 * @returns where it is: below `artifacts/`, so that it finds the packages that the engine uses
 * @throws Error for a text that is not there any more, or an unknown source: a defect that is not made finds nothing
 */
export async function bundle(name: string, patches: readonly Patch[] = []): Promise<string> {
  const outfile = join(ROOT, 'artifacts', 'simulation', `${name.replaceAll(/\W+/g, '-')}-${process.pid}.mjs`)
  const patched = new Set<Patch>()
  await build({
    entryPoints: [join(ROOT, 'test/simulation/child.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    tsconfig: join(ROOT, 'tsconfig.json'),
    logLevel: 'silent',
    plugins: [
      {
        name: 'patch',
        setup: ({ onLoad }) => {
          onLoad({ filter: /\.ts$/ }, ({ path }) => {
            const changes = patches.filter((patch) => join(ROOT, patch.path) === path)
            if (changes.length === 0) return undefined
            for (const each of changes) patched.add(each)
            return { contents: changes.reduce(change, readFileSync(path, 'utf8')), loader: 'ts' }
          })
        },
      },
    ],
  })
  for (const patch of patches) if (!patched.has(patch)) throw new Error(`${patch.path} is not part of the engine`)
  return outfile
}

function change(source: string, { path, from, to }: Patch): string {
  if (!source.includes(from)) throw new Error(`${path} no longer has: ${from}`)
  return source.replaceAll(from, () => to)
}

/** Run such a program in a process of its own. */
export async function runChild(program: string, request: ChildRequest): Promise<ChildResult> {
  const child = spawn(process.execPath, [program, JSON.stringify(request)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => void chunks.push(chunk))
  const code = await new Promise((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`${program} ended with ${String(code)}`)
  return JSON.parse(Buffer.concat(chunks).toString()) as ChildResult
}
