//! The checker against two that know nothing of it: every order tried by hand, and the tester of
//! the crate `stateright`.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_base::Rng;
use mainstay_sim::{
    Chance,
    check::{
        Cell, CellCall, CellReply, Fifo, FifoCall, FifoReply, History, Linearizable, Model, OpId,
        Verdict,
    },
    limits,
};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use std::collections::VecDeque;

type CellHistory = History<CellCall<u8>, CellReply<u8>>;

/// What happens in a history, one thing after the other.
#[derive(Clone, Debug)]
enum Moment<C, R> {
    Call { client: usize, call: C },
    Return { client: usize, reply: R },
}

/// Clients that call at random, and an object that answers at some moment between call and return;
/// `lies` of a million answers are wrong. Some calls are never answered.
fn moments<M: Model>(
    model: &M,
    rng: &mut Rng,
    operations: usize,
    lies: u32,
    call: impl Fn(&mut Rng) -> M::Call,
    answer: impl Fn(&mut Rng, &M::State, &M::Call) -> M::Reply,
) -> Vec<Moment<M::Call, M::Reply>> {
    struct Client<C, R> {
        name: usize,
        pending: Option<(C, Option<R>)>,
    }
    let mut clients: Vec<_> = (0..3).map(|name| Client { name, pending: None }).collect();
    let mut names = clients.len();
    let mut state = model.initial();
    let mut old = vec![state.clone()];
    let mut moments = Vec::new();
    let mut called = 0;
    while called < operations || rng.chance(700_000) {
        let client = &mut clients[rng.below(3) as usize];
        match client.pending.take() {
            None if called < operations => {
                let call = call(rng);
                moments.push(Moment::Call { client: client.name, call: call.clone() });
                client.pending = Some((call, None));
                called += 1;
            }
            None => {}
            Some((call, None)) => {
                if rng.chance(80_000) {
                    // It never happens, and nobody learns of it.
                    client.name = names;
                    names += 1;
                    continue;
                }
                let right = answer(rng, &state, &call);
                state = model.step(&state, &call, Some(&right)).expect("the answer is right");
                // A lie is what would have been right some time ago.
                let then = rng.pick(&old).clone();
                let reply = if rng.chance(lies) { answer(rng, &then, &call) } else { right };
                old.push(state.clone());
                client.pending = Some((call, Some(reply)));
            }
            Some((_, Some(reply))) => {
                if rng.chance(80_000) {
                    // It happened, and nobody learns of it.
                    client.name = names;
                    names += 1;
                    continue;
                }
                moments.push(Moment::Return { client: client.name, reply });
            }
        }
    }
    moments
}

fn history<C: Clone, R: Clone>(moments: &[Moment<C, R>]) -> History<C, R> {
    let mut history = History::new();
    let mut pending: Vec<(usize, OpId)> = Vec::new();
    for moment in moments {
        match moment {
            Moment::Call { client, call } => {
                pending.retain(|(name, _)| name != client);
                pending.push((*client, history.call(call.clone())));
            }
            Moment::Return { client, reply } => {
                let (_, operation) = pending.iter().find(|(name, _)| name == client).unwrap();
                history.returns(*operation, reply.clone());
            }
        }
    }
    history
}

