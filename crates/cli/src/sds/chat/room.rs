//! The conversation so far, and how it is shown.

use super::{
    told::{Row, Told, Traffic},
    way::{Over, Way},
};
use crate::{
    error::{CliError, Result},
    output::{Output, escape},
    size::{grouped, human},
};
use mainstay::sds::{
    Counts, Reason,
    driver::{Delivered, Event, Statistics},
    shown,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Write,
    time::{Duration, Instant},
};

/// A participant's id: its name, and something that tells it from others of that name.
pub(super) fn name_with_tag(name: &str, tag: u64) -> String {
    format!("{name}#{:08x}", tag as u32)
}

/// The name in such an id.
fn name_of(id: &str) -> &str {
    id.rsplit_once('#').map_or(id, |(name, _)| name)
}

/// Everything that was said, in the order that all share, and the output it goes to.
pub(super) struct Room<'a> {
    out: &'a mut Output,
    own_id: String,
    log: BTreeMap<(u64, Vec<u8>), Line>,
    /// By id: the number that a message has here, and its text.
    numbers: HashMap<Vec<u8>, usize>,
    failed: usize,
    /// The ids of the others that were heard.
    others: HashSet<Vec<u8>>,
    needed: u64,
    last_news: Instant,
}

struct Line {
    number: usize,
    row: Row,
}

/// How something is shown on a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    /// What the protocol does.
    Faint,
}

impl<'a> Room<'a> {
    pub(super) fn new(out: &'a mut Output, own_id: String) -> Self {
        Self {
            out,
            own_id,
            log: BTreeMap::new(),
            numbers: HashMap::new(),
            failed: 0,
            others: HashSet::new(),
            needed: 0,
            last_news: Instant::now(),
        }
    }

    /// How often others have shown that they wait for something: if they do so still, it is news.
    pub(super) fn needed(&mut self, needed: u64) {
        if std::mem::replace(&mut self.needed, needed) != needed {
            self.last_news = Instant::now();
        }
    }

    /// How many are here, as far as they have said something.
    pub(super) fn members(&self) -> u32 {
        // One is not alone in a conversation.
        u32::try_from(self.others.len().max(1)).map_or(u32::MAX, |others| others.saturating_add(1))
    }

    /// How long nothing was said, acknowledged or repaired.
    pub(super) fn quiet_for(&self) -> Duration {
        self.last_news.elapsed()
    }

