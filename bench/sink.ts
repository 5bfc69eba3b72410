import { createServer, type AddressInfo } from 'node:net'
import { parser } from 'mqtt-packet'
import { encodeAck, maxAckBytes, packetType, Splitter } from '../lib/wire/frames.ts'

// A program of its own: a broker that knows just enough to be published to. It acknowledges at once what it
// reads, with one write, and tells how many messages came when a client has gone. It ends with the process
// that started it.

const server = createServer({ noDelay: true }, (socket) => {
  let received = 0
  const packets = parser()
  packets.on('packet', ({ cmd, ...packet }) => {
    if (cmd !== 'connect') return
    const version = 'protocolVersion' in packet && packet.protocolVersion === 5 ? 5 : 4
    socket.write(version === 5 ? Buffer.of(0x20, 3, 0, 0, 0) : Buffer.of(0x20, 2, 0, 0))
    takeMessages(version)
  })
  socket.once('data', (bytes: Buffer) => packets.parse(bytes))
  socket.on('error', () => {})
  socket.once('close', () => process.send?.({ received }))

  function takeMessages (version: 4 | 5): void {
    let acks: number[] = []
    const splitter = new Splitter({
      onPublish ({ qos, messageId }) {
        received++
        if (qos > 0) acks.push(messageId)
      },
      onAck () {},
      onControl () {}
    }, { version, maxBytes: 1_000_000 })
    socket.on('data', (bytes: Buffer) => {
      try {
        splitter.push(bytes)
      } catch {
        // DISCONNECT, which a splitter for clients does not know; whether all has come is judged by the
        // count.
        return
      }
      const target = Buffer.allocUnsafe(acks.length * maxAckBytes)
      let end = 0
      for (const id of acks) end = encodeAck(target, end, packetType.puback, id, 0, version)
      if (end > 0) socket.write(target.subarray(0, end))
      acks = []
    })
  }
})

process.on('disconnect', () => process.exit())
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))
