//! The ways by which a group talks, and joining it over each of them.

use crate::error::{CliError, Result};
use mainstay::{
    channel::{
        ClusterId, NodeId, Secret,
        handshake::{Local, Purpose},
        limits::PURPOSE_LEN_MAX,
        net::{Settings, Wire},
    },
    sds::driver::{
        Events, Faults, Handle, Lossy, Multicast, MulticastOptions, Node, Transport,
        channels::{Channels, ChannelsOptions},
    },
};
use std::{fs, net::Ipv4Addr, path::PathBuf};

/// By which way a group talks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// UDP multicast: everybody who listens to the group's address, without any set-up
    Multicast,
    /// libp2p gossipsub: over any network, with the group as topic
    Gossipsub,
    /// A TCP channel between each two members, who prove that they know a secret
    Mesh,
}

impl Over {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Multicast => "multicast",
            Self::Gossipsub => "gossipsub",
            Self::Mesh => "mesh",
        }
    }
}

/// How to get to the others.
#[derive(clap::Args)]
pub(super) struct Way {
    /// By which way the group talks
    #[arg(long, value_enum, default_value = "multicast")]
    pub(super) over: Over,
    /// The group. Over multicast its address and port: 239.0.0.0 to 239.255.255.255 are free for
    /// everybody. Over gossipsub and mesh any name
    #[arg(long, default_value = "239.77.3.1:7731")]
    pub(super) group: String,
    /// Multicast: the address of the network interface; 127.0.0.1 stays on this host
    /// [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    interface: Option<Ipv4Addr>,
    /// Multicast: how many routers a message may pass [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=255))]
    hops: Option<u32>,
    /// Gossipsub, mesh: where to listen; it is told which port was chosen
    /// [default: /ip4/127.0.0.1/tcp/0 or 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Gossipsub, mesh: another member, as it tells where it listens; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    dial: Vec<String>,
    /// Mesh: the file with the secret that all members share, 16 to 1,024 bytes
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// A member that runs, and where others find it.
pub(super) struct Joined {
    pub(super) handle: Handle,
    pub(super) events: Events,
    pub(super) addresses: Vec<String>,
}

impl Way {
    /// Starts a node; `random` makes it differ from others.
    pub(super) async fn join(&self, own_id: &str, faults: Faults, random: u64) -> Result<Joined> {
        self.check()?;
        match self.over {
            Over::Multicast => start(own_id, self.multicast()?, faults, Vec::new()),
            Over::Gossipsub => self.gossipsub(own_id, faults).await,
            Over::Mesh => {
                let channels = self.mesh(random)?;
                let address = channels.address().map(|address| address.to_string());
                start(own_id, channels, faults, address.into_iter().collect())
            }
        }
    }

    /// Refuses what says nothing on the way that was chosen: whoever gave it means something.
    fn check(&self) -> Result<()> {
        use Over::{Gossipsub, Mesh, Multicast};
        let options: [(&'static str, bool, &[Over]); 5] = [
            ("--interface", self.interface.is_some(), &[Multicast]),
            ("--hops", self.hops.is_some(), &[Multicast]),
            ("--listen", self.listen.is_some(), &[Gossipsub, Mesh]),
            ("--dial", !self.dial.is_empty(), &[Gossipsub, Mesh]),
            ("--secret-file", self.secret_file.is_some(), &[Mesh]),
        ];
        for (option, is_given, ways) in options {
            if is_given && !ways.contains(&self.over) {
                let ways: Vec<&str> = ways.iter().map(|way| way.name()).collect();
                let (over, ways) = (self.over.name(), ways.join(" or "));
                return Err(CliError::NotOver { option, over, ways });
            }
        }
        Ok(())
    }

    fn multicast(&self) -> Result<Multicast> {
        let wrong = |_| CliError::NotAGroup { group: self.group.clone() };
        let group = self.group.parse().map_err(wrong)?;
        let interface = self.interface.unwrap_or(Ipv4Addr::LOCALHOST);
        let hops = self.hops.unwrap_or(1);
        Ok(Multicast::join(MulticastOptions { group, interface, hops })?)
    }

    #[cfg(feature = "gossipsub")]
    async fn gossipsub(&self, own_id: &str, faults: Faults) -> Result<Joined> {
        use mainstay::sds::driver::gossip::{Gossip, GossipOptions};
        let listen = self.listen.as_deref().unwrap_or("/ip4/127.0.0.1/tcp/0");
        let options = GossipOptions {
            topic: self.group.clone(),
            listen: vec![listen.to_owned()],
            dial: self.dial.clone(),
        };
        let gossip = Gossip::join(options).await?;
        let addresses = gossip.addresses().to_vec();
        start(own_id, gossip, faults, addresses)
    }

    #[cfg(not(feature = "gossipsub"))]
    async fn gossipsub(&self, _: &str, _: Faults) -> Result<Joined> {
        Err(CliError::WithoutGossipsub)
    }

    fn mesh(&self, random: u64) -> Result<Channels> {
        let Some(path) = &self.secret_file else {
            let missing = "--secret-file, as from `head -c 32 /dev/urandom > secret`";
            return Err(CliError::Missing { over: self.over.name().to_owned(), missing });
        };
        let hint = "make one with `head -c 32 /dev/urandom > FILE`, and copy it to every member";
        let secret = fs::read(path).map_err(CliError::file(path, "read", hint))?;
        // Members of different groups do not get to each other, whatever they dial.
        let local = Local::new(NodeId(random.max(1)), ClusterId::default(), purpose(&self.group)?)
            .with_secret(Secret::new(secret)?);
        let mut options = ChannelsOptions::new(Wire::Tcp, Settings::new(local));
        options.listen = Some(self.listen.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned()));
        options.dial.clone_from(&self.dial);
        Ok(Channels::join(options)?)
    }
}

fn start(
    own_id: &str,
    transport: impl Transport + 'static,
    faults: Faults,
    addresses: Vec<String>,
) -> Result<Joined> {
    let node = Node::new(own_id.as_bytes(), Lossy::new(transport, faults))?;
    let (handle, events) = node.tell_sent().spawn();
    Ok(Joined { handle, events, addresses })
}

/// What a channel of the group is for: its name, as far as such a text can have it.
fn purpose(group: &str) -> Result<Purpose> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/".contains(c);
    let text: String = group.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let text = format!("sds-chat/{text}");
    let end = text.len().min(PURPOSE_LEN_MAX);
    Ok(Purpose::new(&text[..end])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_group_makes_a_purpose() {
        assert_eq!(purpose("239.77.3.1:7731").unwrap().as_str(), "sds-chat/239.77.3.1_7731");
        assert_eq!(purpose("").unwrap().as_str(), "sds-chat/");
        assert_eq!(purpose("zwölf Leute").unwrap().as_str(), "sds-chat/zw_lf_Leute");
        assert_eq!(purpose(&"ö".repeat(200)).unwrap().as_str().len(), PURPOSE_LEN_MAX);
    }
}
