import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Page {
  /** from the root of the repository, with forward slashes */
  readonly path: string
  readonly text: string
  readonly lines: readonly string[]
}

export function page(path: string): Page {
  const text = readFileSync(join(ROOT, path), 'utf8')
  return { path, text, lines: text.split('\n') }
}

/** Everything a reader may open. */
export function allPages(): Page[] {
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name.split(sep).join('/')}`)
  return ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', ...docs.sort()].map(page)
}

export interface CodeBlock {
  readonly language: string
  readonly code: string
  /** what stands in the HTML comment right above it */
  readonly marker: string | undefined
  /** for messages: `docs/start.md:12` */
  readonly place: string
}

export function codeBlocks({ path, lines }: Page): CodeBlock[] {
  const blocks: CodeBlock[] = []
  for (let at = 0; at < lines.length; at++) {
    const language = /^```(\w*)/.exec(lines[at]!)?.[1]
    if (language === undefined) continue
    const end = lines.indexOf('```', at + 1)
    if (end < 0) throw new Error(`${path}:${at + 1}: a code block that never ends`)
    const above = lines.slice(0, at).findLast((line) => line.trim() !== '')
    const marker = /^<!-- (.+) -->$/.exec(above ?? '')?.[1]
    blocks.push({ language, code: lines.slice(at + 1, end).join('\n'), marker, place: `${path}:${at + 1}` })
    at = end
  }
  return blocks
}

/**
 * `examples/host.ts#send`: the lines between `// #region send` and its `// #endregion`, moved to the left margin, all of
 * that name one after the other; `examples/host.ts`: all of the file. Lines that open or close a region are never part of it.
 */
export function regionOf(reference: string): string {
  const [path = '', name] = reference.split('#')
  const lines = page(path).lines
  if (name === undefined) return tidy(lines)
  const parts: string[] = []
  for (let start = 0; start < lines.length; start++) {
    if (lines[start]!.trim() !== `// #region ${name}`) continue
    const end = endOfRegion(lines, start)
    if (end < 0) throw new Error(`${path}: region ${name} never ends`)
    parts.push(tidy(lines.slice(start + 1, end)))
  }
  if (parts.length === 0) throw new Error(`${path} has no region ${name}`)
  return parts.join('\n\n')
}

function endOfRegion(lines: readonly string[], start: number): number {
  let depth = 0
  for (let at = start; at < lines.length; at++) {
    const line = lines[at]!.trim()
    if (line.startsWith('// #region')) depth++
    else if (line.startsWith('// #endregion') && --depth === 0) return at
  }
  return -1
}

function tidy(lines: readonly string[]): string {
  const kept = lines.filter((line) => !/^\s*\/\/ #(end)?region/.test(line))
  const indents = kept.filter((line) => line.trim() !== '').map((line) => line.length - line.trimStart().length)
  const indent = Math.min(...indents)
  return kept.map((line) => line.slice(indent)).join('\n').trim()
}

/** The cells below every table that starts with these columns; code marks are taken off. */
export function tableRows({ lines }: Page, columns: readonly string[]): string[][] {
  const rows: string[][] = []
  for (let at = 0; at < lines.length; at++) {
    const head = cellsOf(lines[at]!)
    if (!columns.every((column, index) => head[index] === column)) continue
    for (at += 2; lines[at]?.startsWith('|') === true; at++) rows.push(cellsOf(lines[at]!))
  }
  return rows
}

function cellsOf(line: string): string[] {
  if (!line.startsWith('|')) return []
  return line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim().replaceAll('`', ''))
}

/** Link and image targets outside code. */
export function linkTargets({ lines }: Page): { readonly target: string; readonly place: number }[] {
  const found: { target: string; place: number }[] = []
  let isCode = false
  lines.forEach((line, index) => {
    if (line.startsWith('```')) isCode = !isCode
    if (isCode) return
    const text = line.replaceAll(/`[^`]*`/g, '')
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) found.push({ target: target!, place: index + 1 })
  })
  return found
}

/** The anchors of a page's headings, as GitHub makes them. */
export function anchorsOf({ lines }: Page): Set<string> {
  const anchors = new Set<string>()
  let isCode = false
  for (const line of lines) {
    if (line.startsWith('```')) isCode = !isCode
    const heading = isCode ? undefined : /^#{1,6} (.+)$/.exec(line)?.[1]
    if (heading === undefined) continue
    anchors.add(heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))
  }
  return anchors
}

/** A link's file, from the root. */
export function resolveLink(from: Page, target: string): string {
  return relative(ROOT, join(ROOT, dirname(from.path), target)).split(sep).join('/')
}
