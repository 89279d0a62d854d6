//! From text to tokens.
//!
//! The whole text is cut before the grammar looks at it. What a character means depends on the lexer's own state only:
//! inside `{}` every word is a label's name, inside `[]` only durations and their functions are known.

use super::token::{Keyword, Token, TokenKind, word};
use crate::ast::{BinaryOp, Span};
use model::labels::Quoted;

/// The tokens of a text. The last one is [`TokenKind::Eof`] or [`TokenKind::Error`].
#[derive(Debug)]
pub struct Tokens {
    /// In order, comments and space left out.
    pub tokens: Vec<Token>,
    /// Why the last token is an error.
    pub error: String,
}

/// Cuts `text`. It must be shorter than 4 GiB.
pub fn tokens(text: &str) -> Tokens {
    let mut lexer = Lexer {
        text,
        at: 0,
        start: 0,
        parens: 0,
        in_braces: false,
        in_brackets: false,
        colon_seen: false,
        tokens: Vec::with_capacity(text.len() / 4 + 2),
    };
    let error = loop {
        match lexer.next() {
            Ok(true) => {}
            Ok(false) => break String::new(),
            Err(message) => {
                lexer.at = text.len();
                lexer.emit(TokenKind::Error);
                break message;
            }
        }
    };
    Tokens { tokens: lexer.tokens, error }
}

struct Lexer<'a> {
    text: &'a str,
    /// Next character.
    at: usize,
    /// First character of the token at work.
    start: usize,
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Whether these brackets had their colon.
    colon_seen: bool,
    tokens: Vec<Token>,
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// A character in single quotes, as Go's `%q` writes it.
fn quoted(c: char) -> String {
    match c {
        '\'' => r"'\''".into(),
        '"' => "'\"'".into(),
        c => {
            let text = Quoted(c.encode_utf8(&mut [0; 4])).to_string();
            format!("'{}'", &text[1..text.len() - 1])
        }
    }
}

