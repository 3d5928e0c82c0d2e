//! What somebody who misspelt a name may have meant.

/// The name among `known` that is nearest to `text`, if it is near: at most a third of its
/// characters, and never more than three, are wrong, missing or too much.
pub(crate) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = (text.chars().count() / 3).clamp(1, 3);
    let distances = known.into_iter().map(|name| (distance(text, name), name));
    let (distance, name) = distances.min()?;
    (distance <= near).then(|| name.to_owned())
}

/// The number of characters to insert, remove or replace.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[m + 1];
            row[m + 1] = replaced.min(row[m] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn near_or_nothing() {
        let known = ["alice", "bob", "majority"];
        assert_eq!(nearest("alcie", known), None, "two of five are too many");
        assert_eq!(nearest("alise", known).as_deref(), Some("alice"));
        assert_eq!(nearest("bo", known).as_deref(), Some("bob"));
        assert_eq!(nearest("majorityes", known).as_deref(), Some("majority"));
        assert_eq!(nearest("majo", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
