//! What a reader asks of the kernel: groups, copy mode, batching, buffers. Pure values.
//!
//! Invariant: a [`Config`] holds only values that the kernel applies. The kernel answers a request with an out-of-range
//! buffer size or copy mode with success and ignores the value, so the check is here.

use std::time::Duration;

use super::error::ConfigError;
use super::flags::{CopyMode, Flags};
use super::netns::Netns;

/// Most bytes of a packet that the kernel copies (`NFULNL_COPY_RANGE_MAX`).
pub const COPY_RANGE_MAX: u32 = 65_531;
/// Largest `nlbufsiz` that the kernel applies (`NFULNL_NLBUFSIZ_MAX`).
pub const NLBUFSIZ_MAX: u32 = 131_072;
/// Longest flush timeout accepted here.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Smallest receive buffer accepted here, in bytes.
pub const RECEIVE_BUFFER_MIN: u32 = 4096;
/// Largest receive buffer that fits the kernel's `int`, in bytes.
pub const RECEIVE_BUFFER_MAX: u32 = 0x7fff_fffe;

/// Settings of one reader, valid by construction. Made by [`Config::builder`].
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) groups: Vec<u16>,
    pub(super) netns: Netns,
    pub(super) copy_mode: CopyMode,
    pub(super) copy_range: u32,
    pub(super) nlbufsiz: u32,
    pub(super) qthresh: u32,
    pub(super) timeout: Duration,
    pub(super) flags: Flags,
    pub(super) receive_buffer: u32,
    pub(super) no_enobufs: bool,
    pub(super) generic_group: bool,
}

impl Config {
    /// Starts from the defaults: the current namespace, the first 128 bytes of each packet, batches of up to 1000 packets
    /// or 130752 bytes or 10 ms, `SEQ` and `SEQ_GLOBAL`, a receive buffer of 16 MiB, no ENOBUFS reports, only what rules log. No group.
    #[must_use]
    pub const fn builder() -> ConfigBuilder {
        ConfigBuilder {
            config: Self {
                groups: Vec::new(),
                netns: Netns::Current,
                copy_mode: CopyMode::Packet,
                copy_range: 128,
                // A slab of 128 KiB less the 320 bytes of skb overhead: one byte more and the kernel takes 256 KiB.
                nlbufsiz: 130_752,
                qthresh: 1000,
                timeout: Duration::from_millis(10),
                flags: Flags::DEFAULT,
                receive_buffer: 16 * 1024 * 1024,
                no_enobufs: true,
                generic_group: false,
            },
        }
    }

    /// Groups to read, in the order given.
    #[must_use]
    pub fn groups(&self) -> &[u16] {
        &self.groups
    }

    /// Namespace to read in.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// How much of each packet is copied.
    #[must_use]
    pub const fn copy_mode(&self) -> CopyMode {
        self.copy_mode
    }

    /// Bytes of each packet, for [`CopyMode::Packet`].
    #[must_use]
    pub const fn copy_range(&self) -> u32 {
        self.copy_range
    }

    /// Bytes of a batch before the kernel rounds them up to a slab.
    #[must_use]
    pub const fn nlbufsiz(&self) -> u32 {
        self.nlbufsiz
    }

    /// Packets of a batch.
    #[must_use]
    pub const fn qthresh(&self) -> u32 {
        self.qthresh
    }

    /// Longest time that a packet waits for its batch to fill; a multiple of 10 ms.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Flags asked for.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// Socket receive buffer in bytes, as the kernel counts it (`SO_RCVBUF` read back).
    #[must_use]
    pub const fn receive_buffer(&self) -> u32 {
        self.receive_buffer
    }

    /// Whether the socket is told not to report ENOBUFS.
    #[must_use]
    pub const fn no_enobufs(&self) -> bool {
        self.no_enobufs
    }

    /// Whether group 0 gets what the kernel itself logs.
    #[must_use]
    pub const fn generic_group(&self) -> bool {
        self.generic_group
    }

