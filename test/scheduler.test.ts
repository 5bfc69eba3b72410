import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Backlog, type BacklogLimits, type Waiting } from '../lib/dispatch/backlog.ts'
import type { Dispatcher } from '../lib/dispatch/dispatcher.ts'
import { Group, Lane } from '../lib/dispatch/group.ts'
import { Queue } from '../lib/queue.ts'
import { retryDelay } from '../lib/dispatch/retry.ts'
import { Scheduler, type Task } from '../lib/dispatch/scheduler.ts'
import { deferred } from './helpers/deadline.ts'
import { createDispatcher, incoming, TestReceipt } from './helpers/dispatcher.ts'

const unlimited: BacklogLimits = { maxMessages: Infinity, maxBytes: Infinity, overflow: 'drop-oldest' }

/** A turn of the event loop: everything that waits for nothing else has happened. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A handler that ends when it is told. */
function controlled () {
  const under = new Map<string, ReturnType<typeof deferred<void>>>()
  const begun: string[] = []
  return {
    begun,
    get running () { return [...under.keys()] },
    handler: ({ topic, raw }: { topic: string, raw: Buffer }) => {
      const name = topic + raw.toString()
      begun.push(name)
      const end = deferred<void>()
      under.set(name, end)
      return end.promise
    },
    async end (name: string, error?: Error) {
      const end = under.get(name)
      assert.ok(end !== undefined, `${name} does not run, ${[...under.keys()].join()} do`)
      under.delete(name)
      if (error === undefined) end.resolve()
      else end.reject(error)
      await turn()
    }
  }
}

test('Queue: first in, first out, and out of the middle', () => {
  const step = fc.oneof(fc.constant('push' as const), fc.constant('shift' as const), fc.nat(20))
  fc.assert(fc.property(fc.array(step), (steps) => {
    const queue = new Queue<number>()
    const places = []
    let model: number[] = []
    for (const [index, step] of steps.entries()) {
      if (step === 'push') {
        places.push(queue.push(index))
        model.push(index)
      } else if (step === 'shift') {
        assert.equal(queue.shift(), model.shift())
      } else {
        const place = places[step]
        place?.leave()
        model = model.filter((value) => value !== place?.value)
      }
      const seen = [queue.size, queue.first?.value, queue.last?.value]
      assert.deepEqual(seen, [model.length, model[0], model.at(-1)])
    }
  }))
})

function waitingOf (bytes: number, isDroppable: boolean, lose: () => void): Waiting {
  return { bytes, isDroppable, lose, list: undefined, older: undefined, newer: undefined }
}

for (const { overflow, left } of [
  { overflow: 'drop-oldest', left: ['c', 'd'] },
  { overflow: 'drop-newest', left: ['a', 'b'] }
] as const) {
  test(`Backlog: '${overflow}' counts, and tells once a second`, () => {
    let now = 0
    const told: number[] = []
    const waiting: string[] = []
    const limits = { ...unlimited, maxMessages: 2, overflow }
    const backlog = new Backlog(limits, (dropped) => told.push(dropped), () => now)
    const add = (name: string) => {
      waiting.push(name)
      backlog.add(waitingOf(1, true, () => { waiting.splice(waiting.indexOf(name), 1) }))
      backlog.trim()
    }
    for (const name of ['a', 'b', 'c', 'd']) add(name)
    assert.deepEqual(waiting, left)
    assert.deepEqual(told, [1])
    now = 1_000
    add('e')
    assert.deepEqual(told, [1, 2])
    assert.deepEqual([backlog.dropped, backlog.size], [3, 2])
  })
}

test('Backlog: bytes are limited too, but one that is too large may wait alone; what is kept has no limit', () => {
  const lost: number[] = []
  const backlog = new Backlog({ ...unlimited, maxBytes: 10 }, () => {})
  const add = (bytes: number, isDroppable = true) => {
    const waiting = waitingOf(bytes, isDroppable, () => { lost.push(bytes) })
    backlog.add(waiting)
    backlog.trim()
    return waiting
  }
  add(11)
  assert.deepEqual(lost, [])
  add(4)
  const waiting = add(6)
  assert.deepEqual(lost, [11])
  backlog.remove(waiting)
  backlog.remove(waiting)
  add(5)
  for (let count = 0; count < 5; count++) add(100, false)
  assert.deepEqual(lost, [11])
  assert.equal(backlog.size, 7)
  backlog.clear()
  assert.deepEqual(lost, [11, 4, 5, 100, 100, 100, 100, 100])
  assert.equal(backlog.dropped, 1)
})

