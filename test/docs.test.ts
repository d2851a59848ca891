import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as api from 'imengine'
import { allowAnyToken, ERRORS, IMEngine, LIMITS, ReasonCode } from 'imengine'
import type { EventName } from 'imengine'
import { describe, expect, it } from 'vitest'
import manifest from '../package.json' with { type: 'json' }
import { Tag } from '../src/adapters/level/keys.ts'
import { allPages, anchorsOf, codeBlocks, linkTargets, page, regionOf, resolveLink, ROOT, tableRows } from './docs/markdown.ts'

const EVENTS: readonly EventName[] = [
  'EventConnect', 'EventOnSend', 'EventRecvAck', 'EventPing', 'EventConnClose', 'EventChannelDistribute', 'EventPushOnline',
]

const pages = allPages()
const isCodeOfOurs = (language: string): boolean => ['ts', 'typescript', 'js', 'javascript', 'tsx'].includes(language)

describe('code blocks', () => {
  for (const block of pages.flatMap(codeBlocks).filter(({ language }) => isCodeOfOurs(language))) {
    it(`${block.place} is what its example says`, () => {
      expect(block.marker, 'name its region above it: <!-- examples/NAME.ts#region -->').toBeDefined()
      if (block.marker === 'illustration') return
      expect(block.marker).toMatch(/^(examples|test)\/[\w./-]+\.ts(#[\w-]+)?$/)
      expect(block.code).toBe(regionOf(block.marker!))
    })
  }

  it('there are not more than five illustrations', () => {
    const illustrations = pages.flatMap(codeBlocks).filter(({ marker }) => marker === 'illustration')
    expect(illustrations.map(({ place }) => place).slice(5)).toEqual([])
  })
})

describe('tables', () => {
  // P7
  it('docs/limits.md lists every limit with its default and its range, and no other', () => {
    const rows = tableRows(page('docs/limits.md'), ['limit', 'default', 'least', 'most'])
    const listed = rows.map(([name, ...numbers]) => [name, ...numbers.slice(0, 3).map((text) => Number(text.replaceAll(' ', '')))])
    expect(listed).toEqual(Object.entries(LIMITS).map(([name, rule]) => [name, rule.default, rule.min, rule.max]))
  })

  // P7
  it('docs/limits.md says what happens at every bound', () => {
    for (const row of tableRows(page('docs/limits.md'), ['limit', 'default', 'least', 'most'])) {
      expect(row[4]?.length ?? 0, row[0]).toBeGreaterThan(10)
    }
  })

  it('docs/errors.md lists every error code with its message and whether to try again, and no other', () => {
    const rows = tableRows(page('docs/errors.md'), ['code', 'message', 'retryable'])
    const listed = rows.map(([code, message, retryable]) => [code, message, retryable])
    const expected = Object.entries(ERRORS).map(([code, rule]) => [code, rule.message, rule.retryable ? 'yes' : 'no'])
    expect(listed).toEqual(expected)
  })

  it('docs/errors.md lists every reason code under its number, and no other', () => {
    const rows = tableRows(page('docs/errors.md'), ['number', 'reason'])
    expect(rows.map(([number, name]) => [name, Number(number)])).toEqual(Object.entries(ReasonCode))
  })

  it('docs/handlers.md lists the steps of every event in their order', () => {
    const rows = tableRows(page('docs/handlers.md'), ['event', 'step'])
    const listed = new Map<string, string[]>()
    for (const [event, step] of rows) listed.set(event!, [...(listed.get(event!) ?? []), step!])
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    expect([...listed]).toEqual(EVENTS.map((event) => [event, engine.steps(event)]))
    // The engine names its events when it is asked for one that it does not have.
    expect(() => engine.steps('EventNone' as EventName)).toThrow(`event must be ${EVENTS.join(' | ')},`)
  })

  it('docs/handlers.md says where a handler goes that names no place', () => {
    const rows = tableRows(page('docs/handlers.md'), ['event', 'runs once per', 'default place'])
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    const found = EVENTS.map((event) => {
      engine.use(event, function probe() {})
      const behind = engine.steps(event)[engine.steps(event).indexOf('probe') + 1]
      return [event, behind === undefined ? 'last' : `before ${behind}`]
    })
    expect(rows.map(([event, , place]) => [event, place])).toEqual(found)
  })

  it('docs/storage.md lists every kind of key, and no other', () => {
    const rows = tableRows(page('docs/storage.md'), ['tag', 'key behind the tag', 'value'])
    const listed = rows.map(([tag]) => tag!.charCodeAt(0))
    expect(listed).toEqual(Object.values(Tag))
  })

  it('docs/errors.md quotes a TypeError as it is', () => {
    const quoted = /`(imengine: [^`]+)`/.exec(page('docs/errors.md').text)?.[1]
    expect(quoted).toBeDefined()
    expect(() => new IMEngine({ tokenVerifier: allowAnyToken(), nodeID: 5000 })).toThrow(new TypeError(quoted))
  })
})

describe('links', () => {
  for (const from of pages) {
    it(`every relative link of ${from.path} leads somewhere`, () => {
      for (const { target, place } of linkTargets(from)) {
        if (/^[a-z]+:/.test(target)) continue
        const [file = '', anchor] = target.split('#')
        const path = file === '' ? from.path : resolveLink(from, file)
        expect(existsSync(join(ROOT, path)), `${from.path}:${place} -> ${target}`).toBe(true)
        if (anchor !== undefined) expect([...anchorsOf(page(path))], `${from.path}:${place} -> ${target}`).toContain(anchor)
      }
    })
  }

  it('every page can be reached from another one', () => {
    const reached = new Set(pages.flatMap((from) => linkTargets(from).map(({ target }) => resolveLink(from, target.split('#')[0]!))))
    expect(pages.map(({ path }) => path).filter((path) => path !== 'README.md' && !reached.has(path))).toEqual([])
  })
})

describe('examples', () => {
  it('every program in examples/ exports start, and a test runs it', async () => {
    const tests = page('test/examples.test.ts').text
    for (const name of readdirSync(join(ROOT, 'examples')).filter((entry) => entry.endsWith('.ts'))) {
      expect(tests).toContain(`'../examples/${name}'`)
      const example = (await import(`../examples/${name.slice(0, -3)}.ts`)) as Record<string, unknown>
      expect(example.start, name).toBeTypeOf('function')
    }
  })

  it('so does every plugin in examples/plugins/', async () => {
    const tests = page('test/plugins/examples.test.ts').text
    for (const name of readdirSync(join(ROOT, 'examples/plugins'))) {
      expect(tests).toContain(`'../../examples/plugins/${name}'`)
      const example = (await import(`../examples/plugins/${name.slice(0, -3)}.ts`)) as Record<string, unknown>
      expect(example.start, name).toBeTypeOf('function')
    }
  })
})

describe('names', () => {
  const everything = pages.map(({ text }) => text).join('\n')

  for (const name of Object.keys(api)) {
    it(`${name}, which imengine exports, is mentioned`, () => {
      expect(everything).toMatch(new RegExp(`\\b${name}\\b`))
    })
  }

  it('every entry of the package is mentioned', () => {
    const entries = Object.keys(manifest.exports).filter((entry) => entry.startsWith('./') && !entry.endsWith('.json'))
    for (const entry of entries) expect(everything, entry).toContain(`imengine/${entry.slice(2)}`)
  })

  it('every npm script that is named exists', () => {
    for (const [, script] of everything.matchAll(/npm run ([\w:-]+)/g)) expect(Object.keys(manifest.scripts)).toContain(script)
  })

  it('the newest version in CHANGELOG.md is that of the package', () => {
    expect(/^## \[(\d+\.\d+\.\d+)\]/m.exec(page('CHANGELOG.md').text)?.[1]).toBe(manifest.version)
  })
})
