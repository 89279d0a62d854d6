//! The files of `operator/deploy` that are printed: the kustomize base and the Helm chart.

use super::{Choices, Part, namespace, objects, rbac, yaml};
use crate::api;
use serde_json::Value;
use std::path::PathBuf;

const NOTE: &str = "# Printed by `cargo xtask manifests`.\n";

/// Each file's path in the folder, and its text.
pub fn files(choices: &Choices) -> Vec<(PathBuf, String)> {
    let chart = in_a_chart();
    let mut files: Vec<(String, String)> = vec![
        ("namespace.yaml".into(), yaml(&[namespace(&choices.namespace)])),
        ("rbac.yaml".into(), part(choices, Part::Rbac)),
        ("cluster-role.yaml".into(), yaml(&rbac::cluster_scoped(&choices.namespace))),
        ("deployment.yaml".into(), part(choices, Part::Deployment)),
        ("helm/sarsen-operator/templates/rbac.yaml".into(), part(&chart, Part::Rbac)),
        (
            "helm/sarsen-operator/templates/cluster-role.yaml".into(),
            optional("clusterRole", &rbac::cluster_scoped(&chart.namespace)),
        ),
        ("helm/sarsen-operator/templates/deployment.yaml".into(), part(&chart, Part::Deployment)),
    ];
    for crd in api::crds() {
        let (name, text) = (&crd.spec.names.plural, yaml(&[super::value(&crd)]));
        files.push((format!("crds/{name}.yaml"), text.clone()));
        // Helm installs what is in this folder before anything else, and takes no templates there.
        files.push((format!("helm/sarsen-operator/crds/{name}.yaml"), text));
    }
    files.into_iter().map(|(path, text)| (path.into(), format!("{NOTE}{text}"))).collect()
}

fn part(choices: &Choices, part: Part) -> String {
    yaml(&objects(choices, Some(part), false))
}

/// What can be chosen in the chart, by the names in its `values.yaml`.
fn in_a_chart() -> Choices {
    let value = |name: &str| format!("{{{{ .Values.{name} }}}}");
    Choices {
        namespace: "{{ .Release.Namespace }}".into(),
        image: value("image"),
        pull_policy: value("imagePullPolicy"),
        log_level: value("logLevel"),
        resources: ["resources.cpu", "resources.memory", "resources.memoryMax"].map(value),
    }
}

