import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { FormatRegistry, Type } from '@sinclair/typebox'
import fc from 'fast-check'
import parseSecurely from 'secure-json-parse'
import { errors } from '../lib/errors.ts'
import { asBytes, bytesOf } from '../lib/payload/bytes.ts'
import { Codecs, decodeWith, encodeWith } from '../lib/payload/codecs.ts'
import { registerFormats } from '../lib/payload/formats.ts'
import { decodeJson, decodeText, encodeJson } from '../lib/payload/json.ts'
import { SchemaCompiler } from '../lib/payload/schemas.ts'
import type { ValidatorCompiler } from '../types/options.ts'
import type { Codec } from '../types/topic.ts'

const rules = { protoAction: 'error', constructorAction: 'error' } as const
const lenient = { protoAction: 'ignore', constructorAction: 'ignore' } as const
const codecs = new Codecs(rules)

function codec (name: string, from: Codecs = codecs): Codec {
  const found = from.named(name)
  assert.ok(found, `no codec ${name}`)
  return found
}

// Bytes

test('bytesOf: takes text and bytes as they are, undefined as the empty message, all others as JSON', () => {
  const bytes = Buffer.from([0, 255, 10])
  const { buffer } = new Uint8Array([9, 0, 255, 10, 9])
  for (const [payload, expected] of [
    ['text', 'text'], ['', ''], ['ä🙂', 'ä🙂'], [undefined, ''], [null, 'null'], [0, '0'], [false, 'false'],
    [[1, 'a'], '[1,"a"]'],
    [{ a: 1, b: undefined }, '{"a":1}'], [new Date(0), '"1970-01-01T00:00:00.000Z"'], [{ toJSON: () => 5 }, '5']
  ] as const) assert.equal(bytesOf(payload).toString(), expected)
  const views = [new Uint8Array(buffer, 1, 3), new DataView(buffer, 1, 3)]
  for (const payload of [bytes, ...views, buffer.slice(1, 4)]) {
    assert.deepEqual(bytesOf(payload), bytes)
  }
  const shared = new Uint8Array(new SharedArrayBuffer(3))
  shared.set(bytes)
  assert.deepEqual(bytesOf(shared.buffer), bytes)
  assert.deepEqual(bytesOf(new Uint16Array([0x0102])).length, 2)
})

test('bytesOf: NaN and Infinity become null, as JSON.stringify does it', () => {
  assert.equal(bytesOf({ a: NaN, b: [Infinity, -Infinity] }).toString(), '{"a":null,"b":[null,null]}')
  assert.equal(bytesOf(NaN).toString(), 'null')
})

const circular: Record<string, unknown> = {}
circular['self'] = circular

for (const [what, payload, says] of [
  ['a function', () => {}, /The payload cannot be sent as JSON: a function has no JSON/],
  ['a symbol', Symbol('x'), /a symbol has no JSON/],
  ['what toJSON makes undefined', { toJSON: () => undefined }, /an object \(Object\) has no JSON/],
  ['a BigInt', { n: 1n }, /cannot be sent as JSON: .*BigInt/],
  ['a circle', circular, /circular structure/],
  ['a lone surrogate', 'a\ud800', /cannot be sent as text: it has a lone surrogate/]
] as const) {
  test(`bytesOf: refuses ${what}, and takes the next payload`, () => {
    assert.throws(() => bytesOf(payload), { code: 'FST_MQTT_PAYLOAD_ENCODE', statusCode: 400, message: says })
    assert.equal(bytesOf('next').toString(), 'next')
  })
}

test('asBytes: leaves what is neither text nor bytes to the caller', () => {
  for (const value of [undefined, null, 1, {}, [1]]) assert.equal(asBytes(value), undefined)
})

test('encodeJson: keeps what JSON.stringify threw as the cause', () => {
  const cause = new Error('inner')
  assert.throws(() => encodeJson({ toJSON () { throw cause } }), (error: Error) => error.cause === cause)
})

// JSON and text

test('decodeJson: gives back every JSON value that was encoded', () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const expected: unknown = JSON.parse(JSON.stringify(value))
    assert.deepEqual(decodeJson(bytesOf({ value }), lenient), { value: expected })
  }))
})

