//! Label matchers.

use regex_automata::dfa::{StartKind, dense};
use regex_automata::meta::Regex;
use regex_syntax::ast::{self, Ast};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Matches,
    /// `!~`, anchored at both ends.
    NotMatches,
}

/// A condition on one label. A missing label counts as the empty string.
#[derive(Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The comparison.
    pub op: MatchOp,
    /// The string or regular expression, as written.
    pub value: String,
    regex: Option<Arc<Anchored>>,
}

impl Matcher {
    /// A matcher; fails when a regular expression does not compile.
    pub fn new(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
    ) -> Result<Matcher, RegexError> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Matches | MatchOp::NotMatches => Some(Arc::new(Anchored::new(&value)?)),
        };
        Ok(Matcher { name, op, value, regex })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Whether a label with this value satisfies the matcher.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Matches, Some(regex)) => regex.is_match(value),
            (MatchOp::NotMatches, Some(regex)) => !regex.is_match(value),
            (_, None) => unreachable!("BUG: a regex matcher without its regex"),
        }
    }

    /// Whether a series without this label satisfies the matcher.
    pub fn matches_missing(&self) -> bool {
        self.matches("")
    }

    /// The compiled expression of `=~` and `!~`.
    pub fn regex(&self) -> Option<&Anchored> {
        self.regex.as_deref()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

/// As in a PromQL selector: `name=~"a.*"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Matches => "=~",
            MatchOp::NotMatches => "!~",
        };
        if crate::labels::is_legacy_name(&self.name, false) {
            write!(f, "{}{op}{}", self.name, crate::labels::Quoted(&self.value))
        } else {
            write!(f, "{}{op}{}", crate::labels::Quoted(&self.name), crate::labels::Quoted(&self.value))
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A regular expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

/// A regular expression with Prometheus's (RE2's) meaning: anchored at both ends, dot matches newline, `\d \w \s \b`
/// are ASCII.
pub struct Anchored {
    /// The whole expression, rewritten for Rust's engine, with anchors.
    pattern: String,
    regex: Regex,
    /// All strings that match, when these are few: `a|b|c`.
    literals: Option<Vec<String>>,
    /// Built when an index first asks for it.
    dfa: OnceLock<Option<dense::DFA<Vec<u32>>>>,
}

/// Compiled size above which an expression is refused.
const REGEX_BYTES_MAX: usize = 10 << 20;

/// Size above which an expression has no table of states. Most have a few kilobytes; what explodes is matched value by
/// value instead.
const DFA_BYTES_MAX: usize = 1 << 20;

impl Anchored {
    /// Compiles `pattern`.
    pub fn new(pattern: &str) -> Result<Anchored, RegexError> {
        let pattern = format!("^(?s:{})$", to_ascii_classes(pattern)?);
        let syntax = regex_automata::util::syntax::Config::new();
        let regex = Regex::builder()
            .configure(Regex::config().nfa_size_limit(Some(REGEX_BYTES_MAX)))
            .syntax(syntax)
            .build(&pattern)
            .map_err(|e| RegexError(e.to_string()))?;
        let literals = literals(&pattern);
        Ok(Anchored { pattern, regex, literals, dfa: OnceLock::new() })
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.literals {
            Some(literals) if literals.len() <= 8 => literals.iter().any(|l| l == value),
            _ => self.regex.is_match(value),
        }
    }

    /// The rewritten expression, with anchors, for building other automata from it.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The expression as a table of states, for walking it over an index; `None` if that would be too large. A string
    /// matches if the end-of-input transition of its last state leads to a match state.
    pub fn dfa(&self) -> Option<&dense::DFA<Vec<u32>>> {
        let build = || {
            let config = dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(DFA_BYTES_MAX))
                .determinize_size_limit(Some(4 * DFA_BYTES_MAX));
            dense::Builder::new().configure(config).build(&self.pattern).ok()
        };
        self.dfa.get_or_init(build).as_ref()
    }

    /// Every string that matches, sorted, when the expression is only alternatives of plain text.
    pub fn literals(&self) -> Option<&[String]> {
        self.literals.as_deref()
    }
}