test('retryDelay: each pause is `factor` times the one before, up to what a timer can wait', () => {
  const policy = { limit: 9, delayMs: 100, factor: 3 }
  assert.deepEqual([1, 2, 3].map((attempt) => retryDelay(policy, attempt)), [100, 300, 900])
  assert.equal(retryDelay(policy, 1_000), 2 ** 31 - 1)
})

/** A task that runs for a number of steps; 0 is over at once. */
class StepTask implements Task {
  wait: Task['wait'] = undefined
  hasTurn = false
  readonly bytes = 1
  readonly isDroppable = true
  readonly group: Group
  readonly lane: Lane | undefined
  readonly name: number
  readonly #scheduler: Scheduler
  readonly #log: Run[]
  left: number

  constructor (
    scheduler: Scheduler, log: Run[], name: number, group: Group, lane: Lane | undefined, steps: number
  ) {
    this.#scheduler = scheduler
    this.#log = log
    this.name = name
    this.group = group
    this.lane = lane
    this.left = steps
  }

  start (): void {
    if (this.lane !== undefined && this.lane.turns > 0) {
      this.#scheduler.follow(this.lane, this)
      return
    }
    if (this.lane !== undefined) this.group.take(this.lane, this)
    this.#scheduler.enqueue(this)
  }

  proceed (): void {
    this.#log.push({ task: this, event: 'begin' })
    if (this.left === 0) this.#over()
    else this.#scheduler.begin(this.group)
  }

  step (): void {
    if (--this.left > 0) return
    this.#scheduler.end(this.group)
    this.#over()
  }

  lose (): void {}

  #over (): void {
    this.#log.push({ task: this, event: 'end' })
    if (this.lane !== undefined) this.#scheduler.pass(this.lane, this)
  }
}

interface Run {
  readonly task: StepTask
  readonly event: 'begin' | 'end'
}

test('Scheduler: exceeds no limit, keeps lanes in order, and leaves no slot to nobody', () => {
  const arrival = fc.record({ group: fc.nat(2), lane: fc.nat(3), steps: fc.nat(4) })
  const setting = fc.record({
    concurrency: fc.integer({ min: 1, max: 4 }),
    groups: fc.tuple(...[0, 1, 2].map(() => fc.integer({ min: 1, max: 5 }))),
    arrivals: fc.array(fc.array(arrival, { maxLength: 8 }), { maxLength: 12 })
  })
  fc.assert(fc.property(setting, ({ concurrency, groups: limits, arrivals }) => {
    const scheduler = new Scheduler(concurrency, new Backlog(unlimited, () => {}))
    // Lane 0 is for those that have none.
    const groups = limits.map((limit) => ({
      group: new Group(limit, 'topic'), limit, lanes: [1, 2, 3].map((key) => new Lane(String(key), true))
    }))
    const log: Run[] = []
    const tasks: StepTask[] = []
    const running = () => {
      const under = new Set<StepTask>()
      for (const { task, event } of log) if (event === 'begin') under.add(task); else under.delete(task)
      return [...under]
    }
    const check = () => {
      const now = running()
      assert.ok(now.length <= concurrency)
      assert.equal(scheduler.running, now.length)
      for (const { group, limit } of groups) {
        assert.ok(now.filter((task) => task.group === group).length <= limit)
      }
      const lanes = now.flatMap(({ lane }) => lane ?? [])
      assert.equal(new Set(lanes).size, lanes.length, 'two of one lane run')
      if (now.length === concurrency) return
      for (const task of tasks.filter(({ wait }) => wait !== undefined)) {
        const isFull = now.filter(({ group }) => group === task.group).length === task.group.concurrency
        assert.ok(isFull || (task.lane !== undefined && lanes.includes(task.lane)), 'one waits for nothing')
      }
    }
    for (const batch of arrivals) {
      for (const { group, lane, steps } of batch) {
        const target = groups[group]
        if (target === undefined) continue
        const task = new StepTask(scheduler, log, tasks.length, target.group, target.lanes[lane - 1], steps)
        tasks.push(task)
        task.start()
        check()
      }
      for (const task of running()) {
        task.step()
        check()
      }
    }
    while (running().length > 0) for (const task of running()) task.step()
    for (const event of ['begin', 'end'] as const) {
      const seen = log.filter((run) => run.event === event).map(({ task }) => task)
      assert.equal(new Set(seen).size, tasks.length)
      for (const lane of groups.flatMap(({ lanes }) => lanes)) {
        const names = seen.filter((task) => task.lane === lane).map(({ name }) => name)
        assert.deepEqual(names, names.toSorted((a, b) => a - b))
      }
    }
  }), { numRuns: 300 })
})

