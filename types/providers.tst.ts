import { describe, expect, test } from 'tstyche'
import { Type as TypeBoxType } from '@sinclair/typebox'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyBaseLogger, FastifyInstance, FastifyTypeProvider, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TypeBoxTypeProvider as TypeBox1TypeProvider } from 'type-provider-typebox-1'
import { Type as TypeBox1Type } from 'typebox'
import { z } from 'zod'
import type { Mqtt } from './index.ts'

type InstanceWith<Provider extends FastifyTypeProvider> =
  FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, Provider>

declare const plain: FastifyInstance
declare const typebox: InstanceWith<TypeBoxTypeProvider>
declare const typebox1: InstanceWith<TypeBox1TypeProvider>
declare const zod: InstanceWith<ZodTypeProvider>

describe('the type provider of the instance gets through', () => {
  test('@sinclair/typebox needs none, and works with its own', () => {
    const payload = TypeBoxType.Object({ celsius: TypeBoxType.Number() })
    plain.mqtt.topic('a', { payload }, (message) => {
      expect(message.payload).type.toBe<{ celsius: number }>()
    })
    typebox.mqtt.topic('a', { payload }, (message) => {
      expect(message.payload).type.toBe<{ celsius: number }>()
    })
    expect(typebox.mqtt).type.toBeAssignableTo<Mqtt<TypeBoxTypeProvider>>()
  })

  test('typebox 1.x', () => {
    const payload = TypeBox1Type.Object({ celsius: TypeBox1Type.Number() })
    const topic = typebox1.mqtt.topic('a/<n>', {
      payload, params: TypeBox1Type.Object({ n: TypeBox1Type.Literal('x') })
    }, (message) => {
      expect(message.payload).type.toBe<{ celsius: number }>()
      expect(message.params.n).type.toBe<'x'>()
    })
    expect(topic.publish).type.toBeCallableWith({ n: 'x' as const }, { celsius: 1 })
    expect(topic.publish).type.not.toBeCallableWith({ n: 'x' as const }, { celsius: '1' })
  })

  test('zod', () => {
    const payload = z.object({ celsius: z.number() })
    const topic = zod.mqtt.topic('a/<int:n>', { payload }, (message) => {
      expect(message.payload).type.toBe<{ celsius: number }>()
      expect(message.params.n).type.toBe<number>()
    })
    expect(topic.publish).type.toBeCallableWith({ n: 1 }, { celsius: 1 })
    expect(topic.publish).type.not.toBeCallableWith({ n: 1 }, { celsius: '1' })
    zod.mqtt.route({
      topic: 'a',
      payload,
      handler: (message) => { expect(message.payload).type.toBe<{ celsius: number }>() }
    })
  })
})
