//! The pod of an instance.

use super::{CLUSTER_PORT, HTTP_PORT, config, hash, names, owned, selector};
use crate::api::{self, Group, SarsenCluster};
use k8s_openapi::api::core::v1::*;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::json;

/// Where the volume is mounted.
const DATA: &str = "/var/lib/sarsen";
/// Where the configuration is mounted.
const CONFIG: &str = "/etc/sarsen";
/// The user that has no name: `nonroot` of the usual base images.
const USER: i64 = 65532;
/// Stands for the instance in the template that is hashed.
const ANY: &str = "any";

/// The pod of an instance of a group.
pub fn pod(cluster: &SarsenCluster, group: &Group, instance: &str) -> Pod {
    let mut pod = template(cluster, group, instance);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(api::names::SPEC_HASH.into(), spec_hash(cluster, group));
    pod
}

/// The hash of what the pods of a group are made from. Not of what is an instance's own (its name), nor of the cluster object's identity (its uid).
pub fn spec_hash(cluster: &SarsenCluster, group: &Group) -> String {
    let Pod { metadata, spec, .. } = template(cluster, group, ANY);
    hash::of(&json!([metadata.labels, metadata.annotations, spec]))
}

fn template(cluster: &SarsenCluster, group: &Group, instance: &str) -> Pod {
    let more = &cluster.spec.pod_template;
    let mut metadata = owned(cluster, instance.into(), "database");
    // The operator finds pods by its own labels: nobody else's win over them.
    let mut labels = more.labels.clone();
    labels.append(metadata.labels.get_or_insert_default());
    labels.insert(api::names::GROUP.into(), group.name.clone());
    labels.insert(api::names::INSTANCE.into(), instance.into());
    metadata.labels = Some(labels);
    metadata.annotations = (!more.annotations.is_empty()).then(|| more.annotations.clone());
    let spec = PodSpec {
        hostname: Some(instance.into()),
        subdomain: Some(names::headless(&cluster.name_any())),
        containers: vec![container(cluster, group)],
        volumes: Some(volumes(cluster, instance)),
        affinity: Some(affinity(cluster, group)),
        node_selector: (!more.node_selector.is_empty()).then(|| more.node_selector.clone()),
        tolerations: (!more.tolerations.is_empty()).then(|| more.tolerations.clone()),
        priority_class_name: more.priority_class_name.clone(),
        service_account_name: more.service_account_name.clone(),
        image_pull_secrets: some(&cluster.spec.image_pull_secrets),
        readiness_gates: Some(vec![PodReadinessGate { condition_type: api::names::GATE.into() }]),
        restart_policy: Some("Always".into()),
        // Time for `/drain` to write what is in memory into blocks.
        termination_grace_period_seconds: Some(120),
        // A service called `sarsen` would give variables that look like settings.
        enable_service_links: Some(false),
        automount_service_account_token: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // Else the owner of every file is changed at each start, which takes long on a volume that is full.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    };
    Pod { metadata, spec: Some(spec), ..Pod::default() }
}

fn container(cluster: &SarsenCluster, group: &Group) -> Container {
    let http = |path: &str| HTTPGetAction {
        path: Some(path.into()),
        port: IntOrString::String("http".into()),
        ..HTTPGetAction::default()
    };
    let probe = |path: &str, period, timeout, failures| {
        Some(Probe {
            http_get: Some(http(path)),
            period_seconds: Some(period),
            timeout_seconds: Some(timeout),
            failure_threshold: Some(failures),
            ..Probe::default()
        })
    };
    Container {
        name: "sarsen".into(),
        image: Some(cluster.spec.image.clone()),
        image_pull_policy: cluster.spec.image_pull_policy.clone(),
        // The image's entry point is the database's program.
        args: Some(arguments(cluster, group)),
        env: Some(environment(cluster)),
        ports: Some(vec![port("http", HTTP_PORT), port("cluster", CLUSTER_PORT)]),
        resources: group.resources.clone().or_else(|| cluster.spec.resources.clone()),
        // A node that starts answers from its first moment, however long the replay of its log takes, and is ready after it. Half an hour is for
        // volumes that are slow to be mounted and machines with more to do than they can.
        startup_probe: probe("/-/healthy", 2, 5, 900),
        readiness_probe: probe("/-/ready", 5, 5, 3),
        // A node that is slow under load is not helped by a restart: only one that does not answer for a minute is stuck.
        liveness_probe: probe("/-/healthy", 10, 10, 6),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { http_get: Some(http("/drain")), ..Default::default() }),
            ..Lifecycle::default()
        }),
        volume_mounts: Some(vec![
            mount("data", DATA, false),
            mount("config", CONFIG, true),
            mount("tmp", "/tmp", false),
        ]),
        // Why a process ended is in the status of its pod.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Default::default() }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Every node of a database is started in the same way, the first one too: what they hold, and which one begins, is decided at run time.
