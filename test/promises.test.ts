import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { page, resolveLink, ROOT, tableRows } from './docs/markdown.ts'

const PROMISES = ['P1', 'P2', 'P3', 'P4', 'P5', 'P6', 'P7', 'P8', 'P9']

interface Row {
  readonly promise: string
  /** from the root */
  readonly file: string
  readonly test: string
}

const promises = page('docs/promises.md')
const rows = tableRows(promises, ['promise', 'file', 'test']).map(([promise = '', link = '', test = '']): Row => {
  const target = /\]\(([^)]+)\)$/.exec(link)?.[1] ?? ''
  return { promise, file: resolveLink(promises, target), test }
})

/** The line on which the test begins: its name is written out there, or in the lines below up to the next test. */
function lineOf(lines: readonly string[], name: string): number {
  const at = lines.findIndex((line) => line.includes(`'${name}'`) || line.includes(`\`${name}\``))
  return at === -1 ? -1 : lines.slice(0, at + 1).findLastIndex((line) => /^\s*(?:it|test)[\w.]*\(/.test(line))
}

describe('docs/promises.md', () => {
  it('says of every promise what is promised, what is not, and which tests hold it', () => {
    expect([...new Set(rows.map(({ promise }) => promise))]).toEqual(PROMISES)
    const headings = promises.lines.flatMap((line) => /^## (P\d): ./.exec(line)?.[1] ?? [])
    expect(headings).toEqual(PROMISES)
    expect(promises.lines.filter((line) => line === 'Not promised:')).toHaveLength(PROMISES.length)
  })

  it.each(rows)('$promise: $file has the test "$test", under the number of its promise', ({ promise, file, test }) => {
    expect(existsSync(join(ROOT, file)), file).toBe(true)
    const { lines } = page(file)
    const at = lineOf(lines, test)
    expect(at, `${file} has no test of that name`).toBeGreaterThan(0)
    expect(lines[at - 1]?.trim() ?? '', `the line above ${file}:${at + 1}`).toMatch(new RegExp(`^// (?:P\\d, )*${promise}(?:, P\\d)*$`))
  })

  it('leaves out no test that says that it holds a promise', () => {
    for (const file of new Set(rows.map((row) => row.file))) {
      const tagged = page(file).lines.flatMap((line) => (/^\s*\/\/ (P\d(?:, P\d)*)$/.exec(line)?.[1] ?? '').split(', ').filter((tag) => tag !== ''))
      expect(tagged.toSorted(), file).toEqual(rows.filter((row) => row.file === file).map(({ promise }) => promise).toSorted())
    }
  })
})
