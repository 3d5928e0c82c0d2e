//! `ar` archives: static libraries, member by member.
//!
//! ```text
//! !<arch>\n [name 16, time 12, owner 6, group 6, mode 8, size 10, `\n; bytes; padding to 2] …
//! ```
//!
//! Names of more than 15 bytes are in a member `//` (GNU) or before the bytes (BSD, `#1/length`).

use std::{collections::BTreeMap, ops::Range};

use protocol::plain;
use serde::Serialize;

use super::{Budget, Content, Side, Sides, content, limits};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Longest name, in bytes. Many members could say that theirs is the same long one.
const NAME_BYTES: usize = 4096;

/// Where two `ar` archives differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Members that differ, in the order of the first archive, then those that only the second has.
    pub members: Vec<Member>,
    /// Further members that differ.
    pub omitted: u64,
    /// Whether members that both have are not in the same order.
    pub reordered: bool,
}

/// A member that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name, plain (`protocol::plain`).
    pub name: String,
    /// What is not the same.
    pub change: MemberChange,
}

/// What is not the same in a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum MemberChange {
    /// Only one archive has it.
    Only {
        /// Which.
        side: Side,
        /// Its bytes.
        size: u64,
    },
    /// Both have it.
    Differs {
        /// Fields of its header that are not the same.
        fields: Vec<Field>,
        /// Where its contents differ.
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
    },
}

/// A field of a member's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Which: `time`, `owner`, `group` or `mode`.
    pub name: &'static str,
    /// What it says, plain.
    pub values: Sides<String>,
}

/// Why bytes are not an `ar` archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("byte {at}: a header ends early")]
    Header { at: usize },
    #[error("byte {at}: a header without its end mark")]
    Mark { at: usize },
    #[error("byte {at}: a size that is not a number")]
    Size { at: usize },
    #[error("byte {at}: a member of {size} bytes, but only {rest} are left")]
    Member { at: usize, size: usize, rest: usize },
    #[error("byte {at}: a name that is not there")]
    Name { at: usize },
    #[error("more than {max} members", max = limits::MEMBERS)]
    TooMany,
}

/// Whether a file begins like an `ar` archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Compares `ar` archives; `None` if what differs is neither a member nor their order.
pub(super) fn compare(left: &[Raw<'_>], right: &[Raw<'_>], budget: &mut Budget) -> Option<Members> {
    let place: BTreeMap<_, usize> = right.iter().enumerate().map(|(n, member)| (member.key(), n)).collect();
    let mut found = Members { members: Vec::new(), omitted: 0, reordered: false };
    let mut common = vec![false; right.len()];
    let mut last = 0;
    for member in left {
        let Some(&n) = place.get(&member.key()) else {
            found.report(member, budget, |_| member.only(Side::Left));
            continue;
        };
        common[n] = true;
        found.reordered |= n < last;
        last = n;
        let other = &right[n];
        if member.header != other.header || member.bytes != other.bytes {
            found.report(member, budget, |budget| member.differs(other, budget));
        }
    }
    for (member, _) in right.iter().zip(common).filter(|(_, common)| !common) {
        found.report(member, budget, |_| member.only(Side::Right));
    }
    let any = !found.members.is_empty() || found.omitted > 0 || found.reordered;
    any.then_some(found)
}

impl Members {
    fn report(
        &mut self,
        raw: &Raw<'_>,
        budget: &mut Budget,
        change: impl FnOnce(&mut Budget) -> MemberChange,
    ) {
        if !budget.entry() {
            self.omitted += 1;
            return;
        }
        self.members.push(Member { name: plain::name(raw.name, limits::NAME_BYTES), change: change(budget) });
    }
}

/// A member as it is in the archive.
pub(super) struct Raw<'a> {
    name: &'a [u8],
    /// How many of the same name are before it: names may be there several times.
    nth: usize,
    header: Header<'a>,
    bytes: &'a [u8],
}

/// What a header says beside name and size.
#[derive(PartialEq, Eq)]
struct Header<'a>([(&'static str, &'a [u8]); 4]);

impl<'a> Raw<'a> {
    fn key(&self) -> (&'a [u8], usize) {
        (self.name, self.nth)
    }

    fn only(&self, side: Side) -> MemberChange {
        MemberChange::Only { side, size: self.bytes.len() as u64 }
    }

    fn differs(&self, other: &Self, budget: &mut Budget) -> MemberChange {
        let fields = self.header.0.iter().zip(&other.header.0);
        let fields = fields.filter_map(|((name, left), (_, right))| {
            let values = Sides::differing(*left, *right)?;
            Some(Field { name, values: values.map(|value| plain::name(value.trim_ascii_end(), 16)) })
        });
        let fields = fields.collect();
        MemberChange::Differs { fields, content: content::compare(self.bytes, other.bytes, budget) }
    }
}

/// The members of an archive.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Raw<'_>>, Damage> {
    let mut members: Vec<Raw<'_>> = Vec::new();
    let mut seen: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut names: &[u8] = &[];
    let mut at = MAGIC.len();
    while at < bytes.len() {
        if members.len() >= limits::MEMBERS {
            return Err(Damage::TooMany);
        }
        let Some((header, rest)) = bytes[at..].split_first_chunk::<HEADER>() else {
            return Err(Damage::Header { at });
        };
        // Lives as long as the archive does, unlike the array.
        let field = |range: Range<usize>| &bytes[at..][range];
        if header[58..] != *b"`\n" {
            return Err(Damage::Mark { at });
        }
        let size = number(field(48..58)).ok_or(Damage::Size { at })?;
        let content = rest.get(..size).ok_or(Damage::Member { at, size, rest: rest.len() })?;
        let (name, content) = name(field(0..16), content, names).ok_or(Damage::Name { at })?;
        if name == b"//" {
            names = content;
        }
        let nth = seen.entry(name).or_default();
        let header = Header([
            ("time", field(16..28)),
            ("owner", field(28..34)),
            ("group", field(34..40)),
            ("mode", field(40..48)),
        ]);
        members.push(Raw { name, nth: *nth, header, bytes: content });
        *nth += 1;
        at += HEADER + size + size % 2;
    }
    Ok(members)
}

/// The name of a member and what is its content; `None` if it says that the name is where it is not.
fn name<'a>(field: &'a [u8], content: &'a [u8], names: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let field = field.trim_ascii_end();
    if let Some(length) = field.strip_prefix(b"#1/") {
        let length = number(length).filter(|length| *length <= NAME_BYTES)?;
        let (name, content) = content.split_at_checked(length)?;
        let end = name.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        return Some((&name[..end], content));
    }
    match field {
        // The symbols and the long names; neither is a place in the latter.
        b"/" | b"//" | b"/SYM64/" => Some((field, content)),
        [b'/', place @ ..] => {
            let name = names.get(number(place)?..)?;
            let end = name.iter().take(NAME_BYTES).position(|byte| *byte == b'\n')?;
            let name = &name[..end];
            Some((name.strip_suffix(b"/").unwrap_or(name), content))
        }
        short => Some((short.strip_suffix(b"/").unwrap_or(short), content)),
    }
}

/// A number in decimal, padded with spaces.
fn number(field: &[u8]) -> Option<usize> {
    str::from_utf8(field.trim_ascii_end()).ok()?.parse().ok()
}
