//! Agreement: whether executions of one action gave the same outputs.
//!
//! Execution is deterministic (SPEC §7), so executions either agree in every output, or one of
//! them is wrong. Which one is not decided here: this only says where they part and who stands on
//! which side.

use std::collections::BTreeMap;

use protocol::{id::NarHash, name::Name};

/// What one execution gave: the hash of each output.
pub type Result = BTreeMap<Name, NarHash>;

/// The first output, by name, in which two executions differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The output.
    pub output: Name,
    /// What the first execution gave; `None` if it has no such output.
    pub first: Option<NarHash>,
    /// What the second execution gave; `None` if it has no such output.
    pub second: Option<NarHash>,
}

/// Where two executions of one action part; `None` if they agree in every output.
pub fn compare(first: &Result, second: &Result) -> Option<Difference> {
    let mut names: Vec<_> = first.keys().chain(second.keys()).collect();
    names.sort();
    let output = names.into_iter().find(|name| first.get(*name) != second.get(*name))?;
    let of = |result: &Result| result.get(output).copied();
    Some(Difference { output: output.clone(), first: of(first), second: of(second) })
}

/// The sides that executions of one action fall into: each result, with those who gave it, the
/// side with the most first; equal sides in the order of their results, so that the order in which
/// executions are named does not matter.
pub fn sides<W: Ord, R: Ord>(executions: impl IntoIterator<Item = (W, R)>) -> Vec<(R, Vec<W>)> {
    let mut sides: BTreeMap<R, Vec<W>> = BTreeMap::new();
    for (who, result) in executions {
        sides.entry(result).or_default().push(who);
    }
    let mut sides: Vec<_> = sides.into_iter().collect();
    for (_, who) in &mut sides {
        who.sort();
    }
    sides.sort_by_key(|(_, who)| std::cmp::Reverse(who.len()));
    sides
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` reads "output:digit …".
    fn result(text: &str) -> Result {
        let one = |pair: &str| {
            let (name, digit) = pair.split_once(':').unwrap();
            (Name::new(name).unwrap(), NarHash::from_bytes([digit.as_bytes()[0]; 32]))
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn differences() {
        let part = |a, b| compare(&result(a), &result(b)).map(|d| d.output.to_string());
        assert_eq!(part("out:1 dev:2", "dev:2 out:1"), None);
        assert_eq!(part("out:1", "out:2").as_deref(), Some("out"));
        assert_eq!(part("dev:1 out:1", "dev:2 out:2").as_deref(), Some("dev"));
        assert_eq!(part("dev:1 out:1", "out:1").as_deref(), Some("dev"));
        assert_eq!(part("", ""), None);
    }

    #[test]
    fn sides_do_not_depend_on_order() {
        let all = [("a", "out:1"), ("b", "out:2"), ("c", "out:1"), ("d", "out:3")];
        let sides_of = |order: &[usize]| {
            let named = sides(order.iter().map(|n| (all[*n].0, result(all[*n].1))));
            named.into_iter().map(|(_, who)| who.join("")).collect::<Vec<_>>()
        };
        assert_eq!(sides_of(&[0, 1, 2, 3]), ["ac", "b", "d"]);
        assert_eq!(sides_of(&[3, 2, 1, 0]), ["ac", "b", "d"]);
    }
}
