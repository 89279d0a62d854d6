//! What happened, line by line.

use crate::random::mix;
use std::fmt::{Arguments, Write};

/// Every event of a run as a line of text. A hash over all lines is always kept, the text only if somebody wants to read it.
pub struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    text: Option<String>,
}

impl Trace {
    /// With or without text.
    pub fn new(with_text: bool) -> Trace {
        Trace { hash: 0, lines: 0, line: String::new(), text: with_text.then(String::new) }
    }

    /// Adds a line.
    pub fn add(&mut self, now_ms: u64, what: Arguments<'_>) {
        self.line.clear();
        // A String takes everything.
        let _ = write!(self.line, "{:>8}.{:03} {what}", now_ms / 1000, now_ms % 1000);
        self.lines += 1;
        for chunk in self.line.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = mix(self.hash ^ u64::from_le_bytes(word)).wrapping_add(self.lines);
        }
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
            text.push('\n');
        }
    }

    /// Of all lines so far, in their order.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The text, if it was kept.
    pub fn into_text(self) -> Option<String> {
        self.text
    }
}
