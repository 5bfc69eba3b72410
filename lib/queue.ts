/** Where something stands in a queue. */
export class Place<T> {
  readonly value: T
  /** Undefined while it is in none. */
  queue: Queue<T> | undefined = undefined
  next: Place<T> | undefined = undefined
  previous: Place<T> | undefined = undefined

  constructor (value: T) {
    this.value = value
  }

  leave (): void {
    this.queue?.remove(this)
  }
}

/** First in, first out; but any can leave, at the same cost: an array would keep what has left, or move. */
export class Queue<T> {
  #first: Place<T> | undefined
  #last: Place<T> | undefined
  #size = 0

  get size (): number {
    return this.#size
  }

  get first (): Place<T> | undefined {
    return this.#first
  }

  get last (): Place<T> | undefined {
    return this.#last
  }

  push (value: T): Place<T> {
    const place = new Place(value)
    this.append(place)
    return place
  }

  /** One that is in no queue. */
  append (place: Place<T>): void {
    place.queue = this
    place.previous = this.#last
    if (this.#last === undefined) this.#first = place
    else this.#last.next = place
    this.#last = place
    this.#size++
  }

  shift (): T | undefined {
    const place = this.#first
    if (place !== undefined) this.remove(place)
    return place?.value
  }

  remove (place: Place<T>): void {
    if (place.queue !== this) return
    if (place.previous === undefined) this.#first = place.next
    else place.previous.next = place.next
    if (place.next === undefined) this.#last = place.previous
    else place.next.previous = place.previous
    place.queue = place.next = place.previous = undefined
    this.#size--
  }
}
