import ts from 'typescript'

/** One small change to the source that a test ought to notice. */
export interface Mutant {
  /** counted over all instrumented files, in their order */
  readonly id: number
  readonly path: string
  readonly line: number
  /** what is changed to what */
  readonly change: string
}

interface Replacement {
  readonly start: number
  readonly end: number
  /** `original` is the text between start and end, with the mutants inside it */
  readonly write: (original: string) => string
}

const SWAPS: Readonly<Record<string, string>> = {
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '===': '!==',
  '!==': '===',
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  '&': '|',
  '|': '&',
  '<<': '>>',
  '>>': '<<',
  '>>>': '<<',
  '&&': '||',
  '||': '&&',
  '+=': '-=',
  '-=': '+=',
}

const LONGEST_CHANGE = 70

/**
 * All mutants of one file, and its text with every one of them built in: `isMutant(id)` says at run time which is on, so that a
 * file is transformed once and not once per mutant.
 * @param firstID the id of the file's first mutant
 */
export function instrument(path: string, source: string, firstID: number): { readonly mutants: Mutant[]; readonly text: string } {
  const file = ts.createSourceFile(path, source, ts.ScriptTarget.Latest, true)
  const mutants: Mutant[] = []
  const replacements: Replacement[] = []

  const add = (at: ts.Node, change: string): number => {
    const id = firstID + mutants.length
    const line = file.getLineAndCharacterOfPosition(at.getStart(file)).line + 1
    mutants.push({ id, path, line, change: change.replace(/\s+/g, ' ').slice(0, LONGEST_CHANGE) })
    return id
  }
  const replaceExpression = (node: ts.Expression, mutated: string): void => {
    const id = add(node, `${node.getText(file)} -> ${mutated}`)
    replacements.push({ start: node.getStart(file), end: node.end, write: (original) => `(isMutant(${id}) ? (${mutated}) : (${original}))` })
  }
  const negate = (condition: ts.Expression): void => {
    // A comparison and a chain of conditions have mutants of their own.
    if (!ts.isBinaryExpression(condition)) replaceExpression(condition, `!(${condition.getText(file)})`)
  }

  const visit = (node: ts.Node): void => {
    if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return
    if (ts.isBinaryExpression(node)) {
      const swapped = SWAPS[node.operatorToken.getText(file)]
      if (swapped !== undefined && !isText(node)) replaceExpression(node, `${node.left.getText(file)} ${swapped} ${node.right.getText(file)}`)
    } else if (ts.isNumericLiteral(node) && !isName(node)) {
      const value = Number(node.text)
      replaceExpression(node, value === 1 ? '0' : String(value + 1))
    } else if (ts.isBigIntLiteral(node)) {
      replaceExpression(node, `${node.text.slice(0, -1)}n + 1n`)
    } else if (node.kind === ts.SyntaxKind.TrueKeyword || node.kind === ts.SyntaxKind.FalseKeyword) {
      replaceExpression(node as ts.Expression, node.kind === ts.SyntaxKind.TrueKeyword ? 'false' : 'true')
    } else if (ts.isIfStatement(node) || ts.isWhileStatement(node)) {
      negate(node.expression)
    } else if (ts.isConditionalExpression(node)) {
      negate(node.condition)
    } else if (ts.isExpressionStatement(node) && isEffect(node.expression)) {
      const id = add(node, `without: ${node.getText(file)}`)
      replacements.push({ start: node.getStart(file), end: node.end, write: (original) => `{ if (!isMutant(${id})) { ${original} } }` })
    } else if (isBodyWithoutResult(node)) {
      const id = add(node, `returns at once: ${node.parent.getText(file)}`)
      const at = node.statements[0]!.getStart(file)
      replacements.push({ start: at, end: at, write: () => `if (isMutant(${id})) return; ` })
    }
    ts.forEachChild(node, visit)
  }
  visit(file)

  return { mutants, text: applied(source, replacements) }
}

/** The replacements nest: each is written around what those inside it have made of its text. */
function applied(source: string, replacements: readonly Replacement[]): string {
  // Outer before inner, insertions before what begins at the same place; parents were found before their children.
  const sorted = replacements.map((replacement, found) => ({ ...replacement, found }))
  sorted.sort((a, b) => a.start - b.start || Number(b.start === b.end) - Number(a.start === a.end) || b.end - a.end || a.found - b.found)
  let next = 0
  const write = (start: number, end: number): string => {
    let text = ''
    let at = start
    for (let one = sorted[next]; one !== undefined && one.end <= end && one.start < end; one = sorted[next]) {
      next++
      text += source.slice(at, one.start) + one.write(one.start === one.end ? '' : write(one.start, one.end))
      at = one.end
    }
    return text + source.slice(at, end)
  }
  return write(0, source.length)
}

/** Adding texts has no minus. */
function isText({ left, right }: ts.BinaryExpression): boolean {
  return [left, right].some((side) => ts.isStringLiteral(side) || ts.isTemplateExpression(side) || (ts.isBinaryExpression(side) && isText(side)))
}

function isName(node: ts.NumericLiteral): boolean {
  return ts.isPropertyAssignment(node.parent) && node.parent.name === node
}

/** Every statement of this kind does something; only the call of a base class's constructor cannot be left out. */
function isEffect(expression: ts.Expression): boolean {
  return !(ts.isCallExpression(expression) && expression.expression.kind === ts.SyntaxKind.SuperKeyword)
}

/** The body of a function that gives nothing back, where there is more than one thing to leave out. */
function isBodyWithoutResult(node: ts.Node): node is ts.Block {
  if (!ts.isBlock(node) || node.statements.length < 2 || ts.isConstructorDeclaration(node.parent) || !ts.isFunctionLike(node.parent)) return false
  const returnsValue = (inner: ts.Node): boolean => {
    if (ts.isFunctionLike(inner)) return false
    return (ts.isReturnStatement(inner) && inner.expression !== undefined) || (ts.forEachChild(inner, returnsValue) ?? false)
  }
  return !node.statements.some(returnsValue)
}