test('Group: those behind wait until all have passed who have their turn at once', () => {
  const scheduler = new Scheduler(10, new Backlog(unlimited, () => {}))
  const group = new Group(10, 'topic')
  const lane = group.laneFor('a')
  const log: Run[] = []
  const tasks = [0, 1, 2, 3].map((name) => new StepTask(scheduler, log, name, group, lane, 1))
  const [outer, inner, next, last] = tasks
  assert.ok(outer !== undefined && inner !== undefined && next !== undefined && last !== undefined)
  // As a message that a handler hands in before it has begun itself.
  for (const task of [inner, outer, outer]) group.take(lane, task)
  for (const task of [next, last]) task.start()
  assert.equal(lane.turns, 2)
  scheduler.pass(lane, inner)
  scheduler.pass(lane, inner)
  assert.deepEqual(log, [])
  scheduler.pass(lane, outer)
  assert.deepEqual(log, [{ task: next, event: 'begin' }])
  next.step()
  last.step()
  assert.deepEqual([lane.turns, group.hasLanes, log.length], [0, false, 4])
})

test('concurrency: never more handlers at once, over all topics and of one topic, several handlers included', async () => {
  const { dispatcher, topic } = createDispatcher({}, { concurrency: 4 })
  dispatcher.open()
  const [wide, narrow] = [controlled(), controlled()]
  topic('w/+', [wide.handler, ({ topic }) => wide.handler({ topic, raw: Buffer.from("'") })])
  topic('n/+', narrow.handler, { concurrency: 1 })
  for (const name of ['n/1', 'n/2', 'w/1', 'w/2', 'n/3']) dispatcher.receive(incoming(name))
  assert.deepEqual([narrow.begun, wide.begun], [['n/1'], ['w/1', "w/1'", 'w/2']])
  assert.deepEqual([dispatcher.stats.running, dispatcher.stats.waiting], [4, 3])
  await wide.end('w/1')
  assert.deepEqual(wide.begun, ['w/1', "w/1'", 'w/2', "w/2'"])
  await wide.end("w/1'")
  assert.deepEqual(narrow.begun, ['n/1'])
  await narrow.end('n/1')
  assert.deepEqual(narrow.begun, ['n/1', 'n/2'])
  await narrow.end('n/2')
  assert.deepEqual(narrow.begun, ['n/1', 'n/2', 'n/3'])
  for (const name of ['w/2', "w/2'"]) await wide.end(name)
  await narrow.end('n/3')
  assert.deepEqual([dispatcher.stats.running, dispatcher.stats.waiting], [0, 0])
})

test("order 'topic': a frozen handler holds the messages of its own topic name, and of no other topic", async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const [one, other] = [controlled(), controlled()]
  topic('t/+', one.handler)
  topic('#', other.handler)
  for (const payload of ['1', '2', '3']) dispatcher.receive(incoming('t/a', payload))
  dispatcher.receive(incoming('t/b', '4'))
  assert.deepEqual(one.begun, ['t/a1', 't/b4'])
  assert.deepEqual(other.begun, ['t/a1', 't/b4'])
  await other.end('t/a1')
  assert.deepEqual([one.running, other.running], [['t/a1', 't/b4'], ['t/b4', 't/a2']])
  await one.end('t/a1')
  await one.end('t/a2')
  assert.deepEqual(one.begun, ['t/a1', 't/b4', 't/a2', 't/a3'])
})

test("order 'topic': the next message waits until all handlers of the topic are done with the one before", async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const [first, second] = [controlled(), controlled()]
  topic('t', [first.handler, second.handler])
  for (const payload of ['1', '2']) dispatcher.receive(incoming('t', payload))
  await first.end('t1')
  assert.deepEqual(first.begun, ['t1'])
  await second.end('t1')
  assert.deepEqual([first.begun, second.begun], [['t1', 't2'], ['t1', 't2']])
})

