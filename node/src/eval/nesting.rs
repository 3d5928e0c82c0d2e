//! What is found out about a file before the parser sees it: how deep it nests, and what it imports.
//!
//! The parser of jrsonnet is recursive and has no limit of its own, so a file of brackets or of
//! operators would overflow the stack and abort the process. One pass over the bytes, without
//! recursion, bounds from above the depth of any syntax tree that the parser could make of them. It
//! also finds brackets that are never closed, which the parser would report only after time
//! exponential in their depth.

use super::error::{At, Fault};

/// Brackets inside each other. The worker's stack (`worker.rs`) was measured to hold 100,000 of any
/// kind; nobody writes 500.
pub(super) const BRACKETS: usize = 500;

/// Nodes above each other in the syntax tree: brackets, operators, keywords. As above; a long sum or
/// a file with many `local`s may come near.
pub(super) const NODES: usize = 10_000;

/// How a file is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `import`: it is parsed and evaluated.
    Code,
    /// `importstr` or `importbin`: it is only read.
    Data,
}

/// One import in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    /// The path as it stands between the quotes.
    pub(super) path: String,
    /// How it is imported.
    pub(super) kind: Kind,
    /// Where the keyword is, in bytes.
    pub(super) byte: usize,
}

/// A fault and the byte at which it is.
#[derive(Debug)]
pub(super) struct Found {
    byte: usize,
    fault: Fault,
}

impl Found {
    pub(super) fn at(&self, file: &str, text: &str) -> At {
        At::of_byte(file.to_owned(), text, self.byte)
    }

    pub(super) fn fault(self) -> Fault {
        self.fault
    }
}

/// Looks at a file of Jsonnet and returns its imports.
pub(super) fn scan(text: &str) -> Result<Vec<Import>, Found> {
    let mut scan = Scan { imports: Vec::new(), import: None, open: vec![Bracket::new(b' ', 0)] };
    let mut lexer = Lexer { text: text.as_bytes(), at: 0 };
    while let Some((byte, token)) = lexer.next() {
        scan.token(byte, token)?;
    }
    scan.end(text.len())?;
    match scan.open.pop() {
        Some(bracket) if !scan.open.is_empty() => Err(syntax(
            bracket.byte,
            format!("a `{}` for this `{}`", closing(bracket.open), char::from(bracket.open)),
            "none",
        )),
        _ => Ok(scan.imports),
    }
}

fn syntax(byte: usize, expected: impl Into<String>, found: impl Into<String>) -> Found {
    Found { byte, fault: Fault::Parse { expected: expected.into(), found: found.into() } }
}