/// A template of objects that are there if a value is true.
fn optional(name: &str, objects: &[Value]) -> String {
    format!("{{{{- if .Values.{name} }}}}\n{}{{{{- end }}}}\n", yaml(objects))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission;
    use serde_json::{Map, json};
    use std::path::Path;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
    }

    fn read(path: impl AsRef<Path>) -> String {
        let path = folder().join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// A template as Helm fills it in, as far as ours go: values, and one condition around all.
    fn fill_in(template: &str, values: &Value, namespace: &str) -> String {
        let mut text = template.replace("{{ .Release.Namespace }}", namespace);
        if let Some(condition) = text.split_once("{{- if .Values.").map(|(_, rest)| rest) {
            let name = condition.split_once(" }}").expect("an end").0.to_owned();
            if values[&name] != json!(true) {
                return String::new();
            }
            text = text.replace(&format!("{{{{- if .Values.{name} }}}}\n"), "").replace("{{- end }}\n", "");
        }
        while let Some(start) = text.find("{{ .Values.") {
            let length = text[start..].find(" }}").expect("an end") + 3;
            let name = text[start + "{{ .Values.".len()..start + length - 3].to_owned();
            let value = values.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_str);
            text.replace_range(start..start + length, value.unwrap_or_else(|| panic!("no value {name}")));
        }
        assert!(!text.contains("{{"), "{text}");
        text
    }

    fn chart(values: &Value, namespace: &str) -> Vec<Value> {
        let templates = ["rbac.yaml", "cluster-role.yaml", "deployment.yaml"];
        let texts = templates.map(|name| read(format!("helm/sarsen-operator/templates/{name}")));
        let filled = texts.iter().map(|text| fill_in(text, values, namespace));
        filled
            .filter(|text| !text.is_empty())
            .flat_map(|text| text.split("---\n").map(parse).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn the_files_are_those_that_would_be_printed_now() {
        let files = files(&Choices::new("sarsen", None));
        for (path, text) in &files {
            assert!(read(path) == *text, "{} is old: run `cargo xtask manifests`", path.display());
        }
        // Nothing is left of what is printed no more.
        for folder in ["crds", "helm/sarsen-operator/crds", "helm/sarsen-operator/templates"] {
            let there = std::fs::read_dir(self::folder().join(folder)).unwrap().count();
            assert_eq!(
                there,
                files.iter().filter(|(path, _)| path.parent() == Some(Path::new(folder))).count()
            );
        }
    }

    #[test]
    fn the_chart_installs_what_the_command_prints() {
        let mut values = parse(&read("helm/sarsen-operator/values.yaml"));
        let printed = |cluster_scoped| {
            let choices = Choices::new("db", None);
            [Part::Rbac, Part::Deployment]
                .iter()
                .flat_map(|&part| objects(&choices, Some(part), cluster_scoped))
                .collect::<Vec<_>>()
        };
        assert_eq!(chart(&values, "db"), printed(true));
        values["clusterRole"] = json!(false);
        assert_eq!(chart(&values, "db"), printed(false));

        values["image"] = json!("registry.example/operator:2");
        let deployment = chart(&values, "db").pop().unwrap();
        assert_eq!(
            deployment["spec"]["template"]["spec"]["containers"][0]["image"],
            "registry.example/operator:2"
        );
    }

    #[test]
    fn the_values_of_the_chart_are_those_of_its_schema() {
        let values = parse(&read("helm/sarsen-operator/values.yaml"));
        let schema: Value = serde_json::from_str(&read("helm/sarsen-operator/values.schema.json")).unwrap();
        let problems = |values: &Value| {
            let mut problems = vec![];
            admission::check(&schema, values, "", &mut problems);
            problems
        };
        assert_eq!(problems(&values), [""; 0]);
        for (name, wrong) in [
            ("clusterRole", json!("yes")),
            ("logLevel", json!("loud")),
            ("imagePullPolicy", json!("Sometimes")),
            ("image", json!("")),
            ("resources", json!({})),
        ] {
            let mut changed = values.clone();
            changed[name] = wrong;
            let found = problems(&changed).join("; ");
            assert!(found.starts_with(&format!(".{name}")), "{name}: {found}");
        }
        // A name that is misspelled is refused, at each level.
        fn names(schema: &Value, values: &Map<String, Value>) {
            assert_eq!(schema["additionalProperties"], false);
            let known: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
            assert_eq!(known, values.keys().collect::<Vec<_>>());
            for (name, value) in values {
                if let Some(values) = value.as_object() {
                    names(&schema["properties"][name], values);
                }
            }
        }
        names(&schema, values.as_object().unwrap());
    }

    #[test]
    fn the_chart_has_the_version_of_the_operator() {
        let chart = parse(&read("helm/sarsen-operator/Chart.yaml"));
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["name"], super::super::NAME);
    }

    #[test]
    fn the_kustomize_base_names_every_file_beside_it() {
        let base = parse(&read("kustomization.yaml"));
        let mut named: Vec<&str> =
            base["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        named.sort_unstable();
        let files = files(&Choices::new("sarsen", None));
        let mut there: Vec<&str> = files
            .iter()
            .filter_map(|(path, _)| path.to_str())
            .filter(|path| !path.starts_with("helm/"))
            .collect();
        there.sort_unstable();
        assert_eq!(named, there);
    }

    #[test]
    fn the_sample_is_let_through() {
        for text in read("sample.yaml").split("---\n") {
            let object = parse(text);
            admission::admit(&object, None).unwrap_or_else(|problems| panic!("{problems:?}"));
        }
        let first = parse(read("sample.yaml").split("---\n").next().unwrap());
        let cluster: api::SarsenCluster = serde_json::from_value(first).unwrap();
        assert_eq!(crate::render::invalid_settings(&cluster.spec.config), [""; 0]);
        assert_eq!(cluster.metadata.namespace.as_deref(), Some("sarsen"));
    }
}
