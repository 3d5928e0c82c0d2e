//! One field of a JSON object, read without keeping the others.
//!
//! Strict: the whole document must be JSON (RFC 8259), with nothing after it. Values that are not
//! asked for are checked and passed over, to any depth, without recursion.
//!
//! Absent on purpose: a tree of values. This is all the JSON that the tools need, and without a
//! library for it they need none at all.

use std::error::Error;
use std::fmt;

/// Why there is no text in a field of a JSON document.
#[derive(Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where in the document, in bytes from the start.
    pub offset: usize,
    /// What is wrong there.
    pub fault: JsonFault,
}

/// What is wrong with a JSON document or a field of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    /// The bytes are not JSON.
    NotJson,
    /// The document is not an object.
    NotAnObject,
    /// The field is neither a string nor an array of strings.
    NotText,
    /// The object has the field twice.
    Twice,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            JsonFault::NotJson => "not JSON",
            JsonFault::NotAnObject => "not a JSON object",
            JsonFault::NotText => "field is not a string or an array of strings",
            JsonFault::Twice => "field is there twice",
        };
        write!(f, "byte {}: {fault}", self.offset)
    }
}

impl Error for JsonError {}

/// The text of the field `key` of the object in `document`, if it has one: a string as it is, an
/// array of strings as lines.
///
/// # Errors
///
/// [`JsonError`] says where the document is not as it should be.
pub(super) fn text(document: &[u8], key: &str) -> Result<Option<String>, JsonError> {
    let mut reader = Reader {
        rest: document,
        length: document.len(),
    };
    let mut text = None;
    if !reader.takes(b'{') {
        return Err(reader.fault(JsonFault::NotAnObject));
    }
    let mut is_first = true;
    while reader.goes_on(b'}', &mut is_first)? {
        let found = reader.string()?;
        reader.expect(b':')?;
        if found != key {
            reader.pass_over()?;
        } else if text.is_none() {
            text = Some(reader.text()?);
        } else {
            return Err(reader.fault(JsonFault::Twice));
        }
    }
    match reader.peek() {
        None => Ok(text),
        Some(_) => Err(reader.fault(JsonFault::NotJson)),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// The length of the whole document.
    length: usize,
}

impl<'a> Reader<'a> {
    fn fault(&self, fault: JsonFault) -> JsonError {
        let offset = self.length - self.rest.len();
        JsonError { offset, fault }
    }

    fn not_json(&self) -> JsonError {
        self.fault(JsonFault::NotJson)
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// Takes `byte`, if it is next.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.takes(byte) {
            Ok(())
        } else {
            Err(self.not_json())
        }
    }

    /// In an object or array: takes its end, or the comma before the next item if there is one.
    fn goes_on(&mut self, end: u8, is_first: &mut bool) -> Result<bool, JsonError> {
        if self.takes(end) {
            return Ok(false);
        }
        if !*is_first {
            self.expect(b',')?;
        }
        *is_first = false;
        Ok(true)
    }

    /// A string, or an array of strings as lines.
    fn text(&mut self) -> Result<String, JsonError> {
        if self.peek() == Some(b'"') {
            return self.string();
        }
        if !self.takes(b'[') {
            return Err(self.fault(JsonFault::NotText));
        }
        let mut text = String::new();
        let mut is_first = true;
        while self.goes_on(b']', &mut is_first)? {
            if self.peek() != Some(b'"') {
                return Err(self.fault(JsonFault::NotText));
            }
            text += &self.string()?;
            text.push('\n');
        }
        Ok(text)
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let end = self.rest.iter().position(is_special);
            let (plain, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            text += str::from_utf8(plain).map_err(|_| self.not_json())?;
            self.rest = rest;
            match rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(text);
                }
                [b'\\', kind, rest @ ..] => {
                    self.rest = rest;
                    text.push(self.escaped(*kind)?);
                }
                _ => return Err(self.not_json()),
            }
        }
    }

    /// The character that is written as `\` and `kind`, with what comes after.
    fn escaped(&mut self, kind: u8) -> Result<char, JsonError> {
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.code_unit()?;
                let mut code = u32::from(unit);
                // The first half of a pair; the second half alone is no character.
                if (0xd800..0xdc00).contains(&unit) {
                    let [b'\\', b'u', rest @ ..] = self.rest else {
                        return Err(self.not_json());
                    };
                    self.rest = rest;
                    let low = self.code_unit()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.not_json());
                    }
                    code = 0x10000 + (u32::from(unit - 0xd800) << 10) + u32::from(low - 0xdc00);
                }
                char::from_u32(code).ok_or_else(|| self.not_json())?
            }
            _ => return Err(self.not_json()),
        })
    }

    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let (digits, rest) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or_else(|| self.not_json())?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16);
            unit = unit << 4 | digit.ok_or_else(|| self.not_json())? as u16;
        }
        self.rest = rest;
        Ok(unit)
    }

    /// Passes over one value of any kind.
    fn pass_over(&mut self) -> Result<(), JsonError> {
        let mut ends = Vec::new(); // Of the objects and arrays that we are in.
        let mut is_first = true;
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.rest = &self.rest[1..];
                    ends.push(b'}');
                    is_first = true;
                }
                Some(b'[') => {
                    self.rest = &self.rest[1..];
                    ends.push(b']');
                    is_first = true;
                }
                Some(b'"') => drop(self.string()?),
                _ => self.pass_over_word()?,
            }
            // After a value, or at the start of an object or array: on to the next value.
            loop {
                let Some(end) = ends.last().copied() else {
                    return Ok(());
                };
                if self.goes_on(end, &mut is_first)? {
                    if end == b'}' {
                        self.string()?;
                        self.expect(b':')?;
                    }
                    break;
                }
                ends.pop();
                is_first = false;
            }
        }
    }

    /// Passes over a number, `true`, `false` or `null`.
    fn pass_over_word(&mut self) -> Result<(), JsonError> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let end = self.rest.iter().position(|byte| !is_part(byte));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let is_word = matches!(word, b"true" | b"false" | b"null") || is_number(word);
        if !is_word {
            return Err(self.not_json());
        }
        self.rest = rest;
        Ok(())
    }
}

