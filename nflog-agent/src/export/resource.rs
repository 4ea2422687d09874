//! The attributes of this host and of the operator: hostname, machine id, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_SERVICE_NAME`.

use std::ffi::OsString;
use std::path::Path;

use super::config::{ConfigError, not_a_member, read};
use super::percent;
use crate::record::{Resource, semconv};

/// UTS hostname of the namespace that the agent runs in.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// See machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// Reads the host's files and the operator's variables. A file that cannot be read leaves its attribute out.
///
/// # Errors
/// A variable that is not a valid list of attributes.
pub fn detect(get: impl Fn(&str) -> Option<OsString>) -> Result<Resource, ConfigError> {
    let mut resource = Resource::new();
    for (key, file) in [(semconv::HOST_NAME, HOSTNAME), (semconv::HOST_ID, MACHINE_ID)] {
        if let Some(value) = line(Path::new(file)) {
            resource.set(key.name(), &value);
        }
    }
    operator(&mut resource, get)?;
    Ok(resource)
}

fn operator(resource: &mut Resource, get: impl Fn(&str) -> Option<OsString>) -> Result<(), ConfigError> {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    if let Some(value) = read(&get, ATTRIBUTES)? {
        let members = percent::list(&value).map_err(|member| not_a_member(ATTRIBUTES, member))?;
        for (name, value) in members {
            resource.set(&name, &value);
        }
    }
    if let Some(name) = read(&get, "OTEL_SERVICE_NAME")? {
        resource.set(semconv::SERVICE_NAME.name(), name.trim());
    }
    Ok(())
}

fn line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<Vec<(String, String)>, ConfigError> {
        let mut resource = Resource::new();
        resource.set("host.name", "detected");
        operator(&mut resource, |variable| {
            set.iter()
                .find(|(name, _)| *name == variable)
                .map(|(_, value)| OsString::from(value))
        })?;
        Ok(resource
            .of_agent()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    #[test]
    fn attributes_are_percent_decoded_and_the_service_name_variable_wins() {
        let set = [
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "k8s.cluster.name=a%2Cb,service.name=x,host.name=told",
            ),
            ("OTEL_SERVICE_NAME", "edge"),
        ];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            of(&set).unwrap(),
            [
                pair("service.version", env!("CARGO_PKG_VERSION")),
                pair("k8s.cluster.name", "a,b"),
                pair("host.name", "told"),
                pair("service.name", "edge")
            ]
        );
        assert_eq!(of(&set[..1]).unwrap().last().unwrap().1, "x");
        assert_eq!(of(&[]).unwrap().last().unwrap().1, "nflog-agent");
        let other = of(&[("OTEL_RESOURCE_ATTRIBUTES", "service.version=9")]).unwrap();
        let versions = other.iter().filter(|(name, _)| name == "service.version");
        assert_eq!(versions.collect::<Vec<_>>(), [&pair("service.version", "9")]);
    }

    #[test]
    fn a_faulty_list_is_an_error() {
        let error = of(&[("OTEL_RESOURCE_ATTRIBUTES", "a=1,b")]).unwrap_err();
        assert!(
            error.to_string().contains("OTEL_RESOURCE_ATTRIBUTES: b "),
            "{error}"
        );
    }

    #[test]
    fn this_host_has_a_name() {
        let resource = detect(|_| None).unwrap();
        assert!(
            resource
                .of_agent()
                .any(|(name, value)| name == "host.name" && !value.is_empty())
        );
    }
}
