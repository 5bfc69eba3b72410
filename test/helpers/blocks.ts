import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import ts from 'typescript'
import { onEnd, type Owner } from './cleanup.ts'
import { root } from './programs.ts'

/** A ts block of a page, as a module of its own. */
export interface Block {
  readonly page: string
  /** Of its first line in the page. */
  readonly line: number
  readonly text: string
}

/** The ts blocks of a page, by its path from the root of the repository. */
export function blocksOf (page: string): Block[] {
  const whole = readFileSync(join(root, page), 'utf8')
  return [...whole.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
    page,
    line: whole.slice(0, match.index).split('\n').length + 1,
    text: match[1] ?? ''
  }))
}

/** What a block without imports takes for granted, and takes it with these options of the plugin. */
export function preludeOf ({ text }: Block, options = ''): string {
  return /^import /m.test(text)
    ? ''
    : [
        "import { Type } from '@sinclair/typebox'",
        "import Fastify from 'fastify'",
        "import multimqtt, { defineTopic } from 'fastify-multimqtt'",
        'const fastify = Fastify()',
        `await fastify.register(multimqtt${options})`
      ].join('; ')
}

/** Compiled, beside this folder. */
const library = new URL('../../lib/', import.meta.url)

/**
 * Runs a block as a program, to its end.
 *
 * @param more what it goes on with, in the same module
 * @returns what it has written
 */
export async function runBlock (owner: Owner, block: Block, more = ''): Promise<string> {
  const source = `${preludeOf(block, ", { start: 'manual' }")}\n${block.text}\n${more}\n`
    .replace("'fastify-multimqtt/testing'", `'${new URL('testing/index.js', library).href}'`)
    .replace("'fastify-multimqtt'", `'${new URL('index.js', library).href}'`)
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 }
  })
  // Where the packages are found that it imports.
  const folder = mkdtempSync(join(dirname(fileURLToPath(library)), 'block-'))
  onEnd(owner, () => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, `${block.page.replace(/\W/g, '-')}-${block.line}.mjs`)
  writeFileSync(file, outputText)
  const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 })
  return stdout
}
