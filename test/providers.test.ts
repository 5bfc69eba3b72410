import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { TypeBoxValidatorCompiler, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { validatorCompiler as zodValidatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import { TypeBoxValidatorCompiler as TypeBox1Compiler, type TypeBoxTypeProvider as TypeBox1 } from 'type-provider-typebox-1'
import { Type as TypeBox1Type } from 'typebox'
import { z } from 'zod'
import multimqtt, { type ValidatorCompiler } from '../lib/index.ts'
import { createApp, createFastify, inbox } from './helpers/app.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

test('schemas: the same objects serve an HTTP route and a topic, inferred and validated on both sides', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify: plain, logged } = await createApp(t, { url: broker.url })
  const fastify = plain.withTypeProvider<TypeBoxTypeProvider>()
  fastify.setValidatorCompiler(TypeBoxValidatorCompiler)
  const params = Type.Object({ id: Type.Integer({ minimum: 1 }) })
  const payload = Type.Object({ celsius: Type.Number(), at: Type.Optional(Type.String({ format: 'date-time' })) })
  const before = JSON.stringify([params, payload])
  const seen = inbox<number>()
  fastify.post('/sensor/:id', { schema: { params, body: payload } }, async (request) =>
    request.params.id + request.body.celsius)
  fastify.mqtt.topic('sensor/<int:id>', { params, payload }, (message) =>
    seen.put(message.params.id + message.payload.celsius))
  await fastify.ready()

  const body = { celsius: 20.5, at: '2026-11-22T22:22:22Z' }
  const good = await fastify.inject({ method: 'POST', url: '/sensor/2', payload: body })
  assert.equal(good.body, '22.5')
  broker.publish({ topic: 'sensor/2', payload: JSON.stringify(body) })
  assert.equal(await seen.next(), 22.5)

  const bad = await fastify.inject({ method: 'POST', url: '/sensor/2', payload: { celsius: 1, at: 'noon' } })
  assert.equal(bad.statusCode, 400)
  broker.publish({ topic: 'sensor/2', payload: '{"celsius":1,"at":"noon"}' })
  const { err } = await logged(/was not handled/)
  assert.equal(err?.code, 'FST_MQTT_PAYLOAD_INVALID')
  assert.match(err?.message ?? '', /\/at: .*date-time/)
  assert.equal(JSON.stringify([params, payload]), before)
})

for (const { name, validatorCompiler, schema } of [
  { name: 'typebox 1.x', validatorCompiler: TypeBox1Compiler, schema: TypeBox1Type.Object({ x: TypeBox1Type.Number() }) },
  { name: 'zod', validatorCompiler: zodValidatorCompiler, schema: z.object({ x: z.number() }) }
]) {
  test(`schemas: those of ${name} validate by their validatorCompiler`, async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify, logged } = createFastify(t)
    await fastify.register(multimqtt, {
      url: broker.url, validatorCompiler: validatorCompiler as unknown as ValidatorCompiler
    })
    const seen = inbox<unknown>()
    const topic = fastify.mqtt.topic('t', { payload: schema }, (message) => seen.put(message.payload))
    await fastify.ready()
    broker.publish({ topic: 't', payload: '{"x":"1"}' })
    broker.publish({ topic: 't', payload: '{"x":1}' })
    assert.deepEqual(await seen.next(), { x: 1 })
    const { err } = await logged(/was not handled/)
    assert.equal(err?.code, 'FST_MQTT_PAYLOAD_INVALID')
    assert.match(err?.message ?? '', /x.*number/)
    await assert.rejects(topic.publish({ x: '1' } as never), { code: 'FST_MQTT_PAYLOAD_INVALID' })
  })
}

test('schemas: the type providers infer on a real instance', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', validatorCompiler: () => () => true })
  fastify.withTypeProvider<ZodTypeProvider>().mqtt.topic('a', { payload: z.object({ x: z.number() }) }, ({ payload }) => {
    const x: number = payload.x
    return x
  })
  fastify.withTypeProvider<TypeBox1>().mqtt.topic('b', {
    payload: TypeBox1Type.Object({ x: TypeBox1Type.Number() })
  }, ({ payload }) => {
    const x: number = payload.x
    return x
  })
})
