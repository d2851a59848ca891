import { readdirSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'
import manifest from '../package.json' with { type: 'json' }

const root = fileURLToPath(new URL('..', import.meta.url))

/** Paths of the sources under a folder, from the root of the repository, with forward slashes. */
function sourcesUnder(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((path) => posix.join(folder, path.replaceAll('\\', '/')))
    .filter((path) => path.endsWith('.ts') && !path.includes('node_modules'))
    .toSorted()
}

function parse(path: string, text = readFileSync(join(root, path), 'utf8')): ts.SourceFile {
  return ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true)
}

/** What a file imports, by whatever form of words: types, re-exports, `import()` and `import('…')` in a type included. */
function importsOf(file: ts.SourceFile): string[] {
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      found.push((node.moduleSpecifier as ts.StringLiteral).text)
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments
      found.push(argument !== undefined && ts.isStringLiteralLike(argument) ? argument.text : `a computed import: ${node.getText()}`)
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument) && ts.isStringLiteral(node.argument.literal)) {
      found.push(node.argument.literal.text)
    } else if (ts.isCallExpression(node) && ts.isIdentifier(node.expression) && node.expression.text === 'require') {
      found.push(`require: ${node.getText()}`)
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

const isRelative = (specifier: string): boolean => specifier.startsWith('.')

/** The part of the design a file belongs to: its folder, an adapter its own, and each file beside them itself. */
function partOf(path: string): string {
  const [, first, second] = path.split('/')
  if (first === undefined) return path
  return first === 'adapters' ? `adapters/${second}` : first
}

const plain = ['model', 'contracts', 'errors.ts']
const withProtocol = [...plain, 'protocol']

/** What each part may import, besides itself: the arrows all point down. 'everything' is everything but `testing`. */
const mayImport: Readonly<Record<string, readonly string[] | 'everything'>> = {
  model: [],
  'errors.ts': ['model', 'contracts'],
  contracts: ['model', 'errors.ts'],
  'config.ts': plain,
  protocol: ['model', 'errors.ts'],
  events: plain,
  services: plain,
  management: plain,
  connection: withProtocol,
  handlers: withProtocol,
  plugins: [...plain, 'config.ts', 'events', 'management', 'services'],
  testing: withProtocol,
  'parts.ts': 'everything',
  'pipeline.ts': 'everything',
  'applied-log.ts': 'everything',
  'this-node.ts': 'everything',
  'engine.ts': 'everything',
  'index.ts': 'everything',
}

/** The packages that every host has; an adapter's driver as types only, because a host may not have it. */
const packages = new Set(Object.keys(manifest.dependencies))
const drivers: Readonly<Record<string, readonly string[]>> = { 'adapters/ws': ['ws'], 'adapters/level': ['classic-level'], 'adapters/nats': ['@nats-io/transport-node', '@nats-io/jetstream', '@nats-io/kv'], 'adapters/postgres': ['pg'], 'adapters/redis': ['ioredis'], 'adapters/metrics': ['prom-client'] }

function allowed(from: string, to: string): boolean {
  if (from === to) return true
  const rule = from.startsWith('adapters/') ? plain : mayImport[from]
  if (rule === undefined) return false
  return rule === 'everything' ? to !== 'testing' && to !== 'index.ts' : rule.includes(to)
}

/** `from -> to` for every arrow that points the wrong way. */
function wrongArrows(path: string, file: ts.SourceFile): string[] {
  const part = partOf(path)
  return importsOf(file).flatMap((specifier) => {
    if (!isRelative(specifier)) return packageProblem(part, specifier, file).map((problem) => `${path}: ${problem}`)
    const target = posix.join(dirname(path), specifier)
    if (!target.startsWith('src/')) return [`${path} -> ${target} (outside src)`]
    return allowed(part, partOf(target)) ? [] : [`${path} -> ${target}`]
  })
}

function packageProblem(part: string, specifier: string, file: ts.SourceFile): string[] {
  if (isBuiltin(specifier)) return specifier.startsWith('node:') ? [] : [`${specifier} without node:`]
  if (drivers[part]?.includes(specifier) === true) return isTypeOnly(file, specifier) ? [] : [`${specifier} at run time`]
  return packages.has(specifier) ? [] : [`the package ${specifier}`]
}

function isTypeOnly(file: ts.SourceFile, specifier: string): boolean {
  return file.statements
    .filter((statement): statement is ts.ImportDeclaration => ts.isImportDeclaration(statement))
    .filter((statement) => (statement.moduleSpecifier as ts.StringLiteral).text === specifier)
    .every((statement) => statement.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword)
}

const sources = sourcesUnder('src')
const files = new Map(sources.map((path) => [path, parse(path)]))

describe('the direction of imports', () => {
  test('every part of src has a rule, and every rule a part', () => {
    const parts = [...new Set(sources.map(partOf))].filter((part) => !part.startsWith('adapters/'))
    expect(parts.toSorted()).toEqual(Object.keys(mayImport).toSorted())
  })

  test('no import points against it', () => {
    expect([...files].flatMap(([path, file]) => wrongArrows(path, file))).toEqual([])
  })

  test.each<[path: string, text: string, wrong: string[]]>([
    ['src/model/a.ts', "import type { X } from '../errors.ts'", ['src/model/a.ts -> src/errors.ts']],
    ['src/protocol/a.ts', "import type { X } from '../contracts/clock.ts'", ['src/protocol/a.ts -> src/contracts/clock.ts']],
    ['src/events/a.ts', "export { X } from '../connection/connection.ts'", ['src/events/a.ts -> src/connection/connection.ts']],
    ['src/events/a.ts', "export type * from '../services/dedup.ts'", ['src/events/a.ts -> src/services/dedup.ts']],
    ['src/handlers/user/a.ts', "await import('../../services/dedup.ts')", ['src/handlers/user/a.ts -> src/services/dedup.ts']],
    ['src/handlers/a.ts', "let x: import('../connection/connection.ts').Connection", ['src/handlers/a.ts -> src/connection/connection.ts']],
    ['src/management/a.ts', "import { encode } from '../protocol/encode.ts'", ['src/management/a.ts -> src/protocol/encode.ts']],
    ['src/adapters/memory/a.ts', "import { x } from '../net/index.ts'", ['src/adapters/memory/a.ts -> src/adapters/net/index.ts']],
    ['src/adapters/memory/a.ts', "import { x } from './b.ts'; import type { y } from '../../contracts/clock.ts'", []],
    ['src/engine.ts', "import { x } from './testing/index.ts'", ['src/engine.ts -> src/testing/index.ts']],
    ['src/engine.ts', "import { x } from './adapters/memory/index.ts'; import { y } from './pipeline.ts'", []],
    ['src/connection/a.ts', "import { x } from '../index.ts'", ['src/connection/a.ts -> src/index.ts']],
    ['src/services/a.ts', "import { x } from 'imengine'", ['src/services/a.ts: the package imengine']],
    ['src/services/a.ts', "import ws from 'ws'", ['src/services/a.ts: the package ws']],
    ['src/services/a.ts', "import fs from 'fs'", ['src/services/a.ts: fs without node:']],
    ['src/services/a.ts', "const x = require('../engine.ts')", ["src/services/a.ts: the package require: require('../engine.ts')"]],
    ['src/services/a.ts', 'const x = import(name)', ['src/services/a.ts: the package a computed import: import(name)']],
    ['src/adapters/ws/a.ts', "import type { WebSocket } from 'ws'", []],
    ['src/adapters/ws/a.ts', "import { WebSocket } from 'ws'", ['src/adapters/ws/a.ts: ws at run time']],
    ['src/adapters/level/a.ts', "const { ClassicLevel } = await import('classic-level')", []],
    ['src/adapters/level/a.ts', "import { ClassicLevel } from 'classic-level'", ['src/adapters/level/a.ts: classic-level at run time']],
    ['src/model/a.ts', "import x from '../../test/support.ts'", ['src/model/a.ts -> test/support.ts (outside src)']],
  ])('the check itself: in %s, %s', (path, text, wrong) => {
    expect(wrongArrows(path, parse(path, text))).toEqual(wrong)
  })
})

/** The files of one cycle, or undefined. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const state = new Map<string, 'open' | 'done'>()
  const trail: string[] = []
  const visit = (path: string): string[] | undefined => {
    if (state.get(path) === 'done') return undefined
    if (state.get(path) === 'open') return [...trail.slice(trail.indexOf(path)), path]
    state.set(path, 'open')
    trail.push(path)
    for (const next of graph.get(path) ?? []) {
      const cycle = visit(next)
      if (cycle !== undefined) return cycle
    }
    trail.pop()
    state.set(path, 'done')
    return undefined
  }
  for (const path of graph.keys()) {
    const cycle = visit(path)
    if (cycle !== undefined) return cycle
  }
  return undefined
}

describe('cycles', () => {
  test('there is none between files, types included', () => {
    const graph = new Map(
      [...files].map(([path, file]) => [path, importsOf(file).filter(isRelative).map((specifier) => posix.join(dirname(path), specifier))]),
    )
    for (const [path, targets] of graph) for (const target of targets) expect(sources, `${path} imports a file that is not there`).toContain(target)
    expect(findCycle(graph)).toBeUndefined()
  })

  test('the check itself finds one and names its files', () => {
    const graph = new Map([['a', ['b']], ['b', ['c', 'd']], ['c', []], ['d', ['b']]])
    expect(findCycle(graph)).toEqual(['b', 'd', 'b'])
    expect(findCycle(new Map([['a', ['b', 'c']], ['b', ['c']], ['c', []]]))).toBeUndefined()
  })
})

/** Objects that can be changed and are nobody's but the module's. `const x = new Map(…)` is one unless nothing writes to it. */
function moduleState(file: ts.SourceFile): string[] {
  const found: string[] = []
  for (const statement of file.statements) {
    if (!ts.isVariableStatement(statement)) continue
    const isConst = (statement.declarationList.flags & ts.NodeFlags.Const) !== 0
    for (const { name, initializer } of statement.declarationList.declarations) {
      const declared = name.getText(file)
      if (!isConst) found.push(`${declared} is not const`)
      else if (initializer !== undefined && isWrittenTo(file, declared)) found.push(`${declared} is written to`)
    }
  }
  return found
}

const MUTATORS = new Set(['set', 'add', 'delete', 'clear', 'push', 'pop', 'shift', 'unshift', 'splice', 'sort', 'reverse', 'fill', 'copyWithin'])

/**
 * Does a function assign to a member of `name`, or call one of its changing methods? What the module does while it is
 * loaded is building a table, not keeping state.
 */
function isWrittenTo(file: ts.SourceFile, name: string): boolean {
  const isIt = (node: ts.Node): boolean => ts.isIdentifier(node) && node.text === name
  const isWrite = (node: ts.Node): boolean => {
    if (ts.isBinaryExpression(node) && node.operatorToken.kind >= ts.SyntaxKind.FirstAssignment && node.operatorToken.kind <= ts.SyntaxKind.LastAssignment) {
      const target = node.left
      return (ts.isElementAccessExpression(target) || ts.isPropertyAccessExpression(target)) && isIt(target.expression)
    }
    if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return false
    return isIt(node.expression.expression) && MUTATORS.has(node.expression.name.text)
  }
  const visit = (node: ts.Node, isInFunction: boolean): boolean => {
    if (isInFunction && isWrite(node)) return true
    if (shadows(node, name)) return false
    return ts.forEachChild(node, (child) => visit(child, isInFunction || ts.isFunctionLike(node)) || undefined) ?? false
  }
  return visit(file, false)
}

/** A function with a parameter of the same name means another thing by it. */
function shadows(node: ts.Node, name: string): boolean {
  return ts.isFunctionLike(node) && node.parameters.some((parameter) => parameter.name.getText() === name)
}

describe('state of modules', () => {
  test('there is none: two engines in one process never meet', () => {
    expect([...files].flatMap(([path, file]) => moduleState(file).map((what) => `${path}: ${what}`))).toEqual([])
  })

  test.each([
    ['let count = 0', ['count is not const']],
    ['export var engines = []', ['engines is not const']],
    ['const all = new Map(); export const add = (k, v) => all.set(k, v)', ['all is written to']],
    ['const seen = {}; function f(k) { seen[k] = true }', ['seen is written to']],
    ['class A { static readonly #x = 1; f(k) { seen.push(k) } } const seen = []', ['seen is written to']],
    ['const TABLE = []; for (let i = 0; i < 9; i++) TABLE[i] = i', []],
    ['const all = new Map(); function f(all) { all.set(1, 2) }', []],
    ['const NAMES = new Map([[1, "a"]]); function f() { return NAMES.get(1) }', []],
    ['function f() { let local = 0; return local++ }', []],
  ])('the check itself: %s', (text, expected) => {
    expect(moduleState(parse('src/a.ts', text))).toEqual(expected)
  })
})

/** Where the type `any` is written. */
function anys(file: ts.SourceFile): string[] {
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) {
      found.push(`line ${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${node.parent.getText().slice(0, 60)}`)
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

describe('types', () => {
  test('nothing in src is any', () => {
    expect([...files].flatMap(([path, file]) => anys(file).map((where) => `${path}, ${where}`))).toEqual([])
  })

  test.each(['let x: any', 'f<any>()', 'const x = y as any', 'type X = Record<string, any>'])('the check itself: %s', (text) => {
    expect(anys(parse('src/a.ts', text))).toHaveLength(1)
  })
})

describe('the world outside', () => {
  test('examples use the entries by name, as a host does, and no file of src', () => {
    const outside = sourcesUnder('examples')
    const wrong = outside.flatMap((path) => {
      return importsOf(parse(path))
        .filter((specifier) => isRelative(specifier) && posix.join(dirname(path), specifier).startsWith('src/'))
        .map((specifier) => `${path} -> ${specifier}`)
    })
    expect(wrong).toEqual([])
  })

  test('src touches neither the console nor the process', () => {
    const touches = [...files].flatMap(([path, file]) => {
      const found: string[] = []
      const visit = (node: ts.Node): void => {
        if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
          const { text } = node.expression
          if (text === 'console' || (text === 'process' && node.name.text !== 'memoryUsage')) found.push(`${path}: ${node.getText()}`)
        }
        ts.forEachChild(node, visit)
      }
      visit(file)
      return found
    })
    expect(touches).toEqual([])
  })

  test('src takes time and chance from the contracts only', () => {
    const sourcesOfTime = new Set(['Date.now', 'performance.now', 'Math.random', 'setTimeout', 'setInterval', 'setImmediate'])
    const uses = [...files].flatMap(([path, file]) => {
      const found: string[] = []
      const visit = (node: ts.Node): void => {
        if (ts.isCallExpression(node) && sourcesOfTime.has(node.expression.getText())) found.push(`${path}: ${node.expression.getText()}`)
        ts.forEachChild(node, visit)
      }
      visit(file)
      return found
    })
    // The system's clock is the one that asks the system, and the fake one needs real turns of the event loop.
    const permitted = ['src/services/system.ts', 'src/testing/', 'src/adapters/']
    expect(uses.filter((use) => !permitted.some((path) => use.startsWith(path)))).toEqual([])
  })
})