fn closing(open: u8) -> char {
    match open {
        b'(' => ')',
        b'[' => ']',
        _ => '}',
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a [u8]),
    /// The content of a plain string, as it is written.
    Text(&'a [u8]),
    Open(u8),
    Close(u8),
    Comma,
    Semicolon,
    /// A character of an operator.
    Operator,
    /// A number, `:`, `.`, `$`, or what the parser will refuse.
    Other,
    /// A string that does not end.
    BadText,
    /// `|||` that begins no text block; there is no such operator.
    BadBlock,
}

struct Scan {
    imports: Vec<Import>,
    /// The keyword of an import that was just read.
    import: Option<(usize, Kind)>,
    open: Vec<Bracket>,
}

/// An open bracket, the file itself being the outermost.
struct Bracket {
    open: u8,
    byte: usize,
    /// The expression that is being read, and behind it the values of `local`s in it.
    expressions: Vec<Expression>,
    /// The deepest of the expressions that were read.
    deepest: usize,
    /// Whether a member of an object starts here.
    member: bool,
}

/// An expression so far: its tree is at most `nodes + child` deep.
#[derive(Default)]
struct Expression {
    nodes: usize,
    child: usize,
}

impl Bracket {
    fn new(open: u8, byte: usize) -> Self {
        Self { open, byte, expressions: vec![Expression::default()], deepest: 0, member: true }
    }

    /// Ends the innermost expression, which was the value of a `local` if there is another.
    fn end_expression(&mut self) {
        let Some(Expression { nodes, child }) = self.expressions.pop() else {
            return;
        };
        let deep = nodes + child;
        match self.expressions.last_mut() {
            Some(outer) => outer.child = outer.child.max(deep),
            None => self.deepest = self.deepest.max(deep),
        }
    }
}

impl Scan {
    fn token(&mut self, byte: usize, token: Token<'_>) -> Result<(), Found> {
        if let (Some((byte, kind)), Token::Text(path)) = (self.import.take(), token) {
            self.imports.push(Import { path: String::from_utf8_lossy(path).into_owned(), kind, byte });
        }
        let first = std::mem::replace(&mut self.innermost().member, false);
        match token {
            Token::Word(word) => self.word(byte, word, first),
            Token::Operator => self.node(byte),
            Token::Comma => {
                let bracket = self.innermost();
                bracket.end_expression();
                bracket.member = bracket.expressions.is_empty();
                bracket.expressions.push(Expression::default());
                Ok(())
            }
            Token::Semicolon => {
                let bracket = self.innermost();
                bracket.end_expression();
                if bracket.expressions.is_empty() {
                    bracket.expressions.push(Expression::default());
                }
                self.check(byte)
            }
            Token::Open(open) => {
                self.open.push(Bracket::new(open, byte));
                match self.open.len() - 1 {
                    deep if deep > BRACKETS => Err(too_deep(byte, "brackets", deep, BRACKETS)),
                    _ => Ok(()),
                }
            }
            Token::Close(close) => self.close(byte, close),
            Token::BadText => Err(syntax(byte, "a quote at the end of this string", "none")),
            Token::BadBlock => Err(syntax(
                byte,
                "a text block: indented lines below `|||`, and `|||` indented less at its end",
                "none",
            )),
            Token::Text(_) | Token::Other => Ok(()),
        }
    }

    fn innermost(&mut self) -> &mut Bracket {
        self.open.last_mut().expect("the file itself is never closed")
    }

    fn word(&mut self, byte: usize, word: &[u8], first: bool) -> Result<(), Found> {
        match word {
            b"import" => self.import = Some((byte, Kind::Code)),
            b"importstr" | b"importbin" => self.import = Some((byte, Kind::Data)),
            b"local" | b"assert" => {
                self.node(byte)?;
                let bracket = self.innermost();
                // As a member of an object it ends with a comma, elsewhere with a semicolon.
                if !(first && bracket.open == b'{') {
                    bracket.expressions.push(Expression::default());
                }
                return Ok(());
            }
            b"if" | b"then" | b"else" | b"function" | b"error" | b"for" | b"in" => {}
            _ => return Ok(()),
        }
        self.node(byte)
    }

    fn node(&mut self, byte: usize) -> Result<(), Found> {
        self.expression().nodes += 1;
        self.check(byte)
    }

    fn expression(&mut self) -> &mut Expression {
        self.innermost().expressions.last_mut().expect("there is always one")
    }

    fn check(&mut self, byte: usize) -> Result<(), Found> {
        match self.expression() {
            Expression { nodes, child } if *nodes + *child > NODES => {
                let deep = *nodes + *child;
                Err(too_deep(byte, "expressions", deep, NODES))
            }
            _ => Ok(()),
        }
    }

    /// Ends all that is open in the innermost bracket, and checks how deep it is.
    fn end(&mut self, byte: usize) -> Result<(), Found> {
        let bracket = self.innermost();
        while !bracket.expressions.is_empty() {
            bracket.end_expression();
        }
        match bracket.deepest {
            deep if deep > NODES => Err(too_deep(byte, "expressions", deep, NODES)),
            _ => Ok(()),
        }
    }

    fn close(&mut self, byte: usize, close: u8) -> Result<(), Found> {
        let open = self.innermost().open;
        if self.open.len() == 1 {
            return Err(syntax(byte, "an expression", format!("`{}`", char::from(close))));
        }
        if closing(open) != char::from(close) {
            return Err(syntax(byte, format!("`{}`", closing(open)), format!("`{}`", char::from(close))));
        }
        self.end(byte)?;
        let bracket = self.open.pop().expect("there are two at least");
        let outer = self.expression();
        outer.child = outer.child.max(bracket.deepest);
        self.node(byte)
    }
}

fn too_deep(byte: usize, what: &str, found: usize, limit: usize) -> Found {
    Found { byte, fault: Fault::TooDeep { what: what.into(), found, limit } }
}

/// Cuts a text into tokens, as the parser does where that matters: strings and comments end where
/// they end for the parser. What the parser refuses may be cut anyhow.
struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        self.skip_blank();
        let start = self.at;
        let rest = &self.text[start..];
        let token = match *rest.first()? {
            b'"' | b'\'' => self.string(rest[0], true),
            b'@' if matches!(rest.get(1), Some(b'"' | b'\'')) => {
                self.at += 1;
                self.string(rest[1], false)
            }
            b'|' if rest.starts_with(b"|||") => match block_end(rest) {
                Some(len) => {
                    self.at += len;
                    Token::Other
                }
                None => self.one(Token::BadBlock),
            },
            b'0'..=b'9' => {
                self.at += number(rest);
                Token::Other
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let word = |b: &u8| *b == b'_' || b.is_ascii_alphanumeric();
                let len = rest.iter().take_while(|b| word(b)).count();
                self.at += len;
                Token::Word(&rest[..len])
            }
            open @ (b'(' | b'[' | b'{') => self.one(Token::Open(open)),
            close @ (b')' | b']' | b'}') => self.one(Token::Close(close)),
            b',' => self.one(Token::Comma),
            b';' => self.one(Token::Semicolon),
            b'!' | b'~' | b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^' | b'<' | b'>' | b'='
            | b'?' => self.one(Token::Operator),
            _ => self.one(Token::Other),
        };
        Some((start, token))
    }

    fn one(&mut self, token: Token<'a>) -> Token<'a> {
        self.at += 1;
        token
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let skipped = match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => 1,
                [b'#', ..] | [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', tail @ ..] => match tail.windows(2).position(|w| w == b"*/") {
                    Some(len) => len + 4,
                    None => rest.len(),
                },
                _ => return,
            };
            self.at += skipped;
        }
    }

    /// A string whose opening quote is next; an escaped or, if verbatim, doubled quote is not its end.
    fn string(&mut self, quote: u8, escapes: bool) -> Token<'a> {
        let start = self.at + 1;
        let mut at = start;
        while at < self.text.len() {
            match self.text[at] {
                b'\\' if escapes => at += 2,
                b if b == quote && !escapes && self.text.get(at + 1) == Some(&quote) => at += 2,
                b if b == quote => break,
                _ => at += 1,
            }
        }
        self.at = (at + 1).min(self.text.len());
        if at < self.text.len() { Token::Text(&self.text[start..at]) } else { Token::BadText }
    }
}

