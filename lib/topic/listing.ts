import type { ListedTopic } from '../../types/listing.ts'
import { isRecord } from '../values.ts'

/** The table of `printTopics()`: a line for each topic. */
export function printTopics (topics: readonly ListedTopic[]): string {
  if (topics.length === 0) return 'no topics\n'
  const rows = [
    ['filter', 'qos', 'pattern', 'scope', 'name', 'payload', ''],
    ...topics.map((topic) => [
      topic.filter,
      String(topic.qos),
      topic.pattern,
      topic.topicPrefix === '' ? '-' : topic.topicPrefix,
      topic.name ?? '-',
      topic.schemas.payload === undefined ? '-' : schemaText(topic.schemas.payload),
      remarks(topic)
    ])
  ]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd() + '\n')
    .join('')
}

function remarks ({ handlers, overlaps }: ListedTopic): string {
  return [
    ...handlers === 0 ? ['not subscribed'] : handlers === 1 ? [] : [`${handlers} handlers`],
    ...overlaps.length === 0 ? [] : [`overlaps ${overlaps.join(', ')}`]
  ].join('; ')
}

/** A schema in short: its title, or what it is made of, three levels deep. */
function schemaText (schema: unknown, depth = 0): string {
  if (!isRecord(schema)) return 'schema'
  const { title, $id, type, const: literal, anyOf, items, properties, required } = schema
  if (typeof title === 'string') return title
  if (typeof $id === 'string') return $id
  if (literal !== undefined) return JSON.stringify(literal)
  if (Array.isArray(anyOf)) return anyOf.map((one) => schemaText(one, depth)).join(' | ')
  if (type === 'array') return `${schemaText(items, depth)}[]`
  if (!isRecord(properties)) return typeof type === 'string' ? type : 'schema'
  if (depth === 2) return '{…}'
  const isRequired = (key: string) => Array.isArray(required) && required.includes(key)
  const parts = Object.entries(properties)
    .map(([key, value]) => `${key}${isRequired(key) ? '' : '?'}: ${schemaText(value, depth + 1)}`)
  return parts.length === 0 ? '{}' : `{ ${parts.join(', ')} }`
}
