import { overlap } from './overlap.ts'

/**
 * Topic filters that can be asked which of them overlap another. A trie of their levels, in which wildcards
 * are levels like others, finds the few that may: each with each takes half a minute at 10,000.
 */
export class OverlapIndex {
  readonly #root = new Node()

  /** The filter may be a shared one: `$share/<group>/<filter>` overlaps what `<filter>` overlaps. */
  add (filter: string): void {
    let node = this.#root
    for (const level of levelsOf(filter)) node = node.enter(level)
    node.filters ??= new Set()
    node.filters.add(filter)
  }

  delete (filter: string): void {
    remove(this.#root, levelsOf(filter), 0, filter)
  }

  /** The other filters that overlap this one, in no particular order. */
  overlapping (filter: string): string[] {
    const found: string[] = []
    collect(this.#root, levelsOf(filter), 0, found)
    const plain = withoutShare(filter)
    return found.filter((other) => other !== filter && overlap(withoutShare(other), plain))
  }
}

/** What a filter matches topic names with: without `$share/<group>/` [MQTT 5 §4.8.2]. */
export function withoutShare (filter: string): string {
  if (!filter.startsWith('$share/')) return filter
  return filter.slice(filter.indexOf('/', '$share/'.length) + 1)
}

/** Most nodes are leaves, hence nothing is made before it is needed. */
class Node {
  filters: Set<string> | undefined
  next: Map<string, Node> | undefined

  enter (level: string): Node {
    this.next ??= new Map()
    let next = this.next.get(level)
    if (next === undefined) this.next.set(level, next = new Node())
    return next
  }

  get isEmpty (): boolean {
    return (this.filters?.size ?? 0) === 0 && (this.next?.size ?? 0) === 0
  }
}

function levelsOf (filter: string): string[] {
  return withoutShare(filter).split('/')
}

// May find a few too many: `overlap` alone knows the rules for $ and for parents.
function collect (node: Node, levels: readonly string[], index: number, found: string[]): void {
  const level = levels[index]
  if (level === '#') {
    collectAll(node, found)
    return
  }
  take(node.next?.get('#'), found)
  if (level === undefined) {
    take(node, found)
  } else if (level === '+') {
    for (const [key, next] of node.next ?? []) if (key !== '#') collect(next, levels, index + 1, found)
  } else {
    for (const key of [level, '+']) {
      const next = node.next?.get(key)
      if (next !== undefined) collect(next, levels, index + 1, found)
    }
  }
}

function collectAll (node: Node, found: string[]): void {
  take(node, found)
  for (const next of node.next?.values() ?? []) collectAll(next, found)
}

function take (node: Node | undefined, found: string[]): void {
  for (const filter of node?.filters ?? []) found.push(filter)
}

function remove (node: Node, levels: readonly string[], index: number, filter: string): void {
  const level = levels[index]
  if (level === undefined) {
    node.filters?.delete(filter)
    return
  }
  const next = node.next?.get(level)
  if (next === undefined) return
  remove(next, levels, index + 1, filter)
  if (next.isEmpty) node.next?.delete(level)
}