/// Bytes of the number at the start: digits, a fraction, an exponent.
fn number(text: &[u8]) -> usize {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut len = digits(0);
    if text.get(len) == Some(&b'.') && digits(len + 1) > 0 {
        len += 1 + digits(len + 1);
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        if len + 1 + sign < text.len() && digits(len + 1 + sign) > 0 {
            len += 1 + sign + digits(len + 1 + sign);
        }
    }
    len
}

/// Bytes of the text block at the start, if it is one that the parser accepts.
fn block_end(text: &[u8]) -> Option<usize> {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t');
    let line_end = |at: usize| text[at..].iter().position(|b| *b == b'\n').map(|n| at + n + 1);
    let mut at = 3 + usize::from(text.get(3) == Some(&b'-'));
    // The parser would also skip comments here; a block that begins with one is refused instead.
    at += text[at..].iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r')).count();
    if text.get(at) != Some(&b'\n') {
        return None;
    }
    at += text[at..].iter().take_while(|b| **b == b'\n').count();
    let prefix = text[at..].iter().take_while(blank).count();
    if prefix == 0 {
        return None;
    }
    at = line_end(at)?;
    loop {
        let indent = text[at..].iter().take_while(blank).count();
        if text.get(at) == Some(&b'\n') {
            at += 1;
        } else if indent >= prefix {
            at = line_end(at)?;
        } else {
            return text[at + indent..].starts_with(b"|||").then_some(at + indent + 3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, place: &str, why: &str) {
        let found = scan(text).unwrap_err();
        assert_eq!(found.at("f", text).to_string(), place);
        assert!(found.fault.to_string().contains(why), "{}", found.fault);
    }

    #[test]
    fn brackets() {
        refused("[1, {a: 2}", "f:1:1", "expected a `]` for this `[`");
        refused("{\n a: [}", "f:2:6", "expected `]`, found `}`");
        refused("[ 'a]", "f:1:3", "a quote at the end");
        refused("a)", "f:1:2", "found `)`");
        for open in ["[", "(", "{a:"] {
            refused(&open.repeat(501), &format!("f:1:{}", 500 * open.len() + 1), "501 deep");
        }
        for fine in ["'['", "\"[\\\"[\"", "@'['''", "// [\n1", "/* [ */ 1", "# [", "|||\n  [\n|||", "1e-5"] {
            scan(fine).unwrap();
        }
    }

    #[test]
    fn chains() {
        let over = NODES + 1;
        for (text, why) in [
            (format!("1{}", "+1".repeat(over)), "expressions"),
            (format!("{}1", "-".repeat(over)), "expressions"),
            (format!("{}1", "if a then ".repeat(over)), "expressions"),
            (format!("{}1", "local a = 1; ".repeat(over)), "expressions"),
            (format!("{}1", "local a = 1, b = 1; ".repeat(over)), "expressions"),
            (format!("{}1{}", "local a = ".repeat(over), "; a".repeat(over)), "expressions"),
            (format!("{}1", "local a = ".repeat(over)), "expressions"),
            (format!("[{}1]", "local a = ".repeat(over)), "expressions"),
            (format!("{}1", "local a = 1, b = ".repeat(over)), "expressions"),
            (format!("{}1", "function(a) ".repeat(over)), "expressions"),
            (format!("{}1", "assert true; ".repeat(over)), "expressions"),
            (format!("{}1", "error ".repeat(over)), "expressions"),
            (format!("{}'a'", "import ".repeat(over)), "expressions"),
            (format!("a{}", "()".repeat(over)), "expressions"),
            (format!("a{}", "{}".repeat(over)), "expressions"),
            (format!("a{}", "[1:]".repeat(over)), "expressions"),
            // Each alone is allowed; the tree is as deep as all of them.
            (
                format!(
                    "{}{}{}",
                    "(".repeat(400),
                    "1+1".repeat(400),
                    ")+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1".repeat(400)
                ),
                "expressions",
            ),
        ] {
            let found = scan(&text).unwrap_err();
            assert!(found.fault.to_string().contains(why), "{}: {}", &text[..40], found.fault);
        }
    }

    /// Wide is not deep.
    #[test]
    fn width() {
        let wide = 3 * NODES;
        for text in [
            format!("[{}]", "1 + 1, ".repeat(wide)),
            format!("{{{}}}", "local a = 1 + 1, ".repeat(wide)),
            format!("{{{}}}", "a: if b then c else d, ".repeat(wide)),
            format!("local {} a = 1; a", "b(x) = x + [1], ".repeat(wide)),
            format!("a{}", ".b".repeat(wide)),
            "#".repeat(wide),
        ] {
            scan(&text).unwrap();
        }
    }

    #[test]
    fn imports() {
        let found = scan("local a = import 'a.libsonnet'; importstr @\"b\" + (import 'c')").unwrap();
        let found: Vec<_> = found.iter().map(|i| (i.path.as_str(), i.kind, i.byte)).collect();
        assert_eq!(found, [("a.libsonnet", Kind::Code, 10), ("b", Kind::Data, 32), ("c", Kind::Code, 50)]);
    }
}
