//! Image references: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`.

/// Name and tag of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// With the registry, as it is written.
    pub name: String,
    /// The tag; `latest` where neither tag nor digest is written, which is what runtimes take it for.
    pub tags: Vec<String>,
}

impl Image {
    /// Reads a reference. `None` for an empty one, and for a bare digest (`sha256:…`), which is what some runtimes report in
    /// place of the name.
    #[must_use]
    pub fn parse(reference: &str) -> Option<Self> {
        let (name, digest) = match reference.split_once('@') {
            Some((name, _)) => (name, true),
            None => (reference, false),
        };
        // A colon before the last slash is the registry's port.
        let path = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[path..].split_once(':') {
            Some((last, tag)) => (&name[..path + last.len()], Some(tag)),
            None => (name, None),
        };
        if name.is_empty() || matches!(name, "sha256" | "sha512") {
            return None;
        }
        let tag = tag
            .filter(|tag| !tag.is_empty())
            .or_else(|| (!digest).then_some("latest"));
        Some(Self {
            name: name.to_owned(),
            tags: tag.map(str::to_owned).into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_of_reference_is_read() {
        for (reference, name, tag) in [
            ("nginx", "nginx", Some("latest")),
            ("nginx:1.27", "nginx", Some("1.27")),
            (
                "registry.example:5000/team/web",
                "registry.example:5000/team/web",
                Some("latest"),
            ),
            (
                "registry.example:5000/web:v2",
                "registry.example:5000/web",
                Some("v2"),
            ),
            ("ghcr.example/web:v2@sha256:00ff", "ghcr.example/web", Some("v2")),
            ("ghcr.example/web@sha256:00ff", "ghcr.example/web", None),
        ] {
            let image = Image::parse(reference).unwrap();
            assert_eq!(
                (image.name.as_str(), image.tags.first().map(String::as_str)),
                (name, tag)
            );
            assert!(image.tags.len() <= 1);
        }
        for none in ["", ":", "@sha256:00", "sha256:00ff"] {
            assert_eq!(Image::parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(reference in ".*") {
            if let Some(image) = Image::parse(&reference) {
                prop_assert!(reference.starts_with(&image.name));
            }
        }
    }
}
