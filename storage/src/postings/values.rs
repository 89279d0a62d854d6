//! A set of label values given by an expression, tested value by value or walked over an FST.

use fst::Automaton;
use model::matcher::Anchored;
use regex_automata::dfa::{Automaton as _, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored as Anchor, Input};

/// The values that an expression matches, or all others.
pub struct Values<'a> {
    regex: &'a Anchored,
    negated: bool,
}

impl<'a> Values<'a> {
    /// The values that `regex` matches; with `negated`, those that it does not.
    pub fn new(regex: &'a Anchored, negated: bool) -> Values<'a> {
        Values { regex, negated }
    }

    /// Whether `value` is among them.
    pub fn contain(&self, value: &str) -> bool {
        self.regex.is_match(value) != self.negated
    }

    /// An automaton for keys of `prefix` and then one of these values; `None` if the expression is too complex for one.
    pub(crate) fn automaton<'p>(&self, prefix: &'p [u8]) -> Option<Walk<'a, 'p>>
    where
        'a: 'p,
    {
        let dfa = self.regex.dfa()?;
        let start = dfa.start_state_forward(&Input::new("").anchored(Anchor::Yes)).ok()?;
        Some(Walk { dfa, start, negated: self.negated, prefix })
    }
}

/// See [`Values::automaton`].
pub(crate) struct Walk<'a, 'p> {
    dfa: &'a dense::DFA<Vec<u32>>,
    start: StateID,
    negated: bool,
    prefix: &'p [u8],
}

/// How far a key has been read.
#[derive(Clone, Copy)]
pub(crate) enum Reached {
    Prefix(usize),
    Value(StateID),
    Nowhere,
}

impl Automaton for Walk<'_, '_> {
    type State = Reached;

    fn start(&self) -> Reached {
        if self.prefix.is_empty() { Reached::Value(self.start) } else { Reached::Prefix(0) }
    }

    fn is_match(&self, state: &Reached) -> bool {
        match *state {
            Reached::Value(state) => self.dfa.is_match_state(self.dfa.next_eoi_state(state)) != self.negated,
            _ => false,
        }
    }

    fn can_match(&self, state: &Reached) -> bool {
        match *state {
            Reached::Prefix(_) => true,
            Reached::Value(state) => self.negated || !self.dfa.is_dead_state(state),
            Reached::Nowhere => false,
        }
    }

    fn accept(&self, state: &Reached, byte: u8) -> Reached {
        match *state {
            Reached::Prefix(at) if self.prefix.get(at) == Some(&byte) => {
                if at + 1 == self.prefix.len() {
                    Reached::Value(self.start)
                } else {
                    Reached::Prefix(at + 1)
                }
            }
            Reached::Value(state) => Reached::Value(self.dfa.next_state(state, byte)),
            _ => Reached::Nowhere,
        }
    }
}
