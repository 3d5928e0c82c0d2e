// A peer that nobody here wrote: js-libp2p, which speaks with a node of Assize over TCP, Noise and
// yamux, and listens to its gossip. `../js.rs` runs it.
//
//     node peer.mjs /ip4/127.0.0.1/tcp/4720/p2p/12D3KooW…
//
// It says on stdout what it sees, a line of JSON each, in this order: `connected`; `identified`, with
// `agent` and `protocols`; `subscribed`, when both have the topic of feeds and know it of each other;
// `ping`; from then on each `gossip`, with `bytes` and `hex`. It says `disconnected` if the node goes
// away. It ends with 0 when its stdin does, and with 1 when anything goes wrong.

import { once } from 'node:events'

import { gossipsub, StrictNoSign } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { blake3 } from '@noble/hashes/blake3.js'
import { createLibp2p } from 'libp2p'

const FEED = '/assize/feed/1'

/** How long it runs at most, in milliseconds: less than its test waits for what it says. */
const LIFE = 55_000

// Node.js 20 lacks it, and js-libp2p wants nothing else that it lacks.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((...both) => ([resolve, reject] = both))
  return { promise, resolve, reject }
}

const say = (event, rest) => console.log(JSON.stringify({ event, ...rest }))

setTimeout(() => { throw new Error('nobody ended this in time') }, LIFE)
process.stdin.on('end', () => process.exit(0)).resume()

const peer = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    // Messages have no author, number or signature; their id comes from their bytes alone.
    gossip: gossipsub({
      globalSignaturePolicy: StrictNoSign,
      msgIdFn: ({ data }) => blake3(data).subarray(0, 20)
    })
  }
})
const { gossip } = peer.services

gossip.addEventListener('message', ({ detail: { data } }) => {
  say('gossip', { bytes: data.length, hex: Buffer.from(data).toString('hex') })
})
gossip.subscribe(FEED)
peer.addEventListener('peer:disconnect', () => say('disconnected'))

const identified = once(peer, 'peer:identify')
// Either side takes the other into its mesh after having told it what it is subscribed to.
const grafted = once(gossip, 'gossipsub:graft')

const address = multiaddr(process.argv[2])
const { remotePeer } = await peer.dial(address)
say('connected')

const [{ detail: { agentVersion, protocols } }] = await identified
say('identified', { agent: agentVersion, protocols })

await grafted
if (!gossip.getSubscribers(FEED).some(id => id.equals(remotePeer))) throw new Error('not subscribed')
say('subscribed')

await peer.services.ping.ping(address)
say('ping', { ok: true })
