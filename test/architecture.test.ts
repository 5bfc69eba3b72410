import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { test } from 'node:test'
import { root } from './helpers/programs.ts'

const layers: Readonly<Record<string, number>> = {
  types: 0,
  errors: 1,
  guard: 1,
  diagnostics: 1,
  values: 1,
  queue: 1,
  topic: 2,
  router: 2,
  payload: 2,
  options: 2,
  // The packets, below what is made of them.
  wire: 2.5,
  session: 3,
  dispatch: 3,
  processes: 4,
  dynsec: 5,
  request: 5,
  asyncapi: 5,
  testing: 5,
  connecting: 6,
  'connection-log': 6,
  administration: 6,
  'connection-state': 6,
  'connection-trouble': 6,
  'broker-session': 6,
  'group-session': 6,
  engine: 6,
  injection: 6,
  'presence-notice': 6,
  'registered-topic': 6,
  mqtt: 6,
  scope: 6,
  plugin: 6,
  index: 6,
  cli: 6
}

interface Import {
  readonly file: string
  readonly specifier: string
  readonly isType: boolean
}

const files = ['lib', 'types'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.tst.ts'))
    .map((name) => join(folder, name)))

const imports: Import[] = files.flatMap((file) => {
  const source = readFileSync(join(root, file), 'utf8')
  const statements = source.matchAll(/^(import|export)\s+(type\s)?[^;]*?from '([^']+)'|^import '([^']+)'/gms)
  return [...statements].map(([, , type, from, bare]) =>
    ({ file, specifier: from ?? bare ?? '', isType: type !== undefined }))
})

/** The folder of a file below lib/, or its own name where it lies in lib/ itself; types/ is one room. */
function roomOf (file: string): string {
  const [top = '', second = ''] = file.split(sep)
  return top === 'types' ? top : second.replace(/\.ts$/, '')
}

function layerOf (file: string): number {
  const layer = layers[roomOf(file)]
  assert.ok(layer !== undefined, `${file} is in no layer of DESIGN: give it one`)
  return layer
}

test('architecture: the imports of every file are found', () => {
  assert.ok(imports.length > 50)
  assert.ok(imports.some(({ file, specifier }) => file.endsWith('plugin.ts') && specifier === 'fastify-plugin'))
})

test('architecture: a file imports its own folder and lower layers only', () => {
  const offences = imports.filter(({ specifier }) => specifier.startsWith('.')).flatMap((one) => {
    const target = relative(root, join(root, dirname(one.file), one.specifier))
    const isOwnRoom = roomOf(target) === roomOf(one.file)
    const isTop = layerOf(one.file) === 6 && layerOf(target) === 6
    const isLower = layerOf(target) < layerOf(one.file)
    // Of one layer only the facade and the pure parts, which are all below the engine, may know each other.
    const isPure = layerOf(one.file) === 2 && layerOf(target) === 2
    const isBase = layerOf(one.file) === 1 && layerOf(target) === 1
    return isOwnRoom || isTop || isLower || isPure || isBase ? [] : [`${one.file} imports ${target}`]
  })
  assert.deepEqual(offences, [])
})

test('architecture: there is no cycle of imports', () => {
  const graph = new Map<string, string[]>()
  for (const { file, specifier, isType } of imports) {
    if (!specifier.startsWith('.') || isType) continue
    graph.set(file, [...graph.get(file) ?? [], relative(root, join(root, dirname(file), specifier))])
  }
  const visit = (file: string, path: readonly string[]): void => {
    assert.ok(!path.includes(file), `a cycle: ${[...path, file].join(' -> ')}`)
    for (const next of graph.get(file) ?? []) visit(next, [...path, file])
  }
  for (const file of graph.keys()) visit(file, [])
})

test('architecture: only the connection imports mqtt, only the wire mqtt-packet and ws, nothing deep', () => {
  const offences = imports.filter(({ file, specifier, isType }) => {
    if (/^mqtt\//.test(specifier)) return true
    if (specifier === 'mqtt') return !isType && file !== join('lib', 'session', 'connection.ts')
    if (specifier === 'mqtt-packet' || specifier === 'ws') return !file.startsWith(join('lib', 'wire'))
    return false
  })
  assert.deepEqual(offences, [])
})

test('architecture: fastify is imported as types only, and only in types/ and by the facade', () => {
  const offences = imports.filter(({ file, specifier, isType }) =>
    specifier === 'fastify' && (!isType || (layerOf(file) !== 0 && layerOf(file) !== 6)))
  assert.deepEqual(offences, [])
})

test('architecture: no private member of MQTT.js is touched', () => {
  const offences = files.filter((file) => /\['_\w+'\]|\bclient\._/.test(readFileSync(join(root, file), 'utf8')))
  assert.deepEqual(offences, [])
})

test('architecture: a file of lib/ can be read in one go', () => {
  const long = files.filter((file) =>
    file.startsWith('lib') && readFileSync(join(root, file), 'utf8').split('\n').length > 350)
  assert.deepEqual(long, [])
})