    /// `timeout` in the kernel's unit of 1/100 s.
    pub(super) fn timeout_hundredths(&self) -> u32 {
        // At most 360000: TIMEOUT_MAX.
        u32::try_from(self.timeout.as_millis() / 10).unwrap_or(u32::MAX)
    }
}

/// Collects settings; [`ConfigBuilder::build`] checks them.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    config: Config,
}

impl ConfigBuilder {
    /// Adds a group. Groups of one socket share its receive buffer and its loss.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.config.groups.push(group);
        self
    }

    /// Adds groups.
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = u16>) -> Self {
        self.config.groups.extend(groups);
        self
    }

    /// Sets the namespace to read in.
    #[must_use]
    pub fn netns(mut self, netns: Netns) -> Self {
        self.config.netns = netns;
        self
    }

    /// Sets how much of each packet is copied.
    #[must_use]
    pub const fn copy_mode(mut self, mode: CopyMode) -> Self {
        self.config.copy_mode = mode;
        self
    }

    /// Sets the bytes of each packet: 1 to [`COPY_RANGE_MAX`]. A rule's `snaplen` can only lower it.
    #[must_use]
    pub const fn copy_range(mut self, bytes: u32) -> Self {
        self.config.copy_range = bytes;
        self
    }

    /// Sets the bytes of a batch: 4096 (8192 on kernels with larger pages) to [`NLBUFSIZ_MAX`].
    #[must_use]
    pub const fn nlbufsiz(mut self, bytes: u32) -> Self {
        self.config.nlbufsiz = bytes;
        self
    }

    /// Sets the packets of a batch, at least 1. A rule's `queue-threshold` can only lower it.
    #[must_use]
    pub const fn qthresh(mut self, packets: u32) -> Self {
        self.config.qthresh = packets;
        self
    }

    /// Sets the longest wait for a batch to fill, up to [`TIMEOUT_MAX`]. Rounded up to 10 ms; zero is the next timer tick.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// Sets the flags.
    #[must_use]
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.config.flags = flags;
        self
    }

    /// Sets the socket receive buffer in bytes as the kernel counts it, which is with the overhead of each datagram.
    #[must_use]
    pub const fn receive_buffer(mut self, bytes: u32) -> Self {
        self.config.receive_buffer = bytes;
        self
    }

    /// Sets whether the socket is told not to report ENOBUFS (`NETLINK_NO_ENOBUFS`). Loss is counted either way.
    #[must_use]
    pub const fn no_enobufs(mut self, on: bool) -> Self {
        self.config.no_enobufs = on;
        self
    }

    /// Sets whether what the kernel itself logs for IPv4 and IPv6 (invalid packets seen by conntrack, the TRACE target of
    /// legacy iptables) goes to group 0, which must be among the groups. Rules that name a group do not need it.
    ///
    /// This changes the whole namespace: `PF_BIND` puts NFLOG in the place of its logger, which the sysctls
    /// `net.netfilter.nf_log.2` and `.10` show and the kernel log usually is. The end of the reader brings back the logger
    /// that was there, unless another one was set meanwhile. Needs `/proc/sys` to find out which it is.
    #[must_use]
    pub const fn generic_group(mut self, on: bool) -> Self {
        self.config.generic_group = on;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut config = self.config;
        check_groups(&config.groups)?;
        if config.generic_group && !config.groups.contains(&0) {
            return Err(ConfigError::GenericGroup);
        }
        if config.copy_mode == CopyMode::Packet && !(1..=COPY_RANGE_MAX).contains(&config.copy_range) {
            return Err(ConfigError::CopyRange {
                value: config.copy_range,
            });
        }
        let minimum = nlbufsiz_min(super::socket::page_size());
        if !(minimum..=NLBUFSIZ_MAX).contains(&config.nlbufsiz) {
            return Err(ConfigError::NlBufSiz {
                value: config.nlbufsiz,
                minimum,
            });
        }
        if config.qthresh == 0 {
            return Err(ConfigError::QThresh);
        }
        if config.timeout > TIMEOUT_MAX {
            return Err(ConfigError::Timeout {
                value: config.timeout,
            });
        }
        config.timeout = round_up(config.timeout);
        if !(RECEIVE_BUFFER_MIN..=RECEIVE_BUFFER_MAX).contains(&config.receive_buffer) {
            return Err(ConfigError::ReceiveBuffer {
                value: config.receive_buffer,
            });
        }
        Ok(config)
    }
}

