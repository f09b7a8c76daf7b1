use crate::Scratch;
use mainstay_state::{Error, Record, State};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Debug)]
#[repr(C)]
struct Pose {
    x: f64,
    y: f64,
}

impl Record for Pose {
    const NAME: &'static str = "test.pose/1";
    const FIELDS: &'static str = "x: f64, y: f64";
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
struct Other {
    x: f64,
    y: f64,
}

impl Record for Other {
    const NAME: &'static str = "test.other/1";
}

#[test]
fn a_typed_state_is_read_and_changed_in_place() {
    let scratch = Scratch::new();
    let state: State<Pose> = scratch.domain.writer("pose").unwrap();
    assert_eq!(*state.read().unwrap(), Pose { x: 0.0, y: 0.0 });
    let mut transaction = state.begin().unwrap();
    transaction.get_mut().unwrap().x = 1.5;
    assert_eq!(transaction.get().unwrap().x, 1.5);
    transaction.commit().unwrap();
    assert_eq!(*state.read().unwrap(), Pose { x: 1.5, y: 0.0 });
}

#[test]
fn a_typed_state_is_copied_version_for_version() {
    let scratch = Scratch::new();
    let (state, reader) =
        (scratch.domain.writer::<Pose>("pose").unwrap(), scratch.domain.reader::<Pose>("pose"));
    let reader: State<Pose> = reader.unwrap();
    let mut copy = Pose { x: 7.0, y: 7.0 };
    assert_eq!(reader.copy_into(&mut copy).unwrap(), 0);
    assert_eq!(copy, Pose { x: 0.0, y: 0.0 }, "never written");
    for version in 1..=20 {
        let value = Pose { x: version as f64, y: -1.0 };
        state.replace(&value).unwrap();
        // The second time by the shorter way, into what was overwritten meanwhile.
        for _ in 0..2 {
            copy = Pose { x: 7.0, y: 7.0 };
            assert_eq!(reader.copy_into(&mut copy).unwrap(), version);
            assert_eq!(copy, value);
        }
    }
    state.copy_into(&mut copy).unwrap();
    state.delete().unwrap();
    assert!(matches!(state.copy_into(&mut copy), Err(Error::Deleted { .. })));
}

#[test]
fn another_type_is_refused_and_both_are_named() {
    let scratch = Scratch::new();
    let _state: State<Pose> = scratch.domain.writer("pose").unwrap();
    let text = scratch.domain.reader::<Other>("pose").unwrap_err().to_string();
    assert!(text.contains("test.pose/1") && text.contains("test.other/1"), "{text}");
    let bytes = scratch.domain.reader::<[u8]>("pose");
    assert!(matches!(bytes, Err(Error::OtherType { .. })));
}

#[test]
fn the_size_of_a_typed_state_is_that_of_its_type() {
    let scratch = Scratch::new();
    let state: State<Pose> = scratch.domain.writer("pose").unwrap();
    assert_eq!(state.size().unwrap(), size_of::<Pose>());
    assert!(matches!(state.set_size(17), Err(Error::Size { .. })));
    let info = state.info().unwrap();
    assert_eq!((&*info.type_name, &*info.fields), (Pose::NAME, Pose::FIELDS));
}
