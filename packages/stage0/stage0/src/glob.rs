//! Globs: which files are meant.
//!
//! Pattern and path are split at `/`. A component `**` matches any number of components, none
//! included; inside a component `*` matches any run of bytes and `?` one byte; all else means
//! itself. Bytes are compared as they are: case matters, and a letter of two bytes is two `?`.
//!
//! Absent on purpose: braces, classes, escapes. A name with `*` in it is matched by `?`.

/// Whether `path` is one of those that `pattern` means.
///
/// Takes time in proportion to the product of the two lengths at worst, whatever the pattern.
///
/// ```
/// use stage0::glob::matches;
///
/// assert!(matches("src/**/*.h", "src/a/b/c.h"));
/// assert!(matches("src/**/*.h", "src/c.h"));
/// assert!(!matches("*.h", "src/c.h"));
/// ```
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    covers(
        &pattern,
        &path,
        |component| *component == "**",
        |component, name| component_matches(component, name),
    )
}

/// Globs that select and globs that exclude.
///
/// A path is selected if a glob means it and no excluding glob does. With excluding globs only,
/// all that they leave is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl Selection {
    /// A selection by `globs`, of which those with a leading `!` exclude.
    pub fn new<'a>(globs: impl IntoIterator<Item = &'a str>) -> Self {
        let mut selection = Self::default();
        for glob in globs {
            match glob.strip_prefix('!') {
                Some(glob) => selection.unwanted.push(glob.to_owned()),
                None => selection.wanted.push(glob.to_owned()),
            }
        }
        selection
    }

    /// Whether `path` is selected. The empty selection selects everything.
    pub fn has(&self, path: &str) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(|glob| matches(glob, path)))
            && !self.unwanted.iter().any(|glob| matches(glob, path))
    }
}

fn component_matches(pattern: &str, name: &str) -> bool {
    covers(
        pattern.as_bytes(),
        name.as_bytes(),
        |byte| *byte == b'*',
        |byte, other| *byte == b'?' || byte == other,
    )
}

/// Whether `pattern` covers all of `text`, where an item that `is_run` covers any number of items
/// and each other item must `fit` exactly one.
///
/// On a mismatch only the last run needs to grow: whatever an earlier one could take, the last
/// can. So there is no recursion, and no pattern takes exponential time.
fn covers<P, T>(
    pattern: &[P],
    text: &[T],
    is_run: impl Fn(&P) -> bool,
    fit: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_run = None; // Where the pattern goes on after the run, and where its text ends.
    while t < text.len() {
        if p < pattern.len() && is_run(&pattern[p]) {
            p += 1;
            last_run = Some((p, t));
        } else if p < pattern.len() && fit(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, end)) = last_run {
            (p, t) = (after, end + 1);
            last_run = Some((p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_run)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_mean_what_they_say() {
        check("a/b", "a/b", true);
        check("a/b", "a/b/c", false);
        check("a/b", "A/b", false);
        check("*", "a", true);
        check("*", "a/b", false);
        check("*", ".hidden", true);
        check("a*c", "abbc", true);
        check("a*c", "ac", true);
        check("a*b*c", "a-b-b-c", true);
        check("?", "a", true);
        check("?", "", false);
        check("?", "é", false); // One letter, two bytes.
        check("??", "é", true);
        check("**", "a/b/c", true);
        check("a/**", "a", true);
        check("a/**", "a/b", true);
        check("a/**", "ab", false);
        check("**/c", "c", true);
        check("**/c", "a/b/c", true);
        check("**/c", "a/bc", false);
        check("a/**/b/**/c", "a/x/b/y/b/c", true);
        check("a**c", "abbc", true); // Not a component of its own: two runs.
        check("a**c", "a/c", false);
        check("[ab]", "a", false);
        check("[ab]", "[ab]", true);
        check("{a,b}", "a", false);
        check("a/", "a", false);
    }

    #[test]
    fn exclusion_wins() {
        let selection = Selection::new(["**/*.c", "!test/**"]);
        assert!(selection.has("src/a.c"));
        assert!(!selection.has("src/a.h"));
        assert!(!selection.has("test/a.c"));
        assert!(Selection::new(["!*.o"]).has("a.c"));
        assert!(!Selection::new(["!*.o"]).has("a.o"));
        assert!(Selection::new([]).has("a"));
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(200);
        let path = "a".repeat(10_000) + "b";
        assert!(!matches(&pattern, &path));
        let pattern = "**/a/".repeat(50) + "b";
        let path = "a/".repeat(2_000) + "c";
        assert!(!matches(&pattern, &path));
    }

    proptest! {
        /// The definition, read literally and slowly, agrees.
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?/]{0,8}", path in "[ab/]{0,8}") {
            let literal = by_definition(
                &pattern.split('/').collect::<Vec<_>>(),
                &path.split('/').collect::<Vec<_>>(),
            );
            prop_assert_eq!(matches(&pattern, &path), literal);
        }
    }

    fn by_definition(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                (0..=path.len()).any(|taken| by_definition(rest, &path[taken..]))
            }
            ([first, rest @ ..], [name, names @ ..]) => {
                bytes_by_definition(first.as_bytes(), name.as_bytes()) && by_definition(rest, names)
            }
            _ => false,
        }
    }

    fn bytes_by_definition(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                (0..=name.len()).any(|taken| bytes_by_definition(rest, &name[taken..]))
            }
            ([b'?', rest @ ..], [_, names @ ..]) => bytes_by_definition(rest, names),
            ([byte, rest @ ..], [other, names @ ..]) => {
                byte == other && bytes_by_definition(rest, names)
            }
            _ => false,
        }
    }

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        assert_eq!(matches(pattern, path), expected, "{pattern} against {path}");
    }
}
