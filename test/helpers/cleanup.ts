import type { TestContext } from 'node:test'

/** Whoever owns a resource: a test's `t`, or `{ after }` of node:test for a whole file. */
export type Owner = Pick<TestContext, 'after'>

type Task = () => unknown

const tasksOf = new WeakMap<Owner, Task[]>()

/**
 * Runs `task` when the owner is done, the last one registered first: node:test runs `t.after` hooks in the
 * order they were registered, which would stop a broker before the application that is connected to it.
 */
export function onEnd (owner: Owner, task: Task): void {
  const known = tasksOf.get(owner)
  if (known) {
    known.push(task)
    return
  }
  const tasks = [task]
  tasksOf.set(owner, tasks)
  owner.after(() => runAll(tasks))
}

async function runAll (tasks: Task[]): Promise<void> {
  const failures: unknown[] = []
  for (let task = tasks.pop(); task; task = tasks.pop()) {
    try {
      await task()
    } catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'cleaning up failed')
}
