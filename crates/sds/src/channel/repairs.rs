//! SDS-R: asking for what is missing, and sending again what others miss.
//!
//! Source: LIP-109, SDS Repair (SDS-R).
//!
//! Guarantees:
//!
//! * R1. What one message makes others send is bounded: requests are for messages that are here, at
//!   the time that the sender in our own log says, once at a time, once in T_min for each message,
//!   ten a second in all.
//! * R2. The first T_resp stays: who asks again and again does not put the answer off.
//! * R3. A request is repeated until the message is here or given up. The specification removes it
//!   when it was sent, or when another's was heard, and so strands the one who loses the answer;
//!   here it starts anew.
//! * R4. A response group that has died out is widened, by the requests that nobody answers.
//! * R5. Requests are sent in turns, whoever sends them: however many messages are missing that do
//!   not exist, one that does is asked for.

use super::{
    Channel,
    agenda::Plan,
    table::{NEVER, State, Table, flag},
};
use crate::{
    limits::{ANSWER_INTERVAL_MS, ANSWERS_MAX, REQUESTS_MAX},
    output::Reason,
    repair,
    time::Now,
    wire::{MessageView, entry_len, put_entry},
};

/// A message that was asked for so often in vain is asked for half as often from then on, and so on.
const ASKED_BEFORE_BACKOFF: u32 = 8;
const DOUBLINGS_MAX: u32 = 4;

/// The messages that go into the requests of one that is sent.
pub(super) struct Requests {
    slots: [u32; REQUESTS_MAX],
    count: usize,
    /// Those without their hints, for which there was no room: one bit each. Who answers does not
    /// need them.
    bare: u64,
    /// The bytes that they take.
    pub(super) len: usize,
}

const _: () = assert!(REQUESTS_MAX <= u64::BITS as usize, "there is a bit for each");

impl Requests {
    fn none() -> Self {
        Self { slots: [0; REQUESTS_MAX], count: 0, bare: 0, len: 0 }
    }

    fn push(&mut self, slot: u32, is_bare: bool, len: usize) {
        self.slots[self.count] = slot;
        self.bare |= u64::from(is_bare) << self.count;
        self.count += 1;
        self.len += len;
    }

    /// Writes them as fields `number`.
    pub(super) fn write(&self, out: &mut Vec<u8>, table: &Table, number: u64) {
        for (index, &slot) in self.slots[..self.count].iter().enumerate() {
            let entry = table.get(slot).entry();
            let is_bare = self.bare >> index & 1 == 1;
            put_entry(out, number, &if is_bare { entry.bare() } else { entry });
        }
    }
}

impl Channel {
    /// LIP-109, SDS-R send message: up to `max` requests whose time has come, the earliest first, in
    /// `room` bytes.
    pub(super) fn take_requests(&mut self, now: Now, max: usize, room: usize) -> Requests {
        let number = self.config.profile.fields().requests;
        let mut requests = Requests::none();
        while requests.count < max.min(REQUESTS_MAX)
            && let Some(&(slot, generation)) = self.due.front()
        {
            let record = self.table.get(slot);
            if record.generation == generation && record.has(flag::DUE) {
                let left = room - requests.len;
                let (whole, short) = (record.entry(), record.entry().bare());
                let fits = |entry| entry_len(number, entry) <= left;
                if !fits(&short) {
                    break;
                }
                let is_bare = !fits(&whole);
                let len = entry_len(number, if is_bare { &short } else { &whole });
                requests.push(slot, is_bare, len);
                self.due.pop_front();
                self.table.get_mut(slot).asked += 1;
                self.asked(now, slot);
            } else {
                self.due.pop_front();
            }
        }
        requests
    }

    /// Whether a request waits for a message to go with.
    pub(super) fn has_due(&mut self) -> bool {
        while let Some(&(slot, generation)) = self.due.front() {
            if self.is_current(slot, generation) && self.table.get(slot).has(flag::DUE) {
                return true;
            }
            self.due.pop_front();
        }
        false
    }

    /// The time to ask for a message has come (LIP-109, SDS-R send message: "eligible").
    pub(super) fn request_due(&mut self, now_ms: u64, slot: u32) {
        let record = self.table.get_mut(slot);
        record.request_at = NEVER;
        record.flags |= flag::DUE;
        let generation = record.generation;
        self.due.push_back((slot, generation));
        self.sync_soon(now_ms);
    }

