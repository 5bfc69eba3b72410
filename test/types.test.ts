import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import ts from 'typescript'
import { root } from './helpers/programs.ts'

/** Type-checks sources as if they lay in the project, and says what was wrong and what it cost. */
function check (sources: Readonly<Record<string, string>>): { problems: string[], instantiations: number } {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile) as { config: object }
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const host = ts.createCompilerHost(options)
  const virtual = new Map(Object.entries(sources).map(([name, text]) => [join(root, 'types', name), text]))
  const { fileExists, readFile, getSourceFile } = host
  host.fileExists = (name) => virtual.has(name) || fileExists(name)
  host.readFile = (name) => virtual.get(name) ?? readFile(name)
  host.getSourceFile = (name, target) => {
    const text = virtual.get(name)
    return text === undefined ? getSourceFile(name, target) : ts.createSourceFile(name, text, target)
  }
  const settings = { ...options, noEmit: true, noUnusedLocals: false }
  const program = ts.createProgram([...virtual.keys()], settings, host)
  const problems = ts.getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
  return { problems: problems.slice(0, 5), instantiations: program.getInstantiationCount() }
}

const header = `
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type {} from './index.ts'
declare const fastify: FastifyInstance
export {}
`
const count = (length: number) => Array.from({ length }, (_, index) => index)

test('types: a pattern of 900 levels compiles, with its params', () => {
  const levels = count(900).map((index) => index % 30 === 0 ? `<int:p${index}>` : `l${index}`).join('/')
  const { problems } = check({
    'generated.ts': `${header}fastify.mqtt.topic('${levels}', ({ params }) => { const n: number = params.p870; return n })`
  })
  assert.deepEqual(problems, [])
})

test('types: 500 topics with schemas, name, publish and topicFor stay under 700,000 instantiations', (t) => {
  const topics = count(500).map((index) => `
const topic${index} = fastify.mqtt.topic('site/<name>/device${index}/<int:id>/<uuid:part>', {
  name: 'topic${index}',
  params: Type.Object({ id: Type.Integer({ minimum: ${index} }) }),
  payload: Type.Object({
    a${index}: Type.Number(), b: Type.String(), c: Type.Boolean(), d: Type.Array(Type.Number()), e: Type.Null()
  })
}, async (message) => { const n: number = message.params.id; return [n, message.payload.a${index}] })
void topic${index}.publish({ name: 'x', id: 1, part: 'y' }, { a${index}: 1, b: '', c: true, d: [1], e: null })
topic${index}.topicFor({ name: 'x', id: 1, part: 'y' })
`)
  const { problems, instantiations } = check({ 'generated.ts': header + topics.join('') })
  assert.deepEqual(problems, [])
  t.diagnostic(`${instantiations} instantiations`)
  assert.ok(instantiations < 700_000, `${instantiations} instantiations`)
})

test('types: the cost of declared names grows linearly with names and calls', () => {
  const cost = (names: number) => {
    const declared = count(names).map((index) => `topic${index}: 'site/<name>/device${index}/<int:id>'`)
    const calls = count(names).map((index) => `fastify.mqtt.topicFor('topic${index}', { name: 'x', id: ${index} })`)
    const { problems, instantiations } = check({
      'generated.ts': `${header}declare module './topics.ts' { interface MqttTopics { ${declared.join('\n')} } }
${calls.join('\n')}`
    })
    assert.deepEqual(problems, [])
    return instantiations
  }
  const [few, many] = [cost(100), cost(500)]
  assert.ok(many < 200_000, `${many} instantiations for 500 names`)
  // Quadratic growth would be a factor of 25.
  assert.ok(many < few * 6, `${few} instantiations for 100 names, ${many} for 500`)
})