test("order 'none' lets them run at once; a function keeps those of one key in order, over topic names", async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const [free, keyed] = [controlled(), controlled()]
  topic('t/+', free.handler, { messageOrder: 'none' })
  topic('t/#', keyed.handler, { messageOrder: (message) => message.text().slice(0, 1) })
  for (const [name, payload] of [['t/a', 'x1'], ['t/a', 'y2'], ['t/b', 'x3'], ['t/a', 'x4']] as const) {
    dispatcher.receive(incoming(name, payload))
  }
  assert.deepEqual(free.begun, ['t/ax1', 't/ay2', 't/bx3', 't/ax4'])
  assert.deepEqual(keyed.begun, ['t/ax1', 't/ay2'])
  await keyed.end('t/ax1')
  assert.deepEqual(keyed.begun, ['t/ax1', 't/ay2', 't/bx3'])
  await keyed.end('t/ay2')
  await keyed.end('t/bx3')
  await keyed.end('t/ax4')
  dispatcher.receive(incoming('t/c', 'x5'))
  assert.deepEqual(keyed.running, ['t/cx5'])
})

for (const { name, order, says } of [
  { name: 'that throws', order: () => { throw new Error('no key') }, says: /no key/ },
  { name: 'that returns no string', order: () => 7 as unknown as string, says: /'order' of 't\/\+' has to return a string, not a number/ }
]) {
  test(`order: a function ${name} is told of, and the topic name is the key`, async () => {
    const { dispatcher, topic, failures } = createDispatcher()
    dispatcher.open()
    const run = controlled()
    topic('t/+', run.handler, { messageOrder: order })
    for (const [topic, payload] of [['t/a', '1'], ['t/a', '2'], ['t/b', '3']] as const) dispatcher.receive(incoming(topic, payload))
    assert.deepEqual(run.begun, ['t/a1', 't/b3'])
    assert.equal(failures.length, 3)
    assert.match(String(failures[0]), says)
  })
}

test('order: holds over the cache of topics: over one that is registered, removed, and over 30,000 other names', async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const run = controlled()
  topic('t/+', run.handler)
  topic('other/#', () => {})
  const long = `t/${'x'.repeat(600)}`
  for (const name of ['t/a', long]) dispatcher.receive(incoming(name, '1'))
  const forget = [
    () => topic('new', () => {}),
    () => dispatcher.remove(topic('gone', () => {})),
    () => { for (let index = 0; index < 30_000; index++) dispatcher.receive(incoming(`other/${index}`)) }
  ]
  for (const [index, step] of forget.entries()) {
    step()
    for (const name of ['t/a', long]) dispatcher.receive(incoming(name, String(index + 2)))
    assert.deepEqual(run.begun.length, 2)
  }
  for (const payload of ['1', '2', '3', '4']) for (const name of ['t/a', long]) await run.end(name + payload)
  assert.deepEqual(run.begun.filter((name) => name.startsWith('t/a')), ['t/a1', 't/a2', 't/a3', 't/a4'])
  // Nobody has the names any more.
  for (const name of ['t/a', long]) dispatcher.receive(incoming(name, '5'))
  assert.deepEqual(run.running, ['t/a5', `${long}5`])
})

for (const { name, begin } of [
  {
    name: 'that came before the application was ready',
    begin: (dispatcher: Dispatcher) => {
      for (const payload of ['1', '2']) dispatcher.receive(incoming('t', payload))
      dispatcher.open()
    }
  },
  {
    name: 'around one that is injected',
    begin: (dispatcher: Dispatcher) => {
      dispatcher.open()
      dispatcher.receive(incoming('t', '1'))
      void dispatcher.inject(incoming('t', '!'), new TestReceipt())
      dispatcher.receive(incoming('t', '2'))
    }
  }
]) {
  test(`order: holds for those ${name}`, async () => {
    const { dispatcher, topic } = createDispatcher()
    const run = controlled()
    topic('t', run.handler)
    begin(dispatcher)
    assert.ok(!run.begun.includes('t2'))
    await run.end('t1')
    assert.equal(run.begun.at(-1), 't2')
    dispatcher.receive(incoming('t', '3'))
    assert.equal(run.begun.at(-1), 't2')
    await run.end('t2')
    assert.equal(run.begun.at(-1), 't3')
  })
}

