//! What holds for objects of one kind: what the server adds to a new one, and what cannot be changed.
//!
//! Only for the kinds that an operator of pods and volumes meets, and only what it can run into.

use super::failure::{Cause, Failure};
use super::kinds::Kind;
use super::object::{self, items, text};
use super::state::State;
use super::{definition, quantity};
use serde_json::{Map, Value, json};

/// Where the finalizer of claims comes from.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The same of volumes.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Wrong names and labels.
pub fn metadata(object: &Value) -> Vec<Cause> {
    let mut causes = vec![];
    let name = object::name(object);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !is_subdomain(name) {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                   and must start and end with an alphanumeric character";
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    for (_, value) in object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        let label = value.as_str().unwrap_or_default();
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let is_label =
            label.chars().all(is_word) && ends(label.chars().next()) && ends(label.chars().next_back());
        if !value.is_string() || label.len() > 63 || !is_label {
            let why = "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or '.', \
                       and must start and end with an alphanumeric character";
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
    }
    for (at, owner) in items(object, "/metadata/ownerReferences").enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{at}].{field}"),
                    &"".into(),
                    "must not be empty",
                ));
            }
        }
    }
    if items(object, "/metadata/ownerReferences").filter(|owner| owner["controller"] == true).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &Value::Null, why));
    }
    causes
}

fn is_subdomain(name: &str) -> bool {
    let is_part = |part: &str| {
        let inner = part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
    };
    // The names of roles may have colons, as in `system:node`.
    name.len() <= 253 && name.replace(':', ".").split('.').all(is_part)
}

/// In objects of Go's types, nothing and `null` are the same.
pub fn without_nulls(object: &mut Value) {
    if let Value::Object(map) = object {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(without_nulls);
    } else if let Value::Array(list) = object {
        list.iter_mut().for_each(without_nulls);
    }
}

fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    object::map(object).entry(field).or_insert_with(|| value.into());
}

fn spec(object: &mut Value) -> &mut Value {
    object::map(object).entry("spec").or_insert_with(|| json!({}))
}

/// What is left out and has a default. It comes back when it is taken away, so that taking it away is no change.
pub fn complete(kind: &Kind, object: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => complete_pod(spec(object)),
        ("", "persistentvolumeclaims") => default(spec(object), "volumeMode", "Filesystem"),
        ("", "persistentvolumes") => {
            let spec = spec(object);
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default(spec, "volumeMode", "Filesystem");
        }
        ("", "services") => {
            let spec = spec(object);
            default(spec, "type", "ClusterIP");
            default(spec, "sessionAffinity", "None");
            default(spec, "internalTrafficPolicy", "Cluster");
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default(port, "protocol", "TCP");
                let target = port["port"].clone();
                default(port, "targetPort", target);
            }
        }
        ("", "secrets") => {
            default(object, "type", "Opaque");
            encode(object);
        }
        ("storage.k8s.io", "storageclasses") => {
            default(object, "reclaimPolicy", "Delete");
            default(object, "volumeBindingMode", "Immediate");
        }
        _ => {}
    }
}

/// What admission adds to a new object, and why it may not be.
pub fn created(state: &State, kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    let mut causes = vec![];
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            causes.extend(pod(object));
            object["status"] = json!({"phase": "Pending", "qosClass": quality(object)});
        }
        ("", "persistentvolumeclaims") => {
            causes.extend(claim(state, object));
            object::add_finalizer(object, CLAIM_PROTECTION);
            object["status"] = json!({"phase": "Pending"});
        }
        ("", "persistentvolumes") => {
            if text(object, "/spec/capacity/storage").is_empty() {
                causes.push(Cause::required("spec.capacity", ""));
            }
            object::add_finalizer(object, VOLUME_PROTECTION);
            object["status"] = json!({"phase": "Pending"});
        }
        ("", "services") => {
            service(object);
            object["status"] = json!({"loadBalancer": {}});
        }
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            let labels = object::metadata(object).entry("labels").or_insert_with(|| json!({}));
            object::map(labels).insert("kubernetes.io/metadata.name".into(), name.into());
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        ("policy", "poddisruptionbudgets") => {
            let spec = spec(object);
            if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
                let why = "minAvailable and maxUnavailable cannot be both set";
                causes.push(Cause::invalid("spec", &Value::Null, why));
            }
            let zero =
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
            object["status"] = zero;
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            causes.extend(definition::defined(&state.kinds, object));
            object::add_finalizer(object, definition::CLEANUP);
        }
        _ => {}
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, object::name(object), &causes)) }
}

