//! Sets of bits in serde's formats: a list of names in those that people read, a number in the others. Pure.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::flags::Flags;
use super::problems::Problems;

impl Serialize for Problems {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_seq(names(&Self::NAMES, |bit| self.contains(bit)))
        } else {
            serializer.serialize_u16(self.bits())
        }
    }
}

impl<'de> Deserialize<'de> for Problems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let bits = u16::deserialize(deserializer)?;
            return Self::from_bits(bits)
                .ok_or_else(|| Error::custom(format_args!("unknown problem bits in {bits:#x}")));
        }
        let mut problems = Self::NONE;
        for name in Vec::<String>::deserialize(deserializer)? {
            problems.add(find(&Self::NAMES, "problem", &name)?);
        }
        Ok(problems)
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_seq(names(&Self::NAMES, |bit| self.contains(bit)))
        } else {
            serializer.serialize_u16(self.bits())
        }
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Self::from_bits(u16::deserialize(deserializer)?).map_err(Error::custom);
        }
        let mut flags = Self::NONE;
        for name in Vec::<String>::deserialize(deserializer)? {
            flags |= find(&Self::NAMES, "NFLOG flag", &name)?;
        }
        Ok(flags)
    }
}

fn names<T: Copy>(
    all: &[(T, &'static str)],
    is_set: impl Fn(T) -> bool,
) -> impl Iterator<Item = &'static str> {
    all.iter()
        .filter_map(move |&(bit, name)| is_set(bit).then_some(name))
}

fn find<T: Copy, E: Error>(all: &[(T, &'static str)], what: &str, wanted: &str) -> Result<T, E> {
    all.iter()
        .find_map(|&(bit, name)| (name == wanted).then_some(bit))
        .ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|(_, name)| *name).collect();
            E::custom(format_args!(
                "unknown {what} {wanted:?}: known are {}",
                known.join(", ")
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::super::flags::CopyMode;
    use super::*;

    #[test]
    fn sets_are_lists_of_names_in_json() {
        let flags = Flags::SEQ | Flags::CONNTRACK;
        assert_eq!(serde_json::to_string(&flags).unwrap(), r#"["SEQ","CONNTRACK"]"#);
        assert_eq!(
            serde_json::from_str::<Flags>(r#"["CONNTRACK","SEQ"]"#).unwrap(),
            flags
        );
        for bits in 0..256 {
            let problems = Problems::from_bits(bits).unwrap();
            let text = serde_json::to_string(&problems).unwrap();
            assert_eq!(serde_json::from_str::<Problems>(&text).unwrap(), problems);
        }
        let error = serde_json::from_str::<Flags>(r#"["SEQUENCE"]"#).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("unknown NFLOG flag \"SEQUENCE\": known are SEQ, SEQ_GLOBAL, CONNTRACK"),
            "{error}"
        );
    }

    #[test]
    fn bits_without_a_name_are_refused() {
        assert_eq!(Problems::from_bits(256), None);
        // A varint, seven bits in a byte.
        let problems = |bytes: &[u8]| postcard::from_bytes::<Problems>(bytes);
        assert_eq!(problems(&[0xff, 1]).unwrap().bits(), 255);
        assert!(problems(&[0x80, 2]).is_err());
        let flags = |bits: u8| postcard::from_bytes::<Flags>(&[bits]);
        assert_eq!(flags(7).unwrap().bits(), 7);
        assert!(flags(8).is_err());
    }

    #[test]
    fn copy_modes_are_words() {
        for (mode, text) in [
            (CopyMode::None, r#""none""#),
            (CopyMode::Meta, r#""meta""#),
            (CopyMode::Packet, r#""packet""#),
        ] {
            assert_eq!(serde_json::to_string(&mode).unwrap(), text);
            assert_eq!(serde_json::from_str::<CopyMode>(text).unwrap(), mode);
        }
    }
}
