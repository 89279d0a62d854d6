//! kubectl is content with the server: what people and their scripts do works.

use tempfile::TempDir;
use tests::kubernetes::api::ApiServer;
use tests::kubernetes::kubectl::kubectl;

struct Kubectl {
    _server: ApiServer,
    folder: TempDir,
}

impl Kubectl {
    fn new() -> Kubectl {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = ApiServer::start(([127, 0, 0, 1], 0).into());
        server.kubeconfig(&folder.path().join("config"));
        Kubectl { _server: server, folder }
    }

    /// Runs it with what it is to read. Says whether it was content, and what it printed.
    fn run(&self, line: &str, input: &str) -> (bool, String) {
        kubectl(&self.folder.path().join("config"), line, input)
    }

    fn done(&self, line: &str, input: &str) -> String {
        let (is_content, text) = self.run(line, input);
        assert!(is_content, "kubectl {line}: {text}");
        text
    }
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: things, kind: Thing, shortNames: [th]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Happy, type: string, jsonPath: '.status.conditions[?(@.type=="Happy")].status'}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer, minimum: 1, description: How large it is.}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

const THING: &str = "---\n{apiVersion: example.org/v1, kind: Thing, metadata: {name: t}, spec: {size: 2}}";

#[test]
#[ignore = "needs kubectl"]
fn custom_objects_are_applied_printed_explained_and_waited_for() {
    let kubectl = Kubectl::new();
    kubectl.done("apply -f -", DEFINITION);
    kubectl.done("wait --for=condition=Established crd/things.example.org --timeout=20s", "");
    assert!(kubectl.done("apply -f -", THING).contains("created"));
    assert!(kubectl.done("apply -f -", THING).contains("unchanged"));
    assert!(kubectl.done("apply --server-side -f -", THING).contains("serverside-applied"));
    let (is_content, why) = kubectl.run("apply -f -", &THING.replace("size: 2", "size: 0"));
    assert!(!is_content && why.contains("spec.size in body should be greater than or equal to 1"), "{why}");
    let (is_content, why) = kubectl.run("apply -f -", &THING.replace("size", "sise"));
    assert!(!is_content && why.contains("unknown field"), "{why}");
    assert!(kubectl.done("explain things.spec", "").contains("How large it is."));
    kubectl.done(r#"patch th t --subresource=status --type=merge -p {"status":{"conditions":[{"type":"Happy","status":"True"}]}}"#, "");
    kubectl.done("wait --for=condition=Happy thing/t --timeout=20s", "");
    let table = kubectl.done("get things", "");
    let words: Vec<&str> = table.lines().last().unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["t", "2", "True"], "{table}");
    kubectl.done("delete thing t --timeout=20s", "");
    assert!(kubectl.done("get things", "").contains("No resources found"));
}

const POD: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: x}}, spec: {containers: [{name: c, image: \"i:1\"}]}}";

#[test]
#[ignore = "needs kubectl"]
fn pods_are_described_and_changes_of_the_image_are_applied() {
    let kubectl = Kubectl::new();
    kubectl.done("apply -f -", POD);
    let moved = kubectl.done("apply --server-side -f -", POD);
    assert!(!moved.contains("failed to re-apply"), "what was left to defaults is still so: {moved}");
    let table = kubectl.done("get pods", "");
    assert!(table.contains("0/1") && table.contains("Pending"), "{table}");
    kubectl.done("apply -f -", &POD.replace("i:1", "i:2"));
    assert!(kubectl.done("describe pod p", "").contains("Image:        i:2"));
    kubectl.done("label pod p more=1", "");
    assert!(kubectl.done("get pods -l more=1 -o name", "").contains("pod/p"));
    kubectl.done("events", "");
    let list =
        "---\n{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}]}";
    assert!(kubectl.done("apply -f -", list).contains("configmap/c created"));
    kubectl.done("delete pod p --timeout=20s", "");
}

#[test]
#[ignore = "needs kubectl"]
fn a_drain_asks_the_budget() {
    let kubectl = Kubectl::new();
    kubectl.done("create -f -", "---\n{apiVersion: v1, kind: Node, metadata: {name: node-1}}");
    kubectl.done("create -f -", POD);
    let binding = r#"{"metadata": {"name": "p"}, "target": {"name": "node-1"}}"#;
    kubectl.done("create --raw /api/v1/namespaces/default/pods/p/binding -f -", binding);
    let running = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.done(&format!("patch pod p --subresource=status --type=merge -p {running}"), "");
    let budget = "---\n{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {minAvailable: 1, selector: {matchLabels: {app: x}}}}";
    kubectl.done("create -f -", budget);
    kubectl.done("wait --for=jsonpath={.status.currentHealthy}=1 pdb/b --timeout=20s", "");
    let (is_content, why) = kubectl.run("drain node-1 --force --timeout=1s", "");
    assert!(!is_content && why.contains("disruption budget"), "{why}");
    assert!(kubectl.done("get node node-1", "").contains("SchedulingDisabled"));
    kubectl.done("delete pdb b", "");
    kubectl.run("drain node-1 --force --timeout=1s", "");
    assert!(kubectl.done("get pod p", "").contains("Terminating"));
}
