//! Waking a sleeper in another process, there and back.
//!
//! Where the scheduler puts the two processes makes more of a difference than how they wake each
//! other: on one processor a wake-up is a switch of contexts, on two it is an interrupt to a
//! processor that sleeps, which on a virtual machine costs ten times as much; and the kernel may
//! choose one for one pair and the other for the next. So both are measured, each with all
//! processes tied down.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use mainstay_state::{State, Watch};
use rustix::event::{EventfdFlags, eventfd};

use super::ours;
use super::value::SIZES;
use crate::Outcome;
use crate::child::{self, Child};
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::processors::{Tied, tie_to};
use crate::report::{Ratio, Report, Unit};
use crate::role::Role;

pub(super) const GROUP: Group = Group { figures: &["state.wake", "state.wake_across"], measure };

/// Answers every wake-up with another.
pub(super) const ECHO: Role = Role { name: "state:echo", run: echo };

/// Longer than any wake-up takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let tied = Tied::new()?;
    between(plan, scratch, report, "state.wake", tied.here)?;
    if let Some(there) = tied.there {
        between(plan, scratch, report, "state.wake_across", there)?;
    }
    Ok(())
}

/// Measures with the answering processes on this processor.
fn between(
    plan: &Plan,
    scratch: &Path,
    report: &mut Report,
    figure: &str,
    processor: usize,
) -> Outcome<()> {
    let folder = scratch.join(figure);
    std::fs::create_dir(&folder)?;
    let size = SIZES[0];
    let (ping, pong) = (ours::writer(&folder, "ping", size)?, ours::writer(&folder, "pong", size)?);
    let mut answers = pong.watch()?;
    let path = folder.to_str().ok_or("the folder of the run is not UTF-8")?;
    let processor = processor.to_string();
    let mut by_states = Child::start(&ECHO, &[&processor, path])?;
    by_states.wait_ready()?;

    let events = [eventfd(0, EventfdFlags::empty())?, eventfd(0, EventfdFlags::empty())?];
    let numbers = events.each_ref().map(|event| event.as_raw_fd().to_string());
    let mut by_events = Child::start(&ECHO, &[&processor, &numbers[0], &numbers[1]])?;
    by_events.wait_ready()?;

    let mut number = 0_u64;
    let sides = vec![
        Side::new("mainstay", |count| {
            for _ in 0..count {
                number += 1;
                ping.replace(&number.to_le_bytes())?;
                answers.wait(PATIENCE)?.ok_or("an answer did not wake its waiter")?;
            }
            Ok(())
        }),
        Side::new("eventfd", |count| {
            for _ in 0..count {
                signal(events[0].as_fd())?;
                wait(events[1].as_fd())?;
            }
            Ok(())
        }),
    ];
    let timings = interleave(plan, sides)?;
    if let [ours, peer] = &timings[..] {
        report.ratios.push(Ratio::of_wall(figure, Unit::Us, ours, peer));
    }
    Ok(())
}

fn signal(event: BorrowedFd<'_>) -> Outcome<()> {
    rustix::io::write(event, &1_u64.to_le_bytes())?;
    Ok(())
}

fn wait(event: BorrowedFd<'_>) -> Outcome<()> {
    rustix::io::read(event, &mut [0; 8])?;
    Ok(())
}

fn echo(arguments: &[String]) -> Outcome<()> {
    let [processor, arguments @ ..] = arguments else { return Err("an echo has a place".into()) };
    tie_to(processor.parse()?)?;
    match arguments {
        [folder] => {
            let domain = ours::domain(Path::new(folder))?;
            let pong: State<[u8]> = domain.writer("pong")?;
            let mut questions: Watch<[u8]> = domain.reader::<[u8]>("ping")?.watch()?;
            child::say_ready()?;
            loop {
                if questions.wait(PATIENCE)?.is_some() {
                    pong.replace(&questions.read()?[..8])?;
                }
            }
        }
        [question, answer] => {
            let [question, answer] = [question, answer].map(|number| inherited(number));
            let (question, answer) = (question?, answer?);
            child::say_ready()?;
            loop {
                wait(question.as_fd())?;
                signal(answer.as_fd())?;
            }
        }
        _ => Err("an echo takes a processor, then a folder or two descriptors".into()),
    }
}

fn inherited(number: &str) -> Outcome<OwnedFd> {
    let number = number.parse()?;
    // SAFETY: the parent leaves this descriptor open for us and names it once; nobody else in
    // this process uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
