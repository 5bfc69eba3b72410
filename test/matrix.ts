// `npm run test:matrix [quick]`: the package on other versions of Node and TypeScript. Not part of `npm
// test`, because npm fetches them.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { createConsumer } from './helpers/consumer.ts'

const run = promisify(execFile)
const isQuick = process.argv[2] === 'quick'
const nodes = isQuick ? ['24'] : ['20', '22', '24']
const compilers = isQuick ? ['5.9'] : ['5.9', '6.0', '7.0']

/** The command that runs one program of a package in this version. */
function npx (spec: string, program: string): string[] {
  return ['npx', '--yes', `--package=${spec}`, '--', program]
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
} finally {
  for (const task of tasks) await task()
}
console.log(`${passed} passed, 0 failed`)
