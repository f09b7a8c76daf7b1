//! libp2p gossipsub: a broadcast over any network, among nodes that know some of the others.