test('order: one that was received by a handler, and fails, takes the turn from nobody', async () => {
  const { dispatcher, topic, letters } = createDispatcher()
  dispatcher.open()
  const run = controlled()
  topic('t', (message) => {
    if (message.raw.toString() === '1') dispatcher.receive(incoming('t', '2'))
    return run.handler(message)
  }, { deadLetter: 'dead' })
  for (const payload of ['1', '3']) dispatcher.receive(incoming('t', payload))
  await run.end('t2', new Error('no'))
  assert.equal(letters.length, 1)
  await run.end('t1')
  assert.deepEqual(run.running, ['t3'])
})

test('order: ten thousand that waited for one are handled in one go, without a stack of that depth', async () => {
  const { dispatcher, topic } = createDispatcher({ maxMessages: 20_000 })
  dispatcher.open()
  const seen: string[] = []
  const first = deferred<void>()
  topic('t', (message) => {
    seen.push(message.text())
    return seen.length === 1 ? first.promise : undefined
  })
  for (let index = 0; index < 10_000; index++) dispatcher.receive(incoming('t', String(index)))
  assert.deepEqual(seen, ['0'])
  first.resolve()
  await dispatcher.idle()
  assert.deepEqual(seen, Array.from({ length: 10_000 }, (_, index) => String(index)))
})

for (const { overflow, left } of [
  { overflow: 'drop-oldest', left: ['t/b0', 'q1', 't/a4', 't/a5'] },
  { overflow: 'drop-newest', left: ['t/b0', 'q1', 't/a2', 't/a3'] }
] as const) {
  test(`overload: '${overflow}' drops what waits with QoS 0, and nothing with QoS 1`, async () => {
    const { dispatcher, topic, warnings } = createDispatcher({ maxMessages: 2, overflow })
    dispatcher.open()
    const run = controlled()
    topic('t/+', run.handler)
    topic('q', run.handler)
    const receipt = new TestReceipt()
    dispatcher.receive(incoming('t/a', '1'))
    dispatcher.receive(incoming('q', '0', 1), new TestReceipt())
    dispatcher.receive(incoming('q', '1', 2), receipt)
    for (const payload of ['2', '3', '4', '5']) dispatcher.receive(incoming('t/a', payload))
    dispatcher.receive(incoming('t/b', '0'))
    assert.deepEqual([dispatcher.stats.dropped, dispatcher.stats.waiting], [2, 3])
    assert.deepEqual(warnings, [{ dropped: 1 }])
    await run.end('t/a1')
    await run.end('q0')
    for (let name = run.running[0]; name !== undefined; name = run.running[0]) await run.end(name)
    assert.deepEqual(run.begun.slice(2).sort(), left.toSorted())
    assert.equal(receipt.isSettled, true)
  })
}

test('overload: what waits is kept until it is done, and is limited by its bytes', async () => {
  const { dispatcher, topic } = createDispatcher({ maxBytes: 10 })
  dispatcher.open()
  const run = controlled()
  topic('t', run.handler)
  const kept: string[] = []
  for (const payload of ['1', '2-------', '3------', '4']) {
    const keep = () => { kept.push(payload) }
    const drop = () => { kept.splice(kept.indexOf(payload), 1) }
    dispatcher.receive({ ...incoming('t', payload), keep, drop })
  }
  assert.deepEqual(kept, ['1', '3------', '4'])
  assert.equal(dispatcher.stats.dropped, 1)
  await run.end('t1')
  assert.deepEqual(run.begun, ['t1', 't3------'])
  for (const name of ['t3------', 't4']) await run.end(name)
  assert.deepEqual(kept, [])
})

test('overload: of a message that waits only for a second handler, that one is left out', async () => {
  const { dispatcher, topic } = createDispatcher({ maxMessages: 1 }, { concurrency: 1 })
  dispatcher.open()
  const [first, second] = [controlled(), controlled()]
  topic('t/+', [first.handler, second.handler])
  for (const name of ['t/a', 't/b']) dispatcher.receive(incoming(name))
  await first.end('t/a')
  assert.deepEqual([first.begun, second.begun, dispatcher.stats.dropped], [['t/a', 't/b'], [], 1])
  await first.end('t/b')
  await second.end('t/b')
  await dispatcher.idle()
})

