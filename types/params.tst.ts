import { describe, expect, test } from 'tstyche'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { CheckPattern, Message, ParamsOf, ParamValue, Topic } from './index.ts'

declare const fastify: FastifyInstance

type UnknownFoo = `unknown converter 'foo' in '<foo:n>': ${Known}`
type Known =
  'use str, int, float, uuid, path or one of your own (option converters, interface TopicConverters)'

describe('params of a pattern', () => {
  test('each placeholder has the type of its converter', () => {
    expect<ParamsOf<'n/<int:n>/<float:f>/<uuid:id>/<str:s>/<name>/<path:rest>'>>().type.toBe<{
      n: number, f: number, id: string, s: string, name: string, rest: string
    }>()
  })

  test('a pattern without placeholders has none', () => {
    expect<keyof ParamsOf<'a/b/+/#'>>().type.toBe<never>()
  })

  test('a pattern that is only known as text has any', () => {
    expect<ParamsOf<string>>().type.toBe<Record<string, ParamValue>>()
    expect<ParamsOf<`site/${string}`>>().type.toBe<Record<string, ParamValue>>()
  })

  test('the handler, the topic and the reverse routing know them', () => {
    const topic = fastify.mqtt.topic('sensor/<int:id>/<kind>', (message) => {
      expect(message).type.toBe<Message<{ id: number, kind: string }>>()
      expect(message.params.id).type.toBe<number>()
      expect(message.payload).type.toBe<Buffer>()
    })
    expect(topic).type.toBe<Topic<{ id: number, kind: string }>>()
    expect(topic.topicFor).type.toBeCallableWith({ id: 1, kind: 'x' })
    expect(topic.topicFor).type.toBeCallableWith({ id: 1, kind: 'x' }, { absolute: true })
    expect(topic.topicFor).type.not.toBeCallableWith({ id: '1', kind: 'x' })
    expect(topic.topicFor).type.not.toBeCallableWith({ id: 1 })
    expect(topic.publish).type.toBeCallableWith({ id: 1, kind: 'x' }, 'any payload')
    expect(topic.publish).type.not.toBeCallableWith('any payload')
  })

  test('without placeholders publish takes the payload first', () => {
    const topic = fastify.mqtt.topic('plain')
    expect(topic.publish).type.toBeCallableWith({ any: 'payload' }, { qos: 1 })
    expect(topic.topicFor).type.toBeCallableWith()
    expect(topic.topicFor).type.not.toBeCallableWith({ id: 1 })
  })
})

describe('a pattern that is one of several', () => {
  const mixed = fastify.mqtt.topic('plain' as 'plain' | 'room/<name>', { payload: Type.Number() })

  test('publish and topicFor take what each of them does', () => {
    expect(mixed.publish).type.toBeCallableWith(7)
    expect(mixed.publish).type.toBeCallableWith({ name: 'x' }, 7, { qos: 1 })
    expect(mixed.publish).type.not.toBeCallableWith({ name: 'x' }, '7')
    expect(mixed.publish).type.not.toBeCallableWith({ nam: 'x' }, 7)
    expect(mixed.topicFor).type.toBeCallableWith()
    expect(mixed.topicFor).type.toBeCallableWith({ name: 'x' })
    expect(mixed.topicFor).type.not.toBeCallableWith({ nam: 'x' })
  })

  test('one that is only known as text may have params, or none', () => {
    const topic = fastify.mqtt.topic('any' as string, { payload: Type.Number() })
    expect(topic.publish).type.toBeCallableWith(7)
    expect(topic.publish).type.toBeCallableWith({ n: 1 }, 7)
    expect(topic.publish).type.not.toBeCallableWith({ n: 1 }, '7')
    expect(topic.topicFor).type.toBeCallableWith()
    expect(topic.topicFor).type.toBeCallableWith({ n: 1 }, { absolute: true })
  })
})

