//! Making a full mesh of 256 nodes and using it for the first time: each node sends one message to
//! the next and receives one.

use std::path::Path;

use mainstay_channel::{Channel, memory};
use noxu_rep::net::InMemoryTransport;

use super::{PATIENCE, message, next, rounds_of};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const MESH: &str = "channel.mesh_256";
const NODES: usize = 256;
const ASKED: f64 = 20.0;

pub(super) const GROUP: Group = Group { figures: &[MESH], measure };

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let mut sides = vec![Round::new("mainstay", ours), Round::new("noxu-rep", theirs)];
    let timings = rounds(rounds_of(plan), &mut sides)?;
    report.ask(Ratio::of_wall(MESH, Unit::Us, &timings[0], &timings[1]), ASKED);
    Ok(())
}

fn ours() -> Outcome<Span> {
    let (span, mesh) = Span::of(|| -> Outcome<_> {
        let mesh = memory::group(NODES);
        for node in 0..NODES {
            mesh.channel(node, (node + 1) % NODES).send(message(64))?;
        }
        for node in 0..NODES {
            next(&mesh.channel((node + 1) % NODES, node))?;
        }
        Ok(mesh)
    });
    // Taking it down is not part of the figure.
    mesh.map(|_| span)
}

fn theirs() -> Outcome<Span> {
    let (span, mesh) = Span::of(|| -> Outcome<_> {
        let mesh = InMemoryTransport::new_group(NODES);
        for node in 0..NODES {
            mesh.channel(node, (node + 1) % NODES).send(&message(64))?;
        }
        for node in 0..NODES {
            let received = mesh.channel((node + 1) % NODES, node).receive(PATIENCE)?;
            received.ok_or("no message came in time")?;
        }
        Ok(mesh)
    });
    mesh.map(|_| span)
}
