import { execFile } from 'node:child_process'
import {
  chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { onEnd, type Owner } from './cleanup.ts'
import { root } from './programs.ts'

const run = promisify(execFile)

const uses = `
const fastify = Fastify()
await fastify.register(multimqtt, { url: createMemoryBroker().url, start: 'manual', prefix: 'p' })
const topic = fastify.mqtt.topic('a/<int:id>', { name: 'a', payload: Type.Object({ x: Type.Number() }) }, (message) => {
  const id: number = message.params.id
  const x: number = message.payload.x
  return [id, x]
})
const text: string = topic.topicFor({ id: 1 }, { absolute: true })
console.log(text, fastify.mqtt.status, typeof errors.FST_MQTT_OFFLINE, defineTopic('b').pattern)
await fastify.close()
`
const untyped = uses.replaceAll(/(const (?:id|x|text)): \w+/g, '$1')
const expected = 'p/a/1 idle function b\n'

const files: Readonly<Record<string, string>> = {
  'import.mjs': `import Fastify from 'fastify'
import { Type } from '@sinclair/typebox'
import multimqtt, { defineTopic, errors } from 'fastify-multimqtt'
import { createMemoryBroker } from 'fastify-multimqtt/testing'
${untyped}`,
  'require.cjs': `const Fastify = require('fastify')
const { Type } = require('@sinclair/typebox')
const { default: multimqtt, defineTopic, errors } = require('fastify-multimqtt')
const { createMemoryBroker } = require('fastify-multimqtt/testing')
async function main () {
  // Fastify takes the module itself too.
  const other = Fastify()
  other.register(require('fastify-multimqtt'), { start: 'manual' })
  await other.close()
${untyped}}
main()`,
  'typed.ts': `import Fastify from 'fastify'
import { Type } from '@sinclair/typebox'
import multimqtt, { defineTopic, errors, type Mqtt } from 'fastify-multimqtt'
import { createMemoryBroker } from 'fastify-multimqtt/testing'
declare module 'fastify-multimqtt' {
  interface MqttTopics { room: 'room/<name>' }
  interface MqttInstances { telemetry: Mqtt }
  interface TopicConverters { iso: Date }
}
${uses}
fastify.mqtt.topicFor('room', { name: 'x' })
// @ts-expect-error -- declared with a name
fastify.mqtt.topicFor('room', { nam: 'x' })
fastify.mqtt.telemetry.topic('log/<iso:day>', (message) => message.params.day.getTime())
// @ts-expect-error -- a number
topic.topicFor({ id: 'x' })
`
}

/** A folder with a package of ours as npm would publish it, and the programs of somebody who uses it. */
export interface Consumer {
  readonly folder: string
  /** Runs the program by `import` and by `require`; rejects if one says anything but what it should. */
  runs (node?: readonly string[]): Promise<void>
  /** Type-checks the program; rejects with what the compiler says. */
  typeChecks (module: 'nodenext' | 'bundler', compiler?: readonly string[]): Promise<void>
}

/**
 * Packs the project and installs it beside the project's own dependencies; the end of the test removes it.
 */
export async function createConsumer (owner: Owner): Promise<Consumer> {
  const folder = mkdtempSync(join(tmpdir(), 'multimqtt-consumer-'))
  onEnd(owner, () => rmSync(folder, { recursive: true, force: true }))
  await run('npm', ['pack', '--pack-destination', folder], { cwd: root })
  const [tarball = ''] = readdirSync(folder).filter((name) => name.endsWith('.tgz'))
  const modules = join(folder, 'node_modules')
  mkdirSync(modules)
  for (const name of readdirSync(join(root, 'node_modules'))) {
    if (!name.startsWith('.')) symlinkSync(join(root, 'node_modules', name), join(modules, name))
  }
  await run('tar', ['xzf', join(folder, tarball), '-C', folder])
  await run('mv', [join(folder, 'package'), join(modules, 'fastify-multimqtt')])
  const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { bin: Record<string, string> }
  mkdirSync(join(modules, '.bin'))
  for (const [name, file] of Object.entries(bin)) {
    const target = join(modules, 'fastify-multimqtt', file)
    // As npm does it.
    chmodSync(target, 0o755)
    symlinkSync(target, join(modules, '.bin', name))
  }
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)

  const execute = async (command: readonly string[], ...args: string[]) => {
    const [program = process.execPath, ...before] = command
    // Elsewhere, or npx would take the project's own version for the one that it was asked for.
    return await run(program, [...before, ...args], { cwd: tmpdir() })
  }
  return {
    folder,
    async runs (node = [process.execPath]) {
      for (const name of ['import.mjs', 'require.cjs']) {
        const { stdout, stderr } = await execute(node, join(folder, name))
        // npm has its own say when it brings the program; Node.js itself must not warn.
        const warnings = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('npm '))
        if (stdout !== expected || warnings.length > 0) throw new Error(`${name} said: ${stdout}${stderr}`)
      }
    },
    async typeChecks (module, compiler = [process.execPath, join(root, 'node_modules', 'typescript', 'bin', 'tsc')]) {
      const compilerOptions = {
        module: module === 'bundler' ? 'esnext' : 'nodenext',
        moduleResolution: module,
        target: 'es2023',
        strict: true,
        exactOptionalPropertyTypes: true,
        noEmit: true,
        skipLibCheck: true,
        types: ['node']
      }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['typed.ts'] }))
      await execute(compiler, '-p', join(folder, 'tsconfig.json')).catch((error: { stdout?: string }) => {
        throw new Error(`${module}: ${String(error)}\n${error.stdout}`)
      })
    }
  }
}
