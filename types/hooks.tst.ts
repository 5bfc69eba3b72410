import { describe, expect, test } from 'tstyche'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { AnyMessage, InjectResult, ListedTopic, OutgoingMessage, Settlement, TopicRegistration } from './index.ts'

declare const fastify: FastifyInstance

describe('hooks', () => {
  test('each name has its own arguments, and the instance as `this`', () => {
    fastify.mqtt.addHook('onMessage', function (message) {
      expect(this).type.toBe<FastifyInstance>()
      expect(message).type.toBe<AnyMessage>()
      expect(message.payload).type.toBe<unknown>()
    })
    fastify.mqtt.addHook('onSettled', async (_message, settlement) => {
      expect(settlement).type.toBe<Settlement>()
    })
    fastify.mqtt.addHook('onError', async (error, message) => {
      expect(error).type.toBe<unknown>()
      expect(message).type.toBe<AnyMessage>()
    })
    fastify.mqtt.addHook('onTopic', (topic) => { expect(topic).type.toBe<TopicRegistration>() })
    fastify.mqtt.addHook('onPublish', (message) => { expect(message).type.toBe<OutgoingMessage>() })
    fastify.mqtt.addHook('onDisconnect', (cause) => { expect(cause).type.toBe<Error>() })
    fastify.mqtt.addHook('onConnect', (...args) => { expect(args).type.toBe<[]>() })
  })

  test('unknown names are refused', () => {
    expect(fastify.mqtt.addHook).type.not.toBeCallableWith('onRequest', () => {})
  })

  test('a topic takes its own, alone or in a list', () => {
    fastify.mqtt.topic('a/<int:n>', {
      payload: Type.Number(),
      preHandler: [(message) => { expect(message).type.toBe<AnyMessage>() }, async () => {}],
      onError: (error) => { expect(error).type.toBe<unknown>() }
    }, (message) => {
      expect(message.params.n).type.toBe<number>()
      expect(message.payload).type.toBe<number>()
    })
  })

  test('the error handler has the error and the message', () => {
    fastify.mqtt.setErrorHandler(function (error, message) {
      expect(this).type.toBe<FastifyInstance>()
      expect(error).type.toBe<unknown>()
      expect(message).type.toBe<AnyMessage>()
    })
    expect(fastify.mqtt.addHook('onMessage', () => {}).setErrorHandler(() => {})).type.toBe<typeof fastify.mqtt>()
  })
})

describe('inject()', () => {
  test('takes a message and gives what came of it', () => {
    expect(fastify.mqtt.inject({ topic: 'a', payload: { any: 'thing' }, qos: 1 })).type.toBe<Promise<InjectResult>>()
    expect(fastify.mqtt.inject).type.not.toBeCallableWith({ payload: 'x' })
    expect(fastify.mqtt.inject).type.not.toBeCallableWith({ topic: 'a', qos: 3 })
  })
})

describe('topics()', () => {
  test('gives plain data', () => {
    expect(fastify.mqtt.topics()).type.toBe<ListedTopic[]>()
    expect(fastify.mqtt.topics()[0]).type.toBe<ListedTopic | undefined>()
    expect(fastify.mqtt.printTopics()).type.toBe<string>()
  })
})
