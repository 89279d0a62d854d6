//! The YAML file, flattened to keys and scalars.

use super::Error;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// One `key: value` of the file, with its groups in front of the key.
#[derive(Debug, PartialEq, Eq)]
pub struct Scalar {
    /// `limits.query_timeout`
    pub key: String,
    /// As written.
    pub value: String,
    /// Line of the key, from 1.
    pub line: u64,
}

/// Every scalar of the file. `name` is the file's, for messages.
pub fn scalars(name: &str, text: &str) -> Result<Vec<Scalar>, Error> {
    let root: Node = serde_saphyr::from_str(text).map_err(|e| Error::File {
        place: e.location().map_or(name.to_string(), |at| format!("{name}:{}", at.line())),
        what: what(&e.to_string()),
    })?;
    let mut out = Vec::new();
    match root {
        Node::Map(entries) => flatten("", entries, &mut out),
        Node::Empty => {}
        Node::Scalar(_) => {
            return Err(Error::File {
                place: name.to_string(),
                what: "expected `key: value` lines".to_string(),
            });
        }
    }
    Ok(out)
}

/// Of the parser's message the part that says what is wrong: its first line, without the place that stands in front of it already.
fn what(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let told = first.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    let told = told.filter(|(place, _)| place.bytes().all(|b| b.is_ascii_digit() || b" column".contains(&b)));
    told.map_or(first, |(_, what)| what).to_string()
}

fn flatten(prefix: &str, entries: Vec<(Spanned<String>, Node)>, out: &mut Vec<Scalar>) {
    for (key, node) in entries {
        let line = key.referenced.line();
        let key = format!("{prefix}{}", key.value);
        match node {
            Node::Scalar(value) => out.push(Scalar { key, value, line }),
            Node::Map(entries) => flatten(&format!("{key}."), entries, out),
            Node::Empty => {}
        }
    }
}

enum Node {
    Empty,
    Scalar(String),
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value or a group of keys (no key takes a list)")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Empty)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}
