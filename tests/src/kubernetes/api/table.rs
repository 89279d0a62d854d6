//! Tables, which `kubectl get` prints: the server knows the columns.

use super::jsonpath;
use super::kinds::Kind;
use super::object::{self, items, text};
use super::present::{Include, metadata};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// A column, and what is in it.
struct Column {
    name: String,
    kind: String,
    description: String,
    /// Columns above 0 are printed only by `-o wide`.
    priority: i64,
    cell: Box<dyn Fn(&Value) -> Value>,
}

/// A `Table` of these objects.
pub fn table(kind: &Kind, objects: &[Value], list: Value, include: Include) -> Value {
    let columns = columns(kind);
    let row = |object: &Value| {
        let inner = match include {
            Include::Object => object.clone(),
            Include::Metadata => metadata(object),
            Include::None => Value::Null,
        };
        let cells: Vec<Value> = columns.iter().map(|column| (column.cell)(object)).collect();
        json!({"cells": cells, "object": inner})
    };
    let rows: Vec<Value> = objects.iter().map(row).collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            json!({
                "name": column.name, "type": column.kind, "format": format, "description": column.description,
                "priority": column.priority,
            })
        })
        .collect();
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": list, "columnDefinitions": definitions, "rows": rows})
}

fn columns(kind: &Kind) -> Vec<Column> {
    let mut columns = vec![column("Name", |object| object::name(object).into())];
    if let Some(definition) = &kind.definition {
        columns.extend(definition.columns.iter().map(defined));
        if definition.columns.is_empty() {
            columns.push(column("Age", age));
        }
        return columns;
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            columns.push(column("Ready", ready));
            columns.push(column("Status", pod_status));
            columns.push(column("Restarts", restarts));
            columns.push(column("Age", age));
            columns.push(wide("IP", |pod| or_none(text(pod, "/status/podIP"))));
            columns.push(wide("Node", |pod| or_none(text(pod, "/spec/nodeName"))));
            columns.push(wide("Nominated Node", |pod| or_none(text(pod, "/status/nominatedNodeName"))));
            columns.push(wide("Readiness Gates", gates));
        }
        ("", "nodes") => {
            columns.push(column("Status", node_status));
            columns.push(column("Roles", |_| "<none>".into()));
            columns.push(column("Age", age));
            columns.push(column("Version", |node| text(node, "/status/nodeInfo/kubeletVersion").into()));
        }
        ("", "persistentvolumeclaims") => {
            columns.push(column("Status", |claim| {
                if object::is_deleting(claim) { "Terminating".into() } else { field(claim, ".status.phase") }
            }));
            columns.push(column("Volume", |claim| field(claim, ".spec.volumeName")));
            columns.push(column("Capacity", |claim| field(claim, ".status.capacity.storage")));
            columns.push(column("Access Modes", |claim| modes(claim, "/status/accessModes")));
            columns.push(column("StorageClass", |claim| field(claim, ".spec.storageClassName")));
            columns.push(column("Age", age));
        }
        ("", "persistentvolumes") => {
            columns.push(column("Capacity", |volume| field(volume, ".spec.capacity.storage")));
            columns.push(column("Access Modes", |volume| modes(volume, "/spec/accessModes")));
            columns.push(column("Reclaim Policy", |volume| {
                field(volume, ".spec.persistentVolumeReclaimPolicy")
            }));
            columns.push(column("Status", |volume| {
                if object::is_deleting(volume) {
                    "Terminating".into()
                } else {
                    field(volume, ".status.phase")
                }
            }));
            columns.push(column("Claim", |volume| {
                let (namespace, name) =
                    (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
                if name.is_empty() { "".into() } else { format!("{namespace}/{name}").into() }
            }));
            columns.push(column("StorageClass", |volume| field(volume, ".spec.storageClassName")));
            columns.push(column("Age", age));
        }
        ("" | "events.k8s.io", "events") => {
            let about = |event: &Value| {
                if event.get("regarding").is_some() { "/regarding" } else { "/involvedObject" }
            };
            columns.clear();
            columns.push(column("Last Seen", |event| {
                let seen = [
                    "/series/lastObservedTime",
                    "/lastTimestamp",
                    "/deprecatedLastTimestamp",
                    "/eventTime",
                    "/metadata/creationTimestamp",
                ];
                since(seen.iter().map(|at| text(event, at)).find(|at| !at.is_empty()).unwrap_or_default())
                    .into()
            }));
            columns.push(column("Type", |event| field(event, ".type")));
            columns.push(column("Reason", |event| field(event, ".reason")));
            columns.push(column("Object", move |event| {
                let about = about(event);
                format!(
                    "{}/{}",
                    text(event, &format!("{about}/kind")).to_lowercase(),
                    text(event, &format!("{about}/name"))
                )
                .into()
            }));
            columns.push(column("Message", |event| {
                let message = text(event, "/message");
                if message.is_empty() { text(event, "/note").into() } else { message.into() }
            }));
            columns.push(wide("Name", |event| object::name(event).into()));
        }
        ("", "namespaces") => {
            columns.push(column("Status", |namespace| field(namespace, ".status.phase")));
            columns.push(column("Age", age));
        }
        ("", "services") => {
            columns.push(column("Type", |service| field(service, ".spec.type")));
            columns.push(column("Cluster-IP", |service| or_none(text(service, "/spec/clusterIP"))));
            columns.push(column("External-IP", |_| "<none>".into()));
            columns.push(column("Port(s)", ports));
            columns.push(column("Age", age));
        }
        ("", "configmaps" | "secrets") => {
            if kind.plural == "secrets" {
                columns.push(column("Type", |secret| field(secret, ".type")));
            }
            columns.push(column("Data", |object| {
                object.get("data").and_then(Value::as_object).map_or(0, |data| data.len()).into()
            }));
            columns.push(column("Age", age));
        }
        ("policy", "poddisruptionbudgets") => {
            let or_na = |value: Option<&Value>| match value {
                Some(Value::String(text)) => text.clone().into(),
                Some(other) => other.to_string().into(),
                None => "N/A".into(),
            };
            columns.push(column("Min Available", move |budget| or_na(budget.pointer("/spec/minAvailable"))));
            columns
                .push(column("Max Unavailable", move |budget| or_na(budget.pointer("/spec/maxUnavailable"))));
            columns.push(column("Allowed Disruptions", |budget| field(budget, ".status.disruptionsAllowed")));
            columns.push(column("Age", age));
        }
        ("coordination.k8s.io", "leases") => {
            columns.push(column("Holder", |lease| field(lease, ".spec.holderIdentity")));
            columns.push(column("Age", age));
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            columns.push(column("Created At", |definition| field(definition, ".metadata.creationTimestamp")));
        }
        _ => columns.push(column("Age", age)),
    }
    columns
}

