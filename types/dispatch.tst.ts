import { describe, expect, test } from 'tstyche'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { AnyMessage, DeadLetterReason, MultimqttOptions, Stats, TopicOptions } from './index.ts'

declare const fastify: FastifyInstance

describe('the rules of dispatch', () => {
  test('a topic takes limits, retries, and a topic or a function for dead letters', () => {
    fastify.mqtt.topic('a/<int:n>', {
      payload: Type.Number(),
      concurrency: 2,
      order: (message) => {
        expect(message).type.toBe<AnyMessage>()
        return message.topic
      },
      retry: { limit: 3 },
      async deadLetter (message, reason) {
        expect(this).type.toBe<FastifyInstance>()
        expect(message).type.toBe<AnyMessage>()
        expect(reason).type.toBe<DeadLetterReason>()
      }
    }, ({ params, payload }) => {
      expect(params.n).type.toBe<number>()
      expect(payload).type.toBe<number>()
    })
    expect<{ deadLetter: string, order: 'none' }>().type.toBeAssignableTo<TopicOptions>()
    expect<{ retry: { delay: number } }>().type.not.toBeAssignableTo<TopicOptions>()
    expect<{ order: (message: AnyMessage) => number }>().type.not.toBeAssignableTo<TopicOptions>()
  })

  test('the plugin takes the same for all topics', () => {
    expect<{ concurrency: number, order: 'topic' }>().type.toBeAssignableTo<MultimqttOptions>()
    expect<{ order: (message: AnyMessage) => string }>().type.toBeAssignableTo<MultimqttOptions>()
    expect<{ order: 'key' }>().type.not.toBeAssignableTo<MultimqttOptions>()
    expect<{ inbox: { maxBytes: number, overflow: 'drop-newest' } }>().type.toBeAssignableTo<MultimqttOptions>()
  })

  test('stats() are numbers', () => {
    expect(fastify.mqtt.stats()).type.toBe<Stats>()
    expect(fastify.mqtt.stats().outbox.bytes).type.toBe<number>()
  })
})
