//! Selectors: which objects of a list are asked for.

use super::failure::Failure;
use super::object;
use serde_json::Value;

/// What labels and fields must be.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    /// Also true when there is no such label.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|other| other == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|other| other != value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    }
}

impl Selector {
    /// From the parameters `labelSelector` and `fieldSelector`.
    pub fn parse(labels: &str, fields: &str) -> Result<Selector, Failure> {
        let labels = split(labels).into_iter().map(|part| requirement(&part)).collect::<Result<_, _>>()?;
        let fields: Vec<Requirement> =
            split(fields).into_iter().map(|part| requirement(&part)).collect::<Result<_, _>>()?;
        if let Some(other) = fields.iter().find(|field| !matches!(field.test, Test::In(_) | Test::NotIn(_))) {
            return Err(Failure::bad_request(format!("invalid field selector: {}", other.key)));
        }
        Ok(Selector { labels, fields })
    }

    /// From a `LabelSelector` object, as in disruption budgets. An empty one takes everything, none takes nothing.
    pub fn from_object(selector: Option<&Value>) -> Option<Selector> {
        let selector = selector.filter(|selector| selector.is_object())?;
        let mut labels = vec![];
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            labels.push(Requirement { key: key.clone(), test: Test::In(vec![value.as_str()?.into()]) });
        }
        for expression in object::items(selector, "/matchExpressions") {
            let values =
                object::items(expression, "/values").filter_map(Value::as_str).map(String::from).collect();
            let test = match object::text(expression, "/operator") {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                _ => return None,
            };
            labels.push(Requirement { key: object::text(expression, "/key").into(), test });
        }
        Some(Selector { labels, fields: vec![] })
    }

    /// Whether the object is one of those.
    pub fn matches(&self, of: &Value) -> bool {
        let labels = of.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let field = |key: &str| {
            let pointer = format!("/{}", key.replace('.', "/"));
            // A field that there is not is an empty one.
            Some(match of.pointer(&pointer) {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            })
        };
        self.labels.iter().all(|requirement| requirement.test.holds(label(&requirement.key)))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.test.holds(field(&requirement.key).as_deref()))
    }

    /// The fields that are asked for, to see whether a resource knows them.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.key.as_str())
    }
}

/// Splits at commas that are not between parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth) = (vec![], String::new(), 0_i32);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, Failure> {
    let new = |key: &str, test| Ok(Requirement { key: key.trim().to_owned(), test });
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = text.split_once("!=") {
        return new(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return new(key, Test::In(one(value)));
    }
    if let Some(key) = text.strip_prefix('!') {
        return new(key, Test::Absent);
    }
    let mut words = text.splitn(2, char::is_whitespace);
    let (key, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    let set = |rest: &str| -> Option<Vec<String>> {
        let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if rest.is_empty() {
        return new(key, Test::Exists);
    }
    if let Some(values) = rest.strip_prefix("notin").and_then(set) {
        return new(key, Test::NotIn(values));
    }
    if let Some(values) = rest.strip_prefix("in").and_then(set) {
        return new(key, Test::In(values));
    }
    Err(Failure::bad_request(format!(
        "unable to parse requirement: {text:?}; use =, !=, in (…), notin (…), KEY or !KEY"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_operator_selects() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "1"}}, "spec": {"nodeName": "n"}});
        let matches = |labels: &str, fields: &str| Selector::parse(labels, fields).unwrap().matches(&pod);
        for yes in
            ["", "app=x", "app==x", "app in (y, x),tier", "app!=y", "none!=x", "none notin (a)", "!none"]
        {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in ["app=y", "app notin (x,y)", "none", "!app", "app!=x", "app=x,tier=2", "none in (a)"] {
            assert!(!matches(no, ""), "{no}");
        }
        assert!(matches("", "spec.nodeName=n,metadata.name=a"));
        assert!(matches("", "status.phase="));
        assert!(!matches("", "spec.nodeName!=n"));
        assert!(Selector::parse("a within (b)", "").is_err());
    }

    #[test]
    fn a_selector_object_that_is_empty_takes_everything_and_none_takes_nothing() {
        let pod = json!({"metadata": {"labels": {"app": "x"}}});
        assert!(Selector::from_object(Some(&json!({}))).unwrap().matches(&pod));
        assert!(Selector::from_object(None).is_none());
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]});
        assert!(!Selector::from_object(Some(&selector)).unwrap().matches(&pod));
    }
}
