import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

function group (owner: Owner) {
  const dir = mkdtempSync(join(tmpdir(), 'mm-'))
  onEnd(owner, () => rmSync(dir, { recursive: true, force: true }))
  return { dir, processes: { mode: 'single', group: 'g', dir, heartbeat: 50, ownerTimeout: 5_000 } } as const
}

test('group: a member knows the version of the owner, and refuses what it cannot send', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const options = { url: broker.url, protocolVersion: 4, processes } as const
  const owner = await createApp(t, options)
  await owner.fastify.ready()
  const member = await createApp(t, options)
  await member.fastify.ready()
  assert.deepEqual([owner.fastify.mqtt.role, member.fastify.mqtt.role], ['owner', 'member'])
  await assert.rejects(member.fastify.mqtt.publish('a', 'x', { properties: { contentType: 'y' } }), {
    code: 'FST_MQTT_NEEDS_MQTT5'
  })
  await member.fastify.mqtt.publish('a', 'x', { qos: 1 })
  assert.equal(broker.connections.length, 1)
})

test('group: a directory that others can write to is trouble, in the log and in health(), until it is mended', async (t) => {
  const broker = await startScriptedBroker(t)
  const { dir, processes } = group(t)
  const owner = await createApp(t, { url: broker.url, processes })
  await owner.fastify.ready()
  const member = await createApp(t, { url: broker.url, processes })
  await member.fastify.ready()
  const [name = ''] = readdirSync(dir)
  chmodSync(join(dir, name), 0o777)
  await owner.fastify.close()
  await member.logged(/the group 'g' is in trouble/)
  assert.equal(member.fastify.mqtt.health().lastError?.code, 'FST_MQTT_GROUP_DIRECTORY')
  chmodSync(join(dir, name), 0o700)
  await member.logged(/this process is the owner of the group 'g'/)
})

test('group: closing ends a start that waits', async (t) => {
  const server = await startSilentServer(t)
  const { processes } = group(t)
  const { fastify } = await createApp(t, { url: server.url, processes, start: 'manual' })
  await fastify.ready()
  const connecting = assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
  await fastify.close()
  await connecting
})
