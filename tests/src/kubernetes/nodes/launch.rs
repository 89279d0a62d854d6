//! From a pod's specification to what is started: environment, arguments, mounts.

use super::process::{Launch, Mount, inside};
use super::scheduler::node_of;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, KeyToPath, Pod, Secret};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a kubelet has found out about a pod before it starts anything. It needs nobody to start a container again.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Configuration by name.
    pub configs: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The folder of each of the pod's volumes, on the host.
    pub folders: BTreeMap<String, PathBuf>,
    /// The persistent volumes among these.
    pub mounted: BTreeSet<String>,
    /// The pod's address.
    pub pod_ip: String,
    /// The host's address.
    pub host_ip: String,
}

/// Why a container cannot be started, as its status says it: reason and message.
pub type Trouble = (String, String);

fn config_error(message: String) -> Trouble {
    ("CreateContainerConfigError".into(), message)
}

/// The configuration maps and secrets that a pod names, and whether it can do without.
pub fn needs(pod: &Pod) -> (BTreeMap<String, bool>, BTreeMap<String, bool>) {
    let (mut configs, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    let Some(spec) = &pod.spec else { return (configs, secrets) };
    let need = |into: &mut BTreeMap<String, bool>, name: &str, optional: Option<bool>| {
        *into.entry(name.into()).or_insert(true) &= optional == Some(true);
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(config) = &volume.config_map {
            need(&mut configs, &config.name, config.optional);
        }
        if let Some(secret) = &volume.secret {
            need(&mut secrets, secret.secret_name.as_deref().unwrap_or_default(), secret.optional);
        }
    }
    for variable in spec.containers.iter().flat_map(|container| container.env.iter().flatten()) {
        let Some(from) = &variable.value_from else { continue };
        if let Some(key) = &from.config_map_key_ref {
            need(&mut configs, &key.name, key.optional);
        }
        if let Some(key) = &from.secret_key_ref {
            need(&mut secrets, &key.name, key.optional);
        }
    }
    (configs, secrets)
}

/// The bytes of a configuration map by key.
pub fn config_data(config: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = config.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
    text.chain(config.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)))
        .collect()
}

/// The bytes of a secret by key.
pub fn secret_data(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect()
}

/// The files of a volume that is made of keys: all of them under their names, or those that are asked for.
pub fn files(data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>) -> Vec<(String, Vec<u8>)> {
    match items {
        None => data.iter().map(|(key, bytes)| (key.clone(), bytes.clone())).collect(),
        Some(items) => {
            items.iter().filter_map(|item| Some((item.path.clone(), data.get(&item.key)?.clone()))).collect()
        }
    }
}

/// What is started for a container.
pub fn launch(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    images: &BTreeMap<String, PathBuf>,
) -> Result<Launch, Trouble> {
    let image = container.image.as_deref().unwrap_or_default();
    let Some(binary) = images.get(image) else {
        return Err((
            "ErrImagePull".into(),
            format!("failed to pull and unpack image \"{image}\": not found"),
        ));
    };
    let environment = environment(pod, container, facts)?;
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expanded(word, &environment)).collect()
    };
    let mut words = expand(&container.command);
    if words.is_empty() {
        words.push(inside(binary));
    }
    words.extend(expand(&container.args));
    let mut mounts = vec![];
    for mount in container.volume_mounts.iter().flatten() {
        let Some(folder) = facts.folders.get(&mount.name) else {
            return Err(config_error(format!("volume \"{}\" is not there", mount.name)));
        };
        let source = mount.sub_path.as_deref().map_or(folder.clone(), |path| folder.join(path));
        let is_of_keys = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
            volume.name == mount.name && (volume.config_map.is_some() || volume.secret.is_some())
        });
        mounts.push(Mount {
            source,
            target: mount.mount_path.trim_end_matches('/').into(),
            is_read_only: mount.read_only == Some(true) || is_of_keys,
        });
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let of_pod = spec.security_context.unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user).unwrap_or(0);
    if user == 0 && own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        return Err(config_error("container has runAsNonRoot and image will run as root".into()));
    }
    Ok(Launch {
        image: binary.clone(),
        words,
        environment,
        mounts,
        is_read_only: own.read_only_root_filesystem == Some(true),
        user: (user, own.run_as_group.or(of_pod.run_as_group).unwrap_or(0), of_pod.fs_group),
        hostname: spec.hostname.unwrap_or_else(|| pod.name_any()),
    })
}

fn environment(pod: &Pod, container: &Container, facts: &Facts) -> Result<Vec<(String, String)>, Trouble> {
    let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    let mut environment = vec![("HOSTNAME".to_string(), hostname)];
    for variable in container.env.iter().flatten() {
        let value = match &variable.value {
            Some(value) => Some(expanded(value, &environment)),
            None => from(pod, variable, facts)?,
        };
        if let Some(value) = value {
            environment.retain(|(name, _)| *name != variable.name);
            environment.push((variable.name.clone(), value));
        }
    }
    Ok(environment)
}

