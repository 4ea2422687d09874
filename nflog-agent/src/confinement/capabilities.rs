//! Which capabilities each role keeps, with the reason of each.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::{ConfinementError, Needs, Role, Tried};

/// A capability that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub capability: CapabilitySet,
    /// What for.
    pub reason: &'static str,
}

const NET_ADMIN: Kept = Kept {
    capability: CapabilitySet::NET_ADMIN,
    reason: "leave groups without losing what is queued, bind those of namespaces that come later",
};
const SYS_PTRACE: Kept = Kept {
    capability: CapabilitySet::SYS_PTRACE,
    reason: "executables of other users' processes",
};
const SYS_ADMIN: Kept = Kept {
    capability: CapabilitySet::SYS_ADMIN,
    reason: "enter namespaces that come later",
};
const BPF: Kept = Kept {
    capability: CapabilitySet::BPF,
    reason: "read the probes' maps: before Linux 5.19, where kernel.unprivileged_bpf_disabled is set",
};
const DESCRIPTORS: Kept = Kept {
    capability: CapabilitySet::DAC_READ_SEARCH,
    reason: "list the descriptors of other users' processes (sockdiag)",
};
const FILES: Kept = Kept {
    capability: CapabilitySet::DAC_READ_SEARCH,
    reason: "read files of other users that the configuration names",
};
const SPOOL: Kept = Kept {
    capability: CapabilitySet::DAC_OVERRIDE,
    reason: "write the spool, which belongs to another user",
};

/// What a role keeps.
pub(super) fn wanted(role: Role, needs: &Needs, tried: &Tried) -> Vec<Kept> {
    let table = match role {
        Role::Inward => vec![
            (true, NET_ADMIN),
            (true, SYS_PTRACE),
            (needs.namespaces, SYS_ADMIN),
            (needs.descriptors, DESCRIPTORS),
            (tried.named, FILES),
            (tried.maps, BPF),
        ],
        Role::Outward => vec![(tried.files, FILES), (tried.spool, SPOOL), (tried.maps, BPF)],
    };
    table
        .into_iter()
        .filter_map(|(keep, kept)| keep.then_some(kept))
        .collect()
}

/// The most that a role may have, whatever its settings are; `namespaces`: as far as that is known.
#[must_use]
pub fn allowed(role: Role, namespaces: Option<bool>) -> Vec<Kept> {
    let needs = Needs {
        namespaces: namespaces != Some(false),
        descriptors: true,
        ..Needs::default()
    };
    let tried = Tried {
        maps: true,
        files: true,
        named: true,
        spool: true,
    };
    wanted(role, &needs, &tried)
}

pub(super) fn union(kept: &[Kept]) -> CapabilitySet {
    kept.iter().map(|kept| kept.capability).collect()
}

/// Those that this thread has.
pub(super) fn held() -> Result<CapabilitySet, ConfinementError> {
    Ok(capabilities(None).map_err(failed)?.permitted)
}

/// Gives up all but these, for good.
pub(super) fn lower(keep: CapabilitySet) -> Result<(), ConfinementError> {
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed)?;
    clear_ambient_capability_set().map_err(failed)
}

/// So that no program could get them back; needs CAP_SETPCAP.
pub(super) fn drop_bounding(keep: CapabilitySet) -> io::Result<()> {
    for (_, capability) in (CapabilitySet::all() - keep).iter_names() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn failed(error: rustix::io::Errno) -> ConfinementError {
    ConfinementError::Capabilities(error.into())
}

/// `CAP_A, CAP_B`; `no capability` if there is none.
#[must_use]
pub fn names(set: CapabilitySet) -> String {
    let mut names: Vec<_> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let known: CapabilitySet = set.iter_names().map(|(_, flag)| flag).collect();
    let unknown = set - known;
    if !unknown.is_empty() {
        names.push(format!("{:#x}", unknown.bits()));
    }
    if names.is_empty() {
        return "no capability".to_owned();
    }
    names.join(", ")
}

/// The names, each with its reasons.
#[must_use]
pub fn described(set: CapabilitySet, kept: &[Kept]) -> String {
    let one = |capability: CapabilitySet| {
        let reasons = kept.iter().filter(|kept| kept.capability == capability);
        let reasons: Vec<_> = reasons.map(|kept| kept.reason).collect();
        format!("{} ({})", names(capability), reasons.join("; or "))
    };
    let texts: Vec<_> = set.iter_names().map(|(_, capability)| one(capability)).collect();
    if texts.is_empty() {
        return names(set);
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_needs_the_network_keeps_nothing_and_the_readers_two() {
        let (needs, tried) = (Needs::default(), Tried::default());
        assert_eq!(wanted(Role::Outward, &needs, &tried), []);
        assert_eq!(wanted(Role::Inward, &needs, &tried), [NET_ADMIN, SYS_PTRACE]);
    }

    #[test]
    fn whatever_the_needs_are_no_more_is_kept_than_is_allowed() {
        for bits in 0_u32..64 {
            let bit = |at: u32| bits >> at & 1 == 1;
            let needs = Needs {
                namespaces: bit(0),
                descriptors: bit(1),
                ..Needs::default()
            };
            let tried = Tried {
                maps: bit(2),
                files: bit(3),
                named: bit(4),
                spool: bit(5),
            };
            for role in [Role::Inward, Role::Outward] {
                let (kept, most) = (
                    wanted(role, &needs, &tried),
                    allowed(role, Some(needs.namespaces)),
                );
                assert!(union(&most).contains(union(&kept)), "{kept:?}");
            }
        }
    }

    #[test]
    fn the_network_is_never_allowed_to_administer_or_to_trace() {
        let most = union(&allowed(Role::Outward, None));
        let never = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
        assert!((most & never).is_empty());
    }

    #[test]
    fn capabilities_have_the_kernels_names() {
        let set = CapabilitySet::NET_ADMIN | CapabilitySet::BPF;
        assert_eq!(names(set), "CAP_NET_ADMIN, CAP_BPF");
        assert_eq!(names(CapabilitySet::empty()), "no capability");
        assert_eq!(
            names(CapabilitySet::from_bits_retain(1 << 60)),
            "0x1000000000000000"
        );
    }
}