fn pod(object: &mut Value) -> Vec<Cause> {
    let mut causes = vec![];
    if items(object, "/spec/containers").next().is_none() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let volumes: Vec<String> =
        items(object, "/spec/volumes").map(|volume| text(volume, "/name").to_owned()).collect();
    for (at, container) in items(object, "/spec/containers").enumerate() {
        for field in ["name", "image"] {
            if text(container, &format!("/{field}")).is_empty() {
                causes.push(Cause::required(format!("spec.containers[{at}].{field}"), ""));
            }
        }
        for (mount_at, mount) in items(container, "/volumeMounts").enumerate() {
            let name = text(mount, "/name");
            if !volumes.iter().any(|volume| volume == name) {
                let field = format!("spec.containers[{at}].volumeMounts[{mount_at}].name");
                causes.push(Cause::new("FieldValueNotFound", field, format!("Not found: {name:?}")));
            }
        }
    }
    let spec = spec(object);
    default(spec, "serviceAccountName", "default");
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    default(spec, "priority", 0);
    tolerate(spec);
    causes
}

fn complete_pod(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
        ("securityContext", json!({})),
    ] {
        default(spec, field, value);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            complete_container(container);
        }
    }
}

/// A pod leaves a node that is lost after five minutes, unless it says otherwise.
fn tolerate(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |toleration: &Value| {
            let is_key = text(toleration, "/key") == key || text(toleration, "/key").is_empty();
            is_key && matches!(text(toleration, "/effect"), "" | "NoExecute")
        };
        if !items(spec, "/tolerations").any(tolerates) {
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            let list = object::map(spec).entry("tolerations").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(toleration);
            }
        }
    }
}

fn complete_container(container: &mut Value) {
    let image = text(container, "/image");
    let is_latest = !image.contains('@')
        && image.rsplit('/').next().is_none_or(|name| !name.contains(':') || name.ends_with(":latest"));
    default(container, "imagePullPolicy", if is_latest { "Always" } else { "IfNotPresent" });
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        default(port, "protocol", "TCP");
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            for (field, value) in [
                ("failureThreshold", 3),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("timeoutSeconds", 1),
            ] {
                default(probe, field, value);
            }
            if let Some(get) = probe.get_mut("httpGet") {
                default(get, "scheme", "HTTP");
                default(get, "path", "/");
            }
        }
    }
}

fn quality(pod: &Value) -> &'static str {
    let mut all_limited = true;
    let mut any = false;
    for container in items(pod, "/spec/containers") {
        let requests = container.pointer("/resources/requests").and_then(Value::as_object);
        let limits = container.pointer("/resources/limits").and_then(Value::as_object);
        any |= requests.is_some_and(|map| !map.is_empty()) || limits.is_some_and(|map| !map.is_empty());
        let is_limited = |name: &str| {
            let limit = limits.and_then(|limits| limits.get(name));
            limit.is_some()
                && requests
                    .and_then(|requests| requests.get(name))
                    .is_none_or(|request| Some(request) == limit)
        };
        all_limited &= is_limited("cpu") && is_limited("memory");
    }
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn claim(state: &State, object: &mut Value) -> Vec<Cause> {
    let mut causes = vec![];
    if items(object, "/spec/accessModes").next().is_none() {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    match quantity::parse(text(object, "/spec/resources/requests/storage")) {
        Some(size) if size > 0 => {}
        _ => causes.push(Cause::required("spec.resources[storage]", "")),
    }
    let spec = spec(object);
    if spec.get("storageClassName").is_none() {
        let is_default = |class: &&std::sync::Arc<Value>| {
            class
                .pointer("/metadata/annotations")
                .and_then(|all| all.get(DEFAULT_CLASS))
                .is_some_and(|is| is == "true")
        };
        if let Some(class) = state.store.list("storageclasses.storage.k8s.io", "").find(is_default) {
            spec["storageClassName"] = object::name(class).into();
        }
    }
    causes
}

fn service(object: &mut Value) {
    // Addresses are given once; no two services of a test get the same.
    let number = u32::from_str_radix(&object::uid(object)[..4], 16).unwrap_or(1);
    let address = format!("10.96.{}.{}", number >> 8, number & 255);
    let spec = spec(object);
    default(spec, "clusterIP", address);
    default(spec, "ipFamilies", json!(["IPv4"]));
    default(spec, "ipFamilyPolicy", "SingleStack");
    let addresses = json!([spec["clusterIP"]]);
    default(spec, "clusterIPs", addresses);
}

/// What a secret says as text becomes base64.
fn encode(secret: &mut Value) {
    let Some(Value::Object(plain)) = object::map(secret).remove("stringData") else { return };
    let encoded: Map<String, Value> = plain
        .into_iter()
        .map(|(name, value)| (name, base64(value.as_str().unwrap_or_default().as_bytes()).into()))
        .collect();
    let data = object::map(secret).entry("data").or_insert_with(|| json!({}));
    object::map(data).extend(encoded);
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let all = part.iter().chain([&0; 2]).take(3).fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
        for at in 0..4 {
            let letter = LETTERS[(all >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= part.len() { letter } else { '=' });
        }
    }
    text
}

/// What is wrong with a change of the object itself; the server may add something to it.
pub fn changed(state: &State, kind: &Kind, old: &Value, new: &mut Value) -> Result<Vec<Cause>, Failure> {
    Ok(match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod_changed(old, new),
        ("", "persistentvolumeclaims") => return claim_changed(state, kind, old, new),
        ("", "persistentvolumes") => volume_changed(old, new),
        ("", "secrets" | "configmaps") => frozen(old, new),
        ("", "services") => {
            let before = text(old, "/spec/clusterIP").to_owned();
            if text(new, "/spec/clusterIP").is_empty() {
                spec(new)["clusterIP"] = before.clone().into();
            }
            let is_same = text(new, "/spec/clusterIP") == before;
            let why = "may not change once set";
            if is_same {
                vec![]
            } else {
                vec![Cause::invalid("spec.clusterIPs[0]", &new["spec"]["clusterIP"], why)]
            }
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition::defined(&state.kinds, new),
        _ => vec![],
    })
}

fn frozen(old: &Value, new: &Value) -> Vec<Cause> {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return vec![];
    }
    let mut causes = vec![];
    for field in ["data", "binaryData", "immutable"] {
        if old.get(field) != new.get(field) {
            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
    causes
}

fn pod_changed(old: &Value, new: &mut Value) -> Vec<Cause> {
    let comparable = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                object::map(container).remove("image");
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            object::map(&mut spec).remove(field);
        }
        spec
    };
    let tolerations = |pod: &Value| items(pod, "/spec/tolerations").cloned().collect::<Vec<_>>();
    let (before, after) = (tolerations(old), tolerations(new));
    if comparable(old) == comparable(new) && before.iter().all(|toleration| after.contains(toleration)) {
        return vec![];
    }
    let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
               `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
               `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    vec![Cause::forbidden("spec", why)]
}

