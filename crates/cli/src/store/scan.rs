//! `mainstay store scan`.

use super::{
    bytes::{Form, Part, Row, cell},
    opened::now_ms,
    target::Target,
};
use crate::{
    error::{Outcome, Result},
    output::{Output, Side},
    size::{grouped, lasting},
};
use std::time::Duration;

/// List records, in the order of their keys
///
/// Bytes are compared as they are, from the first on. --prefix, --from and --to choose; 50 records
/// are listed unless --limit says otherwise. LEFT is how long those will be there that end.
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
        let prefix = args.prefix.as_ref().map(|given| args.key_as.prefix(given)).transpose()?;
        Ok(Self { prefix: prefix.unwrap_or_default(), from: key(&args.from)?, to: key(&args.to)? })
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
        view.for_each_key(|key| count += u64::from(choice.has(key)))
            .map_err(args.target.failed())?;
        out.line(&count.to_string())?;
        return Ok(Outcome::Fine);
    }
    // Keys first: of values, which may be long, only those are read that are shown.
    let mut keys: Vec<Vec<u8>> = Vec::new();
    view.for_each_key(|key| {
        if choice.has(key) {
            keys.push(key.to_vec());
        }
    })
    .map_err(args.target.failed())?;
    let (text, now) = (view.text(), now_ms());
    keys.sort_unstable();
    if args.reverse {
        keys.reverse();
    }
    let found = keys.len();
    if args.limit > 0 {
        keys.truncate(args.limit);
    }
    let shown = keys.len();
    // None: it was removed meanwhile.
    let value = |key: &[u8]| view.get(key).map_err(args.target.failed());
    if out.json {
        for key in keys {
            let Some((value, ends)) = value(&key)? else { continue };
            out.json_line(&Row::with(&key, Some(&value), text).ending(ends).left_at(now))?;
        }
        return Ok(Outcome::Fine);
    }
    let left = |end: u64| lasting(Duration::from_millis(end.saturating_sub(now)));
    let (mut rows, mut any_ends) = (Vec::new(), false);
    for key in keys {
        let Some((value, ends)) = value(&key)? else { continue };
        any_ends |= ends.is_some();
        rows.push(vec![
            cell(&key, text),
            cell(&value, text),
            ends.map_or_else(|| "-".to_owned(), left),
        ]);
    }
    let columns = [("KEY", Side::Left), ("VALUE", Side::Left), ("LEFT", Side::Right)];
    // Where nothing ends, nobody wants to read so.
    let wide = if any_ends { 3 } else { 2 };
    rows.iter_mut().for_each(|row| row.truncate(wide));
    out.table(&columns[..wide], &rows)?;
    if shown < found {
        let more = grouped((found - shown) as u64);
        out.line(&format!("... and {more} more: --limit 0 lists them all"))?;
    }
    Ok(Outcome::Fine)
}
