import { describe, expect, test } from 'tstyche'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { defineTopic } from '../lib/index.ts'
import type { Mqtt, Topic, TopicContract } from './index.ts'

const reading = defineTopic('sensor/<int:id>/reading', {
  name: 'reading', payload: Type.Object({ celsius: Type.Number() })
})

declare const fastify: FastifyInstance

// What an application writes as `declare module 'fastify-multimqtt'`.
declare module './topics.ts' {
  interface MqttTopics {
    room: 'room/<name>'
    plain: 'plain'
    reading: typeof reading
    lamp: Topic<{ id: number }>
  }
  interface MqttInstances {
    telemetry: Mqtt
  }
}
declare module './pattern.ts' {
  interface TopicConverters {
    iso: Date
  }
}

describe('contracts', () => {
  test('carry pattern, params and payload', () => {
    expect(reading).type.toBe<TopicContract<'sensor/<int:id>/reading', { id: number }, { celsius: number }>>()
    const topic = fastify.mqtt.topic(reading, (message) => {
      expect(message.params.id).type.toBe<number>()
      expect(message.payload.celsius).type.toBe<number>()
    })
    expect(topic).type.toBe<Topic<{ id: number }, { celsius: number }>>()
    fastify.mqtt.topic(reading, { qos: 1 }, (message) => {
      expect(message.payload.celsius).type.toBe<number>()
    })
    expect(fastify.mqtt.topic(reading)).type.toBe<Topic<{ id: number }, { celsius: number }>>()
  })

  test('refuse a wrong pattern with its sentence', () => {
    // @ts-expect-error "Invalid topic pattern: '#' must be the last level"
    defineTopic('a/#/b')
    // @ts-expect-error "Not a placeholder of the pattern: m"
    defineTopic('a/<n>', { params: Type.Object({ m: Type.String() }) })
  })
})

describe('interface MqttTopics', () => {
  test('types the params of declared names', () => {
    expect(fastify.mqtt.topicFor('room', { name: 'blue' })).type.toBe<string>()
    expect(fastify.mqtt.topicFor).type.toBeCallableWith('reading', { id: 1 }, { absolute: true })
    expect(fastify.mqtt.topicFor).type.toBeCallableWith('lamp', { id: 1 })
    expect(fastify.mqtt.topicFor).type.not.toBeCallableWith('reading', { id: '1' })
    expect(fastify.mqtt.topicFor).type.not.toBeCallableWith('room', { nam: 'blue' })
    expect(fastify.mqtt.topicFor).type.not.toBeCallableWith('room')
    expect(fastify.mqtt.topicFor).type.toBeCallableWith('plain')
  })

  test('leaves other names usable', () => {
    expect(fastify.mqtt.topicFor).type.toBeCallableWith('undeclared', { any: 'param' })
    expect(fastify.mqtt.topicFor).type.toBeCallableWith('undeclared')
  })
})

describe('interface MqttInstances', () => {
  test('adds namespaces', () => {
    expect(fastify.mqtt.telemetry).type.toBe<Mqtt>()
    expect(fastify.mqtt).type.not.toHaveProperty('telemetri')
  })
})

describe('interface TopicConverters', () => {
  test('adds converters to patterns', () => {
    fastify.mqtt.topic('log/<iso:day>', (message) => {
      expect(message.params).type.toBe<{ day: Date }>()
    })
    // @ts-expect-error Invalid topic pattern: unknown converter 'week' in '<week:w>'
    fastify.mqtt.topic('log/<week:w>', () => {})
  })
})
