/** Waits for a promise, but not longer than the time. */
export async function within (promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<void>((resolve) => { timer = setTimeout(resolve, timeoutMs) })
  await Promise.race([promise, deadline])
  clearTimeout(timer)
}