    /// How many own messages nobody acknowledged.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    pub(super) fn opened(
        &mut self,
        way: &Way,
        channel: &str,
        loss: u8,
        addresses: &[String],
    ) -> Result<()> {
        let (id, group, over) = (self.own_id.clone(), &way.group, way.over.name());
        let by = if way.over == Over::Multicast { String::new() } else { format!(" over {over}") };
        let text = format!(
            "{} in channel {channel} of group {group}{by}, losing {loss} of 100 messages; end with \
             Ctrl-D",
            name_of(&id)
        );
        let opened = Told::Opened { id: &id, over, group, channel, loss_percent: loss, addresses };
        self.tell(&opened, Look::Faint, &text)?;
        if !self.out.json {
            for address in addresses {
                self.out.line(&format!("-- others get here with --dial {address}"))?;
            }
        }
        self.out.flush()
    }

    /// A message of one's own.
    pub(super) fn said(&mut self, id: &[u8], lamport: u64, text: &str) -> Result<()> {
        self.last_news = Instant::now();
        let row = Row {
            id: shown(id),
            name: name_of(&self.own_id).to_owned(),
            lamport,
            content: text.to_owned(),
        };
        let number = self.insert(id, row.clone());
        let line = format!("{}{}", mark(&format!("#{number}")), said_by(&row));
        self.tell(&Told::Said(&row), Look::Plain, &line)
    }

    fn insert(&mut self, id: &[u8], row: Row) -> usize {
        let number = self.numbers.len() + 1;
        self.numbers.insert(id.to_vec(), number);
        self.log.insert((row.lamport, id.to_vec()), Line { number, row });
        number
    }

    /// Whether somebody was heard for the first time.
    pub(super) fn happened(&mut self, event: Event) -> Result<bool> {
        let known = self.others.len();
        self.tell_event(event)?;
        Ok(self.others.len() > known)
    }

    fn tell_event(&mut self, event: Event) -> Result<()> {
        if !matches!(event, Event::Sent { reason: Reason::Sync, .. } | Event::Refused { .. }) {
            self.last_news = Instant::now();
        }
        match event {
            Event::Delivered(delivered) => self.delivered(&delivered),
            Event::Acknowledged { id, .. } => {
                let text = format!("{}{} acknowledged", mark("ok"), self.called(&id));
                self.tell(&Told::Acknowledged { id: &shown(&id) }, Look::Faint, &text)
            }
            Event::PossiblyAcknowledged { id, .. } => {
                let text = format!("{}{} probably arrived", mark("??"), self.called(&id));
                self.tell(&Told::Possibly { id: &shown(&id) }, Look::Faint, &text)
            }
            Event::Failed { id, .. } => {
                self.failed += 1;
                let called = self.called(&id);
                let text = format!("{}{called} was never acknowledged", mark("!!"));
                self.tell(&Told::Failed { id: &shown(&id) }, Look::Plain, &text)
            }
            Event::Missing(lacking) => {
                let sender = shown(&lacking.sender);
                let whose = if sender.is_empty() { "somebody" } else { name_of(&sender) };
                let done = if lacking.before_joining {
                    "is from before you came"
                } else {
                    "is missing, and asked for"
                };
                let text = format!("{}a message of {whose} {done}", mark(".."));
                let told = Told::Missing { id: &shown(&lacking.id), sender: &sender };
                self.tell(&told, Look::Faint, &text)
            }
            Event::Lost { id, .. } => {
                let text = format!("{}a message is lost for good", mark("!!"));
                self.tell(&Told::Lost { id: &shown(&id) }, Look::Plain, &text)
            }
            Event::Evicted { id, .. } => {
                let text = format!("{}too many messages wait; one was dropped", mark("!!"));
                self.tell(&Told::Evicted { id: &shown(&id) }, Look::Plain, &text)
            }
            Event::Sent { id, reason, len, .. } => self.sent(&id, reason, len),
            Event::NotSent { error, .. } => self.trouble(&error.to_string()),
            Event::Deaf { error } => self.trouble(&error.to_string()),
            Event::Refused { error } => self.trouble(&error.to_string()),
            // There is no store node here, and nothing is kept.
            _ => Ok(()),
        }
    }

    fn delivered(&mut self, delivered: &Delivered) -> Result<()> {
        if !self.others.contains(&delivered.sender) {
            self.others.insert(delivered.sender.clone());
        }
        let sender = shown(&delivered.sender);
        let content = String::from_utf8_lossy(&delivered.content).into_owned();
        let lamport = delivered.lamport.unwrap_or_default();
        let row =
            Row { id: shown(&delivered.id), name: name_of(&sender).to_owned(), lamport, content };
        let number = self.insert(&delivered.id, row.clone());
        let key = (lamport, delivered.id.clone());
        let mut after = self
            .log
            .range((std::ops::Bound::Excluded(key), std::ops::Bound::<(u64, Vec<u8>)>::Unbounded));
        let place = after.next().map(|(_, next)| next.number);
        let later = place.map_or(0, |_| 1 + after.count());
        let line = match place {
            None => format!("{}{}", mark(&format!("#{number}")), said_by(&row)),
            Some(next) => {
                let mark = mark(&format!("#{number}"));
                format!("{mark}{}  ^ before #{next}", said_by(&row))
            }
        };
        let number = delivered.number;
        let told = Told::Delivered { row: &row, sender: &sender, number, later };
        self.tell(&told, Look::Plain, &line)
    }

    fn sent(&mut self, id: &[u8], reason: Reason, bytes: usize) -> Result<()> {
        let name = shown(id);
        match reason {
            Reason::Resend => {
                let text = format!("{}{} is sent again", mark(".."), self.called(id));
                self.tell(&Told::Resent { id: &name, bytes }, Look::Faint, &text)
            }
            Reason::Repair => {
                let called = self.called(id);
                let text = format!("{}{called} is sent again for somebody who asked", mark(".."));
                self.tell(&Told::Repaired { id: &name, bytes }, Look::Faint, &text)
            }
            // Too many for people; programs may count them.
            Reason::Sync if self.out.json => self.tell(&Told::Synced { bytes }, Look::Faint, ""),
            _ => Ok(()),
        }
    }

    fn trouble(&mut self, what: &str) -> Result<()> {
        let text = format!("{}{what}", mark("!!"));
        self.tell(&Told::Trouble { what: what.to_owned() }, Look::Plain, &text)
    }

    /// A message by the number it has here.
    fn called(&self, id: &[u8]) -> String {
        match self.numbers.get(id) {
            Some(number) => format!("#{number}"),
            None => format!("message {}", shown(id)),
        }
    }

    /// All messages in the order that all share.
    pub(super) fn log(&mut self) -> Result<()> {
        if self.out.json {
            let messages = self.log.values().map(|line| &line.row).collect();
            let told = Told::Log { messages };
            self.out.json_line(&told)?;
        } else {
            self.out
                .line(&format!("-- {} messages, in this order for everybody:", self.log.len()))?;
            for line in self.log.values() {
                self.out.line(&format!("{}: {}", line.row.name, line.row.content))?;
            }
            self.out.line("--")?;
        }
        self.out.flush()
    }

    pub(super) fn counts(&mut self, counts: &Counts, statistics: &Statistics) -> Result<()> {
        let told = Told::Count {
            logged: counts.logged,
            outgoing: counts.outgoing,
            buffered: counts.buffered,
            missing: counts.missing,
            traffic: statistics.into(),
        };
        let text = format!(
            "-- {} messages; {} not acknowledged, {} waiting for {} missing; {}",
            counts.logged,
            counts.outgoing,
            counts.buffered,
            counts.missing,
            traffic(statistics)
        );
        self.tell(&told, Look::Faint, &text)
    }

    pub(super) fn closed(&mut self, statistics: &Statistics) -> Result<()> {
        let text = format!("-- {}", traffic(statistics));
        self.tell(&Told::Closed(Traffic::from(statistics)), Look::Faint, &text)
    }

    fn tell(&mut self, told: &Told<'_>, look: Look, text: &str) -> Result<()> {
        if self.out.json {
            self.out.json_line(told)?;
        } else if look == Look::Faint && self.has_looks() {
            let line = format!("\x1b[2m{}\x1b[0m", escape(text));
            writeln!(self.out.writer(), "{line}").map_err(CliError::Output)?;
        } else {
            self.out.line(text)?;
        }
        // Whoever talks wants to see it now.
        self.out.flush()
    }

    /// Whether the terminal may be told how things look (no-color.org).
    fn has_looks(&self) -> bool {
        self.out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// What stands before a line, all of one width.
fn mark(text: &str) -> String {
    format!("{text:>5}  ")
}

fn said_by(row: &Row) -> String {
    format!("{:<8}  {}", row.name, row.content)
}

fn traffic(statistics: &Statistics) -> String {
    format!(
        "sent {} ({}), received {} ({})",
        grouped(statistics.sent),
        human(statistics.sent_bytes),
        grouped(statistics.received),
        human(statistics.received_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_what_makes_it_unlike_others() {
        let id = name_with_tag("alice", 0xffff_ffff_0000_00ab);
        assert_eq!((&*id, name_of(&id)), ("alice#000000ab", "alice"));
        assert_eq!(name_of("0xff"), "0xff");
    }
}
