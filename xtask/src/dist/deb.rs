//! The Debian package, put together by `dpkg-deb`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::contents::{Contents, Kind, settle, write};
use super::epoch::Epoch;
use super::release::Release;
use crate::process::run;

const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Over an upgrade it goes on reading where it was: the sockets stay with systemd.
    if [ -n \"$2\" ]; then
        systemctl try-restart nflog-agent.service
    fi
fi
";

const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now nflog-agent.service
fi
";

const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/private/nflog-agent /var/lib/nflog-agent
fi
";

/// `nflog-agent_VERSION-1_ARCH.deb`.
pub(super) fn build(
    contents: &Contents,
    release: Release<'_>,
    epoch: &Epoch,
    work: &Path,
    place: &Path,
) -> Result<PathBuf> {
    let staging = work.join("deb");
    let contents = contents.moved(
        "usr/share/zsh/site-functions/",
        "usr/share/zsh/vendor-completions/",
    );
    contents.write(&staging, epoch)?;
    let control = staging.join("DEBIAN");
    write(&control.join("control"), fields(release).as_bytes(), "0644")?;
    let mut kept = contents.paths(Kind::Config).join("\n");
    kept.push('\n');
    write(&control.join("conffiles"), kept.as_bytes(), "0644")?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        write(&control.join(name), script.as_bytes(), "0755")?;
    }
    settle(&staging, epoch)?;
    let package = place.join(release.deb());
    run(epoch
        .command("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&staging)
        .arg(&package))?;
    Ok(package)
}

fn fields(Release { version, arch }: Release<'_>) -> String {
    let arch = arch.debian();
    format!(
        "Package: nflog-agent\n\
         Version: {version}-1\n\
         Architecture: {arch}\n\
         Maintainer: The nflog-agent authors <nflog-agent@example.invalid>\n\
         Section: net\n\
         Priority: optional\n\
         Recommends: nftables | iptables\n\
         Description: NFLOG packets with the process and container that owns them\n \
         Reads the packets that firewall rules log (NFLOG), finds the process,\n \
         container or pod of each, counts every packet that was lost on the way,\n \
         and sends both as OpenTelemetry logs.\n"
    )
}
