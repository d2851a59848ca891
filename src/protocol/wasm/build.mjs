/**
 * `npm run build:wasm`: compiles `seal.ts` into `../seal-module-bytes.ts`, which is committed, so that nobody who builds, tests
 * or bundles the engine needs the compiler. With `--print` it writes nothing and prints the base64 text, for the test that
 * compares the two.
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const here = fileURLToPath(new URL('.', import.meta.url))
const LINE_LENGTH = 160

let compiled
const { error, stderr } = await asc.main(
  // No runtime and no imports; one page of memory that never grows, so that views of it are never detached.
  ['seal.ts', '--baseDir', here, '--outFile', 'seal.wasm', '--runtime', 'stub', '--use', 'abort=', '--noAssert', '--enable', 'simd', '--optimizeLevel', '3', '--initialMemory', '1', '--maximumMemory', '1'],
  { writeFile: (_name, contents) => void (compiled = contents) },
)
if (error !== null) throw new Error(stderr.toString(), { cause: error })

const text = Buffer.from(compiled).toString('base64')
if (process.argv.includes('--print')) console.log(text)
else {
  const lines = text.match(new RegExp(`.{1,${LINE_LENGTH}}`, 'g')).map((line) => `  '${line}'`)
  writeFileSync(
    fileURLToPath(new URL('../seal-module-bytes.ts', import.meta.url)),
    `/** Made from \`wasm/seal.ts\` by \`npm run build:wasm\`; not to be edited. */\nexport const SEAL_MODULE_BASE64 =\n${lines.join(' +\n')}\n`,
  )
  console.log(`${compiled.length} bytes`)
}