/// The value of a variable that comes from elsewhere; `None` when it may be missing, and is.
fn from(pod: &Pod, variable: &EnvVar, facts: &Facts) -> Result<Option<String>, Trouble> {
    let Some(from) = &variable.value_from else { return Ok(Some(String::new())) };
    if let Some(field) = &from.field_ref {
        let value = field_of(pod, &field.field_path, facts);
        return value
            .map(Some)
            .ok_or_else(|| config_error(format!("unsupported field {}", field.field_path)));
    }
    let (kind, of, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(wanted), _) => ("configmap", &facts.configs, &wanted.name, &wanted.key, wanted.optional),
        (_, Some(wanted)) => ("secret", &facts.secrets, &wanted.name, &wanted.key, wanted.optional),
        _ => return Err(config_error(format!("environment variable {} comes from nowhere", variable.name))),
    };
    let value = of.get(name).and_then(|data| data.get(key));
    match value {
        Some(bytes) => Ok(Some(String::from_utf8_lossy(bytes).into_owned())),
        None if optional == Some(true) => Ok(None),
        None if of.contains_key(name) => {
            Err(config_error(format!("couldn't find key {key} in {kind} {name}")))
        }
        None => Err(config_error(format!("{kind} \"{name}\" not found"))),
    }
}

/// A field of the downward API.
pub fn field_of(pod: &Pod, path: &str, facts: &Facts) -> Option<String> {
    let keyed = |of: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(of.get(key).cloned().unwrap_or_default())
    };
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "spec.nodeName" => node_of(pod).map(String::from),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => Some(facts.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => Some(facts.host_ip.clone()),
        _ => keyed(pod.labels(), "metadata.labels['")
            .or_else(|| keyed(pod.annotations(), "metadata.annotations['")),
    }
}

/// `$(NAME)` becomes the variable's value where there is one, and stays where there is none; `$$` is `$`.
fn expanded(text: &str, environment: &[(String, String)]) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let value = named.and_then(|(name, after)| {
            let (_, value) = environment.iter().find(|(known, _)| known == name)?;
            Some((value, after))
        });
        match value {
            Some((value, after)) => {
                result.push_str(value);
                rest = after;
            }
            None => result.push('$'),
        }
    }
    result + rest
}

/// Where the last words of a container's process are to be written, inside.
pub fn termination_path(container: &Container) -> &Path {
    Path::new(container.termination_message_path.as_deref().unwrap_or("/dev/termination-log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn pod() -> Pod {
        from_value(json!({
            "metadata": {"name": "one", "namespace": "db", "labels": {"zone": "a"}},
            "spec": {
                "hostname": "one", "nodeName": "a1",
                "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": true},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-one"}},
                    {"name": "config", "configMap": {"name": "settings"}}],
                "containers": [{"name": "sarsen", "image": "sarsen:1",
                    "args": ["server", "--at", "$(POD_NAME).all:7421", "$(NOBODY)", "$$(POD_NAME)"],
                    "env": [
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "ZONE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['zone']"}}},
                        {"name": "BOTH", "value": "$(POD_NAME)-$(ZONE)"},
                        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "join", "key": "token"}}}],
                    "volumeMounts": [{"name": "data", "mountPath": "/var/lib/x"}, {"name": "config", "mountPath": "/etc/x/"}],
                    "securityContext": {"readOnlyRootFilesystem": true}}]}
        }))
        .expect("a pod")
    }

    fn facts() -> Facts {
        Facts {
            secrets: [("join".into(), [("token".into(), b"secret".to_vec())].into())].into(),
            folders: [("data".into(), "/disk/pv".into()), ("config".into(), "/pods/config".into())].into(),
            ..Facts::default()
        }
    }

    fn launched(pod: &Pod, facts: &Facts) -> Result<Launch, Trouble> {
        let images = [("sarsen:1".to_string(), PathBuf::from("/builds/sarsen"))].into();
        launch(pod, &pod.spec.as_ref().expect("a spec").containers[0], facts, &images)
    }

    #[test]
    fn variables_arguments_and_mounts_are_filled_in() {
        let launch = launched(&pod(), &facts()).expect("nothing is missing");
        assert_eq!(launch.words, ["/sarsen", "server", "--at", "one.all:7421", "$(NOBODY)", "$(POD_NAME)"]);
        let value = |name: &str| {
            launch.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("BOTH"), Some("one-a"));
        assert_eq!(value("TOKEN"), Some("secret"));
        let mounts: Vec<_> =
            launch.mounts.iter().map(|mount| (mount.target.as_str(), mount.is_read_only)).collect();
        assert_eq!(mounts, [("/var/lib/x", false), ("/etc/x", true)]);
        assert_eq!(launch.user, (65532, 65532, Some(65532)));
        assert!(launch.is_read_only);
    }

    #[test]
    fn what_is_missing_is_named() {
        let reason = |pod: &Pod, facts: &Facts| launched(pod, facts).expect_err("something is missing");
        let (reason_of, message) = reason(&pod(), &Facts { secrets: BTreeMap::new(), ..facts() });
        assert_eq!(
            (reason_of.as_str(), message.as_str()),
            ("CreateContainerConfigError", "secret \"join\" not found")
        );
        let mut other = pod();
        other.spec.as_mut().expect("a spec").containers[0].image = Some("sarsen:2".into());
        assert_eq!(reason(&other, &facts()).0, "ErrImagePull");
        let mut root = pod();
        root.spec.as_mut().expect("a spec").security_context.as_mut().expect("one").run_as_user = None;
        assert!(reason(&root, &facts()).1.contains("run as root"));
        assert_eq!(needs(&pod()), ([("settings".into(), false)].into(), [("join".into(), false)].into()));
    }
}