fn is_number(word: &[u8]) -> bool {
    let word = word.strip_prefix(b"-").unwrap_or(word);
    let (whole, rest) = digits(word);
    let has_whole = whole == b"0" || whole.first().is_some_and(|first| *first != b'0');
    let (has_fraction, rest) = match rest {
        [b'.', rest @ ..] => {
            let (fraction, rest) = digits(rest);
            (!fraction.is_empty(), rest)
        }
        _ => (true, rest),
    };
    let has_exponent = match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..] => {
            let (exponent, rest) = digits(rest);
            !exponent.is_empty() && rest.is_empty()
        }
        _ => false,
    };
    has_whole && has_fraction && has_exponent
}

fn digits(word: &[u8]) -> (&[u8], &[u8]) {
    let end = word.iter().position(|byte| !byte.is_ascii_digit());
    word.split_at(end.unwrap_or(word.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn text_is_found() {
        check(r#"{"k": "v"}"#, Ok(Some("v")));
        check(
            r#" { "a" : [ {} , [ ] ], "k" : [ "x" , "y" ] } "#,
            Ok(Some("x\ny\n")),
        );
        check(r#"{"k": []}"#, Ok(Some("")));
        check(
            r#"{"\u006b": "a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"}"#,
            Ok(Some("a\"\\/\u{8}\u{c}\n\r\tä😀")),
        );
        check("{}", Ok(None));
        check(r#"{"l": "v", "m": {"k": "w"}}"#, Ok(None));
    }

    #[test]
    fn faults_are_placed() {
        use JsonFault::{NotAnObject, NotJson, NotText, Twice};
        check("", Err((0, NotAnObject)));
        check("[]", Err((0, NotAnObject)));
        check(r#"{"k": 1}"#, Err((6, NotText)));
        check(r#"{"k": ["v", null]}"#, Err((12, NotText)));
        check(r#"{"k": "v", "k": "w"}"#, Err((15, Twice)));
        check(r#"{"k": "v"} x"#, Err((11, NotJson)));
        check(r#"{"k": "v",}"#, Err((10, NotJson)));
        check(r#"{"k": "v""#, Err((9, NotJson)));
        check(r#"{"k": "\ud83d"}"#, Err((13, NotJson)));
        check(r#"{"k": "\ude00"}"#, Err((13, NotJson)));
        check("{\"k\": \"\n\"}", Err((7, NotJson)));
        check(r#"{"l": 01}"#, Err((6, NotJson)));
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        check(&format!(r#"{{"l": {deep}, "k": "v"}}"#), Ok(Some("v")));
        assert!(text(b"{\"l\": [[[[", "k").is_err());
    }

    proptest! {
        /// A full JSON library agrees on what is JSON and on what it says.
        #[test]
        fn agrees_with_serde(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"k\"", "\"a\"", "\"\\u00e4\"", "\"\\ud83d\\ude00\"",
            "1", "-0", "01", "1.5", "1e5", "1.e", "2E-1", "true", "nul", "null", " ", "\n", "\"",
        ]), 0..12)) {
            let document = format!("{{\"l\": {}}}", pieces.concat());
            agree(&document)?;
            agree(&pieces.concat())?;
            agree(&format!("{{\"k\": [{}]}}", pieces.join(",")))?;
        }

        #[test]
        fn any_text_survives(content in any::<String>()) {
            let document = Value::from_iter([("k", content.as_str())]).to_string();
            prop_assert_eq!(text(document.as_bytes(), "k"), Ok(Some(content)));
        }
    }

    fn agree(document: &str) -> Result<(), TestCaseError> {
        let theirs: Option<Value> = serde_json::from_str(document).ok();
        let ours = text(document.as_bytes(), "k");
        match (&ours, &theirs) {
            (Ok(None), Some(Value::Object(fields))) => prop_assert!(!fields.contains_key("k")),
            (Ok(Some(text)), Some(Value::Object(fields))) => match &fields["k"] {
                Value::String(string) => prop_assert_eq!(text, string),
                lines => {
                    let lines = lines.as_array().unwrap().iter();
                    let lines: String = lines
                        .map(|line| format!("{}\n", line.as_str().unwrap()))
                        .collect();
                    prop_assert_eq!(text, &lines);
                }
            },
            (Ok(_), _) => prop_assert!(false, "{} is not JSON", document),
            (Err(error), Some(_)) => prop_assert!(
                error.fault != JsonFault::NotJson,
                "{} at {}",
                document,
                error
            ),
            (Err(_), None) => {}
        }
        Ok(())
    }

    #[track_caller]
    fn check(document: &str, expected: Result<Option<&str>, (usize, JsonFault)>) {
        let found = text(document.as_bytes(), "k");
        let found = found.as_ref().map(Option::as_deref);
        assert_eq!(found.map_err(|error| (error.offset, error.fault)), expected);
    }
}
