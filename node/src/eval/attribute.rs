//! Attribute paths: `a.b.c`, or `a."x y".b` if a name has a dot, a quote or a space in it.

use std::fmt;

use super::error::Fault;

/// Names that lead from the value of a file to one inside it; none for the value itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<String>);

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| Fault::Attribute { attribute: text.to_owned(), why: why.to_owned() };
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let name;
            (name, rest) = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted).ok_or_else(|| wrong("a quote is not closed"))?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    if rest[..end].contains('"') {
                        return Err(wrong("a quote is inside a name"));
                    }
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if name.is_empty() {
                return Err(wrong("a name is empty"));
            }
            names.push(name);
            rest = match rest.strip_prefix('.') {
                Some(after) => after,
                None if rest.is_empty() => return Ok(Self(names)),
                None => return Err(wrong("a dot is missing behind a quote")),
            };
        }
    }

    /// The path with one more name.
    pub(super) fn join(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }
}

/// Reads a quoted name, of which the opening quote was read; returns what follows the other one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, &text[at + 1..])),
            '\\' => name.push(chars.next()?.1),
            c => name.push(c),
        }
    }
    None
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, name) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(".")?;
            }
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
            if name.chars().all(plain) && !name.is_empty() {
                f.write_str(name)?;
            } else {
                write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str, names: &[&str]) {
        let path = Path::parse(text).unwrap();
        assert_eq!(path.0, names);
        assert_eq!(Path::parse(&path.to_string()).unwrap(), path);
    }

    #[test]
    fn paths() {
        good("a", &["a"]);
        good("a.b-1.c_+", &["a", "b-1", "c_+"]);
        good("a.\"x y\".b", &["a", "x y", "b"]);
        good(r#""a.b"."\"\\""#, &["a.b", "\"\\"]);
        for bad in ["", ".", "a.", ".a", "a..b", "\"a", "\"a\"b", "a\"b", "\"\"", "\"\\"] {
            assert!(matches!(Path::parse(bad), Err(Fault::Attribute { .. })), "{bad}");
        }
    }
}
