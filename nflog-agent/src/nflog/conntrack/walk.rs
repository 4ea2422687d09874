//! Walking a run of attributes while noting what is wrong and what is unknown. Pure.
//!
//! Invariants: never panics; an attribute that cannot be used leaves its slot as it was, so that the last usable one wins.

use super::super::attr::{Attr, Attrs};
use super::super::problems::Problems;

/// What became of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is known; if it is decoded, its value was kept.
    Known,
    /// It is shorter than its type.
    Short,
    /// Its number is not known here.
    Unknown,
}

/// What was wrong or unknown in all runs walked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) problems: Problems,
    pub(super) unknown: u32,
}

impl Findings {
    /// Gives each attribute of a run to `take`.
    #[inline]
    pub(super) fn walk<'a>(
        &mut self,
        attributes: &'a [u8],
        mut take: impl FnMut(&mut Self, Attr<'a>) -> Taken,
    ) {
        for attr in Attrs::new(attributes) {
            let Ok(attr) = attr else {
                self.problems.add(Problems::BAD_LENGTH);
                return;
            };
            match take(self, attr) {
                Taken::Known => {}
                Taken::Short => self.problems.add(Problems::SHORT_VALUE),
                Taken::Unknown => self.unknown = self.unknown.saturating_add(1),
            }
        }
    }

    /// Keeps what a nested attribute says, if it is complete.
    #[inline]
    pub(super) fn keep<T>(&mut self, slot: &mut Option<T>, value: Option<T>) -> Taken {
        match value {
            Some(value) => *slot = Some(value),
            None => self.problems.add(Problems::CT_INCOMPLETE),
        }
        Taken::Known
    }

    /// Keeps a string without its NUL.
    pub(super) fn name<'a>(&mut self, slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Taken {
        *slot = Some(value.strip_suffix(&[0]).unwrap_or_else(|| {
            self.problems.add(Problems::NAME_NOT_TERMINATED);
            value
        }));
        Taken::Known
    }
}

/// Keeps the number that the value begins with: `N` bytes, read by `number`.
#[inline]
pub(super) fn store<const N: usize, T>(
    slot: &mut Option<T>,
    value: &[u8],
    number: impl FnOnce([u8; N]) -> T,
) -> Taken {
    let Some(&bytes) = value.first_chunk() else {
        return Taken::Short;
    };
    *slot = Some(number(bytes));
    Taken::Known
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_cannot_be_used_leaves_the_one_before() {
        let mut slot = Some(7);
        assert_eq!(store(&mut slot, &[1], u16::from_be_bytes), Taken::Short);
        assert_eq!(slot, Some(7));
        assert_eq!(store(&mut slot, &[1, 2, 3], u16::from_be_bytes), Taken::Known);
        assert_eq!(slot, Some(0x0102));
        let mut findings = Findings::default();
        assert_eq!(findings.keep(&mut slot, None), Taken::Known);
        assert_eq!((slot, findings.problems), (Some(0x0102), Problems::CT_INCOMPLETE));
    }

    #[test]
    fn a_walk_notes_each_kind_of_trouble_and_ends_at_a_bad_length() {
        let bytes = [
            4, 0, 1, 0, // known
            4, 0, 2, 0, // short
            4, 0, 3, 0, // unknown
            3, 0, 4, 0, // impossible
            4, 0, 3, 0, // not reached
        ];
        let mut findings = Findings::default();
        findings.walk(&bytes, |_, attr| match attr.kind {
            1 => Taken::Known,
            2 => Taken::Short,
            _ => Taken::Unknown,
        });
        assert_eq!(findings.unknown, 1);
        assert!(
            findings.problems.contains(Problems::SHORT_VALUE)
                && findings.problems.contains(Problems::BAD_LENGTH)
        );
    }

    #[test]
    fn a_name_loses_its_nul_and_is_kept_without_one() {
        let (mut slot, mut findings) = (None, Findings::default());
        findings.name(&mut slot, b"ftp\0");
        assert_eq!(
            (slot, findings.problems),
            (Some(&b"ftp"[..]), Problems::default())
        );
        findings.name(&mut slot, b"sip");
        assert_eq!(
            (slot, findings.problems),
            (Some(&b"sip"[..]), Problems::NAME_NOT_TERMINATED)
        );
    }
}
