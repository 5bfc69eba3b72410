import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Aedes } from 'aedes'
import ts from 'typescript'
import { errors } from '../lib/errors.ts'
import { OptionsSchema } from '../lib/options/schema.ts'
import { blocksOf, preludeOf, runBlock, type Block } from './helpers/blocks.ts'
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

  test("README's first block is JavaScript, too", async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'multimqtt-readme-'))
    onEnd(t, () => rmSync(folder, { recursive: true, force: true }))
    writeFileSync(join(folder, 'app.mjs'), blocksOf('README.md')[0]?.text ?? '?')
    await run(['--check', join(folder, 'app.mjs')], {})
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

  test('README has each option in its table', () => {
    const [, table = ''] = /^## Options$(.*?)^## /ms.exec(textOf('README.md')) ?? []
    const names = [...table.matchAll(/^\| ([^|]+) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`(\w+)`/g)])
    assert.deepEqual(names.map(([, name]) => name).sort(), Object.keys(OptionsSchema.properties).sort())
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

describe('docker-compose.yml', () => {
  const compose = readFileSync(join(root, 'docker-compose.yml'), 'utf8')
  const folder = join(root, 'docker/mosquitto')

  test('publishes each listener of the configuration, on this machine alone', () => {
    const configuration = readFileSync(join(folder, 'mosquitto.conf'), 'utf8')
    const listeners = [...configuration.matchAll(/^listener (\d+)$/gm)].map(([, port = '']) => `127.0.0.1:${port}:${port}`)
    const published = [...compose.matchAll(/^ {6}- ([\d.]+:\d+:\d+)/gm)].map(([, port]) => port)
    assert.deepEqual(published, listeners)
    assert.match(compose, /^ {6}- \.\/docker\/mosquitto:\/mosquitto\/config:ro$/m)
    // Each volume that is named is declared.
    const named = [...compose.matchAll(/^ {6}- ([\w-]+):\//gm)].map(([, name]) => name)
    assert.deepEqual(named, [.../^volumes:\n(.*)$/ms.exec(compose)?.[1]?.matchAll(/^ {2}([\w-]+):$/gm) ?? []].map(([, name]) => name))
  })

  test('begins with the accounts of the repository, and keeps those that it has then', async (t) => {
    const data = mkdtempSync(join(tmpdir(), 'multimqtt-compose-'))
    onEnd(t, () => rmSync(data, { recursive: true, force: true }))
    const [, script = ''] = /- -c\n {6}- \|\n((?: {8}.*\n)+)/.exec(compose) ?? []
    const here = script.replaceAll('/mosquitto/data', data).replaceAll('/mosquitto/config', folder)
      // Of the image.
      .replace('-o mosquitto -g mosquitto ', '').replace('exec mosquitto', 'exec echo mosquitto')
    const accounts = join(data, 'dynamic-security.json')
    const start = async () => (await execute('sh', ['-c', here])).stdout
    assert.equal(await start(), `mosquitto -c ${folder}/mosquitto.conf\n`)
    assert.equal(readFileSync(accounts, 'utf8'), readFileSync(join(folder, 'dynamic-security.json'), 'utf8'))
    assert.equal(statSync(accounts).mode & 0o777, 0o600)
    writeFileSync(accounts, 'changed')
    await start()
    assert.equal(readFileSync(accounts, 'utf8'), 'changed')
  })
})

describe('what the pages on tests and hooks show', { concurrency: true }, () => {
  // Each block runs as it is; these go on with it, and say what has to come of it.
  const sequels: Record<string, readonly string[]> = {
    // Their assertions are their own.
    'docs/testing.md': ['await fastify.close()', '', "if (response.body !== 'room/blue') throw new Error(response.body)"],
    'docs/hooks.md': [
      `fastify.mqtt.topic('a', () => {})
       await fastify.mqtt.inject({ topic: 'a', payload: 'x' })
       await fastify.close()`,
      `const { handlers } = await fastify.mqtt.inject({ topic: 'door/front' })
       console.log(handlers[0].outcome, handlers[0].returned)`,
      `const { Type } = await import('@sinclair/typebox')
       fastify.mqtt.topic('a', { payload: Type.Number() }, () => {})
       fastify.mqtt.topic('b', () => { throw new Error('another') })
       const bad = await fastify.mqtt.inject({ topic: 'a', payload: '"x"' })
       await fastify.mqtt.inject({ topic: 'b' })
       await fastify.close()
       console.log('published', bad.published[0].topic, bad.published[0].text())`,
      `fastify.mqtt.topic('a', async () => { await fastify.mqtt.publish('b', 'x') })
       const { published } = await fastify.mqtt.inject({ topic: 'a' })
       await fastify.mqtt.inject({ topic: 'nobody' })
       console.log(published[0].topic, published[0].properties.userProperties.from)`
    ]
  }
  const expected: Record<string, readonly RegExp[]> = {
    'docs/testing.md': [/^$/, /^$/, /^room\/blue$/],
    'docs/hooks.md': [
      /"outcome":"handled","durationMs":/,
      /^handled front$/,
      // The logger writes when it likes.
      /^(?=[^]*"msg":"an MQTT message was not handled")[^]*^published rejected "x"$/m,
      /^b kitchen$/
    ]
  }

  for (const [page, ends] of Object.entries(sequels)) {
    const blocks = blocksOf(page)
    test(`${page}: all of its blocks are run here`, () => assert.equal(blocks.length, ends.length))
    for (const [index, end] of ends.entries()) {
      test(`${page}: block ${index + 1} does what the page says`, async (t) => {
        const [block, wanted] = [blocks[index], expected[page]?.[index]]
        assert.ok(block !== undefined && wanted !== undefined)
        assert.match((await runBlock(t, block, end)).trim(), wanted)
      })
    }
  }
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
    for (const [name, block] of names) {
      virtual.set(name, `${preludeOf(block)}\n${block.text}`)
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
