//! Text of foreign origin, made fit to be shown.
//!
//! Names and contents of archives are chosen by whoever built them. Shown as they are, they could
//! move a terminal's cursor, turn the direction of the text around them, or look like one another.
//! What a reader does not see, or what changes how other characters are seen, is written as an
//! escape: `\u{202e}`; bytes that are not UTF-8 as `\xff`.

use std::fmt::Write as _;

/// Whether a character is seen as what it is, and does nothing else.
pub fn is_plain(c: char) -> bool {
    !(c.is_control() || is_invisible(c))
}

/// Characters that have no shape of their own, or turn the direction of others.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// A name: with nothing in it but plain characters, and with `\` doubled, so that different names
/// look different.
///
/// Of a name of more than `most` bytes the middle is left out, and it is said how much.
pub fn name(bytes: &[u8], most: usize) -> String {
    if bytes.len() <= most {
        return escaped(bytes);
    }
    let head = boundary(bytes, most / 2);
    let tail = boundary(bytes, bytes.len() - most / 2);
    format!("{}[… {} bytes …]{}", escaped(&bytes[..head]), tail - head, escaped(&bytes[tail..]))
}

/// A line of text without its end: tabs and `\` are left as they are, all else is plain.
pub fn line(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\t' || is_plain(c) { plain.push(c) } else { escape(c, &mut plain) }
    }
    plain
}

fn escaped(bytes: &[u8]) -> String {
    let mut plain = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => plain.push_str("\\\\"),
                c if is_plain(c) => plain.push(c),
                c => escape(c, &mut plain),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(plain, "\\x{byte:02x}");
        }
    }
    plain
}

fn escape(c: char, to: &mut String) {
    let _ = write!(to, "\\u{{{:x}}}", c as u32);
}

/// The start of the character that `at` lies in, where there are characters.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let continues = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (at.saturating_sub(3)..=at).rev().find(|at| !continues(*at)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let check = |bytes: &[u8], shown: &str| assert_eq!(name(bytes, 24), shown);
        check(b"lib/a.o", "lib/a.o");
        check("straße".as_bytes(), "straße");
        check(b"a\x1b[2J\r\n\t", "a\\u{1b}[2J\\u{d}\\u{a}\\u{9}");
        check("a\u{202e}b\u{200b}c".as_bytes(), "a\\u{202e}b\\u{200b}c");
        check(b"\xff\\xff", "\\xff\\\\xff");
        check(&[b'x'; 25], "xxxxxxxxxxxx[… 1 bytes …]xxxxxxxxxxxx");
        check("ääääääääääääää".as_bytes(), "ääääää[… 4 bytes …]ääääää");
        check(&[0x80; 25], &format!("{0}[… 1 bytes …]{0}", "\\x80".repeat(12)));
    }

    #[test]
    fn lines_are_plain() {
        assert_eq!(line("\tif a \\ b\u{2066}\r"), "\tif a \\ b\\u{2066}\\u{d}");
    }
}
