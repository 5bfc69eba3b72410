import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { onEnd } from './helpers/cleanup.ts'

const here = join(fileURLToPath(import.meta.url), '..')
const cli = join(here, '..', 'lib', 'cli.js')
const fixture = (name: string) => join(here, 'fixtures', 'cli', `${name}.js`)

async function run (...args: string[]): Promise<{ code: number, stdout: string, stderr: string }> {
  return await new Promise((resolve) => {
    const child = execFile(process.execPath, [cli, ...args], { timeout: 20_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }))
  })
}

for (const [name, expected] of [
  ['instance', [
    'filter         qos  pattern          scope   name    payload\n',
    'site/sensor/+  1    sensor/<int:id>  -       sensor  number   overlaps #\n',
    'site/sensor/#  0    #                sensor  -       -        overlaps sensor/<int:id>\n'
  ].join('')],
  ['factory', 'filter          qos  pattern         scope  name  payload\nfrom/a/factory  0    from/a/factory  -      -     -\n'],
  ['connects', 'filter  qos  pattern  scope  name  payload\nstate   1    state    -      -     -        not subscribed\n'],
  ['plugin', 'filter         qos  pattern        scope  name  payload\nfrom/a/plugin  0    from/a/plugin  -      -     -\n']
] as const) {
  test(`topics: lists the topics of an application without a broker (${name})`, async () => {
    assert.deepEqual(await run('topics', fixture(name)), { code: 0, stdout: expected, stderr: '' })
  })
}

for (const [what, text, message] of [
  ['a syntax error', 'export default {\n  a: 1\n  b: 2\n}\n', /SyntaxError: Unexpected identifier/],
  ['a mistake', '\n\nBuffer.from(7)\n', /TypeError.* The first argument must be/]
] as const) {
  test(`errors: a file with ${what} ends with 1 and says where it is`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'multimqtt-cli-'))
    onEnd(t, () => rmSync(folder, { recursive: true, force: true }))
    const file = join(folder, 'app.mjs')
    writeFileSync(file, text)
    const { code, stdout, stderr } = await run('topics', file)
    assert.deepEqual([code, stdout], [1, ''])
    assert.ok(stderr.includes(`${file}:3`), stderr)
    assert.match(stderr, message)
    assert.equal(stderr.includes('<app.js>'), false)
  })
}

test('topics: takes app of a CommonJS module, whose default is all that it exports', async (t) => {
  const folder = mkdtempSync(join(here, 'cli-'))
  onEnd(t, () => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'app.cjs')
  const factory = pathToFileURL(fixture('factory')).href
  writeFileSync(file, `exports.app = async () => await (await import('${factory}')).app()`)
  const { code, stdout, stderr } = await run('topics', file)
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(stdout, /^from\/a\/factory /m)
})

test('topics: --json is what topics() gives, --namespace chooses the connection', async () => {
  const { code, stdout } = await run('topics', fixture('instance'), '--json', '--namespace', 'other')
  assert.equal(code, 0)
  const [topic, ...others] = JSON.parse(stdout) as { pattern: string, filter: string }[]
  assert.deepEqual([topic?.pattern, topic?.filter, others], ['elsewhere', 'elsewhere', []])
})

test('--help: tells how it is used', async () => {
  const { code, stdout } = await run('--help')
  assert.equal(code, 0)
  assert.match(stdout, /^fastify-multimqtt topics <app\.js>/)
})

for (const [args, code, message] of [
  [[], 2, /unknown command '', there is topics/],
  [['topic', 'x'], 2, /unknown command 'topic'/],
  [['topics'], 2, /topics takes one file/],
  [['topics', 'a', 'b'], 2, /topics takes one file/],
  [['topics', 'x', '--jsn'], 2, /Unknown option '--jsn'/],
  [['topics', fixture('nothing')], 2, /exports no Fastify instance, and no function, by default or as app/],
  [['topics', fixture('wrong-factory')], 2, /returns no Fastify instance/],
  [['topics', fixture('without-mqtt')], 2, /the application has no fastify\.mqtt/],
  [['topics', fixture('namespaces')], 2, /^fastify\.mqtt\.topics needs the default connection.*one, two: choose one by --namespace$/m],
  [['topics', fixture('instance'), '--namespace', 'nobody'], 2, /there is no namespace 'nobody'/],
  [['topics', fixture('instance'), '--namespace', 'publish'], 2, /there is no namespace 'publish'/],
  [['topics', fixture('broken')], 1, /^Error: the application is broken\n {4}at .*broken\.(?:js|ts):1/],
  [['topics', fixture('missing')], 1, /Cannot find module/]
] as const) {
  test(`errors: ${args.map((arg) => arg.replace(/.*\//, '')).join(' ') || 'no command'} ends with ${code} and says why`, async () => {
    const result = await run(...args)
    assert.equal(result.code, code)
    assert.equal(result.stdout, '')
    assert.match(result.stderr, message)
    assert.equal(result.stderr.includes('fastify-multimqtt topics <app.js>'), code === 2)
  })
}
