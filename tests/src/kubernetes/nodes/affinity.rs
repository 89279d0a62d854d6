//! Which labels a selector takes, and which taints a pod bears.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

/// Whether a selector takes these labels. One that is no selector takes nothing.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// Whether a node is one that the terms allow: at least one term, every requirement of it.
pub fn allows(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| {
        let labels = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        let is_empty = labels.clone().next().is_none() && fields.clone().next().is_none();
        // A term without requirements takes no node.
        !is_empty
            && labels.into_iter().all(|wanted| is_met(wanted, node.labels().get(&wanted.key)))
            && fields.into_iter().all(|wanted| is_met(wanted, node.metadata.name.as_ref()))
    })
}

fn is_met(wanted: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let bound = || values.first().and_then(|bound| bound.parse::<i64>().ok());
    let number = || value.and_then(|value| value.parse::<i64>().ok());
    match wanted.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        _ => false,
    }
}

/// The toleration of a pod for a taint.
pub fn toleration<'a>(pod: &'a Pod, taint: &Taint) -> Option<&'a Toleration> {
    let tolerations = pod.spec.as_ref()?.tolerations.as_deref()?;
    tolerations.iter().find(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = |of: &Option<String>| of.clone().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || key.is_empty() && exists)
        && (exists || value(&toleration.value) == value(&taint.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn node(labels: Value) -> Node {
        from_value(json!({"metadata": {"name": "n1", "labels": labels}})).expect("a node")
    }

    fn terms(terms: Value) -> NodeSelector {
        from_value(json!({"nodeSelectorTerms": terms})).expect("a selector")
    }

    #[test]
    fn one_term_is_enough_and_all_of_its_requirements_are_needed() {
        let a = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
        let both = json!({"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["b"]}, {"key": "disk", "operator": "Exists"}]});
        let selector = terms(json!([a, both]));
        assert!(allows(&selector, &node(json!({"zone": "a"}))));
        assert!(!allows(&selector, &node(json!({"zone": "b"}))));
        assert!(allows(&selector, &node(json!({"zone": "b", "disk": "ssd"}))));
        assert!(!allows(&terms(json!([{}])), &node(json!({}))), "an empty term takes nothing");
        let name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
        assert!(allows(&terms(name), &node(json!({}))));
        let many = json!([{"matchExpressions": [{"key": "disks", "operator": "Gt", "values": ["3"]}]}]);
        assert!(allows(&terms(many.clone()), &node(json!({"disks": "4"}))));
        assert!(!allows(&terms(many), &node(json!({"disks": "3"}))));
    }

    #[test]
    fn a_toleration_is_for_a_key_an_effect_and_a_value() {
        let bears = |toleration: Value, taint: Value| {
            let pod: Pod =
                from_value(json!({"spec": {"containers": [], "tolerations": [toleration]}})).expect("a pod");
            super::toleration(&pod, &from_value(taint).expect("a taint")).is_some()
        };
        let taint = json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"});
        assert!(bears(json!({"operator": "Exists"}), taint.clone()));
        assert!(bears(json!({"key": "dedicated", "value": "db"}), taint.clone()));
        assert!(bears(json!({"key": "dedicated", "operator": "Exists"}), taint.clone()));
        assert!(!bears(json!({"key": "dedicated"}), taint.clone()), "another value");
        assert!(!bears(
            json!({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}),
            taint.clone()
        ));
        assert!(!bears(json!({"key": "other", "operator": "Exists"}), taint));
    }
}
