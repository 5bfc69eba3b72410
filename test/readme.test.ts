import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Aedes } from 'aedes'
import ts from 'typescript'
import { errors } from '../lib/errors.ts'
import { OptionsSchema } from '../lib/options/schema.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { mosquittoMissing, startMosquitto } from './helpers/mosquitto.ts'
import { listen } from './helpers/ports.ts'
import { root } from './helpers/programs.ts'
import { Sources } from './helpers/sources.ts'

const pages = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)]
const texts = new Map(pages.map((page) => [page, readFileSync(join(root, page), 'utf8')]))

/** Whoever waits for that says FST_MQTT_CLOSED instead. */
const unseen = ['the connection was closed before its subscriptions were answered']

/** Compiled, beside this file. */
const examples = fileURLToPath(new URL('../examples/', import.meta.url))
const timeoutMs = 60_000

describe('documentation', () => {
  test('every ts block of README.md and docs/ is accepted by the compiler', () => {
    const blocks = pages.flatMap(blocksOf)
    // What one block declares in fastify-multimqtt must not reach the others.
    const [merging, others] = partition(blocks, ({ text }) => text.includes('declare module'))
    const check = createChecker()

    const problems = [others, ...merging.map((block) => [block])].flatMap(check)

    assert.ok(blocks.length > 50, `only ${blocks.length} blocks were found`)
    assert.deepEqual(problems, [])
  })

  test("README's first block is examples/first-example.ts", () => {
    const [block] = blocksOf('README.md')
    const wanted = linesOf(block?.text ?? '')
    const example = linesOf(readFileSync(join(root, 'examples/first-example.ts'), 'utf8')
      .replace('../lib/index.ts', 'fastify-multimqtt')
      .replace("process.env['MQTT_URL'] ?? ", '')
      .replace("Number(process.env['PORT'] ?? 3000)", '3000'))

    assert.deepEqual(example.filter((line) => !line.includes('EXAMPLE_ONCE')), wanted)
  })

  test('README has at most 300 lines, and its two commands are there', () => {
    const readme = textOf('README.md')
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object }

    assert.ok(readme.split('\n').length <= 300)
    assert.match(readme, /^npm ci && npm run demo$/m)
    assert.match(readme, /^npm ci && npm test$/m)
    assert.ok('demo' in scripts && 'test' in scripts)
  })

  test('docs/errors.md has a heading for each code of lib/errors.ts', () => {
    assert.deepEqual(headings('docs/errors.md', /^### (FST_\w+)$/gm), Object.keys(errors).sort())
  })

  test('docs/options.md has a heading for each option', () => {
    assert.deepEqual(headings('docs/options.md', /^### `(\w+)`$/gm), Object.keys(OptionsSchema.properties).sort())
  })

  test('what docs/troubleshooting.md has headings for are lines that lib/ logs', () => {
    const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts')).map((name) => readFileSync(join(root, 'lib', name), 'utf8'))
    const lines = headings('docs/troubleshooting.md', /^### `(.+)`$/gm)
    const unknown = lines.filter((line) =>
      !sources.some((source) => line.split('…').every((part) => source.includes(part.replace(/: $/, '')))))

    assert.ok(lines.length > 15)
    assert.deepEqual(unknown, [])
  })

  test('every line that lib/ logs, and every reason for the end of a connection, is on docs/troubleshooting.md', () => {
    const known = [...textOf('docs/troubleshooting.md').matchAll(/`([^`]+)`/g)]
      .filter(([, code = '']) => /[a-z]{2,} [a-z]{2,}|[a-z]+ …/.test(code))
      .map(([, code = '']) => new RegExp(`^${code.replace(/\s+/g, ' ').split('…').map(escaped).join('.*')}$`))
    const sources = new Sources()
    const lines = sources.logLines
    const reasons = sources.messagesOf('errors.FST_MQTT_CONNECTION', 'hangUp').filter((text) => !unseen.includes(text))
    const unknown = [...lines, ...reasons].filter((text) => !known.some((pattern) => pattern.test(text)))

    assert.ok(lines.length > 25 && reasons.length > 10, `only ${lines.length} lines and ${reasons.length} reasons were found`)
    assert.deepEqual(unknown, [])
  })

  test('every link leads to a file and a heading', () => {
    const broken = pages.flatMap((page) => linksOf(page).filter((link) => !leadsSomewhere(page, link))
      .map((link) => `${page}: ${link}`))

    assert.deepEqual(broken, [])
  })
})

describe('examples', { concurrency: true }, () => {
  const expected: Record<string, readonly string[]> = {
    'first-example': ['sensor 7 says 21.5 °C'],
    'several-handlers': [
      'the first door is the front one', 'door front is open', 'something happened at door/front',
      'door back is closed', 'something happened at door/back'
    ],
    'http-and-mqtt': ['202 {"sentTo":"light/kitchen/set"}', '{"kitchen":{"on":true}}', '"status":"ready"'],
    namespaces: ['site: machine press takes 1200 W', 'archive: archive/power/press 1200'],
    contracts: ['publishing to contracts/boiler/3/state', "Invalid payload for 'boiler/<int:id>/state'", 'burning']
  }

  // These need what only Mosquitto has.
  const expectedOnMosquitto: Record<string, readonly string[]> = {
    provisioning: [
      '201 device-7 may publish to provisioning/device/7/reading', '409 when it is there already', 'device 7 says 21.5 °C',
      "refused the message to 'provisioning/device/8/reading': ", '204 and it is gone'
    ]
  }

  test('all of them are run here', () => {
    const programs = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'))
    const names = Object.keys({ ...expected, ...expectedOnMosquitto })
    assert.deepEqual(programs.sort(), names.map((name) => `${name}.ts`).sort())
  })

  const runs = async (name: string, lines: readonly string[], url: string) => {
    const output = await run([join(examples, `${name}.js`)], { MQTT_URL: url, EXAMPLE_ONCE: '1', PORT: '0' })
    let position = 0
    for (const line of lines) {
      const found = output.indexOf(line, position)
      assert.ok(found >= 0, `no '${line}' after ${position} in:\n${output}`)
      position = found + line.length
    }
  }

  for (const [name, lines] of Object.entries(expected)) {
    test(`${name} runs and ends by itself`, async (t) => { await runs(name, lines, await startAedes(t)) })
  }

  for (const [name, lines] of Object.entries(expectedOnMosquitto)) {
    test(`${name} runs on Mosquitto and ends by itself`, { skip: mosquittoMissing }, async (t) => {
      const { ports } = await startMosquitto(t)
      await runs(name, lines, `mqtt://admin:admin-password@127.0.0.1:${ports.dynsec}`)
    })
  }

  test('the demo tells its story with --once and ends by itself', async () => {
    const output = await run([join(examples, 'demo/index.js'), '--once'], { MQTT_URL: undefined })

    assert.match(output, /app {7}← sensor\/1\/reading {6}params\.id is 1, payload\.celsius is 21\.5/)
    assert.match(output, /fan 1 {5}← fan\/1\/set {13}\{"on":true\}/)
    assert.match(output, /app {7}✗ sensor\/2\/reading {6}FST_MQTT_PAYLOAD_INVALID/)
    assert.match(output, /6 messages received, 1 without a topic, 1 refused/)
    assert.match(output, /Disconnected and closed\.\n$/)
  })

  test('the demo takes the broker of MQTT_URL', async (t) => {
    const url = await startAedes(t)
    const output = await run([join(examples, 'demo/index.js'), '--once'], { MQTT_URL: url })

    assert.ok(output.includes(`connected to ${url} with MQTT 3.1.1`))
    assert.match(output, /Disconnected and closed\.\n$/)
  })

  test('the demo goes on until SIGINT and then closes', async (t) => {
    const child = spawn(process.execPath, [join(examples, 'demo/index.js')], {
      env: environment({ MQTT_URL: undefined }), stdio: ['ignore', 'pipe', 'inherit'], timeout: timeoutMs
    })
    onEnd(t, () => child.kill('SIGKILL'))
    const closed = once(child, 'close')
    let output = ''
    for await (const chunk of child.stdout.setEncoding('utf8')) {
      output += String(chunk)
      if (output.includes('Ctrl-C ends the demo') && !child.killed) child.kill('SIGINT')
    }

    assert.deepEqual(await closed, [0, null])
    assert.match(output, /Disconnected and closed\.\n$/)
  })
})

function escaped (text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/** A ts block, as a module of its own. */
interface Block {
  readonly page: string
  /** Of its first line in the page. */
  readonly line: number
  readonly text: string
}

function blocksOf (page: string): Block[] {
  return [...textOf(page).matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
    page,
    line: textOf(page).slice(0, match.index).split('\n').length + 1,
    text: match[1] ?? ''
  }))
}

/** What a block without imports takes for granted. */
const prelude = [
  "import { Type } from '@sinclair/typebox'",
  "import Fastify from 'fastify'",
  "import multimqtt, { defineTopic } from 'fastify-multimqtt'",
  'const fastify = Fastify()',
  'await fastify.register(multimqtt)'
].join('; ')

/** Returns what the compiler has to say about blocks that make up one program. */
function createChecker (): (blocks: readonly Block[]) => string[] {
  const options = compilerOptions()
  const host = ts.createCompilerHost(options)
  const read = host.getSourceFile.bind(host)
  const parsed = new Map<string, ts.SourceFile | undefined>()
  const virtual = new Map<string, string>()
  const { fileExists } = host
  host.fileExists = (name) => virtual.has(name) || fileExists(name)
  host.getSourceFile = (name, languageVersion) => {
    const text = virtual.get(name)
    if (text !== undefined) return ts.createSourceFile(name, text, languageVersion)
    if (!parsed.has(name)) parsed.set(name, read(name, languageVersion))
    return parsed.get(name)
  }
  return (blocks) => {
    const names = new Map(blocks.map((block) => [join(root, `${block.page}-${block.line}.ts`), block]))
    for (const [name, { text }] of names) {
      virtual.set(name, `${/^import /m.test(text) ? '' : prelude}\n${text}`)
    }
    const program = ts.createProgram([...names.keys()], options, host)
    return [...names].flatMap(([name, block]) => {
      const file = program.getSourceFile(name)
      return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]
        .map((diagnostic) => describeProblem(diagnostic, block))
    })
  }
}

function compilerOptions (): ts.CompilerOptions {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile) as { config: object }
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [], include: [] }, ts.sys, root)
  return {
    ...options,
    noEmit: true,
    declaration: false,
    declarationMap: false,
    noUnusedLocals: false,
    noUnusedParameters: false,
    paths: {
      'fastify-multimqtt': [join(root, 'lib/index.ts')],
      'fastify-multimqtt/testing': [join(root, 'lib/testing/index.ts')]
    }
  }
}

