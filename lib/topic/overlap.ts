/**
 * Whether some topic name matches both topic filters, by the rules of MQTT [MQTT 5 §4.7]: then a broker may
 * send a message once for each of them. Without `$share/<group>`.
 */
export function overlap (one: string, other: string): boolean {
  const [a, b] = [one.split('/'), other.split('/')]
  // No wildcard at the front matches the topics that begin with $.
  if (isWildcard(a[0]) && b[0]?.startsWith('$') === true) return false
  if (isWildcard(b[0]) && a[0]?.startsWith('$') === true) return false
  return levelsOverlap(a, b, 0)
}

function levelsOverlap (a: readonly string[], b: readonly string[], index: number): boolean {
  const [x, y] = [a[index], b[index]]
  // The parent of '/#' would be the empty name, which is no topic name.
  const isParent = (x === '#' && y === undefined) || (y === '#' && x === undefined)
  if (isParent && index === 1 && (a[0] === '' || b[0] === '')) return false
  // '#' matches whatever is left, also nothing: the parent.
  if (x === '#' || y === '#') return true
  if (x === undefined || y === undefined) return x === y
  return (x === y || x === '+' || y === '+') && levelsOverlap(a, b, index + 1)
}

function isWildcard (level: string | undefined): boolean {
  return level === '+' || level === '#'
}

/**
 * Whether all topic names that match the narrow filter match the wide one as well, by the same rules. Without
 * `$share/<group>`.
 */
export function covers (wide: string, narrow: string): boolean {
  const [a, b] = [wide.split('/'), narrow.split('/')]
  if (isWildcard(a[0]) && b[0]?.startsWith('$') === true) return false
  return levelsCover(a, b, 0)
}

function levelsCover (wide: readonly string[], narrow: readonly string[], index: number): boolean {
  const [x, y] = [wide[index], narrow[index]]
  if (x === '#') return true
  if (x === undefined || y === undefined) return x === y
  return (x === y || (x === '+' && y !== '#')) && levelsCover(wide, narrow, index + 1)
}