fn check_groups(groups: &[u16]) -> Result<(), ConfigError> {
    if groups.is_empty() {
        return Err(ConfigError::NoGroup);
    }
    let mut sorted = groups.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ConfigError::DuplicateGroup { group: pair[0] }),
        None => Ok(()),
    }
}

/// The kernel's minimum is `NLMSG_GOODSIZE`: a page, at most 8 KiB, less an overhead that depends on its build.
const fn nlbufsiz_min(page_size: usize) -> u32 {
    if page_size < 8192 { 4096 } else { 8192 }
}

fn round_up(timeout: Duration) -> Duration {
    // At most 360000 steps: TIMEOUT_MAX.
    let steps = timeout.as_nanos().div_ceil(10_000_000);
    Duration::from_millis(u64::try_from(steps).unwrap_or(u64::MAX).saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_7() -> ConfigBuilder {
        Config::builder().group(7)
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let config = group_7().build().unwrap();
        assert_eq!(config.groups(), [7]);
        assert!(matches!(config.netns(), Netns::Current));
        assert_eq!(config.copy_mode(), CopyMode::Packet);
        assert_eq!(config.copy_range(), 128);
        assert_eq!(config.nlbufsiz(), 130_752);
        assert_eq!(config.qthresh(), 1000);
        assert_eq!(config.timeout_hundredths(), 1);
        assert_eq!(config.flags(), Flags::SEQ | Flags::SEQ_GLOBAL);
        assert_eq!(config.receive_buffer(), 16 << 20);
        assert!(config.no_enobufs());
        assert!(!config.generic_group());
        let config = group_7().group(0).generic_group(true).build().unwrap();
        assert!(config.generic_group());
    }

    #[test]
    fn values_that_the_kernel_would_ignore_are_refused() {
        let cases: [(ConfigBuilder, ConfigError); 10] = [
            (Config::builder(), ConfigError::NoGroup),
            (
                Config::builder().groups([3, 1, 3]),
                ConfigError::DuplicateGroup { group: 3 },
            ),
            (group_7().generic_group(true), ConfigError::GenericGroup),
            (group_7().copy_range(0), ConfigError::CopyRange { value: 0 }),
            (
                group_7().copy_range(65_532),
                ConfigError::CopyRange { value: 65_532 },
            ),
            (
                group_7().nlbufsiz(131_073),
                ConfigError::NlBufSiz {
                    value: 131_073,
                    minimum: nlbufsiz_min(super::super::socket::page_size()),
                },
            ),
            (
                group_7().nlbufsiz(1024),
                ConfigError::NlBufSiz {
                    value: 1024,
                    minimum: nlbufsiz_min(super::super::socket::page_size()),
                },
            ),
            (group_7().qthresh(0), ConfigError::QThresh),
            (
                group_7().timeout(Duration::from_secs(3601)),
                ConfigError::Timeout {
                    value: Duration::from_secs(3601),
                },
            ),
            (
                group_7().receive_buffer(100),
                ConfigError::ReceiveBuffer { value: 100 },
            ),
        ];
        for (builder, expected) in cases {
            assert_eq!(builder.build().unwrap_err(), expected);
        }
    }

    #[test]
    fn the_copy_range_does_not_matter_without_packet_copies() {
        assert!(group_7().copy_mode(CopyMode::Meta).copy_range(0).build().is_ok());
    }

    #[test]
    fn timeouts_round_up_to_the_unit_of_the_kernel() {
        for (asked, hundredths) in [(0, 0), (1, 1), (10, 1), (11, 2), (1000, 100)] {
            let config = group_7().timeout(Duration::from_millis(asked)).build().unwrap();
            assert_eq!(config.timeout_hundredths(), hundredths, "{asked} ms");
        }
    }
}
