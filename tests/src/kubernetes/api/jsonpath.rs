//! The JSON paths of columns: fields, items, and items by what they say, as in `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// What is found, in its order. A path that cannot be read finds nothing.
pub fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        let Some((step, after)) = step(rest) else { return vec![] };
        found = found.into_iter().flat_map(|value| step.from(value)).collect();
        rest = after;
    }
    found
}

enum Step {
    Field(String),
    All,
    Item(i64),
    /// Items whose field is equal to a text.
    Where(String, String),
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::All => match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => vec![],
            },
            Step::Item(at) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let at = if *at < 0 { list.len() as i64 + at } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Step::Where(path, text) => {
                let is = |item: &&Value| find(item, path).iter().any(|found| plain(found) == *text);
                value.as_array().into_iter().flatten().filter(is).collect()
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(text) = text.strip_prefix('[') {
        let end = if text.starts_with('?') { text.find(")]")? + 1 } else { text.find(']')? };
        let (inner, after) = (&text[..end], &text[end + 1..]);
        let inner = inner.trim();
        let step = if inner == "*" {
            Step::All
        } else if let Some(test) = inner.strip_prefix("?(").and_then(|test| test.strip_suffix(')')) {
            let (path, value) = test.split_once("==")?;
            let unquoted = value.trim().trim_matches(['"', '\'']);
            Step::Where(path.trim().strip_prefix('@')?.to_owned(), unquoted.to_owned())
        } else if let Ok(at) = inner.parse() {
            Step::Item(at)
        } else {
            Step::Field(unescaped(inner.trim_matches(['"', '\''])))
        };
        return Some((step, after));
    }
    let text = text.strip_prefix('.')?;
    let mut is_escaped = false;
    let end = text.find(|c| {
        let ends = !is_escaped && matches!(c, '.' | '[');
        is_escaped = c == '\\';
        ends
    });
    let (name, after) = text.split_at(end.unwrap_or(text.len()));
    Some((if name == "*" { Step::All } else { Step::Field(unescaped(name)) }, after))
}

fn unescaped(name: &str) -> String {
    name.replace('\\', "")
}

#[cfg(test)]
mod tests {
    use super::find;
    use serde_json::json;

    #[test]
    fn columns_find_what_they_name() {
        let object = json!({"metadata": {"labels": {"a.b/c": "l"}}, "list": [{"type": "X", "n": 1}, {"type": "Y", "n": 2}]});
        for (path, found) in [
            (".list[0].n", vec![json!(1)]),
            (".list[-1].n", vec![json!(2)]),
            (".list[*].n", vec![json!(1), json!(2)]),
            (".list[?(@.type==\"Y\")].n", vec![json!(2)]),
            (".metadata.labels.a\\.b/c", vec![json!("l")]),
            (".metadata.labels['a\\.b/c']", vec![json!("l")]),
            (".none.n", vec![]),
        ] {
            assert_eq!(find(&object, path).into_iter().cloned().collect::<Vec<_>>(), found, "{path}");
        }
    }
}
