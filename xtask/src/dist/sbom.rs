//! What the program is made of, as a CycloneDX file: every crate that is compiled into it, with version, licence and who depends on whom.
//!
//! From cargo's resolved graph: normal dependencies on Linux, and those of the eBPF programs, which are built into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::prelude::{Bom, DateTime, Purl, SpecVersion, Validate as _};
use serde::Deserialize;

use super::epoch::Epoch;
use super::release::Release;
use crate::arch::Arch;
use crate::process::{cargo, output};

/// What is shipped, and what is built into it although it is no dependency.
const ROOTS: [&str; 2] = ["nflog-agent", "nflog-ebpf"];

/// Writes `nflog-agent-VERSION.cdx.json`.
pub(super) fn write(Release { version, arch }: Release<'_>, epoch: &Epoch, place: &Path) -> Result<PathBuf> {
    let graph = Graph::read(arch)?;
    let used = graph.used()?;
    let mut components = Vec::new();
    let mut program = None;
    for id in &used {
        let component = graph.component(id)?;
        if graph.package(id)?.name == ROOTS[0] {
            program = Some(component);
        } else {
            components.push(component);
        }
    }
    let bom = Bom {
        spec_version: SpecVersion::V1_5,
        // A number of its own would make each file another one.
        serial_number: None,
        metadata: Some(Metadata {
            timestamp: Some(DateTime::try_from(epoch.iso()?).context("a date")?),
            component: program,
            ..Metadata::default()
        }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(graph.dependencies(&used))),
        ..Bom::default()
    };
    let verdict = bom.validate_version(SpecVersion::V1_5);
    ensure!(verdict.passed(), "the SBOM is not valid: {verdict:?}");
    let path = place.join(format!("nflog-agent-{version}.cdx.json"));
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    bom.output_as_json_v1_5(&mut file)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The part of `cargo metadata` that is needed.
#[derive(Deserialize)]
struct Graph {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    /// `None`: normal.
    kind: Option<String>,
}

impl Node {
    fn normal(&self) -> Vec<&str> {
        let is_normal = |edge: &&Edge| edge.dep_kinds.iter().any(|reason| reason.kind.is_none());
        let normal = self.deps.iter().filter(is_normal);
        normal.map(|edge| edge.pkg.as_str()).collect()
    }
}

impl Graph {
    fn read(arch: Arch) -> Result<Self> {
        let text = output(cargo().args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
            arch.target(),
        ]))?;
        serde_json::from_str(&text).context("unexpected answer of cargo metadata")
    }

    /// Everything that is compiled in.
    fn used(&self) -> Result<BTreeSet<&str>> {
        let normal = self.normal();
        let mut used = BTreeSet::new();
        let mut open = Vec::new();
        for root in ROOTS {
            let package = self.packages.iter().find(|package| package.name == root);
            open.push(package.with_context(|| format!("no package {root}"))?.id.as_str());
        }
        while let Some(id) = open.pop() {
            if used.insert(id) {
                open.extend(normal.get(id).into_iter().flatten());
            }
        }
        Ok(used)
    }

    /// Normal dependencies of each package.
    fn normal(&self) -> BTreeMap<&str, Vec<&str>> {
        let nodes = self.resolve.nodes.iter();
        nodes.map(|node| (node.id.as_str(), node.normal())).collect()
    }

    fn package(&self, id: &str) -> Result<&Package> {
        let found = self.packages.iter().find(|package| package.id == id);
        found.with_context(|| format!("no package {id}"))
    }

    fn component(&self, id: &str) -> Result<Component> {
        let package = self.package(id)?;
        let kind = if package.name == ROOTS[0] {
            Classification::Application
        } else {
            Classification::Library
        };
        let mut component = Component::new(kind, &package.name, &package.version, Some(reference(package)));
        component.purl = Some(Purl::new("cargo", &package.name, &package.version)?);
        component.description = package.description.as_deref().map(|text| {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            cyclonedx_bom::prelude::NormalizedString::new(&text)
        });
        // Some still write it as cargo once had it.
        let licence = package
            .license
            .as_deref()
            .map(|licence| licence.replace('/', " OR "));
        component.licenses = licence.map(|licence| Licenses(vec![LicenseChoice::expression(&licence)]));
        Ok(component)
    }

    fn dependencies(&self, used: &BTreeSet<&str>) -> Vec<Dependency> {
        let normal = self.normal();
        let name = |id: &&str| self.package(id).map(reference).ok();
        let mut all: Vec<_> = used
            .iter()
            .filter_map(|id| {
                let mut dependencies: Vec<_> = normal.get(id)?.iter().filter_map(name).collect();
                dependencies.sort();
                Some(Dependency {
                    dependency_ref: name(id)?,
                    dependencies,
                })
            })
            .collect();
        all.sort_by(|one, other| one.dependency_ref.cmp(&other.dependency_ref));
        all
    }
}

fn reference(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}
