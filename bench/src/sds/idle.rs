//! What 100,000 channels cost that nothing happens in.

use std::hint::black_box;
use std::path::Path;

use mainstay_sds::{Config, Now, Participant};

use super::world::{CONTENT, NOW};
use crate::Outcome;
use crate::machine::Usage;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Aim, Report, Unit};

const IDLE: &str = "sds.idle_channels";
const WAKE_UPS: &str = "sds.idle_channels_wake_ups";
const BYTES: &str = "sds.idle_channel_bytes";
const ASLEEP: &str = "sds.sleeping_channel_bytes";

pub(super) const GROUP: Group = Group { figures: &[IDLE, WAKE_UPS, BYTES, ASLEEP], measure };

const CHANNELS: u32 = 100_000;
const TALKED: u32 = 1000;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let before = Usage::now()?;
    let mut me = Participant::new(b"me")?;
    for number in 0..CHANNELS {
        me.join(&format!("channel {number}"), Config::lip())?;
    }
    // In some there was something to say once; it is acknowledged or given up by now.
    for number in 0..TALKED {
        let name = format!("channel {number}");
        me.channel(NOW, &name)?.send(NOW, b"m1", &CONTENT)?;
        me.touched(&name);
    }
    let mut now = NOW;
    let mut wakes = 0;
    while let Some(at) = me.poll_timeout() {
        now = now.after(at.saturating_sub(now.mono_ms));
        me.handle_timeout(now);
        while me.poll_output().is_some() {}
        wakes += 1;
    }
    if wakes == 0 {
        return Err("channels with something to say were never woken".into());
    }
    let after = Usage::now()?;
    let each = |bytes: u64| bytes as f64 / f64::from(CHANNELS);
    let awake = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);

    let (mut second, mut wake_ups) = (0, 0_u32);
    let timings = interleave(
        plan,
        vec![Side::new("mainstay", |n| {
            for _ in 0..n {
                second += 1;
                let now = Now { mono_ms: now.mono_ms + 1000 * second, ..now };
                // What a driver does when a second has gone by: nothing is due, nothing is said.
                wake_ups += u32::from(black_box(me.poll_timeout()).is_some());
                me.handle_timeout(now);
                if black_box(me.poll_output()).is_some() {
                    return Err("an idle channel has something to say".into());
                }
            }
            Ok(())
        })],
    )?;
    let note = format!("a second, all {CHANNELS} channels together");
    report.aims.push(Aim::of_ns(IDLE, &timings[0].cpu, 1000.0, Unit::NsCpu).with_note(note));
    let note = format!("in {second} seconds of all {CHANNELS} channels");
    report.aims.push(Aim::new(WAKE_UPS, wake_ups.into(), 0.0, Unit::Count).with_note(note));
    report.aims.push(Aim::new(BYTES, each(awake), 4096.0, Unit::Bytes).with_note("resident"));

    let asleep = me.hibernate(Now { mono_ms: u64::MAX / 2, ..now }, 0);
    if asleep != CHANNELS as usize {
        return Err(format!("{asleep} of {CHANNELS} channels sleep").into());
    }
    let note = "counted, not resident";
    let bytes = me.memory_bytes() as f64 / f64::from(CHANNELS);
    report.aims.push(Aim::new(ASLEEP, bytes, 1024.0, Unit::Bytes).with_note(note));
    Ok(())
}
