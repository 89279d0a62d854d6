//! The operator's own pod.

use super::{Choices, NAME, PORT, metadata};
use serde_json::{Value, json};

/// One replica: with more, the others wait for the lease, and gain some seconds when the machine of the first is lost.
pub fn deployment(choices: &Choices) -> Value {
    let [cpu, memory, memory_max] = &choices.resources;
    let labels = json!({ "app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator" });
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = |path: &str, period: u32| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": period, "timeoutSeconds": 5 });
    let container = json!({
        "name": "operator",
        "image": choices.image,
        "imagePullPolicy": choices.pull_policy,
        "args": ["run", "--listen", format!("0.0.0.0:{PORT}"), "--log-level", choices.log_level],
        "env": [field("POD_NAMESPACE", "metadata.namespace"), field("POD_NAME", "metadata.name")],
        "ports": [{ "name": "http", "containerPort": PORT, "protocol": "TCP" }],
        "livenessProbe": probe("/healthz", 10),
        "readinessProbe": probe("/readyz", 5),
        "resources": { "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": memory_max } },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    // The operator's machine may be the one that is lost. Kubernetes' five minutes would be added to every grace; a second operator does no harm.
    let away = |taint: &str| json!({ "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(Some(&choices.namespace), NAME),
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "serviceAccountName": NAME,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 30,
                    "tolerations": [away("not-ready"), away("unreachable")],
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [container],
                },
            },
        },
    })
}