fn arguments(cluster: &SarsenCluster, group: &Group) -> Vec<String> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let flags = [
        ("--data-dir", DATA.to_owned()),
        ("--config", format!("{CONFIG}/{}", config::FILE)),
        ("--http-listen", format!("0.0.0.0:{HTTP_PORT}")),
        ("--cluster-listen", format!("0.0.0.0:{CLUSTER_PORT}")),
        ("--cluster-advertise", names::address(&name, &namespace, "$(POD_NAME)")),
        ("--join", names::join(&name, &namespace)),
        ("--zone", group.name.clone()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["server".to_owned()].into_iter().chain(flags).collect()
}

fn environment(cluster: &SarsenCluster) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.into(), ..Default::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let token = SecretKeySelector {
        name: names::secret(&cluster.name_any()),
        key: names::SECRET_KEY.into(),
        ..SecretKeySelector::default()
    };
    let mut variables = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_IP", "status.podIP"),
        EnvVar {
            name: "SARSEN_JOIN_TOKEN".into(),
            value_from: Some(EnvVarSource { secret_key_ref: Some(token), ..EnvVarSource::default() }),
            ..EnvVar::default()
        },
        // There is no flag for it.
        EnvVar { name: "SARSEN_STANDBY".into(), value: Some("yes".into()), ..EnvVar::default() },
    ];
    // A variable twice is no pod: what the operator needs is not changed.
    let own: Vec<String> = variables.iter().map(|variable| variable.name.clone()).collect();
    let more = cluster.spec.pod_template.env.iter().filter(|variable| !own.contains(&variable.name));
    variables.extend(more.cloned());
    variables
}

fn volumes(cluster: &SarsenCluster, instance: &str) -> Vec<Volume> {
    vec![
        Volume {
            name: "data".into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::claim(instance),
                ..Default::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "config".into(),
            config_map: Some(ConfigMapVolumeSource { name: config::name(cluster), ..Default::default() }),
            ..Volume::default()
        },
        Volume {
            name: "tmp".into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("64Mi".into())),
                ..Default::default()
            }),
            ..Volume::default()
        },
    ]
}

