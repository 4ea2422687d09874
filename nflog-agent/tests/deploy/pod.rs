//! The image's last stage, built by buildah, and the chart's pod as a container: runc with the capabilities, mounts, variables and seccomp
//! profile that the rendered DaemonSet has. What a kubelet adds of its own (AppArmor, SELinux, cgroups) is not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::helm::{one, template};
use super::program::{Agent, binary};
use super::sender;
use super::support::{Netns, wait_for};
use super::tools::{deploy, read, strings, verdict};

/// An image, unpacked.
struct Image {
    directory: tempfile::TempDir,
    config: Value,
}

impl Image {
    /// Builds the last stage of the Dockerfile from the agent of this test, in the place of what the first stage would build.
    fn build(arch: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (ok, text) = verdict(
            Command::new("sh")
                .arg(deploy("container/build.sh"))
                .args([arch, &path("stage/out")])
                .arg(binary())
                .current_dir(deploy("..")),
        );
        assert!(ok, "{text}");
        let buildah = |arguments: &[&str]| {
            let (ok, text) = verdict(
                Command::new("buildah")
                    .args(["--storage-driver", "vfs"])
                    .args(["--root", &path("store"), "--runroot", &path("run")])
                    .args(arguments)
                    .arg(deploy("container"))
                    .env("BUILDAH_ISOLATION", "chroot"),
            );
            assert!(ok, "{text}");
        };
        let context = format!("build={}", path("stage"));
        let dockerfile = deploy("container/Dockerfile").display().to_string();
        let platform = format!("linux/{arch}");
        let fixed = [
            "build",
            "--platform",
            &platform,
            "--build-context",
            &context,
            "--file",
            &dockerfile,
        ];
        buildah(&[&fixed[..], &["--tag", "nflog-agent:test"]].concat());
        let rootfs = format!("type=local,dest={}", path("rootfs"));
        buildah(&[&fixed[..], &["--output", &rootfs]].concat());
        let inspected = Command::new("buildah")
            .args(["--storage-driver", "vfs"])
            .args(["--root", &path("store"), "--runroot", &path("run")])
            .args(["inspect", "--type", "image", "nflog-agent:test"])
            .output()
            .unwrap();
        let config: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        Self {
            config: config["OCIv1"].clone(),
            directory,
        }
    }

    fn rootfs(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }
}

/// Files below a directory.
fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

#[test]
fn the_image_is_one_program_on_nothing_for_each_architecture() {
    for arch in ["amd64", "arm64"] {
        let image = Image::build(arch);
        assert_eq!(image.config["architecture"], arch);
        assert_eq!(
            image.config["config"]["Entrypoint"],
            json!(["/usr/bin/nflog-agent"])
        );
        let mut found = Vec::new();
        files(&image.rootfs(), &mut found);
        let mut found: Vec<String> = found
            .iter()
            .map(|path| path.strip_prefix(image.rootfs()).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "etc/ssl/certs/ca-certificates.crt",
                "usr/bin/nflog-agent",
                "usr/share/doc/nflog-agent/LICENSE-APACHE",
                "usr/share/doc/nflog-agent/LICENSE-MIT",
            ]
        );
    }
}

#[test]
fn an_architecture_that_nobody_builds_for_is_refused() {
    let (ok, text) = verdict(
        Command::new("sh")
            .arg(deploy("container/build.sh"))
            .args(["riscv64", "/nowhere"]),
    );
    assert!(!ok && text.contains("amd64 and arm64"), "{text}");
}

/// A container's variables, with what the kubelet puts in.
fn environment(container: &Value) -> Vec<String> {
    let mut set: Vec<(String, String)> = Vec::new();
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap().to_owned();
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => "node-1".to_owned(),
            Some("status.hostIP" | "status.podIP") => "127.0.0.1".to_owned(),
            Some(other) => panic!("{other}"),
            None => set.iter().fold(
                variable["value"].as_str().unwrap().to_owned(),
                |text, (name, value)| text.replace(&format!("$({name})"), value),
            ),
        };
        set.push((name, value));
    }
    set.iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Where each volume of the pod is on this machine.
fn mounts(pod: &Value, config: &Path) -> Vec<Value> {
    let sources = |name: &Value| -> String {
        let volume = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|volume| &volume["name"] == name)
            .unwrap();
        match volume["hostPath"]["path"].as_str() {
            Some(path) => path.to_owned(),
            None => config.display().to_string(),
        }
    };
    let own = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let own = own.iter().map(|mount| {
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        json!({
            "destination": mount["mountPath"], "type": "bind", "source": sources(&mount["name"]),
            "options": ["rbind", access]
        })
    });
    let fixed = [
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
        json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]}),
    ];
    fixed.into_iter().chain(own).collect()
}

/// The container that a kubelet would have the runtime make of the pod's first one.
fn spec(pod: &Value, rootfs: &Path, config: &Path, netns: &Netns, seccomp: Option<&Value>) -> Value {
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    let capabilities: Vec<String> = strings(&context["capabilities"]["add"])
        .into_iter()
        .map(|name| format!("CAP_{name}"))
        .collect();
    let arguments: Vec<&str> = std::iter::once("/usr/bin/nflog-agent")
        .chain(strings(&container["args"]))
        .collect();
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": context["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
            "args": arguments,
            "env": environment(container),
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": context["allowPrivilegeEscalation"] == false,
        },
        "mounts": mounts(pod, config),
        "linux": {
            // Neither pid nor, for the node's, another network namespace.
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": netns.path()}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    assert_eq!(
        (&pod["hostPID"], &context["privileged"]),
        (&true.into(), &false.into())
    );
    if let Some(seccomp) = seccomp {
        spec["linux"]["seccomp"] = seccomp.clone();
    }
    spec
}

