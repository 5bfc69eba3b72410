/**
 * How the processes of one application use a broker: each with a connection of its own, or one connection for
 * all processes and threads of a group on one machine.
 */
export type ProcessesOptions = 'each' | SingleProcesses

/** One connection for a group: an elected owner holds it, the others publish by the owner. */
export interface SingleProcesses {
  mode: 'single'
  /**
   * The name of the group: 1 to 64 letters, digits, `_`, `.` and `-`. Processes with the same group, broker,
   * user and prefix share one connection, so no other application may have it.
   */
  group: string
  /** Who handles messages: the owner. */
  handle?: 'owner' | undefined
  /**
   * The directory in which the group makes its private one; the same in all its processes, on a local file
   * system. Default: `XDG_RUNTIME_DIR`, else the directory for temporary files.
   */
  dir?: string | undefined
  /** Milliseconds between signs of life. Default 500. */
  heartbeat?: number | undefined
  /**
   * Milliseconds without a sign of life after which another process takes over from the owner: longer than
   * handlers block the event loop, and at least three heartbeats. Default 5000.
   */
  ownerTimeout?: number | undefined
}