/// A character by its number, as Go's `%#U` writes it.
fn numbered(c: char) -> String {
    if c.is_control() { format!("U+{:04X}", c as u32) } else { format!("U+{:04X} '{c}'", c as u32) }
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, set: &str) -> bool {
        match self.peek() {
            Some(c) if set.contains(c) => {
                self.at += c.len_utf8();
                true
            }
            _ => false,
        }
    }

    fn emit(&mut self, kind: TokenKind) {
        self.tokens.push(Token { kind, span: Span { start: self.start as u32, end: self.at as u32 } });
        self.start = self.at;
    }

    /// One token, or space, or a comment. False at the end.
    fn next(&mut self) -> Result<bool, String> {
        self.start = self.at;
        match self.peek() {
            Some(' ' | '\t' | '\n' | '\r') => {
                self.at += 1;
                return Ok(true);
            }
            Some('#') => {
                let rest = &self.text[self.at..];
                self.at += rest.find('\n').unwrap_or(rest.len());
                return Ok(true);
            }
            _ => {}
        }
        let Some(c) = self.bump() else { return self.end().map(|()| false) };
        if self.in_braces {
            self.inside_braces(c)?
        } else {
            self.statement(c)?
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<(), String> {
        if self.in_braces {
            return Err("unexpected end of input inside braces".into());
        }
        if self.parens > 0 {
            return Err("unclosed left parenthesis".into());
        }
        if self.in_brackets {
            return Err("unexpected end of input in brackets".into());
        }
        self.emit(TokenKind::Eof);
        Ok(())
    }

    fn statement(&mut self, c: char) -> Result<(), String> {
        use BinaryOp::*;
        use TokenKind::Operator;
        let kind = match c {
            ',' => TokenKind::Comma,
            '*' => Operator(Mul),
            '/' => Operator(Div),
            '%' => Operator(Mod),
            '+' => Operator(Add),
            '-' => Operator(Sub),
            '^' => Operator(Pow),
            '=' => match self.peek() {
                Some('=') => self.second(Operator(Equal)),
                Some('~') => return Err(format!("unexpected character after '=': {}", quoted('~'))),
                _ => TokenKind::Assign,
            },
            '!' => match self.peek() {
                Some('=') => self.second(Operator(NotEqual)),
                Some(c) => return Err(format!("unexpected character after '!': {}", quoted(c))),
                None => return Err("unexpected end of input after '!'".into()),
            },
            '<' => match self.peek() {
                Some('=') => self.second(Operator(LessEqual)),
                Some('/') => self.second(Operator(TrimUpper)),
                _ => Operator(Less),
            },
            '>' => match self.peek() {
                Some('=') => self.second(Operator(GreaterEqual)),
                Some('/') => self.second(Operator(TrimLower)),
                _ => Operator(Greater),
            },
            '@' => TokenKind::At,
            '(' => {
                self.parens += 1;
                TokenKind::LeftParen
            }
            ')' => {
                // Prometheus has already taken the parenthesis when it complains, so the position is behind it.
                let Some(left) = self.parens.checked_sub(1) else {
                    self.start = self.at;
                    return Err("unexpected right parenthesis ')'".into());
                };
                self.parens = left;
                TokenKind::RightParen
            }
            '{' => {
                self.in_braces = true;
                TokenKind::LeftBrace
            }
            '[' if self.in_brackets => return Err("unexpected left bracket '['".into()),
            '[' => {
                self.in_brackets = true;
                self.colon_seen = false;
                TokenKind::LeftBracket
            }
            ']' if !self.in_brackets => return Err("unexpected right bracket ']'".into()),
            ']' => {
                self.in_brackets = false;
                TokenKind::RightBracket
            }
            '"' | '\'' | '`' => return self.string(c),
            c if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())) => {
                self.at = self.start;
                return self.number_or_duration();
            }
            ':' if self.in_brackets => {
                if std::mem::replace(&mut self.colon_seen, true) {
                    return Err("unexpected colon ':'".into());
                }
                TokenKind::Colon
            }
            c if is_alpha(c) || c == ':' => return self.word(),
            c => return Err(format!("unexpected character: {}", quoted(c))),
        };
        self.emit(kind);
        Ok(())
    }

    fn second(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        kind
    }

    fn inside_braces(&mut self, c: char) -> Result<(), String> {
        let kind = match c {
            c if is_alpha(c) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.at += 1;
                }
                TokenKind::Identifier
            }
            ',' => TokenKind::Comma,
            '"' | '\'' | '`' => return self.string(c),
            '=' if self.peek() == Some('~') => self.second(TokenKind::Matches),
            '=' => TokenKind::Assign,
            '!' => match self.peek() {
                Some('~') => self.second(TokenKind::NotMatches),
                Some('=') => self.second(TokenKind::Operator(BinaryOp::NotEqual)),
                Some(c) => {
                    return Err(format!("unexpected character after '!' inside braces: {}", quoted(c)));
                }
                None => return Err("unexpected end of input inside braces".into()),
            },
            '{' => return Err("unexpected left brace '{'".into()),
            '}' => {
                self.in_braces = false;
                TokenKind::RightBrace
            }
            c => return Err(format!("unexpected character inside braces: {}", quoted(c))),
        };
        self.emit(kind);
        Ok(())
    }

    fn word(&mut self) -> Result<(), String> {
        while self.peek().is_some_and(|c| is_alphanumeric(c) || (c == ':' && !self.in_brackets)) {
            self.at += 1;
        }
        let text = &self.text[self.start..self.at];
        let kind = word(text);
        if self.in_brackets {
            return match kind {
                Some(TokenKind::Keyword(
                    Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf,
                )) => {
                    self.emit(kind.expect("just matched"));
                    Ok(())
                }
                _ => {
                    let first = text.chars().next().expect("a word has a first character");
                    Err(format!("unexpected character: {}, expected ':'", quoted(first)))
                }
            };
        }
        self.emit(kind.unwrap_or(if text.contains(':') {
            TokenKind::MetricIdentifier
        } else {
            TokenKind::Identifier
        }));
        Ok(())
    }

    fn number_or_duration(&mut self) -> Result<(), String> {
        if self.number() {
            self.emit(TokenKind::Number);
        } else if self.rest_of_duration() {
            self.emit(TokenKind::Duration);
        } else {
            let text = &self.text[self.start..self.at];
            return Err(format!("bad number or duration syntax: {}", Quoted(text)));
        }
        Ok(())
    }

    /// Digits with `.`, `_`, an exponent or `0x`, as Prometheus takes them. Stops where a duration's unit may follow.
    fn number(&mut self) -> bool {
        const DECIMAL: &str = "0123456789";
        const HEX: &str = "0123456789abcdefABCDEF";
        let mut digits = DECIMAL;
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = HEX;
        }
        self.accept(".");
        self.accept(digits);
        let dots = self.text[self.start..self.at].matches('.').count();
        let (mut dot, mut exponent) = (false, false);
        while let Some(c) = self.peek() {
            match c {
                '.' => {
                    self.at += 1;
                    if dot || dots > 0 || digits == HEX || self.accept("_.") {
                        return false;
                    }
                    dot = true;
                }
                'e' | 'E' if digits == DECIMAL => {
                    self.at += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept("+-");
                    if self.accept("._eE") || !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                        return false;
                    }
                }
                '_' => {
                    self.at += 1;
                    if self.accept("._eE") || !self.peek().is_some_and(|c| digits.contains(c)) {
                        return false;
                    }
                }
                c if digits.contains(c) => self.at += 1,
                _ => break,
            }
        }
        !self.peek().is_some_and(is_alphanumeric)
    }

    /// After a number: a unit, then more numbers with units. Order and size are checked when it is read.
    fn rest_of_duration(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept("0123456789") {
            while self.accept("0123456789") {}
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        // The message shows the letter that is in the way.
        if self.peek().is_some_and(is_alphanumeric) {
            self.at += 1;
            return false;
        }
        true
    }

    fn string(&mut self, quote: char) -> Result<(), String> {
        loop {
            match self.bump() {
                Some(c) if c == quote => break,
                Some('\\') if quote != '`' => self.escape(quote)?,
                None if quote == '`' => return Err("unterminated raw string".into()),
                Some('\n') if quote != '`' => return Err("unterminated quoted string".into()),
                None => return Err("unterminated quoted string".into()),
                Some(_) => {}
            }
        }
        self.emit(TokenKind::String);
        Ok(())
    }

    fn escape(&mut self, quote: char) -> Result<(), String> {
        const UNTERMINATED: &str = "escape sequence not terminated";
        let (digits, base, max) = match self.peek() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => {
                self.at += 1;
                return Ok(());
            }
            Some(c) if c == quote => {
                self.at += 1;
                return Ok(());
            }
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (self.skip(2), 16, 255),
            Some('u') => (self.skip(4), 16, 0x10_ffff),
            Some('U') => (self.skip(8), 16, 0x10_ffff),
            Some(c) => return Err(format!("unknown escape sequence {}", numbered(c))),
            None => return Err(UNTERMINATED.into()),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            let c = self.peek().ok_or(UNTERMINATED)?;
            let digit = c
                .to_digit(base)
                .ok_or_else(|| format!("invalid character {} in escape sequence", numbered(c)))?;
            value = value.wrapping_mul(base).wrapping_add(digit);
            self.at += 1;
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".into());
        }
        Ok(())
    }

    /// Steps over the letter of an escape and gives back how many digits follow it.
    fn skip(&mut self, digits: usize) -> usize {
        self.at += 1;
        digits
    }
}