/// A pod of the chart with these values, running.
struct Pod {
    agent: Agent,
    _place: tempfile::TempDir,
}

impl Pod {
    fn start(image: &Image, netns: &Netns, values: &[&str], seccomp: Option<&Value>) -> Self {
        let fixed = ["config.output=json", "config.kubernetes=off", "config.spool=null"];
        let arguments: Vec<&str> = fixed
            .iter()
            .chain(values)
            .flat_map(|value| ["--set", value])
            .collect();
        let (ok, rendered) = template(&arguments);
        assert!(ok, "{rendered}");
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("config");
        fs::create_dir(&config).unwrap();
        let map = one("ConfigMap", &rendered);
        for (name, text) in map["data"].as_object().unwrap() {
            fs::write(config.join(name), text.as_str().unwrap()).unwrap();
        }
        let daemonset = one("DaemonSet", &rendered);
        let spec = spec(
            &daemonset["spec"]["template"]["spec"],
            &image.rootfs(),
            &config,
            netns,
            seccomp,
        );
        fs::write(place.path().join("config.json"), spec.to_string()).unwrap();
        let id = place
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.');
        let agent = Agent::from(
            Command::new("runc")
                .arg("--root")
                .arg(place.path().join("state"))
                .args(["run", "--bundle"])
                .arg(place.path())
                .arg(format!("nflog-{id}")),
        );
        Self { agent, _place: place }
    }

    /// Waits for a record that names a process of this machine which sends, and stops the pod.
    fn names_owners_and_stops(mut self, netns: &Netns) {
        let sender = sender(netns);
        self.agent.wait_until_said("reading group 7");
        let wanted = format!("\"process.pid\":{},", sender.0.id());
        wait_for("a record that names the sender", || {
            let named = self.agent.output().iter().any(|line| line.contains(&wanted));
            named.then_some(())
        });
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
        assert!(
            !ended.messages().contains("not permitted"),
            "{}",
            ended.messages()
        );
    }
}

fn logged() -> Netns {
    let netns = Netns::new("pod");
    netns.nft("table inet t { chain out { type filter hook output priority 0; udp dport 9 log prefix \"pod\" group 7; }; }");
    netns
}

/// The profile, but what it does not let pass kills.
fn deadly() -> Value {
    let mut profile: Value = serde_json::from_str(&read("kubernetes/seccomp.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    profile["defaultAction"] = "SCMP_ACT_KILL_PROCESS".into();
    profile
}

#[test]
fn the_charts_pod_names_owners_under_its_seccomp_profile() {
    let image = Image::build("amd64");
    let netns = logged();
    let confined = [
        "securityContext.seccompProfile.type=Localhost",
        "securityContext.seccompProfile.localhostProfile=profiles/nflog-agent.json",
    ];
    Pod::start(&image, &netns, &confined, Some(&deadly())).names_owners_and_stops(&netns);
    Pod::start(&image, &netns, &[], None).names_owners_and_stops(&netns);
}

#[test]
fn a_pod_in_a_network_of_its_own_enters_the_one_with_the_rules() {
    let image = Image::build("amd64");
    let (netns, own) = (logged(), Netns::new("pod-own"));
    let values = [
        "hostNetwork=false".to_owned(),
        format!("config.netns={}", netns.path().display()),
        "extraVolumes[0].name=netns".to_owned(),
        "extraVolumes[0].hostPath.path=/run/netns".to_owned(),
        "extraVolumeMounts[0].name=netns".to_owned(),
        "extraVolumeMounts[0].mountPath=/run/netns".to_owned(),
    ];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Pod::start(&image, &own, &values, Some(&deadly())).names_owners_and_stops(&netns);
}

#[test]
fn the_seccomp_profile_kills_what_it_does_not_let_pass() {
    let image = Image::build("amd64");
    let netns = logged();
    let mut profile = deadly();
    for rule in profile["syscalls"].as_array_mut().unwrap() {
        rule["names"]
            .as_array_mut()
            .unwrap()
            .retain(|name| name != "bind");
    }
    let pod = Pod::start(&image, &netns, &[], Some(&profile));
    let ended = pod.agent.wait();
    // SIGSYS
    assert_eq!(ended.code, Some(128 + 31), "{}", ended.messages());
}

#[test]
fn the_seccomp_profile_has_what_probes_take_for_both_architectures_and_nothing_that_rules_a_host() {
    let profile: Value = serde_json::from_str(&read("kubernetes/seccomp.json")).unwrap();
    assert_eq!(
        strings(&profile["architectures"]),
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    );
    let rules = profile["syscalls"].as_array().unwrap();
    let names: Vec<&str> = rules.iter().flat_map(|rule| strings(&rule["names"])).collect();
    for rule in rules {
        assert_eq!(rule["action"], "SCMP_ACT_ALLOW");
        assert!(
            rule["comment"].as_str().is_some_and(|text| !text.is_empty()),
            "{rule}"
        );
    }
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "a call is named twice");
    // This machine's kernel may have no probes, so the traces do not show these.
    for needed in [
        "bpf",
        "perf_event_open",
        "setns",
        "recvfrom",
        "epoll_wait",
        "epoll_pwait",
    ] {
        assert!(names.contains(&needed), "{needed}");
    }
    for refused in [
        "mount",
        "umount2",
        "pivot_root",
        "ptrace",
        "process_vm_readv",
        "init_module",
        "finit_module",
        "kexec_load",
        "reboot",
        "swapon",
        "mknodat",
        "keyctl",
        "userfaultfd",
        "io_uring_setup",
        "unshare",
        "chroot",
        "settimeofday",
    ] {
        assert!(!names.contains(&refused), "{refused}");
    }
}
