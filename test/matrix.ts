// `npm run test:matrix [quick]`: the package on other versions of Node, TypeScript and MQTT.js. Not part of
// `npm test`, because npm fetches them.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { createConsumer } from './helpers/consumer.ts'
import { root } from './helpers/programs.ts'

const run = promisify(execFile)
const isQuick = process.argv[2] === 'quick'
const nodes = isQuick ? ['24'] : ['20', '22', '24']
const compilers = isQuick ? ['5.9'] : ['5.9', '6.0', '7.0']

/** The command that runs one program of a package in this version. */
function npx (spec: string, program: string): string[] {
  return ['npx', '--yes', `--package=${spec}`, '--', program]
}

/** Installs the MQTT.js of this range. @returns the folder, and the version that it has */
async function installMqttJs (range: string): Promise<{ folder: string, version: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'multimqtt-mqttjs-'))
  tasks.push(() => rmSync(folder, { recursive: true, force: true }))
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefix', folder, `mqtt@${range}`])
  return { folder, version: versionIn(join(folder, 'node_modules', 'mqtt')) }
}

function versionIn (folder: string): string {
  return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string }).version
}

/** The contract, and all that is built on it, on this MQTT.js. */
async function testMqttJs (folder: string): Promise<void> {
  const built = (name: string) => join(root, 'build', 'test', name)
  await run(process.execPath, [
    '--enable-source-maps', '--import', built('helpers/mqttjs.js'), '--test', '--test-timeout=60000',
    built('mqttjs-contract.test.js'), built('connection.test.js')
  ], { env: { ...process.env, MULTIMQTT_MQTTJS: folder } }).catch((error: Error & { stdout?: string }) => {
    console.error(error.stdout)
    throw error
  })
}

let passed = 0
const tasks: (() => unknown)[] = []
const consumer = await createConsumer({ after: (task) => { tasks.push(task as () => unknown) } })
try {
  for (const version of nodes) {
    const { stdout } = await run('npx', [...npx(`node@${version}`, 'node').slice(1), '--version'])
    await consumer.runs(npx(`node@${version}`, 'node'))
    console.log(`ok - import and require on Node ${stdout.trim()}`)
    passed++
  }
  for (const version of compilers) {
    for (const module of ['nodenext', 'bundler'] as const) {
      await consumer.typeChecks(module, npx(`typescript@~${version}`, 'tsc'))
      console.log(`ok - types with TypeScript ${version}, ${module}`)
      passed++
    }
  }
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: { mqtt: string }
  }
  const tested = new Set<string>()
  // The lowest that is accepted, and the newest.
  for (const range of [dependencies.mqtt.replace(/^\D+/, ''), dependencies.mqtt]) {
    const { folder, version } = await installMqttJs(range)
    if (tested.has(version)) continue
    tested.add(version)
    await testMqttJs(folder)
    console.log(`ok - MQTT.js ${version}`)
    passed++
  }
} finally {
  for (const task of tasks) await task()
}
console.log(`${passed} passed, 0 failed`)
