import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const entries = ['imengine', 'imengine/level', 'imengine/redis', 'imengine/http', 'imengine/ws', 'imengine/net', 'imengine/nats', 'imengine/postgres', 'imengine/metrics', 'imengine/protocol', 'imengine/testing']

/** A folder that has the built package installed, as a user's has. */
let project: string

beforeAll(() => {
  if (!existsSync(join(root, 'dist/index.js'))) execFileSync('npm', ['run', 'build'], { cwd: root })
  project = mkdtempSync(join(tmpdir(), 'imengine-user-'))
  execFileSync('mkdir', ['-p', join(project, 'node_modules')])
  symlinkSync(root, join(project, 'node_modules', 'imengine'), 'dir')
})

afterAll(() => rmSync(project, { recursive: true, force: true }))

function run(file: string, source: string, args: readonly string[] = []): string {
  writeFileSync(join(project, file), source)
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, file], { cwd: project, encoding: 'utf8', timeout: 20_000 })
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout.trim()
}

describe('the built package', () => {
  it('gives the same names to import and to require', () => {
    const list = 'console.log(JSON.stringify(names))'
    const esm = run('names.mjs', `const names = {}; for (const entry of ${JSON.stringify(entries)}) names[entry] = Object.keys(await import(entry)).filter((name) => name !== 'default' && name !== 'module.exports').sort(); ${list}`)
    const cjs = run('names.cjs', `const names = {}; for (const entry of ${JSON.stringify(entries)}) names[entry] = Object.keys(require(entry)).sort(); ${list}`)
    expect(JSON.parse(cjs)).toEqual(JSON.parse(esm))
    expect((JSON.parse(esm) as Record<string, string[]>)['imengine']).toContain('IMEngine')
  })

  it('shares its classes between entries, so that an error of one is an error of the other', () => {
    for (const [file, load] of [['same.mjs', 'await import'], ['same.cjs', 'require']] as const) {
      expect(run(file, `const a = ${load}('imengine'), b = ${load}('imengine/protocol'); console.log(a.IMError === b.IMError)`)).toBe('true')
    }
  })

  it('loads no database driver, no broker and no transport with the core', () => {
    const loaded = run('loaded.cjs', `require('imengine'); console.log(Object.keys(require.cache).join('\\n'))`)
    const packages = new Set([...loaded.matchAll(/node_modules\/((?:@[^/]+\/)?[^/]+)\//g)].map((match) => match[1]).filter((name) => name !== 'imengine'))
    const allowed = ['eventemitter3', 'p-queue', 'p-timeout', 'lru-cache']
    expect([...packages].filter((name) => !allowed.includes(name!))).toEqual([])
  })

  it('loads none of them either while an engine of one node starts, chats and closes', () => {
    writeFileSync(join(project, 'hooks.mjs'), `
      import { appendFileSync } from 'node:fs'
      export const load = (url, context, next) => (appendFileSync('loaded.txt', url + '\\n'), next(url, context))`)
    writeFileSync(join(project, 'register.mjs'), `import { register } from 'node:module'; register('./hooks.mjs', import.meta.url)`)
    const script = `
      import { IMEngine, allowAnyToken } from 'imengine'
      const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
      await engine.start()
      await engine.messages.send({ channelID: 'bob', channelType: 1, fromUID: 'ann', payload: Buffer.from('hello') })
      await engine.close()`
    run('running.mjs', script, ['--import', './register.mjs'])
    const loaded = readFileSync(join(project, 'loaded.txt'), 'utf8')
    expect(loaded).toContain('/node_modules/eventemitter3/')
    expect(loaded).not.toMatch(/node_modules\/(@nats-io|classic-level|ioredis|pg|prom-client|ws)\//)
  })

  it('depends on nothing but the packages it names', () => {
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: object; peerDependencies: object; peerDependenciesMeta: object }
    expect(Object.keys(manifest.dependencies).sort()).toEqual(['eventemitter3', 'lru-cache', 'p-queue', 'uuid'])
    expect(Object.keys(manifest.peerDependencies)).toEqual(Object.keys(manifest.peerDependenciesMeta))
  })

  it('ends by itself: a script that starts, chats over TCP and closes leaves no handle', () => {
    const script = `
      import { createServer, connect } from 'node:net'
      import { IMEngine, allowAnyToken } from 'imengine'
      import { attachNetServer } from 'imengine/net'
      import { TestClient } from 'imengine/testing'
      const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
      await engine.start()
      const server = createServer()
      attachNetServer(engine, server)
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
      const join = async (uid) => {
        const socket = connect(server.address().port, '127.0.0.1')
        const client = new TestClient({ write: (bytes) => socket.write(bytes), onData: (listener) => socket.on('data', listener), end: () => socket.end() })
        await client.connect({ uid })
        return client
      }
      const ann = await join('ann'), bob = await join('bob')
      const ack = await ann.send({ channelID: 'bob', channelType: 1, payload: 'hello' })
      console.log(ack.messageSeq, (await bob.nextRecv()).text)
      server.close()
      await engine.close()
      console.log(process.getActiveResourcesInfo().filter((name) => /Timeout|TCP|Immediate/.test(name)).length)`
    expect(run('chat.mjs', script).split('\n')).toEqual(['1 hello', '0'])
  })
})