test('decodeJson: throws nothing but its coded error, whatever the bytes', () => {
  const text = fc.string({ unit: 'binary' }).map((characters) => Buffer.from(characters))
  fc.assert(fc.property(fc.oneof(fc.uint8Array().map((bytes) => Buffer.from(bytes)), text), (bytes) => {
    try {
      decodeJson(bytes, rules)
    } catch (error) {
      assert.equal((error as { code?: unknown }).code, 'FST_MQTT_PAYLOAD_DECODE')
    }
  }))
})

test('decodeJson: what has a forbidden key is found, however it is written', () => {
  const names = ['__proto__', 'constructor', 'prototype', '\\u005f', '\\u0063', '_proto__', 'onstructor', '__\\u0070roto__',
    'pr\\u006ftotype']
  const parts = [...names, '"', ':', '{', '}', ',', '1', '\uFEFF', 'a', ' ', '\uFFFD', 'ä']
  const key = fc.array(fc.constantFrom(...names, 'a'), { maxLength: 3 }).map((some) => some.join(''))
  const object = fc.array(fc.tuple(key, key)).map((pairs) =>
    `{${pairs.map(([name, inner]) => `"${name}":{"${inner}":1}`).join(',')}}`)
  const anything = fc.array(fc.constantFrom(...parts)).map((some) => some.join(''))
  fc.assert(fc.property(fc.oneof(object, anything), fc.boolean(), (text, isMarked) => {
    const marked = (isMarked ? '\uFEFF' : '') + text
    const outcomeOf = (decode: () => unknown) => {
      try {
        return { value: decode() }
      } catch {
        return 'refused'
      }
    }
    assert.deepEqual(
      outcomeOf(() => decodeJson(Buffer.from(marked), rules)), outcomeOf(() => parseSecurely(marked, rules)))
  }), { numRuns: 2_000 })
})

for (const [what, text, says] of [
  ['no JSON', '{"password":"hunter2"', /The payload is no JSON: it .*position \d+$/],
  ['a wrong character', '{"password":hunter2}', /The payload is no JSON: it [\w ,]+$/],
  ['the empty text', '', /The payload is no JSON: /],
  ['NaN', 'NaN', /The payload is no JSON: /],
  ['a __proto__ key', '{"a":{"__proto__":{"x":1}}}', /is no JSON: it has a __proto__ or constructor\.prototype key/],
  ['an escaped __proto__ key', '{"\\u005f_proto__":1}', /has a __proto__ or constructor\.prototype key/],
  ['a constructor with a prototype', '{"constructor":{"prototype":{"x":1}}}', /has a __proto__ or constructor\.prototype key/]
] as const) {
  test(`decodeJson: refuses ${what}`, () => {
    assert.throws(() => decodeJson(Buffer.from(text), rules), (error: Error) => {
      assert.match(error.message, says)
      // V8's own error quotes the payload, and with it whatever secret it has.
      assert.equal(error.cause, undefined)
      return error instanceof errors.FST_MQTT_PAYLOAD_DECODE && error.statusCode === 400
    })
  })
}

test("decodeJson: follows the application's own poisoning rules", () => {
  const bytes = Buffer.from('{"a":1,"__proto__":{"x":1}}')
  assert.deepEqual(decodeJson(bytes, { protoAction: 'remove', constructorAction: 'error' }), { a: 1 })
  const ignored = decodeJson(bytes, { protoAction: 'ignore', constructorAction: 'error' }) as object
  assert.ok(Object.hasOwn(ignored, '__proto__'))
})

test('decodeText: refuses what is no UTF-8, and gives all other text as it is', () => {
  assert.throws(() => decodeText(Buffer.from([0xff])), {
    code: 'FST_MQTT_PAYLOAD_DECODE', message: 'The payload is no text: it is no valid UTF-8'
  })
  assert.throws(() => decodeText(Buffer.from([0xed, 0xa0, 0x80])), { code: 'FST_MQTT_PAYLOAD_DECODE' })
  assert.equal(decodeText(Buffer.from('xäx').subarray(1)), 'äx')
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => {
    assert.equal(decodeText(Buffer.from(text)), text.toWellFormed())
  }))
})

