//! There and back between two processes: through shared memory, and through a unix socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use mainstay_channel::{Bounds, Channel, NodeId, shm};

use super::{PATIENCE, message, next, rounds_of};
use crate::Outcome;
use crate::child::{Child, say_ready};
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};
use crate::role::Role;

const RTT: &str = "channel.shm_rtt";
const LEN: usize = 64;
const ASKED: f64 = 5.0;
const ROUND_TRIPS: u64 = 1_000;

pub(super) const GROUP: Group = Group { figures: &[RTT], measure };
/// Sends back whatever it gets, both ways at once.
pub(super) const ECHO: Role = Role { name: "channel:echo", run: echo };

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let (memory, socket) = (scratch.join("echo.channel"), scratch.join("echo.socket"));
    let mut offer = shm::create(&memory, NodeId(1), Bounds::default())?;
    let listener = UnixListener::bind(&socket)?;
    let paths = [&memory, &socket].map(|path| path.to_string_lossy().into_owned());
    let mut child = Child::start(&ECHO, &[&paths[0], &paths[1]])?;
    let (mut stream, _) = listener.accept()?;
    let channel = offer.accept(PATIENCE)?.ok_or("the child did not join")?;
    child.wait_ready()?;

    let mut sides = vec![
        Round::new("mainstay", || {
            let (span, done) = Span::of(|| -> Outcome<()> {
                for _ in 0..ROUND_TRIPS {
                    channel.send(message(LEN))?;
                    next(&channel)?;
                }
                Ok(())
            });
            done?;
            Ok(span.per(ROUND_TRIPS))
        }),
        Round::new("unix-socket", || {
            let mut bytes = [0; LEN];
            let (span, done) = Span::of(|| -> Outcome<()> {
                for _ in 0..ROUND_TRIPS {
                    stream.write_all(&message(LEN))?;
                    stream.read_exact(&mut bytes)?;
                }
                Ok(())
            });
            done?;
            Ok(span.per(ROUND_TRIPS))
        }),
    ];
    let timings = rounds(rounds_of(plan), &mut sides)?;
    report.ask(Ratio::of_wall(RTT, Unit::Ns, &timings[0], &timings[1]), ASKED);
    Ok(())
}

fn echo(paths: &[String]) -> Outcome<()> {
    let [memory, socket] = paths else { return Err("two paths, please".into()) };
    let channel = shm::join(Path::new(memory), NodeId(2))?;
    let mut stream = UnixStream::connect(socket)?;
    say_ready()?;
    thread::spawn(move || {
        let mut bytes = [0; LEN];
        while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
    });
    while let Ok(Some(message)) = channel.receive(PATIENCE) {
        channel.send(message)?;
    }
    Ok(())
}