fn column(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column {
        name: name.into(),
        kind: "string".into(),
        description: String::new(),
        priority: 0,
        cell: Box::new(cell),
    }
}

fn wide(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column { priority: 1, ..column(name, cell) }
}

/// A column that the definition of a custom resource wants.
fn defined(column: &Value) -> Column {
    let (path, kind) = (text(column, "/jsonPath").to_owned(), text(column, "/type").to_owned());
    let is_date = kind == "date";
    let cell = move |object: &Value| match field(object, &path) {
        Value::String(at) if is_date => since(&at).into(),
        value => value,
    };
    Column {
        name: text(column, "/name").into(),
        kind,
        description: text(column, "/description").into(),
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
        cell: Box::new(cell),
    }
}

/// What is at a path; several things are printed with commas between them.
fn field(object: &Value, path: &str) -> Value {
    match jsonpath::find(object, path).as_slice() {
        [] => Value::Null,
        [one] if one.is_array() || one.is_object() => one.to_string().into(),
        [one] => (*one).clone(),
        several => {
            let texts: Vec<String> = several
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), String::from))
                .collect();
            texts.join(",").into()
        }
    }
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn age(object: &Value) -> Value {
    since(text(object, "/metadata/creationTimestamp")).into()
}

/// The time since then, as people say it: the more of it, the coarser.
fn since(at: &str) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return "<unknown>".into() };
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

fn ready(pod: &Value) -> Value {
    let ready =
        items(pod, "/status/containerStatuses").filter(|container| container["ready"] == true).count();
    format!("{ready}/{}", items(pod, "/spec/containers").count()).into()
}

fn restarts(pod: &Value) -> Value {
    let count = |container: &Value| container.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
    items(pod, "/status/containerStatuses").map(count).sum::<i64>().to_string().into()
}

/// The phase, or what says more: why a container waits or has ended, or that the pod goes.
fn pod_status(pod: &Value) -> Value {
    if object::is_deleting(pod) {
        return "Terminating".into();
    }
    let why = items(pod, "/status/containerStatuses").find_map(|container| {
        let why = ["/state/waiting/reason", "/state/terminated/reason"].map(|at| text(container, at));
        why.into_iter().find(|why| !why.is_empty())
    });
    let own = text(pod, "/status/reason");
    why.unwrap_or(if own.is_empty() { text(pod, "/status/phase") } else { own }).into()
}

fn gates(pod: &Value) -> Value {
    let gates: Vec<&str> =
        items(pod, "/spec/readinessGates").map(|gate| text(gate, "/conditionType")).collect();
    let is_true = |gate: &&&str| {
        items(pod, "/status/conditions")
            .any(|condition| text(condition, "/type") == **gate && condition["status"] == "True")
    };
    if gates.is_empty() {
        "<none>".into()
    } else {
        format!("{}/{}", gates.iter().filter(is_true).count(), gates.len()).into()
    }
}

fn node_status(node: &Value) -> Value {
    let ready = items(node, "/status/conditions").find(|condition| condition["type"] == "Ready");
    let status = match ready.map(|ready| text(ready, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{status}{cordoned}").into()
}

fn modes(object: &Value, at: &str) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "?",
    };
    items(object, at).map(short).collect::<Vec<_>>().join(",").into()
}

fn ports(service: &Value) -> Value {
    let port = |port: &Value| format!("{}/{}", port["port"], text(port, "/protocol"));
    or_none(&items(service, "/spec/ports").map(port).collect::<Vec<_>>().join(","))
}