/// The group's machines only, and one machine for each node. Not by spread constraints: after an outage, with volumes that cannot move, these
/// have no solution.
fn affinity(cluster: &SarsenCluster, group: &Group) -> Affinity {
    let node_affinity = group.topology.as_ref().map(|topology| NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: topology.key.clone(),
                    operator: "In".into(),
                    values: Some(topology.values.clone()),
                }]),
                ..NodeSelectorTerm::default()
            }],
        }),
        ..NodeAffinity::default()
    });
    let pod_anti_affinity = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
            label_selector: Some(LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            }),
            topology_key: "kubernetes.io/hostname".into(),
            ..PodAffinityTerm::default()
        }]),
        ..PodAntiAffinity::default()
    };
    Affinity { node_affinity, pod_anti_affinity: Some(pod_anti_affinity), ..Affinity::default() }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..Default::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, yaml};
    use std::collections::BTreeMap;

    #[test]
    fn a_pod() {
        let cluster = sample::cluster();
        insta::assert_snapshot!(yaml(&pod(&cluster, &cluster.spec.groups[0], "metrics-a-1")));
    }

    #[test]
    fn a_pod_with_all_additions() {
        let (cluster, group) = sample::decorated();
        insta::assert_snapshot!(yaml(&pod(&cluster, &group, "metrics-c-3")));
    }

    /// The hash decides about restarts of databases. If this fails, and the pod did not have to change, then the change must be taken back.
    #[test]
    fn the_hash_of_the_sample_stays_the_same() {
        let cluster = sample::cluster();
        assert_eq!(spec_hash(&cluster, &cluster.spec.groups[0]), "9c567df0b583");
    }

    #[test]
    fn a_hash_changes_with_what_the_pod_is_made_from_and_with_nothing_else() {
        let cluster = sample::cluster();
        let hash = |change: &dyn Fn(&mut SarsenCluster)| {
            let mut changed = cluster.clone();
            change(&mut changed);
            spec_hash(&changed, &changed.spec.groups[0])
        };
        let before = hash(&|_| ());
        let restarts: [&dyn Fn(&mut SarsenCluster); 6] = [
            &|c| c.spec.image = "other".into(),
            &|c| drop(c.spec.config.insert("retention".into(), "1d".into())),
            &|c| drop(c.spec.pod_template.labels.insert("a".into(), "b".into())),
            &|c| drop(c.spec.pod_template.annotations.insert("a".into(), "b".into())),
            &|c| c.spec.groups[0].resources = Some(ResourceRequirements::default()),
            &|c| c.spec.pod_template.priority_class_name = Some("high".into()),
        ];
        for (number, change) in restarts.iter().enumerate() {
            assert_ne!(hash(change), before, "change {number}");
        }
        let nothing: [&dyn Fn(&mut SarsenCluster); 5] = [
            &|c| c.metadata.uid = Some("another".into()),
            &|c| c.metadata.generation = Some(7),
            &|c| c.spec.groups[0].nodes = 9,
            &|c| c.spec.storage.size = Quantity("1Ti".into()),
            &|c| c.spec.failure_policy.max_concurrent_replacements = 2,
        ];
        for (number, change) in nothing.iter().enumerate() {
            assert_eq!(hash(change), before, "change {number}");
        }
    }

    #[test]
    fn instances_of_a_group_have_one_hash_and_groups_have_their_own() {
        let cluster = sample::cluster();
        let label = |group: usize, instance: &str| {
            pod(&cluster, &cluster.spec.groups[group], instance).labels()[api::names::SPEC_HASH].clone()
        };
        assert_eq!(label(0, "metrics-a-1"), label(0, "metrics-a-2"));
        assert_ne!(label(0, "metrics-a-1"), label(1, "metrics-b-1"));
    }

    #[test]
    fn additions_do_not_change_what_the_operator_relies_on() {
        let mut cluster = sample::cluster();
        let group = cluster.spec.groups[0].clone();
        cluster.spec.pod_template.labels = BTreeMap::from([
            (api::names::CLUSTER.into(), "x".into()),
            (api::names::GROUP.into(), "x".into()),
        ]);
        let variable =
            |name: &str| EnvVar { name: name.into(), value: Some("x".into()), ..EnvVar::default() };
        cluster.spec.pod_template.env = vec![variable("POD_NAME"), variable("GOGC")];
        let pod = pod(&cluster, &group, "metrics-a-1");
        assert_eq!(pod.labels()[api::names::CLUSTER], "metrics");
        assert_eq!(pod.labels()[api::names::GROUP], "a");
        let environment = pod.spec.unwrap().containers[0].env.clone().unwrap();
        let names: Vec<&str> = environment.iter().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names, ["POD_NAME", "POD_IP", "SARSEN_JOIN_TOKEN", "SARSEN_STANDBY", "GOGC"]);
    }
}
