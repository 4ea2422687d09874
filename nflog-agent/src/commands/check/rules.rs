//! Whether rules log to the groups, in each namespace that the configuration names.

use super::Subject;
use super::finding::Finding;
use super::group::{Place, places};
use super::log_rules::{self, Unseen};

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    if subject.groups.is_empty() {
        return Vec::new();
    }
    let places = places(subject);
    places
        .iter()
        .map(|place| in_place(&subject.groups, place))
        .collect()
}

fn in_place(groups: &[u16], place: &Place) -> Finding {
    let check = format!("rules{}", place.suffix());
    let (with, unseen) = match place.netns.run(log_rules::groups) {
        Ok(seen) => seen,
        Err(error) => return Finding::warning(check, error.to_string(), "name a namespace that is there"),
    };
    let missing: Vec<_> = groups.iter().filter(|group| !with.contains(group)).collect();
    let Some(first) = missing.first() else {
        return Finding::ok(check, format!("log to group {}", list(groups)));
    };
    if !unseen.is_empty() {
        let unseen: Vec<_> = unseen.iter().map(Unseen::to_string).collect();
        return Finding::warning(
            check,
            format!(
                "not known for group {}: cannot see {}",
                list(&missing),
                unseen.join(", nor ")
            ),
            "run as root, or look yourself: nft list ruleset, iptables-save",
        );
    }
    let (others, remedy) = if with.is_empty() {
        let there = place.name.as_ref();
        let there = there.map_or_else(String::new, |name| format!(" --netns {name}"));
        let remedy = format!("add one, as nflog-agent rules install new --group {first}{there}");
        ("no rule logs to any".to_owned(), remedy)
    } else {
        // What is there may be of `rules install`, which would replace it.
        let remedy =
            format!("add one, as nflog-agent rules print new --group {first} shows, or read one of those");
        (format!("there are rules for group {}", list(&with)), remedy)
    };
    Finding::warning(
        check,
        format!("none logs to group {}; {others}", list(&missing)),
        remedy,
    )
}

fn list<'a, T: ToString + 'a>(groups: impl IntoIterator<Item = &'a T>) -> String {
    let groups: Vec<_> = groups.into_iter().map(ToString::to_string).collect();
    groups.join(", ")
}
