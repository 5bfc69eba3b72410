import type { Issue } from '../payload/schemas.ts'
import type { Params } from '../topic/params.ts'
import { Lane, type Group } from './group.ts'
import type { Incoming } from './message.ts'
import type { Route } from './pipeline.ts'

/** Takes the messages of a filter before everybody else. */
export interface Interceptor {
  readonly filter: string
  readonly receive: (incoming: Incoming) => void
}

/** What is to be done with the messages of a topic name. */
export interface Targets {
  readonly first: Match | undefined
  /** Undefined if there are none. */
  readonly interceptors: readonly Interceptor[] | undefined
}

/**
 * A topic that a topic name matches, with what its placeholders gave. It is also the lane of the messages
 * with that name, and, if it is its first match, all that is to be done with them: of thousands of topic
 * names nothing is in a cache of the processor when a message comes, and each further object is a wait.
 */
export class Match extends Lane implements Targets {
  readonly first: Match
  readonly route: Route
  /** The topic name without the prefix, if it has that. */
  readonly topic: string
  readonly params: Params
  readonly issue: Issue | undefined
  readonly group: Group
  /** Undefined unless the order of the topic is that of its topic names. */
  readonly lane: Lane | undefined
  /** Another one that the same topic name matches, registered later. */
  readonly next: Match | undefined
  interceptors: Targets['interceptors'] = undefined

  constructor (
    absoluteTopic: string,
    route: Route,
    topic: string,
    params: Params,
    issue: Issue | undefined,
    group: Group,
    next: Match | undefined
  ) {
    super(absoluteTopic, true)
    this.first = this
    this.route = route
    this.topic = topic
    this.params = params
    this.issue = issue
    this.group = group
    // One that had been forgotten may be in use.
    this.lane = group.order === 'topic' ? group.laneFor(absoluteTopic, this) : undefined
    this.next = next
  }
}