function describeProblem ({ file, start, messageText }: ts.Diagnostic, block: Block): string {
  // The prelude stands in the line before the block.
  const line = file === undefined ? 1 : ts.getLineAndCharacterOfPosition(file, start ?? 0).line
  return `${block.page}:${block.line + line - 1}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`
}

function textOf (page: string): string {
  const text = texts.get(page)
  assert.ok(text !== undefined, `there is no page ${page}`)
  return text
}

/** Without what is only layout. */
function linesOf (text: string): string[] {
  return text.split('\n').map((line) => line.replace(/\s+/g, ' ').trim()).filter((line) => line !== '')
}

function headings (page: string, pattern: RegExp): string[] {
  return [...textOf(page).matchAll(pattern)].map(([, name = '']) => name).sort()
}

function linksOf (page: string): string[] {
  const prose = textOf(page).replace(/^```.*?^```$/gms, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link)
}

function leadsSomewhere (page: string, link: string): boolean {
  const [path = '', anchor] = link.split('#')
  const target = path === '' ? join(root, page) : resolve(root, dirname(page), path)
  if (!existsSync(target)) return false
  return anchor === undefined || anchorsOf(readFileSync(target, 'utf8')).includes(anchor)
}

function anchorsOf (text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title.toLowerCase().replace(/[^\w\- ]/g, '').replaceAll(' ', '-'))
}

function partition<T> (items: readonly T[], isFirst: (item: T) => boolean): [T[], T[]] {
  return [items.filter(isFirst), items.filter((item) => !isFirst(item))]
}

const execute = promisify(execFile)

/** Runs a program to its end, which has to be a good one. */
async function run (args: readonly string[], variables: NodeJS.ProcessEnv): Promise<string> {
  const options = { env: environment(variables), timeout: timeoutMs }
  const { stdout } = await execute(process.execPath, args, options)
  return stdout
}

function environment (variables: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const merged = { ...process.env, ...variables }
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined))
}

async function startAedes (owner: Owner): Promise<string> {
  const aedes = await Aedes.createBroker()
  const server = createServer(aedes.handle)
  onEnd(owner, () => {
    aedes.close()
    server.close()
  })
  return `mqtt://127.0.0.1:${await listen(server)}`
}
