//! `mainstay store scan`.

use super::{
    bytes::{Form, Part, Row, cell},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::{Output, Side},
    size::grouped,
};

/// List records, in the order of their keys
///
/// Bytes are compared as they are, from the first on. --prefix, --from and --to choose; 50 records
/// are listed unless --limit says otherwise.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store scan ./people
  mainstay store scan ./people --prefix a --limit 0
  mainstay store scan ./people --from b --to d --reverse
  mainstay store scan ./people --count
  mainstay store scan ./people --json | jq .value")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only keys that are this one, or after it
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// What --prefix, --from and --to are
    #[arg(long, value_name = "FORM", default_value = "text")]
    key_as: Form,
    /// The last keys first
    #[arg(long)]
    reverse: bool,
    /// At most so many records; 0: all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only how many there are
    #[arg(long, conflicts_with = "limit")]
    count: bool,
}

/// Which keys are meant.
struct Choice {
    prefix: Vec<u8>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl Choice {
    fn of(args: &Args, len: Option<usize>) -> Result<Self> {
        let key = |given: &Option<String>| {
            given.as_ref().map(|key| args.key_as.bytes(key, len, Part::Key)).transpose()
        };
        let prefix = match (&args.prefix, args.key_as) {
            (None, _) => Vec::new(),
            (Some(text), Form::Text) => text.as_bytes().to_vec(),
            (Some(digits), Form::Hex) => {
                hex::decode(digits).ok_or_else(|| CliError::NotHex(digits.clone()))?
            }
            (Some(_), Form::Number | Form::File) => return Err(CliError::NoPrefix),
        };
        Ok(Self { prefix, from: key(&args.from)?, to: key(&args.to)? })
    }

    fn has(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
            && self.from.as_deref().is_none_or(|from| key >= from)
            && self.to.as_deref().is_none_or(|to| key < to)
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = args.target.look()?;
    let choice = Choice::of(args, view.lengths().map(|lengths| lengths.0))?;
    if args.count {
        let mut count = 0_u64;
        view.for_each(|key, _| count += u64::from(choice.has(key)))
            .map_err(args.target.failed())?;
        view.close()?;
        out.line(&count.to_string())?;
        return Ok(Outcome::Fine);
    }
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    view.for_each(|key, value| {
        if choice.has(key) {
            records.push((key.to_vec(), value.to_vec()));
        }
    })
    .map_err(args.target.failed())?;
    let row = if view.is_exact() { Row::exact } else { Row::of };
    view.close()?;
    records.sort_unstable();
    if args.reverse {
        records.reverse();
    }
    let found = records.len();
    if args.limit > 0 {
        records.truncate(args.limit);
    }
    if out.json {
        return records
            .iter()
            .try_for_each(|(key, value)| out.json_line(&row(key, Some(value))))
            .map(|()| Outcome::Fine);
    }
    let columns = [("KEY", Side::Left), ("VALUE", Side::Left)];
    let rows: Vec<_> = records.iter().map(|(key, value)| vec![cell(key), cell(value)]).collect();
    out.table(&columns, &rows)?;
    if records.len() < found {
        let more = grouped((found - records.len()) as u64);
        out.line(&format!("... and {more} more: --limit 0 lists them all"))?;
    }
    Ok(Outcome::Fine)
}
