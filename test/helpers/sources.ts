import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { root } from './programs.ts'

/** What the sources of lib/ say to people, found in their syntax. */
export class Sources {
  readonly #nodes: readonly ts.Node[]

  constructor () {
    this.#nodes = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
      // One hands on what the others say, and the folder is for tests.
      .filter((name) => name.endsWith('.ts') && name !== 'diagnostics.ts' && !name.startsWith('testing'))
      .map((name) => [name, readFileSync(join(root, 'lib', name), 'utf8')] as const)
      .map(([name, text]) => ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true))
      .flatMap(withDescendants)
  }

  /** What is logged, at any level, with an x for each value in it. */
  get logLines (): string[] {
    const callee = /^(?:logAt|logFailure|.*\blog(?:\.(?:debug|info|warn|error)|\[.*\]))$/is
    return this.#nodes.filter(ts.isCallExpression)
      .filter(({ expression }) => callee.test(expression.getText()))
      .flatMap((call) => this.#textsOf(call.arguments.at(-1)))
  }

  /** What errors say that are made by one of these, from their message alone. */
  messagesOf (...makers: readonly string[]): string[] {
    return this.#nodes.filter((node) => ts.isNewExpression(node) || ts.isCallExpression(node))
      .filter(({ expression }) => makers.includes(expression.getText()))
      .flatMap((error) => this.#textsOf(error.arguments?.at(0)))
      // Somebody else's.
      .filter((text) => text !== 'x')
  }

  #textsOf (node: ts.Node | undefined): string[] {
    if (node === undefined) return ['x']
    if (ts.isStringLiteralLike(node)) return [node.text]
    if (ts.isTemplateExpression(node)) {
      return [node.head.text + node.templateSpans.map(({ literal }) => `x${literal.text}`).join('')]
    }
    if (ts.isParenthesizedExpression(node)) return this.#textsOf(node.expression)
    if (ts.isConditionalExpression(node)) {
      return [...this.#textsOf(node.whenTrue), ...this.#textsOf(node.whenFalse)]
    }
    if (ts.isBinaryExpression(node)) {
      const [lefts, rights] = [this.#textsOf(node.left), this.#textsOf(node.right)]
      if (node.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken) return [...lefts, ...rights]
      return lefts.flatMap((left) => rights.map((right) => left + right))
    }
    if (ts.isIdentifier(node)) return this.#textsOf(initializerOf(node))
    return ts.isCallExpression(node) ? this.#resultsOf(node).flatMap((one) => this.#textsOf(one)) : ['x']
  }

  /** What the functions of this name return. */
  #resultsOf ({ expression }: ts.CallExpression): (ts.Node | undefined)[] {
    const called = expression.getText().replace('this.', '')
    return this.#nodes
      .filter((node) => ts.isFunctionDeclaration(node) || ts.isMethodDeclaration(node))
      .filter(({ name }) => name?.getText() === called)
      .flatMap(withDescendants).filter(ts.isReturnStatement).map((node) => node.expression)
  }
}

function initializerOf (node: ts.Identifier): ts.Node | undefined {
  return withDescendants(node.getSourceFile()).filter(ts.isVariableDeclaration)
    .find(({ name }) => name.getText() === node.text)?.initializer
}

function withDescendants (node: ts.Node): ts.Node[] {
  const children: ts.Node[] = []
  ts.forEachChild(node, (child) => { children.push(child) })
  return [node, ...children.flatMap(withDescendants)]
}
