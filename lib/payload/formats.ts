import { FormatRegistry } from '@sinclair/typebox'
import formatsModule from 'ajv-formats'

// The formats that Fastify's own validation knows, so that a schema means the same on both sides. TypeBox
// knows none by itself, and refuses every string of a format that it does not know.
const names = [
  'date', 'time', 'date-time', 'iso-time', 'iso-date-time', 'duration', 'uri', 'uri-reference', 'uri-template', 'url',
  'email', 'hostname', 'ipv4', 'ipv6', 'regex', 'uuid', 'json-pointer', 'relative-json-pointer', 'byte'
] as const

// A CommonJS module that sets its own `default`.
const formats = formatsModule.default

/** Registers the usual string formats with TypeBox where an application has not registered its own. */
export function registerFormats (): void {
  for (const name of names) {
    if (!FormatRegistry.Has(name)) FormatRegistry.Set(name, checkOf(formats.get(name)))
  }
}

type Format = ReturnType<typeof formats.get>

function checkOf (format: Format): (text: string) => boolean {
  const validate = typeof format === 'object' && 'validate' in format ? format.validate : format
  return validate instanceof RegExp
    ? (text) => validate.test(text)
    : (text) => typeof validate === 'function' && Boolean(validate(text as never))
}