fn claim_changed(state: &State, kind: &Kind, old: &Value, new: &Value) -> Result<Vec<Cause>, Failure> {
    let comparable = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        object::map(&mut spec).remove("volumeAttributesClassName");
        if let Some(requests) = spec.pointer_mut("/resources/requests") {
            object::map(requests).remove("storage");
        }
        // The binder says once which volume it is.
        if text(old, "/spec/volumeName").is_empty() {
            object::map(&mut spec).remove("volumeName");
        }
        spec
    };
    const SIZE: &str = "/spec/resources/requests/storage";
    let is_bound = text(old, "/status/phase") == "Bound";
    let size = |claim: &Value| quantity::parse(text(claim, SIZE)).unwrap_or_default();
    let (before, after) = (size(old), size(new));
    let mut causes = vec![];
    if comparable(old) != comparable(new) || before != after && !is_bound {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        causes.push(Cause::forbidden("spec", why));
    } else if after < before {
        let has = quantity::parse(text(old, "/status/capacity/storage")).unwrap_or_default();
        // An expansion that was never done may be taken back.
        if after <= has {
            let why = "field can not be less than status.capacity";
            causes.push(Cause::forbidden("spec.resources.requests.storage", why));
        }
    } else if after > before {
        let class = state.store.get("storageclasses.storage.k8s.io", "", text(old, "/spec/storageClassName"));
        if class.is_none_or(|class| class["allowVolumeExpansion"] != true) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
            return Err(Failure::forbidden(kind, object::name(old), why));
        }
    }
    Ok(causes)
}

fn volume_changed(old: &Value, new: &Value) -> Vec<Cause> {
    const CHANGEABLE: [&str; 7] = [
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeAttributesClassName",
    ];
    let source = |volume: &Value| {
        let mut spec = volume["spec"].clone();
        object::map(&mut spec).retain(|field, _| !CHANGEABLE.contains(&field.as_str()));
        let affinity = object::map(&mut spec).remove("nodeAffinity");
        (spec, affinity)
    };
    let ((before, place), (after, new_place)) = (source(old), source(new));
    let mut causes = vec![];
    if before != after {
        causes.push(Cause::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    if place.is_some() && place != new_place {
        causes.push(Cause::invalid("spec.nodeAffinity", &Value::Null, "field is immutable"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_secret_is_encoded() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_pod_is_guaranteed_only_when_all_is_limited() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(quality(&pod(json!({}))), "BestEffort");
        assert_eq!(quality(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(quality(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
    }
}
