//! Messages between replicas. Whatever bytes there are, they are a message or an error; what is a
//! message is the same one when written and read again, and its lists have what they say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{stream::with_sums, world};
use mainstay_replica::wire::{Message, acks, decode, encode, hashes, writes};
use mainstay_store::{read_records, write_records};

fuzz_target!(|data: &[u8]| {
    world::prepare();
    // Whoever sends records of any sizes has their checksums right.
    let data = &*with_sums(data);
    let (epoch, message) = match decode(data) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(error.to_string().len() > 10, "{error}");
            return;
        }
    };
    let again = encode(epoch, &message);
    assert_eq!(decode(&again), Ok((epoch, message)), "written and read again");
    assert!(again.len() <= data.len(), "nothing is there that was not sent");
    let said = u32::from_le_bytes(data[4..8].try_into().expect("four bytes")) as usize;
    match message {
        Message::Writes { bytes, count, .. } => {
            assert_eq!(writes(bytes).count(), count as usize);
            let taken: usize = writes(bytes).map(|write| 32 + write.changes.len()).sum();
            assert_eq!(taken, bytes.len());
        }
        Message::Records { bytes, count, are_any: true, .. } => {
            let records = read_records(bytes, count).expect("it was looked at");
            let mut again = Vec::new();
            write_records(&records, &mut again);
            assert_eq!((records.len(), &again[..]), (count as usize, bytes));
        }
        Message::Ack { acks: list, .. } => assert_eq!(acks(list).count(), said),
        Message::Alive { tips: list }
        | Message::Stale { hashes: list, .. }
        | Message::Want { hashes: list, .. }
        | Message::Summary { sums: list, .. } => {
            assert_eq!((hashes(list).count(), list.len()), (said, 8 * said));
        }
        _ => {}
    }
});