// Codecs

test('text and binary: give back what was encoded', () => {
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), fc.uint8Array(), (text, bytes) => {
    assert.equal(decodeWith(codec('text'), encodeWith(codec('text'), text)), text)
    assert.deepEqual(decodeWith(codec('binary'), encodeWith(codec('binary'), bytes)), Buffer.from(bytes))
  }))
  assert.deepEqual(encodeWith(codec('binary'), new Uint8Array([1, 2]).buffer), Buffer.from([1, 2]))
})

test("json: text is text, so that 'on' is quoted on the wire", () => {
  assert.equal(encodeWith(codec('json'), 'on').toString(), '"on"')
  assert.equal(decodeWith(codec('json'), Buffer.from('"on"')), 'on')
})

for (const [name, payload, says] of [
  ['text', 5, /cannot be sent as text\/plain: it has to be a string, not a number/],
  ['text', '\ud800', /cannot be sent as text: it has a lone surrogate/],
  ['binary', 'x', /as application\/octet-stream: it has to be a Buffer, an ArrayBuffer or a view on one, not a string/],
  ['binary', { a: 1 }, /not an object \(Object\)/],
  ['json', () => {}, /cannot be sent as JSON: a function has no JSON/]
] as const) {
  test(`${name}: refuses to encode ${typeof payload === 'string' ? JSON.stringify(payload) : typeof payload}`, () => {
    assert.throws(() => encodeWith(codec(name), payload), { code: 'FST_MQTT_PAYLOAD_ENCODE', message: says })
  })
}

test('text: refuses to decode what is no UTF-8', () => {
  assert.throws(() => decodeWith(codec('text'), Buffer.from([0xff])), {
    code: 'FST_MQTT_PAYLOAD_DECODE', message: /no valid UTF-8/
  })
})

test('Codecs: finds by name and by content type, without parameters and in any case', () => {
  const own: Codec = { contentType: 'Application/CBOR', encode: () => 'x', decode: () => 1 }
  const all = new Codecs(rules, [own])
  assert.deepEqual(all.names, ['json', 'text', 'binary', 'Application/CBOR'])
  assert.equal(all.named('Application/CBOR'), own)
  assert.equal(all.named('toString'), undefined)
  assert.equal(all.forContentType('application/cbor'), own)
  assert.equal(all.forContentType('application/json; charset=utf-8'), all.named('json'))
  assert.equal(all.forContentType(' TEXT/PLAIN ;x'), all.named('text'))
  for (const unknown of [undefined, '', 'image/png', ';', 'toString']) {
    assert.equal(all.forContentType(unknown), undefined)
  }
})

test("a codec of the application's own: what it throws is a coded error, whatever it is", () => {
  const recurse = (): never => recurse()
  for (const [trouble, says] of [
    [() => { throw new TypeError('bad input') }, /application\/x: bad input/],
    // eslint-disable-next-line no-throw-literal -- a codec may
    [() => { throw 'text' }, /application\/x: text/],
    [recurse, /Maximum call stack/]
  ] as const) {
    const own: Codec = { contentType: 'application/x', encode: trouble, decode: trouble }
    assert.throws(() => encodeWith(own, 1), { code: 'FST_MQTT_PAYLOAD_ENCODE', message: says })
    assert.throws(() => decodeWith(own, Buffer.alloc(1)), { code: 'FST_MQTT_PAYLOAD_DECODE', message: says })
  }
})

test("a codec of the application's own: has to return text or bytes", () => {
  const own = { contentType: 'application/x', encode: () => ({}), decode: () => 1 } as unknown as Codec
  assert.throws(() => encodeWith(own, 1), {
    code: 'FST_MQTT_PAYLOAD_ENCODE', message: /the codec has to return text or bytes, not an object \(Object\)/
  })
})

// Schemas

