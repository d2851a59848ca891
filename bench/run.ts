/** `npm run bench` runs everything but what takes long; `npm run bench -- NAME` one of them, with options of its own. */
const benchmarks: Readonly<Record<string, () => Promise<unknown>>> = {
  'one-to-one': () => import('./one-to-one.ts'),
  storage: () => import('./storage.ts'),
  'large-store': () => import('./large-store.ts'),
}
const TAKES_LONG = ['large-store']

const name = process.argv[2]
if (name === undefined || name.startsWith('--')) {
  for (const [each, run] of Object.entries(benchmarks)) {
    if (TAKES_LONG.includes(each)) continue
    console.log(`\n${each}\n`)
    await run()
  }
} else {
  const run = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined
  if (run === undefined) {
    console.error(`There is no benchmark "${name}". There are: ${Object.keys(benchmarks).join(', ')}.`)
    process.exit(1)
  }
  process.argv.splice(2, 1)
  await run()
}

export {}
