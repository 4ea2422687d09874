//! The RPM package, put together by `rpmbuild`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::contents::{Contents, Kind};
use super::epoch::Epoch;
use super::release::Release;
use crate::process::run;

/// What other systems do by macros that are theirs.
const SCRIPTS: &str = "%post
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

%preun
if [ \"$1\" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl disable --now nflog-agent.service
fi

%postun
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Over an upgrade it goes on reading where it was: the sockets stay with systemd.
    if [ \"$1\" -ge 1 ]; then
        systemctl try-restart nflog-agent.service
    fi
fi
exit 0
";

/// `nflog-agent-VERSION-1.ARCH.rpm`.
pub(super) fn build(
    contents: &Contents,
    release: Release<'_>,
    epoch: &Epoch,
    work: &Path,
    place: &Path,
) -> Result<PathBuf> {
    let tree = work.join("rpm-tree");
    contents.write(&tree, epoch)?;
    let spec = work.join("nflog-agent.spec");
    fs::write(&spec, text(contents, release.version, &tree))
        .with_context(|| format!("cannot write {}", spec.display()))?;
    let mut rpmbuild = epoch.command("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--target", release.arch.rustc()]);
    for (name, value) in [
        ("_topdir", work.join("rpm").display().to_string()),
        ("_rpmdir", place.display().to_string()),
        (
            "_build_name_fmt",
            "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm".to_owned(),
        ),
        ("_buildhost", "localhost".to_owned()),
        ("use_source_date_epoch_as_buildtime", "1".to_owned()),
        ("clamp_mtime_to_source_date_epoch", "1".to_owned()),
        // Nothing is to be done to files that are as they should be.
        ("debug_package", "%{nil}".to_owned()),
        ("__os_install_post", "%{nil}".to_owned()),
        ("_build_id_links", "none".to_owned()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    run(rpmbuild.arg(&spec))?;
    Ok(place.join(release.rpm()))
}

fn text(contents: &Contents, version: &str, tree: &Path) -> String {
    let files = contents.items.iter().map(|item| {
        let kind = match item.kind {
            Kind::Plain => "",
            Kind::Config => "%config(noreplace) ",
            Kind::Doc => "%doc ",
        };
        format!("%attr({}, root, root) {kind}/{}", item.mode, item.path)
    });
    let files: Vec<_> = files.collect();
    format!(
        "Name: nflog-agent\n\
         Version: {version}\n\
         Release: 1\n\
         Summary: NFLOG packets with the process and container that owns them\n\
         License: MIT OR Apache-2.0\n\
         Group: System/Monitoring\n\
         AutoReqProv: no\n\
         \n\
         %description\n\
         Reads the packets that firewall rules log (NFLOG), finds the process,\n\
         container or pod of each, counts every packet that was lost on the way,\n\
         and sends both as OpenTelemetry logs.\n\
         \n\
         %install\n\
         cp -a {}/. %{{buildroot}}/\n\
         \n\
         %files\n\
         %dir %attr(0755, root, root) /etc/nflog-agent\n\
         %dir %attr(0755, root, root) /usr/share/doc/nflog-agent\n\
         {}\n\
         \n\
         {SCRIPTS}",
        tree.display(),
        files.join("\n"),
    )
}
