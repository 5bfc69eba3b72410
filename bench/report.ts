/** A Markdown table; every column but the first is right-aligned. */
export function table (head: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = head.map((_, index) => index === 0 ? '---' : '---:')
  return [head, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

export function median (values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const upper = sorted[sorted.length >> 1] ?? NaN
  const lower = sorted[(sorted.length - 1) >> 1] ?? NaN
  return (lower + upper) / 2
}

/** The least and the greatest: how far the numbers can be trusted. */
export function range (values: readonly number[]): string {
  return `${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)}`
}

/** `100,000` on every machine, whatever its locale. */
export function grouped (value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

/** Numbers below `limit` in an order without a pattern, the same one in every run. */
export function scattered (limit: number): () => number {
  let state = 1
  return () => {
    // Knuth's MMIX generator is 64-bit; this is the 32-bit one of Numerical Recipes.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * limit)
  }
}
