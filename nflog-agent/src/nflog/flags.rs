//! Copy modes and flags of a group, by the numbers of the uapi header. Pure.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use super::error::ConfigError;

/// How much of a packet comes with its entry (`NFULA_CFG_MODE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[repr(u8)]
pub enum CopyMode {
    /// No payload (`NFULNL_COPY_NONE`); the kernel treats it as `Meta`.
    None = 0,
    /// Metadata only (`NFULNL_COPY_META`).
    Meta = 1,
    /// Metadata and the first [`Config::copy_range`](super::Config::copy_range) bytes (`NFULNL_COPY_PACKET`).
    Packet = 2,
}

impl TryFrom<u8> for CopyMode {
    type Error = ConfigError;

    /// From the number of the uapi header.
    ///
    /// # Errors
    /// [`ConfigError::UnsupportedCopyMode`] above 2.
    fn try_from(mode: u8) -> Result<Self, ConfigError> {
        match mode {
            0 => Ok(Self::None),
            1 => Ok(Self::Meta),
            2 => Ok(Self::Packet),
            mode => Err(ConfigError::UnsupportedCopyMode { mode }),
        }
    }
}

/// A set of `NFULA_CFG_FLAGS`; any combination is valid.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// No flags.
    pub const NONE: Self = Self(0);
    /// Number the entries of each group (`NFULNL_CFG_F_SEQ`). Without it lost packets cannot be counted.
    pub const SEQ: Self = Self(1);
    /// Number the entries of all groups of the namespace together (`NFULNL_CFG_F_SEQ_GLOBAL`).
    pub const SEQ_GLOBAL: Self = Self(2);
    /// Attach the conntrack entry (`NFULNL_CFG_F_CONNTRACK`, since Linux 4.4). A kernel without
    /// `CONFIG_NETFILTER_NETLINK_GLUE_CT` or without nf_conntrack_netlink refuses it.
    pub const CONNTRACK: Self = Self(4);

    const ALL: Self = Self(7);
    pub(super) const NAMES: [(Self, &'static str); 3] = [
        (Self::SEQ, "SEQ"),
        (Self::SEQ_GLOBAL, "SEQ_GLOBAL"),
        (Self::CONNTRACK, "CONNTRACK"),
    ];
    /// Both kinds of numbers.
    pub(super) const DEFAULT: Self = Self(Self::SEQ.0 | Self::SEQ_GLOBAL.0);

    /// From the bits of the uapi header.
    ///
    /// # Errors
    /// [`ConfigError::UnknownFlags`] if other bits than the three known ones are set.
    pub const fn from_bits(bits: u16) -> Result<Self, ConfigError> {
        if bits & !Self::ALL.0 == 0 {
            Ok(Self(bits))
        } else {
            Err(ConfigError::UnknownFlags {
                bits: bits & !Self::ALL.0,
            })
        }
    }

    /// The bits of the uapi header.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(
                Self::NAMES
                    .into_iter()
                    .filter_map(|(flag, name)| self.contains(flag).then_some(name)),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_known_flags_is_valid_and_nothing_else() {
        for bits in 0..=7 {
            assert_eq!(Flags::from_bits(bits).unwrap().bits(), bits);
        }
        assert_eq!(
            Flags::from_bits(0xd).unwrap_err(),
            ConfigError::UnknownFlags { bits: 8 }
        );
        assert_eq!(
            format!("{:?}", Flags::SEQ | Flags::CONNTRACK),
            r#"{"SEQ", "CONNTRACK"}"#
        );
    }

    #[test]
    fn copy_modes_above_packet_are_refused() {
        assert_eq!(CopyMode::try_from(2).unwrap(), CopyMode::Packet);
        assert_eq!(
            CopyMode::try_from(3).unwrap_err(),
            ConfigError::UnsupportedCopyMode { mode: 3 }
        );
    }
}