describe('schemas', () => {
  test('the payload has the type of its schema, in and out', () => {
    const topic = fastify.mqtt.topic('lamp/<int:id>', {
      qos: 1, payload: Type.Object({ on: Type.Boolean() })
    }, async (message) => {
      expect(message.payload).type.toBe<{ on: boolean }>()
      expect(message.params).type.toBe<{ id: number }>()
    })
    expect(topic).type.toBe<Topic<{ id: number }, { on: boolean }>>()
    expect(topic.publish).type.toBeCallableWith({ id: 1 }, { on: true })
    expect(topic.publish).type.not.toBeCallableWith({ id: 1 }, { on: 'yes' })
  })

  test('a params schema narrows the params, and can name placeholders only', () => {
    fastify.mqtt.topic('lamp/<colour>/<int:n>', {
      params: Type.Object({ colour: Type.Union([Type.Literal('red'), Type.Literal('green')]) })
    }, (message) => {
      expect(message.params).type.toBe<{ colour: 'red' | 'green', n: number }>()
    })
    expect(fastify.mqtt.topic).type.not.toBeCallableWith('lamp/<colour>', {
      params: Type.Object({ color: Type.String() })
    })
  })

  test('route() infers the same', () => {
    fastify.mqtt.route({
      topic: 'lamp/<int:id>',
      payload: Type.Object({ on: Type.Boolean() }),
      handler (message) {
        expect(message.params).type.toBe<{ id: number }>()
        expect(message.payload).type.toBe<{ on: boolean }>()
        expect(this).type.toBe<FastifyInstance>()
      }
    })
  })
})

describe('patterns that are wrong are sentences', () => {
  test('each problem has its own', () => {
    expect<CheckPattern<'a/<int:n>'>>().type.toBe<'a/<int:n>'>()
    expect<CheckPattern<''>>().type.toBe<'Invalid topic pattern: a topic pattern cannot be empty'>()
    expect<CheckPattern<'a/<foo:n>'>>().type.toBe<`Invalid topic pattern: ${UnknownFoo}`>()
    expect<CheckPattern<'<path:x>/a'>>().type
      .toBe<"Invalid topic pattern: '<path:x>' must be the last level: a path takes everything that is left">()
    expect<CheckPattern<'a/b<x>'>>().type
      .toBe<"Invalid topic pattern: a placeholder must be a whole level, 'b<x>' is not">()
    expect<CheckPattern<'a/<x><y>'>>().type
      .toBe<"Invalid topic pattern: a placeholder must be a whole level, '<x><y>' is not">()
    expect<CheckPattern<'a/<int:>'>>().type.toBe<"Invalid topic pattern: the placeholder '<int:>' has no name">()
    expect<CheckPattern<'<x>/<int:x>'>>().type.toBe<"Invalid topic pattern: the name 'x' is used twice">()
    expect<CheckPattern<'a/#/b'>>().type.toBe<"Invalid topic pattern: '#' must be the last level">()
    expect<CheckPattern<'a/b#'>>().type.toBe<"Invalid topic pattern: a wildcard must be a whole level, 'b#' is not">()
    expect<CheckPattern<'a+/b'>>().type.toBe<"Invalid topic pattern: a wildcard must be a whole level, 'a+' is not">()
  })

  test('topic() shows the sentence', () => {
    expect(fastify.mqtt.topic<'number/<foo:n>'>).type.not.toBeCallableWith('number/<foo:n>', () => {})
    // @ts-expect-error '"Invalid topic pattern: unknown converter 'foo' in '<foo:n>'
    fastify.mqtt.topic('number/<foo:n>', () => {})
    // @ts-expect-error Not a placeholder of the pattern: m
    fastify.mqtt.topic('number/<int:n>', { params: Type.Object({ m: Type.Integer() }) }, () => {})
  })
})

describe('options', () => {
  test('every optional key takes undefined', () => {
    expect(fastify.mqtt.topic).type.toBeCallableWith('a', { qos: undefined, name: undefined, payload: undefined })
    expect(fastify.mqtt.publish).type.toBeCallableWith('a', 'b', { qos: undefined, signal: undefined })
  })

  test('unknown keys and values are refused', () => {
    expect(fastify.mqtt.topic).type.not.toBeCallableWith('a', { qos: 3 })
    expect(fastify.mqtt.publish).type.not.toBeCallableWith('a', 'b', { qos: 3 })
  })
})
