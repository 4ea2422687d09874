//! The settings in effect after binding, read back from the kernel, beside those asked for.

use std::io;

use super::config::Config;
use super::flags::{CopyMode, Flags};
use super::procfs::{self, Instance};

/// Settings in effect.
#[derive(Debug)]
#[non_exhaustive]
pub struct Effective {
    /// Groups bound.
    pub groups: Vec<u16>,
    /// Netlink port id of the socket.
    pub port_id: u32,
    /// Receive buffer in bytes as the kernel counts it.
    pub receive_buffer: u32,
    /// Flags that the kernel accepted.
    pub flags: Flags,
    /// The groups as procfs shows them; procfs does not show nlbufsiz, qthresh and flags.
    pub instances: Vec<Instance>,
    /// Differences from what was asked for.
    pub warnings: Vec<Warning>,
}

/// A setting that is not as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The receive buffer is smaller.
    #[error(
        "receive buffer is {effective} bytes instead of {asked}: raise net.core.rmem_max or run with CAP_NET_ADMIN in the initial user namespace"
    )]
    ReceiveBuffer {
        /// Bytes asked for.
        asked: u32,
        /// Bytes in effect.
        effective: u32,
    },
    /// The kernel cannot attach conntrack entries.
    #[error(
        "the kernel cannot attach conntrack entries: it needs CONFIG_NETFILTER_NETLINK_GLUE_CT and the module nf_conntrack_netlink"
    )]
    ConntrackRefused,
    /// Settings could not be verified.
    #[error("cannot read the settings back from /proc/net/netfilter/nfnetlink_log: {source}")]
    NotReadBack {
        /// Cause.
        source: io::Error,
    },
    /// The kernel does not list a group that it said to have bound.
    #[error("NFLOG group {group} is bound, but the kernel does not list it as ours")]
    NotListed {
        /// The group.
        group: u16,
    },
    /// A setting has another value.
    #[error("NFLOG group {group}: {setting} is {effective} instead of {asked}")]
    Differs {
        /// The group.
        group: u16,
        /// Name of the setting.
        setting: &'static str,
        /// Value asked for.
        asked: u64,
        /// Value in effect.
        effective: u64,
    },
}

impl Effective {
    /// Reads back what procfs shows of `groups`. Runs in the namespace of the socket.
    pub(super) fn read_back(
        config: &Config,
        groups: Vec<u16>,
        port_id: u32,
        receive_buffer: u32,
        flags: Flags,
    ) -> Self {
        let mut warnings = Vec::new();
        // The kernel doubles half of what was asked.
        if receive_buffer < config.receive_buffer() & !1 {
            warnings.push(Warning::ReceiveBuffer {
                asked: config.receive_buffer(),
                effective: receive_buffer,
            });
        }
        if flags != config.flags() {
            warnings.push(Warning::ConntrackRefused);
        }
        let mut instances = Vec::new();
        match procfs::instances() {
            Ok(listed) => {
                instances = listed;
                instances.retain(|instance| instance.port_id == port_id && groups.contains(&instance.group));
                warnings.extend(compare(config, &groups, &instances));
            }
            Err(source) => warnings.push(Warning::NotReadBack { source }),
        }
        Self {
            groups,
            port_id,
            receive_buffer,
            flags,
            instances,
            warnings,
        }
    }
}

fn compare(config: &Config, groups: &[u16], instances: &[Instance]) -> Vec<Warning> {
    let range = match config.copy_mode() {
        CopyMode::Packet => config.copy_range(),
        CopyMode::None | CopyMode::Meta => 0,
    };
    let mut warnings = Vec::new();
    for &group in groups {
        let Some(instance) = instances.iter().find(|instance| instance.group == group) else {
            warnings.push(Warning::NotListed { group });
            continue;
        };
        let settings = [
            (
                "copy mode",
                config.copy_mode() as u64,
                u64::from(instance.copy_mode),
            ),
            ("copy range", u64::from(range), u64::from(instance.copy_range)),
            (
                "flush timeout in 1/100 s",
                u64::from(config.timeout_hundredths()),
                u64::try_from(instance.timeout.as_millis() / 10).unwrap_or(u64::MAX),
            ),
        ];
        warnings.extend(
            settings
                .into_iter()
                .filter(|(_, asked, effective)| asked != effective)
                .map(|(setting, asked, effective)| Warning::Differs {
                    group,
                    setting,
                    asked,
                    effective,
                }),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_differences_are_reported() {
        let config = Config::builder().groups([1, 2, 3]).build().unwrap();
        let instance = |group, copy_range| Instance {
            group,
            port_id: 1,
            queued: 0,
            copy_mode: 2,
            copy_range,
            timeout: Duration::from_millis(10),
        };
        let warnings = compare(&config, config.groups(), &[instance(1, 128), instance(3, 100)]);
        let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "NFLOG group 2 is bound, but the kernel does not list it as ours",
                "NFLOG group 3: copy range is 100 instead of 128",
            ]
        );
    }
}