for (const { ack, whileWaiting, whileRunning, atEnd } of [
  { ack: 'after', whileWaiting: false, whileRunning: false, atEnd: true },
  { ack: 'before', whileWaiting: false, whileRunning: true, atEnd: true },
  { ack: 'manual', whileWaiting: false, whileRunning: false, atEnd: false }
] as const) {
  test(`ack: '${ack}': a message that waits is not acknowledged`, async () => {
    const { dispatcher, topic } = createDispatcher()
    dispatcher.open()
    const run = controlled()
    topic('t', run.handler, { ack })
    dispatcher.receive(incoming('t', '1', 1), new TestReceipt())
    const receipt = new TestReceipt()
    dispatcher.receive(incoming('t', '2', 2), receipt)
    assert.equal(receipt.isSettled, whileWaiting)
    await run.end('t1')
    assert.equal(receipt.isSettled, whileRunning)
    await run.end('t2')
    assert.equal(receipt.isSettled, atEnd)
  })
}

for (const ack of ['after', 'before', 'manual'] as const) {
  for (const order of ['topic', 'none', () => 'key'] as const) {
    test(`slots: messages wait for one with ack: '${ack}', order: ${String(order)}`, async () => {
      const { dispatcher, topic } = createDispatcher({}, { concurrency: 1 })
      dispatcher.open()
      const run = controlled()
      topic('other', run.handler)
      topic('t/+', [run.handler, run.handler], { ack, messageOrder: order })
      dispatcher.receive(incoming('other', '0'))
      const receipt = new TestReceipt()
      dispatcher.receive(incoming('t/a', '1', 1), receipt)
      dispatcher.receive(incoming('t/b', '2', 2), new TestReceipt())
      assert.deepEqual([run.begun, dispatcher.stats.waiting], [['other0'], 2])
      await run.end('other0')
      if (ack !== 'before') assert.equal(receipt.isSettled, false)
      for (const name of ['t/a1', 't/a1', 't/b2', 't/b2']) {
        assert.ok(run.running.length > 0)
        await run.end(run.running[0] ?? name)
      }
      await dispatcher.idle()
      assert.deepEqual(run.begun.toSorted(), ['other0', 't/a1', 't/a1', 't/b2', 't/b2'])
      assert.equal(receipt.isSettled, ack !== 'manual')
      assert.equal(dispatcher.stats.running, 0)
    })
  }
}

test('handlers: one that is removed while a message waits does not have it, and the message is acknowledged', async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const run = controlled()
  const route = topic('t', run.handler) as { handlers: unknown }
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', '1', 1), new TestReceipt())
  dispatcher.receive(incoming('t', '2', 2), receipt)
  route.handlers = []
  await run.end('t1')
  assert.deepEqual(run.begun, ['t1'])
  assert.equal(receipt.isSettled, true)
})

test('handlers: one that removes itself while it runs takes nothing from those after it', async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const seen: string[] = []
  const route: { handlers: unknown } = topic('t', [
    async () => {
      seen.push('once')
      route.handlers = others
    },
    async () => { seen.push('second') },
    async () => { seen.push('third') }
  ])
  const others = (route.handlers as unknown[]).slice(1)
  for (let count = 0; count < 2; count++) dispatcher.receive(incoming('t'))
  await dispatcher.idle()
  assert.deepEqual(seen, ['once', 'second', 'third', 'second', 'third'])
})

test('stop: what runs goes on, what waits is given up and not acknowledged, and idle() resolves', async () => {
  const { dispatcher, topic } = createDispatcher({}, { concurrency: 2 })
  dispatcher.open()
  const run = controlled()
  topic('t/+', [run.handler, () => assert.fail('begun after the stop')], { retry: { limit: 5, delayMs: 1, factor: 1 } })
  topic('p', run.handler, { concurrency: 1 })
  const receipts = ['p', 't/a', 't/a', 'p', 't/b'].map((name, index) => {
    const receipt = new TestReceipt()
    dispatcher.receive(incoming(name, String(index), index + 1), receipt)
    return receipt
  })
  assert.deepEqual(run.running, ['p0', 't/a1'])
  dispatcher.stop()
  assert.equal(dispatcher.stats.waiting, 0)
  let isIdle = false
  const idle = dispatcher.idle().then(() => { isIdle = true })
  await run.end('t/a1', new Error('no time for another attempt'))
  assert.equal(isIdle, false)
  await run.end('p0')
  await idle
  assert.deepEqual(run.begun, ['p0', 't/a1'])
  assert.deepEqual(receipts.map(({ isSettled }) => isSettled), [true, false, false, false, false])
  dispatcher.receive(incoming('p', '5', 9), new TestReceipt())
  assert.deepEqual(run.begun, ['p0', 't/a1'])
})