suite('SchemaCompiler with TypeBox', () => {
  const compiler = new SchemaCompiler(undefined)
  const Reading = Type.Object({ celsius: Type.Number() })

  test('accepts what is valid, and tells the first issue of all others by its pointer', () => {
    const check = compiler.compile(Reading, 'payload')
    assert.equal(check({ celsius: 20 }), undefined)
    assert.deepEqual(check({ celsius: 'secret' }), { instancePath: '/celsius', message: 'Expected number, got a string' })
    assert.equal(check({})?.instancePath, '/celsius')
    assert.deepEqual(check('secret'), { instancePath: '', message: 'Expected object, got a string' })
  })

  test('never coerces and never changes the value', () => {
    const schema = Type.Object({ n: Type.Number({ default: 5 }) }, { additionalProperties: false })
    const check = compiler.compile(schema, 'payload')
    const value = { n: '1', more: true }
    assert.ok(check(value))
    assert.deepEqual(value, { n: '1', more: true })
    assert.ok(check({}))
  })

  test('refuses NaN and Infinity for numbers', () => {
    const check = compiler.compile(Reading, 'payload')
    for (const celsius of [NaN, Infinity, -Infinity]) {
      assert.equal(check({ celsius })?.instancePath, '/celsius')
    }
  })

  test('takes undefined, the empty message, only where the schema does', () => {
    assert.ok(compiler.compile(Reading, 'payload')(undefined))
    assert.equal(compiler.compile(Type.Union([Reading, Type.Undefined()]), 'payload')(undefined), undefined)
  })

  test('gives an issue for hostile values as for others', () => {
    const check = compiler.compile(Type.Object({ a: Type.String() }), 'payload')
    const hostile: unknown = JSON.parse('{"a":{"constructor":{"name":{"toString":1}}}}')
    assert.deepEqual(check(hostile), { instancePath: '/a', message: 'Expected string, got an object (Object)' })
  })

  test('compiles a schema once', () => {
    assert.equal(compiler.compile(Reading, 'payload'), compiler.compile(Reading, 'payload'))
  })

  for (const [what, schema, says] of [
    ['undefined', undefined, /Invalid payload schema: it has to be a schema, not undefined/],
    ['null', null, /it has to be a schema, not null/],
    ['text', 'string', /it has to be a schema, not a string/],
    ['plain JSON schema', { type: 'string' }, /it is no schema of @sinclair\/typebox.*set the option validatorCompiler/],
    ['Type.Transform', Type.Transform(Type.String()).Decode(Number).Encode(String), /Type.Transform is not supported/],
    ['Type.Transform within', Type.Array(Type.Transform(Type.String()).Decode(Number).Encode(String)), /Type.Transform/],
    ['an unknown format', Type.String({ format: 'nope' }), /unknown format 'nope': known are .*FormatRegistry.Set/],
    ['an unknown format in a union', Type.Union([Type.Number(), Type.String({ format: 'nope' })]), /unknown format 'nope'/],
    ["an unknown format in a property called 'default'", Type.Object({ default: Type.String({ format: 'nope' }) }), /'nope'/],
    ['an unknown format in a record', Type.Record(Type.String(), Type.String({ format: 'nope' })), /'nope'/],
    ['a reference to nowhere', Type.Ref('nowhere'), /nowhere/]
  ] as const) {
    test(`refuses ${what}`, () => {
      assert.throws(() => compiler.compile(schema, 'payload'), { code: 'FST_MQTT_SCHEMA_INVALID', message: says })
    })
  }

  test('takes defaults, examples and constants for data, not for schemas', () => {
    const data = { type: 'string', format: 'nope' }
    const schema = Type.Object({ a: Type.Optional(Type.Any({ default: data, examples: [data] })) })
    assert.equal(compiler.compile(schema, 'params')({}), undefined)
  })

  test('checks recursive schemas', () => {
    const Tree = Type.Recursive((This) => Type.Object({ children: Type.Array(This) }))
    const check = compiler.compile(Tree, 'payload')
    assert.equal(check({ children: [{ children: [] }] }), undefined)
    assert.equal(check({ children: [{ children: 1 }] })?.instancePath, '/children/0/children')
  })
})

