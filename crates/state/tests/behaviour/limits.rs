use crate::{Scratch, worker};
use mainstay_state::{
    Error, Record, State, StateOptions,
    limits::{
        ALIGN_MAX, FIELDS_MAX, LEASES, PIN_LINES, SIZE_DEFAULT, SIZE_LIMIT_DEFAULT, SIZE_LIMIT_MAX,
        SLOTS_DEFAULT, SLOTS_MAX, SLOTS_MIN, TYPE_NAME_MAX,
    },
};
use std::{fs::File, os::fd::AsRawFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn is_refused(options: &StateOptions) -> bool {
    let scratch = Scratch::new();
    let made = options.writer::<[u8]>(&scratch.domain, "speed");
    matches!(made, Err(Error::OptionRange { .. }))
}

#[test]
fn slots_are_from_3_to_64() {
    for slots in [SLOTS_MIN, SLOTS_MAX] {
        assert!(!is_refused(&StateOptions::new().slots(slots)));
    }
    assert!(is_refused(&StateOptions::new().slots(SLOTS_MIN - 1)));
    assert!(is_refused(&StateOptions::new().slots(SLOTS_MAX + 1)));
    assert!(is_refused(&StateOptions::new().slots(8).slots_max(7)));
    assert!(is_refused(&StateOptions::new().slots_max(SLOTS_MAX + 1)));
}

#[test]
fn a_size_limit_is_at_most_16_gib_and_a_size_at_most_its_limit() {
    assert!(!is_refused(&StateOptions::new().slots(3).slots_max(3).size_limit(SIZE_LIMIT_MAX)));
    assert!(is_refused(&StateOptions::new().size_limit(SIZE_LIMIT_MAX + 1)));
    assert!(is_refused(&StateOptions::new().size(0)));
    assert!(is_refused(&StateOptions::new().size(4_097).size_limit(4_096)));
}

#[test]
fn slots_are_added_while_all_are_in_use_up_to_the_limit() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(5);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut transaction = state.begin().unwrap();
        transaction.bytes_mut().unwrap()[0] = 1;
        open.push(transaction);
    }
    assert_eq!(state.info().unwrap().slots, 5);
    let mut one_more = state.begin().unwrap();
    assert!(matches!(one_more.bytes_mut(), Err(Error::NoFreeSlot { slots: 5, .. })));
    open.pop();
    one_more.bytes_mut().unwrap()[0] = 2;
    one_more.commit().unwrap();
}

#[test]
fn there_are_256_pin_lines_and_the_257th_handle_is_refused() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut handles: Vec<_> = (1..PIN_LINES).map(|_| state.try_clone().unwrap()).collect();
    assert!(matches!(state.try_clone(), Err(Error::NoFreeLine { lines: 256, .. })));
    handles.pop();
    state.try_clone().unwrap();
}

#[test]
fn a_state_has_a_page_at_first_and_grows_to_64_mib_unless_told_otherwise() {
    let scratch = Scratch::new();
    let state: State<[u8]> = StateOptions::new().slots(3).writer(&scratch.domain, "speed").unwrap();
    assert_eq!(state.size().unwrap(), SIZE_DEFAULT);
    assert!(matches!(state.set_size(SIZE_LIMIT_DEFAULT + 1), Err(Error::Size { .. })));
    state.set_size(SIZE_LIMIT_DEFAULT).unwrap();
    assert_eq!(state.read().unwrap().len(), SIZE_LIMIT_DEFAULT);
    let other: State<[u8]> = scratch.domain.writer("other").unwrap();
    assert_eq!(other.info().unwrap().slots, u64::from(SLOTS_DEFAULT));
}

/// Takes the leases from `first` on, as so many living processes have them.
fn take_leases(folder: &std::path::Path, first: u32, count: u32) -> File {
    let file = File::options().read(true).write(true).open(folder.join(".leases")).unwrap();
    // As `docs/format/state.md` has it: byte 2^60 + L is locked by the tenant of lease L.
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: (1 << 60) + i64::from(first),
        l_len: count.into(),
        l_pid: 0,
    };
    // SAFETY: the call reads a lock that lives as long as it.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
    file
}

#[test]
fn a_folder_has_256_processes_and_the_257th_is_refused() {
    let scratch = Scratch::new();
    let _state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    // This process has the first; all but the last are taken.
    let _most = take_leases(scratch.domain.folder(), 1, LEASES - 2);
    assert_eq!(worker::run("open_the_folder", &scratch).output, "opened");
    let _last = take_leases(scratch.domain.folder(), LEASES - 1, 1);
    let answer = worker::run("open_the_folder", &scratch).output;
    assert!(answer.starts_with("refused: ") && answer.contains("256"), "{answer}");
}

macro_rules! record {
    ($name:ident, $align:literal, $type_name:expr, $fields:expr) => {
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C, align($align))]
        struct $name([u8; $align]);
        impl Record for $name {
            const NAME: &'static str = $type_name;
            const FIELDS: &'static str = $fields;
        }
    };
}

const LONG: &str = match str::from_utf8(&[b'x'; FIELDS_MAX + 1]) {
    Ok(text) => text,
    Err(_) => "",
};

record!(Aligned, 64, "test.aligned/1", "");
record!(TooAligned, 128, "test.aligned/1", "");
record!(Named, 8, LONG.split_at(TYPE_NAME_MAX).0, "");
record!(NamedTooLong, 8, LONG.split_at(TYPE_NAME_MAX + 1).0, "");
record!(Described, 8, "test.described/1", LONG.split_at(FIELDS_MAX).0);
record!(DescribedTooLong, 8, "test.described/1", LONG);

/// Makes a state of a type, and looks at it in every way.
fn used<T: Record>() -> Result<(), Error> {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<T>("speed")?;
    state.begin()?.get_mut()?;
    state.read()?;
    state.view(std::time::Duration::ZERO)?.get()?;
    let info = state.info()?;
    assert_eq!((&*info.type_name, &*info.fields), (T::NAME, T::FIELDS));
    Ok(())
}

#[test]
fn a_type_is_aligned_to_64_bytes_at_most() {
    assert_eq!(align_of::<Aligned>(), ALIGN_MAX);
    used::<Aligned>().unwrap();
    assert!(matches!(used::<TooAligned>(), Err(Error::OptionRange { max: 64, .. })));
}

#[test]
fn the_name_of_a_type_has_128_bytes_at_most() {
    used::<Named>().unwrap();
    assert!(matches!(used::<NamedTooLong>(), Err(Error::OptionRange { max: 128, .. })));
}

#[test]
fn the_description_of_a_type_s_fields_has_2_048_bytes_at_most() {
    used::<Described>().unwrap();
    assert!(matches!(used::<DescribedTooLong>(), Err(Error::OptionRange { max: 2_048, .. })));
}
