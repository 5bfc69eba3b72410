import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { MultimqttOptions } from '../lib/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { mosquittoPub, mosquittoSub } from './helpers/mosquitto-clients.ts'
import { mosquittoMissing, passwordFile, startMosquitto } from './helpers/mosquitto.ts'

// Every example of Flask-MultiMQTT's README in this plugin's words: docs/migrating-from-flask-multimqtt.md.
suite('what Flask-MultiMQTT promises, on Mosquitto', { skip: mosquittoMissing }, () => {
  for (const [name, optionsFor] of Object.entries<(port: number) => MultimqttOptions>({
    'a URI': (port) => ({ url: `mqtt://username:password@127.0.0.1:${port}/myprefix` }),
    'separate fields': (port) => ({
      host: '127.0.0.1', port, username: 'username', password: 'password', prefix: 'myprefix'
    })
  })) {
    test(`configuration by ${name}: user, password and global prefix`, async (t) => {
      const broker = await startMosquitto(t, {
        lines: ['listener {{extra}} 127.0.0.1', 'allow_anonymous false', 'password_file {{dir}}/passwords'],
        files: { passwords: passwordFile({ username: 'password' }) }
      })
      const { fastify } = await createApp(t, optionsFor(broker.ports.extra))
      const observer = mosquittoSub(t, broker, {
        topics: ['#'], port: broker.ports.extra, username: 'username', password: 'password'
      })
      await Promise.all([observer.ready, fastify.ready()])
      await fastify.mqtt.publish('example', { hello: 'world' })
      const { topic, payload } = await observer.next()
      assert.deepEqual([topic, payload.toString()], ['myprefix/example', '{"hello":"world"}'])
    })
  }

  test('topics registered before connecting are subscribed when the connection is complete', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `${broker.url}/myprefix` })
    const seen = inbox<string>()
    const topic = fastify.mqtt.topic('home/sensor/#', { qos: 0 })
    topic.onMessage((message) => seen.put(`this function receives ${message.topic}`))
    topic.onMessage((message) => seen.put(`this function is also called for ${message.topic}`))
    assert.equal(fastify.mqtt.status, 'idle')
    await fastify.ready()
    await mosquittoPub(broker, { topic: 'myprefix/home/sensor/kitchen/temp', message: '20.5' })
    assert.equal(await seen.next(), 'this function receives home/sensor/kitchen/temp')
    assert.equal(await seen.next(), 'this function is also called for home/sensor/kitchen/temp')
  })

  test('the decorator form: a topic and its handler in one call', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `${broker.url}/myprefix` })
    const seen = inbox<[string, string]>()
    fastify.mqtt.topic('my_topic/#', function myTopic (message) { seen.put([message.topic, message.text()]) })
    await fastify.ready()
    await mosquittoPub(broker, { topic: 'myprefix/my_topic/a', message: 'x' })
    assert.deepEqual(await seen.next(), ['my_topic/a', 'x'])
  })

  test('placeholders: int, float, str, path and uuid give typed params', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `${broker.url}/myprefix` })
    const seen = inbox<unknown>()
    const uuid = '123e4567-e89b-12d3-a456-426614174000'
    fastify.mqtt.topic('number/<int:number>', ({ params }) => seen.put(params))
    fastify.mqtt.topic('ratio/<float:ratio>', ({ params }) => seen.put(params))
    fastify.mqtt.topic('name/<str:name>', ({ params }) => seen.put(params))
    fastify.mqtt.topic('short/<name>', ({ params }) => seen.put(params))
    fastify.mqtt.topic('files/<path:path>', ({ params }) => seen.put(params))
    fastify.mqtt.topic('device/<uuid:id>', ({ params }) => seen.put(params))
    await fastify.ready()
    for (const [topic, params] of [
      ['number/42', { number: 42 }], ['ratio/-0.25', { ratio: -0.25 }], ['name/kitchen', { name: 'kitchen' }],
      ['short/hall', { name: 'hall' }], ['files/a/b/c', { path: 'a/b/c' }], [`device/${uuid}`, { id: uuid }]
    ] as const) {
      await mosquittoPub(broker, { topic: `myprefix/${topic}`, message: '' })
      assert.deepEqual(await seen.next(), params)
    }
  })

  test('publishing: text, JSON for lists and objects, and a topic without the prefix', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `${broker.url}/myprefix` })
    const observer = mosquittoSub(t, broker, { topics: ['#'] })
    await Promise.all([observer.ready, fastify.ready()])
    await fastify.mqtt.publish('my-thread', 'thread-1')
    await fastify.mqtt.publish('example', { hello: 'world' })
    await fastify.mqtt.publish('example', [1, 2])
    await fastify.mqtt.publish('elsewhere/something', { example: true }, { absolute: true })
    for (const expected of [
      ['myprefix/my-thread', 'thread-1'], ['myprefix/example', '{"hello":"world"}'], ['myprefix/example', '[1,2]'],
      ['elsewhere/something', '{"example":true}']
    ]) {
      const { topic, payload } = await observer.next()
      assert.deepEqual([topic, payload.toString()], expected)
    }
  })

  test('system topics: $CONTROL and $SYS by absolute, both ways', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, {
      url: `mqtt://admin:admin-password@127.0.0.1:${broker.ports.dynsec}/myprefix`
    })
    const answers = inbox<unknown>()
    const versions = inbox<string>()
    fastify.mqtt.topic('$CONTROL/dynamic-security/v1/response', { absolute: true }, (message) => answers.put(message.json()))
    fastify.mqtt.topic('$SYS/broker/version', { absolute: true }, (message) => versions.put(message.text()))
    await fastify.ready()
    assert.match(await versions.next(), /^mosquitto version/)
    await assert.rejects(fastify.mqtt.publish('$CONTROL/dynamic-security/v1', {}), { code: 'FST_MQTT_TOPIC_OUTSIDE_PREFIX' })
    await fastify.mqtt.publish('$CONTROL/dynamic-security/v1', {
      commands: [{ command: 'listClients' }]
    }, { absolute: true })
    assert.deepEqual(await answers.next(), {
      responses: [{ command: 'listClients', data: { totalCount: 1, clients: ['admin'] } }]
    })
  })

  test('topicFor: the topic of a named handler, relative and absolute, reaches it', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `${broker.url}/myprefix` })
    const seen = inbox<number>()
    fastify.mqtt.topic('number/<int:number>', function numberTopic (message) { seen.put(message.params.number) })
    fastify.get('/demo', async () => fastify.mqtt.topicFor('numberTopic', { number: 42 }))
    await fastify.ready()
    const { body } = await fastify.inject('/demo')
    assert.equal(body, 'number/42')
    await fastify.mqtt.publish(body, '')
    assert.equal(await seen.next(), 42)
    const absolute = fastify.mqtt.topicFor('numberTopic', { number: 43 }, { absolute: true })
    assert.equal(absolute, 'myprefix/number/43')
    await mosquittoPub(broker, { topic: absolute, message: '' })
    assert.equal(await seen.next(), 43)
  })
})