suite('SchemaCompiler with a validatorCompiler', () => {
  const schema = { any: 'schema' }
  const checkOf = (validate: (value: unknown) => unknown) =>
    new SchemaCompiler(() => validate).compile(schema, 'payload')

  test('gets the schema and where it stands', () => {
    const routes: unknown[] = []
    const compiler = new SchemaCompiler((route) => {
      routes.push(route)
      return () => true
    })
    compiler.compile({ a: 1 }, 'params')
    compiler.compile({ a: 2 }, 'payload')
    assert.deepEqual(routes, [{ schema: { a: 1 }, httpPart: 'params' }, { schema: { a: 2 }, httpPart: 'body' }])
  })

  const message = 'must be number'
  const failing = Object.assign(() => false, { errors: [{ instancePath: '/a', message, keyword: 'type' }] })
  class Result { error = new Error(message) }
  for (const [what, validate, issue] of [
    ['true', () => true, undefined],
    ['undefined', () => undefined, undefined],
    ['a value', () => ({ value: 1 }), undefined],
    ['an empty error', () => ({ error: null }), undefined],
    ["ajv's false", failing, { instancePath: '/a', message }],
    ['false alone', () => false, { instancePath: '', message: 'invalid' }],
    ['an Error', () => new Error(message), { instancePath: '', message }],
    ['an error', () => ({ error: new Error(message) }), { instancePath: '', message }],
    ['a list of errors', () => ({ error: [{ instancePath: '/a', message }, {}] }), { instancePath: '/a', message }],
    ['an error as text', () => ({ error: message }), { instancePath: '', message: 'invalid' }],
    ['an error of a class', () => new Result(), { instancePath: '', message }],
    ['a throw', () => { throw new Error(message) }, { instancePath: '', message }],
    ['a promise', () => Promise.resolve(true), {
      instancePath: '', message: 'the check answers with a promise, it has to answer at once'
    }]
  ] as const) {
    test(`understands ${what} of the check`, () => assert.deepEqual(checkOf(validate)('value'), issue))
  }

  test('refuses a compiler that throws or returns no function', () => {
    const cause = new Error('unknown keyword')
    assert.throws(() => new SchemaCompiler(() => { throw cause }).compile(schema, 'params'), {
      code: 'FST_MQTT_SCHEMA_INVALID', message: 'Invalid params schema: unknown keyword', cause
    })
    const wrong = (() => ({})) as unknown as ValidatorCompiler
    assert.throws(() => new SchemaCompiler(wrong).compile(schema, 'payload'), {
      code: 'FST_MQTT_SCHEMA_INVALID', message: /validatorCompiler has to return a function, not an object/
    })
  })
})

// Formats

test('registerFormats: keeps the formats that an application has registered itself', () => {
  const own = (text: string) => text === 'mine'
  FormatRegistry.Set('email', own)
  registerFormats()
  assert.equal(FormatRegistry.Get('email'), own)
  FormatRegistry.Delete('email')
  registerFormats()
  assert.notEqual(FormatRegistry.Get('email'), own)
})

for (const [format, valid, invalid] of [
  ['date-time', '2026-01-31T12:00:00Z', '2026-01-31'],
  ['date', '2024-02-29', '2023-02-29'],
  ['time', '12:00:00Z', '25:00:00Z'],
  ['email', 'a@example.org', 'a@'],
  ['uuid', '123e4567-e89b-12d3-a456-426614174000', '123'],
  ['ipv4', '127.0.0.1', '256.0.0.1'],
  ['ipv6', '::1', ':::'],
  ['uri', 'mqtt://h/x', 'no uri'],
  ['hostname', 'example.org', '-'],
  ['regex', 'a+', '('],
  ['byte', 'aGk=', 'a'],
  ['json-pointer', '/a/b', 'a'],
  ['duration', 'P1D', '1D']
] as const) {
  test(`registerFormats: a schema with the format ${format} means what it means to Fastify`, () => {
    registerFormats()
    const check = new SchemaCompiler(undefined).compile(Type.String({ format }), 'payload')
    assert.equal(check(valid), undefined)
    assert.ok(check(invalid))
  })
}