/// Rewrites `\d`, `\w`, `\s`, `\b` and their negations to their ASCII meaning, which is RE2's.
fn to_ascii_classes(pattern: &str) -> Result<String, RegexError> {
    let ast = ast::parse::Parser::new().parse(pattern).map_err(|e| RegexError(e.kind().to_string()))?;
    struct Perl(Vec<(usize, usize, &'static str)>);
    impl Perl {
        fn class(&mut self, class: &ast::ClassPerl, bare: bool) {
            let (plain, inside) = match (&class.kind, class.negated) {
                (ast::ClassPerlKind::Digit, false) => ("[0-9]", "0-9"),
                (ast::ClassPerlKind::Digit, true) => ("[^0-9]", "[^0-9]"),
                (ast::ClassPerlKind::Space, false) => (r"[\t\n\f\r ]", r"\t\n\f\r\x20"),
                (ast::ClassPerlKind::Space, true) => (r"[^\t\n\f\r ]", r"[^\t\n\f\r ]"),
                (ast::ClassPerlKind::Word, false) => ("[0-9A-Za-z_]", "0-9A-Za-z_"),
                (ast::ClassPerlKind::Word, true) => ("[^0-9A-Za-z_]", "[^0-9A-Za-z_]"),
            };
            self.0.push((class.span.start.offset, class.span.end.offset, if bare { plain } else { inside }));
        }
    }
    impl ast::Visitor for Perl {
        type Output = Vec<(usize, usize, &'static str)>;
        type Err = RegexError;

        fn finish(self) -> Result<Self::Output, RegexError> {
            Ok(self.0)
        }

        fn visit_pre(&mut self, ast: &Ast) -> Result<(), RegexError> {
            match ast {
                Ast::ClassPerl(class) => self.class(class, true),
                Ast::Assertion(assertion) => {
                    let ascii = match assertion.kind {
                        ast::AssertionKind::WordBoundary => r"(?-u:\b)",
                        ast::AssertionKind::NotWordBoundary => {
                            return Err(RegexError(r"`\B` is not supported".into()));
                        }
                        _ => return Ok(()),
                    };
                    self.0.push((assertion.span.start.offset, assertion.span.end.offset, ascii));
                }
                _ => {}
            }
            Ok(())
        }

        fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), RegexError> {
            if let ast::ClassSetItem::Perl(class) = item {
                self.class(class, false);
            }
            Ok(())
        }
    }
    let mut edits = ast::visit(&ast, Perl(Vec::new()))?;
    edits.sort_by_key(|e| e.0);
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    for (from, to, text) in edits {
        out.push_str(&pattern[at..from]);
        out.push_str(text);
        at = to;
    }
    out.push_str(&pattern[at..]);
    Ok(out)
}

/// More alternatives than this are left to the automaton.
const LITERALS_MAX: usize = 1024;

/// The finite set of strings that an anchored expression matches, if it is small.
fn literals(pattern: &str) -> Option<Vec<String>> {
    use regex_syntax::hir::{Hir, HirKind, Look};
    fn expand(hir: &Hir) -> Option<Vec<Vec<u8>>> {
        match hir.kind() {
            HirKind::Empty => Some(vec![Vec::new()]),
            HirKind::Literal(l) => Some(vec![l.0.to_vec()]),
            HirKind::Capture(c) => expand(&c.sub),
            HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
                let mut all = Vec::new();
                for range in class.iter() {
                    for c in range.start()..=range.end() {
                        if all.len() >= LITERALS_MAX {
                            return None;
                        }
                        all.push(c.to_string().into_bytes());
                    }
                }
                Some(all)
            }
            HirKind::Alternation(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    all.extend(expand(part)?);
                    if all.len() > LITERALS_MAX {
                        return None;
                    }
                }
                Some(all)
            }
            HirKind::Concat(parts) => {
                let mut all = vec![Vec::new()];
                for part in parts {
                    let ends = expand(part)?;
                    if all.len() * ends.len() > LITERALS_MAX {
                        return None;
                    }
                    all = all
                        .iter()
                        .flat_map(|a: &Vec<u8>| ends.iter().map(move |e| [&a[..], e].concat()))
                        .collect();
                }
                Some(all)
            }
            HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
                let mut all = expand(&r.sub)?;
                all.push(Vec::new());
                Some(all)
            }
            HirKind::Look(_) | HirKind::Repetition(_) | HirKind::Class(_) => None,
        }
    }
    let hir = regex_syntax::parse(pattern).ok()?;
    // `^(…)$`: only the outer anchors may be there.
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let [first, middle @ .., last] = &parts[..] else { return None };
    if !matches!(first.kind(), HirKind::Look(Look::Start)) || !matches!(last.kind(), HirKind::Look(Look::End))
    {
        return None;
    }
    let mut strings = expand(&Hir::concat(middle.to_vec()))?
        .into_iter()
        .map(String::from_utf8)
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    strings.sort();
    strings.dedup();
    Some(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Anchored::new(pattern).unwrap().is_match(value)
    }

    #[test]
    fn expressions_are_anchored_and_dot_matches_newline() {
        assert!(matches("a.c", "a\nc"));
        assert!(!matches("b", "abc"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches("", ""));
        assert!(matches(".*", "é"));
    }

    #[test]
    fn classes_are_ascii() {
        assert!(matches(r"\d+", "12"));
        assert!(!matches(r"\d", "٣"));
        assert!(!matches(r"\w", "é"));
        assert!(matches(r"[\w-]+", "a-b"));
        assert!(!matches(r"[\w-]", "é"));
        assert!(matches(r"[^\s]", "x"));
        assert!(matches(r"\W", "é"));
        assert!(matches("(?i)é", "É"));
    }

    #[test]
    fn plain_alternatives_are_known_as_a_set() {
        let set = |p: &str| Anchored::new(p).unwrap().literals().map(<[String]>::to_vec);
        assert_eq!(set("b|a"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(set("node-[12]"), Some(vec!["node-1".into(), "node-2".into()]));
        assert_eq!(set("x(a|b)?"), Some(vec!["x".into(), "xa".into(), "xb".into()]));
        assert_eq!(set("a.*"), None);
        assert_eq!(set(""), Some(vec!["".into()]));
        assert_eq!(set("(?i)ab").map(|s| s.len()), Some(4));
    }

    #[test]
    fn a_bad_expression_is_an_error() {
        assert!(Matcher::new("a", MatchOp::Matches, "(").is_err());
        assert!(Matcher::new("a", MatchOp::Matches, r"\C").is_err());
    }

    #[test]
    fn a_missing_label_is_the_empty_string() {
        assert!(Matcher::equal("a", "").matches_missing());
        assert!(Matcher::new("a", MatchOp::NotEqual, "x").unwrap().matches_missing());
        assert!(Matcher::new("a", MatchOp::NotMatches, "x.*").unwrap().matches_missing());
        assert!(!Matcher::new("a", MatchOp::Matches, ".+").unwrap().matches_missing());
    }
}
