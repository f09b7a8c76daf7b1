//! `mainstay state set`.

use super::{
    persist,
    target::{Target, domain, layout},
};
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    interrupt::Interrupt,
    output::Output,
    size::grouped,
};
use mainstay::state::{Domain, RetryPolicy, State, StateInfo, StateOptions};
use serde::Serialize;
use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    thread,
    time::Duration,
};

/// Write the value of a state
///
/// The value is the next version of the state, whatever the current one is, and as long as what is
/// given. For a state of a type that describes its fields, VALUE is a JSON object: the fields that
/// it names are changed in one transaction, the others stay.
///
/// A transient state ends with its last subscriber. So a state that does not exist yet is only made
/// with --hold, which stays subscribed until interrupted, or with --persist, which keeps it in a
/// file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state set temperature 21.5 --hold &
  mainstay state set temperature 22.0
  mainstay state set limits '{\"upper\": 80.5}'
  mainstay state set colour --hex ff8000
  date | mainstay state set clock --file -
  mainstay state set motto 'keep going' --persist ~/motto.state")]
#[command(
    group(clap::ArgGroup::new("input").required(true)),
    override_usage = "mainstay state set [OPTIONS] <NAME> <VALUE|--hex DIGITS|--file FILE>"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The value: text, or JSON for a state that describes its fields
    #[arg(group = "input", allow_negative_numbers = true)]
    value: Option<String>,
    /// The bytes, in hexadecimal digits
    #[arg(long, value_name = "DIGITS", group = "input")]
    hex: Option<String>,
    /// The bytes of a file; - is standard input
    #[arg(long, value_name = "FILE", group = "input", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Stay subscribed until interrupted: a transient state lives as long
    #[arg(long)]
    hold: bool,
    /// Keep the state in this file from now on; one that has ended begins with what the file has
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    persist: Option<PathBuf>,
    /// With --persist: survive the machine, not only all processes
    #[arg(long, requires = "persist")]
    machine: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    version: u64,
    size_bytes: usize,
    held: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let domain = domain()?;
    let known = args.target.look(&domain)?;
    if known.is_none() && !args.hold && args.persist.is_none() {
        return Err(CliError::WouldVanish { name: args.target.name.clone() });
    }
    let input = Input::of(args, known.as_ref())?;
    let interrupt = Interrupt::watch();
    let state = subscribe(args, &domain)?;
    let version = input.write(&state)?;
    if args.machine {
        state.sync()?;
    }
    let size_bytes = state.read()?.len();
    if out.json {
        out.document(&Report { name: state.name(), version, size_bytes, held: args.hold })?;
    } else {
        let then = if args.hold { "; held until interrupted" } else { "" };
        let (name, version, size) = (state.name(), grouped(version), grouped(size_bytes as u64));
        out.line(&format!("{name}: version {version}, {size} B{then}"))?;
    }
    out.flush()?;
    while args.hold && !interrupt.is_asked() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Outcome::Fine)
}

fn subscribe(args: &Args, domain: &Domain) -> Result<State<[u8]>> {
    let mut options = StateOptions::new().any_type();
    if let Some(path) = &args.persist {
        options = options.persistent(path, persist::grade(args.machine));
    }
    Ok(options.writer(domain, &args.target.name)?)
}

/// What is to be written.
enum Input {
    Whole(Vec<u8>),
    Fields(super::fields::Change),
}

impl Input {
    fn of(args: &Args, known: Option<&StateInfo>) -> Result<Self> {
        if let Some(digits) = &args.hex {
            let bytes = hex::decode(digits).ok_or_else(|| CliError::NotHex(digits.clone()))?;
            return Ok(Self::Whole(bytes));
        }
        if let Some(path) = &args.file {
            return contents(path).map(Self::Whole);
        }
        let text = args.value.as_deref().unwrap_or_default();
        match known.and_then(layout) {
            Some(layout) => layout
                .read(text)
                .map(Self::Fields)
                .map_err(|source| CliError::Field { name: args.target.name.clone(), source }),
            None => Ok(Self::Whole(text.as_bytes().to_vec())),
        }
    }

    /// Returns the number of the new version.
    fn write(&self, state: &State<[u8]>) -> Result<u64> {
        match self {
            Self::Whole(bytes) => Ok(state.replace(bytes)?),
            Self::Fields(change) => Ok(state.transact(RetryPolicy::default(), |transaction| {
                change.apply(transaction.bytes_mut()?);
                Ok(transaction.base_version() + 1)
            })?),
        }
    }
}

fn contents(path: &std::path::Path) -> Result<Vec<u8>> {
    let hint = "check its name and mode";
    let read = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map_err(CliError::file(path, "read it", hint))
}
