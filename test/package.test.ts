import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { createConsumer, type Consumer } from './helpers/consumer.ts'
import { root } from './helpers/programs.ts'

const run = promisify(execFile)

suite('the package', () => {
  let consumer: Consumer
  const cleanUp: (() => unknown)[] = []
  before(async () => {
    consumer = await createConsumer({ after: (task) => cleanUp.push(task as () => unknown) })
  })
  after(async () => { for (const task of cleanUp) await task() })

  test('registers by import and by require', async () => {
    await consumer.runs()
  })

  test('lists the topics of an application by npx', async () => {
    writeFileSync(join(consumer.folder, 'app.mjs'), `import Fastify from 'fastify'
import multimqtt from 'fastify-multimqtt'
export default async function build () {
  const fastify = Fastify()
  await fastify.register(multimqtt, { url: 'mqtt://127.0.0.1:1/site' })
  fastify.mqtt.topic('sensor/<int:id>', { qos: 1 }, () => {})
  return fastify
}`)
    const npx = ['--no-install', 'fastify-multimqtt', 'topics', 'app.mjs']
    const { stdout, stderr } = await run('npx', npx, { cwd: consumer.folder })
    assert.deepEqual([stdout, stderr], [
      'filter         qos  pattern          scope  name  payload\nsite/sensor/+  1    sensor/<int:id>  -      -     -\n', ''
    ])
  })

  for (const module of ['nodenext', 'bundler'] as const) {
    test(`type-checks for its users with module resolution ${module}`, async () => {
      await consumer.typeChecks(module)
    })
  }

  test('has no path to its types wrong', async () => {
    const installed = join(consumer.folder, 'node_modules', 'fastify-multimqtt')
    await run(join(root, 'node_modules', '.bin', 'publint'), ['--strict', installed])
    const tarball = `fastify-multimqtt-${version()}.tgz`
    await run(join(root, 'node_modules', '.bin', 'attw'), ['--profile', 'esm-only', join(consumer.folder, tarball)])
  })

  test('has the sources, so that go-to-definition lands in them, and no tests', () => {
    const folder = join(consumer.folder, 'node_modules', 'fastify-multimqtt')
    const text = readFileSync(join(folder, 'dist', 'types', 'mqtt.d.ts.map'), 'utf8')
    const map = JSON.parse(text) as { sources: string[] }
    assert.deepEqual(map.sources.map((source) => existsSync(join(folder, 'dist', 'types', source))), [true])
    assert.equal(existsSync(join(folder, 'types', 'params.tst.ts')), false)
    assert.equal(existsSync(join(folder, 'test')), false)
    assert.ok(existsSync(join(folder, 'README.md')))
    assert.ok(existsSync(join(folder, 'LICENSE')))
  })
})

function version (): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}