    /// A request was sent, by whomever: it starts anew (R3), unless others wait for their turn (R5).
    fn asked(&mut self, now: Now, slot: u32) {
        let Some(next) = self.next_unarmed() else {
            self.ask_again_later(now, slot);
            return;
        };
        let record = self.table.get_mut(slot);
        record.flags &= !(flag::WANTED | flag::DUE);
        record.request_at = NEVER;
        self.wanted -= 1;
        self.arm(now, next);
        self.queue_unarmed(slot);
    }

    /// R3: the request starts anew.
    fn ask_again_later(&mut self, now: Now, slot: u32) {
        let record = self.table.get_mut(slot);
        record.flags &= !flag::DUE;
        record.tries = record.tries.saturating_add(1);
        let tries = record.tries;
        let Self { config, own_id, table, .. } = self;
        let delay = repair::request_again_delay_ms(
            config.profile,
            own_id,
            table.get(slot).id(),
            tries,
            config.t_min_ms,
            config.t_max_ms,
        );
        // "placing T_req values on an exponential backoff curve will likely be more appropriate".
        let doublings = (table.get(slot).asked / ASKED_BEFORE_BACKOFF).min(DOUBLINGS_MAX);
        let at = now.mono_ms + (delay << doublings);
        self.table.get_mut(slot).request_at = at;
        self.plan(Plan::Request, slot, at);
    }

    /// LIP-109, SDS-R receive message: what another one asks for.
    pub(super) fn heed_requests(&mut self, now: Now, message: &MessageView<'_>) {
        if !self.config.repair || self.own_id.is_empty() || message.requests.is_empty() {
            return;
        }
        for entry in message.requests.iter() {
            let Some(slot) = self.table.find(entry.id) else { continue };
            let record = self.table.get(slot);
            if record.state == State::Unknown {
                // Another one asks already: "MUST remove entries matching the repair message ID
                // from its own outgoing repair request buffer"; and R3. Its turn is over as well: else
                // members who all miss what does not exist would keep each other from ever asking
                // for anything else (R5).
                if record.has(flag::WANTED) {
                    self.asked(now, slot);
                }
                continue;
            }
            // The sender decides who answers and when: the one in our own log. What a request says
            // of it is hearsay, and neither makes anybody answer at once nor keeps anybody from it
            // (R1): else one false citation would keep all who believed it from ever being heard.
            let has_it = !record.body.is_empty() && record.state != State::Tombstone;
            if has_it && !record.sender().is_empty() {
                self.plan_answer(now, slot);
            }
        }
    }

    fn plan_answer(&mut self, now: Now, slot: u32) {
        self.needed += 1;
        let record = self.table.get_mut(slot);
        record.heard = record.heard.saturating_add(1);
        // R1 and R2.
        if record.answer_at != NEVER
            || now.mono_ms < record.answered_until
            || self.answers >= ANSWERS_MAX
        {
            return;
        }
        let record = self.table.get(slot);
        let (profile, own, id) = (self.config.profile, &*self.own_id, record.id());
        let groups = repair::widened(self.config.groups(), record.heard);
        if !repair::in_response_group(profile, own, record.sender(), id, groups) {
            return;
        }
        let delay =
            repair::response_delay_ms(profile, own, record.sender(), id, self.config.t_max_ms);
        let at = now.mono_ms + delay;
        self.table.get_mut(slot).answer_at = at;
        self.answers += 1;
        self.plan(Plan::Answer, slot, at);
    }

    /// LIP-109, SDS-R incoming repair request buffer sweep: the time to answer has come.
    pub(super) fn answer(&mut self, now: Now, slot: u32) {
        if now.mono_ms < self.next_answer_at {
            let at = self.next_answer_at;
            self.table.get_mut(slot).answer_at = at;
            self.plan(Plan::Answer, slot, at);
            return;
        }
        self.cancel_answer(slot);
        self.next_answer_at = now.mono_ms + ANSWER_INTERVAL_MS;
        let record = self.table.get_mut(slot);
        record.answered_until = now.mono_ms + self.config.t_min_ms;
        record.heard = 0;
        let Self { outputs, table, config, .. } = self;
        let record = table.get(slot);
        outputs.broadcast(Reason::Repair, record.id(), |out| {
            record.parts.copy(out, config.profile, &record.body);
        });
    }

    /// LIP-109, SDS-R receive message: somebody sent it again, so we need not.
    pub(super) fn heard_copy(&mut self, slot: u32) {
        self.cancel_answer(slot);
        self.table.get_mut(slot).heard = 0;
    }

    pub(super) fn cancel_answer(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        if record.answer_at != NEVER {
            record.answer_at = NEVER;
            self.answers -= 1;
        }
    }
}