/// Every order, without any cleverness.
fn by_hand<M: Model>(model: &M, history: &History<M::Call, M::Reply>) -> bool {
    type Operation<'a, M> =
        (&'a <M as Model>::Call, Option<&'a <M as Model>::Reply>, u64, Option<u64>);
    fn goes_on<M: Model>(model: &M, state: &M::State, left: &[Operation<'_, M>]) -> bool {
        if left.iter().all(|(.., returned)| returned.is_none()) {
            return true;
        }
        (0..left.len()).any(|next| {
            let (call, reply, called, _) = left[next];
            let comes_too_early = left.iter().any(|(.., end)| end.is_some_and(|end| end < called));
            let rest = [&left[..next], &left[next + 1..]].concat();
            !comes_too_early
                && model.step(state, call, reply).is_some_and(|state| goes_on(model, &state, &rest))
        })
    }
    let entries = history.entries();
    let operations: Vec<Operation<'_, M>> = entries
        .map(|entry| (&entry.call, entry.reply.as_ref(), entry.called, entry.returned))
        .collect();
    goes_on(model, &model.initial(), &operations)
}

/// The object of the other tester.
#[derive(Clone)]
struct Other<M: Model>(M::State, Steps<M>);

type Steps<M> =
    fn(&<M as Model>::State, &<M as Model>::Call) -> (<M as Model>::State, <M as Model>::Reply);

impl<M> SequentialSpec for Other<M>
where
    M: Model,
    M::Reply: PartialEq,
{
    type Op = M::Call;
    type Ret = M::Reply;

    fn invoke(&mut self, call: &M::Call) -> M::Reply {
        let (state, reply) = (self.1)(&self.0, call);
        self.0 = state;
        reply
    }
}

fn by_the_other<M>(other: Other<M>, moments: &[Moment<M::Call, M::Reply>]) -> bool
where
    M: Model + Clone,
    M::Reply: PartialEq,
{
    let mut tester = LinearizabilityTester::new(other);
    for moment in moments {
        match moment {
            Moment::Call { client, call } => tester.on_invoke(*client, call.clone()).unwrap(),
            Moment::Return { client, reply } => tester.on_return(*client, reply.clone()).unwrap(),
        };
    }
    tester.is_consistent()
}

/// K1: the order explains every answer, and keeps to time.
fn check_order<M: Model>(model: &M, history: &History<M::Call, M::Reply>, order: &[OpId]) {
    let entries: Vec<_> = history.entries().collect();
    let in_order: Vec<_> = order.iter().map(|id| entries[index(*id)]).collect();
    let mut state = model.initial();
    for (at, entry) in in_order.iter().enumerate() {
        let next = model.step(&state, &entry.call, entry.reply.as_ref());
        state = next.unwrap_or_else(|| panic!("{entry:?} is not explained"));
        let too_late = |other: &&_| entries_overlap(entry, other);
        assert!(in_order[..at].iter().all(too_late), "{entry:?} comes too late");
    }
    let answered = in_order.iter().filter(|entry| entry.returned.is_some()).count();
    assert_eq!(answered, history.answered());
}

/// The later one had not returned before the earlier one was called.
fn entries_overlap<C, R>(
    later: &mainstay_sim::check::Entry<C, R>,
    earlier: &mainstay_sim::check::Entry<C, R>,
) -> bool {
    later.returned.is_none_or(|returned| returned > earlier.called)
}

fn index(id: OpId) -> usize {
    let text = format!("{id:?}");
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Compares all three on random histories, and returns how many were linearizable.
fn compare<M>(
    model: &M,
    seeds: u64,
    operations: usize,
    call: impl Fn(&mut Rng) -> M::Call,
    step: Steps<M>,
) -> u64
where
    M: Model + Clone,
    M::Reply: PartialEq,
{
    let mut good = 0;
    for seed in 0..seeds {
        let mut rng = Rng::seeded(seed);
        let lies = *rng.pick(&[0, 800_000, 1_000_000]);
        let answer = |_: &mut Rng, state: &M::State, call: &M::Call| step(state, call).1;
        let moments = moments(model, &mut rng, operations, lies, &call, answer);
        let history = history(&moments);
        let found = match history.linearizable(model) {
            Verdict::Linearizable(order) => {
                check_order(model, &history, &order);
                true
            }
            Verdict::Violation(_) => false,
            Verdict::GaveUp { states } => panic!("seed {seed}: gave up after {states}"),
        };
        assert_eq!(found, by_hand(model, &history), "by hand, seed {seed}: {moments:#?}");
        let other = by_the_other::<M>(Other(model.initial(), step), &moments);
        assert_eq!(found, other, "stateright, seed {seed}: {moments:#?}");
        good += u64::from(found);
    }
    good
}

fn cell_step(state: &u8, call: &CellCall<u8>) -> (u8, CellReply<u8>) {
    match call {
        CellCall::Read => (*state, CellReply::Value(*state)),
        CellCall::Write(value) => (*value, CellReply::Written),
        CellCall::Swap { from, to } if from == state => (*to, CellReply::Swapped(true)),
        CellCall::Swap { .. } => (*state, CellReply::Swapped(false)),
    }
}

#[test]
fn k1_k2_on_random_histories_of_a_cell_all_three_checkers_agree() {
    let value = |rng: &mut Rng| rng.below(4) as u8;
    let call = |rng: &mut Rng| match rng.below(5) {
        0 | 1 => CellCall::Read,
        2 | 3 => CellCall::Write(value(rng)),
        _ => CellCall::Swap { from: value(rng), to: value(rng) },
    };
    let good = compare(&Cell::of(0), 6_000, 7, call, cell_step);
    assert!((2_000..5_500).contains(&good), "{good}");
}

#[test]
fn k1_k2_without_swaps_unseen_writes_are_left_out_and_all_three_still_agree() {
    let call = |rng: &mut Rng| match rng.below(2) {
        0 => CellCall::Read,
        _ => CellCall::Write(rng.below(6) as u8),
    };
    let good = compare(&Cell::of(0), 6_000, 7, call, cell_step);
    assert!((2_000..5_500).contains(&good), "{good}");
}

#[test]
fn k1_k2_on_random_histories_of_a_queue_all_three_checkers_agree() {
    let call = |rng: &mut Rng| match rng.below(2) {
        0 => FifoCall::Take,
        _ => FifoCall::Put(rng.below(3)),
    };
    fn step(queue: &VecDeque<u64>, call: &FifoCall) -> (VecDeque<u64>, FifoReply) {
        let mut queue = queue.clone();
        let reply = match call {
            FifoCall::Put(item) => {
                queue.push_back(*item);
                FifoReply::Put
            }
            FifoCall::Take => FifoReply::Taken(queue.pop_front()),
        };
        (queue, reply)
    }
    let good = compare(&Fifo, 4_000, 7, call, step);
    assert!((1_500..3_800).contains(&good), "{good}");
}

#[test]
fn a_long_history_is_checked_quickly_with_and_without_a_fault_at_its_end() {
    let model = Cell::of(0_u32);
    let values = std::cell::Cell::new(0);
    let call = |rng: &mut Rng| {
        values.set(values.get() + 1);
        if rng.chance(500_000) { CellCall::Read } else { CellCall::Write(values.get()) }
    };
    let answer = |_: &mut Rng, state: &u32, call: &CellCall<u32>| match call {
        CellCall::Read => CellReply::Value(*state),
        _ => CellReply::Written,
    };
    let mut rng = Rng::seeded(1);
    let mut history = history(&moments(&model, &mut rng, 20_000, 0, call, answer));
    assert!(matches!(history.linearizable(&model), Verdict::Linearizable(_)));
    let read = history.call(CellCall::Read);
    history.returns(read, CellReply::Value(u32::MAX));
    let Verdict::Violation(violation) = history.linearizable(&model) else {
        panic!("nobody wrote that")
    };
    assert!(violation.stuck_at.contains("Read -> Value(4294967295)"), "{violation}");
    assert!(violation.explained.len() > 15_000, "{violation}");
}

#[test]
fn keys_are_checked_apart() {
    let mut history = History::new();
    for key in 0..1_000_u32 {
        let write = history.call((key, CellCall::Write(key)));
        let read = history.call((key, CellCall::Read));
        history.returns(write, CellReply::Written);
        history.returns(read, CellReply::Value(if key == 7 { 8 } else { key }));
    }
    let wrong = |key: &u32| {
        let mut part = History::new();
        for entry in history.by_key(|(key, _)| *key)[key].entries() {
            let operation = part.call(entry.call.1.clone());
            part.returns(operation, entry.reply.clone().unwrap());
        }
        matches!(part.linearizable(&Cell::of(0)), Verdict::Violation(_))
    };
    assert_eq!((0..20).filter(wrong).collect::<Vec<_>>(), [7]);
}

#[test]
fn k3_the_search_gives_up_one_past_the_states_it_may_look_at() {
    // Five writes at once and a read of what nobody wrote: every set of writes is tried.
    let mut history: CellHistory = History::new();
    let operations: Vec<_> = (1..=5).map(|value| history.call(CellCall::Write(value))).collect();
    let read = history.call(CellCall::Read);
    operations.into_iter().for_each(|operation| history.returns(operation, CellReply::Written));
    history.returns(read, CellReply::Value(9));
    // Each set that is not empty, with each of its members as the last one: 5 * 2^4.
    let states = 80;
    let model = Cell::of(0);
    let check = |states| Linearizable::new(&model).states_max(states).check(&history);
    assert!(matches!(check(states), Verdict::Violation(_)));
    assert_eq!(check(states - 1), Verdict::GaveUp { states: states - 1 });
    assert!(states < limits::STATES_LOOKED_AT_DEFAULT);
}
