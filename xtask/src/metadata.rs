//! The part of `cargo metadata` that the project's commands read.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    project,
};

/// The platforms the product is built for; what only others need is not looked at.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// A workspace as cargo describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    #[serde(default)]
    features: HashMap<String, Vec<String>>,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Set for a crate of this checkout.
    pub(crate) path: Option<PathBuf>,
    /// Only there when a feature asks for it.
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
struct EdgeKind {
    /// `null` for an ordinary dependency, else `build` or `dev`.
    kind: Option<String>,
}

impl Metadata {
    /// The packages of one manifest's workspace, without resolving what they depend on: needs
    /// neither a lock file nor a network.
    pub(crate) fn of_manifest(manifest: &Path) -> Result<Self> {
        Self::ask(manifest, &["--no-deps"])
    }

    /// The same with every package they depend on, however indirectly.
    pub(crate) fn with_dependencies(manifest: &Path) -> Result<Self> {
        let [first, second] = PLATFORMS;
        Self::ask(manifest, &["--filter-platform", first, "--filter-platform", second])
    }

    fn ask(manifest: &Path, extra: &[&str]) -> Result<Self> {
        let mut command = project::cargo();
        command.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(manifest);
        command.args(extra).stderr(std::process::Stdio::inherit());
        let shown = project::show(&command);
        let output =
            command.output().map_err(|source| Error::Start { command: shown.clone(), source })?;
        if !output.status.success() {
            return Err(Error::Command { command: shown, status: output.status });
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|source| Error::Metadata { command: shown, source })
    }

    /// The crates of the workspace itself.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Every package that ends up in, or helps to build, what a user runs, with the shortest
    /// chain of packages that brings it in. Development dependencies are not followed, nor what only
    /// they switch on: of the crates of the workspace, those features count that are on by default.
    pub(crate) fn shipped(&self) -> Vec<Shipped<'_>> {
        let names: HashMap<_, _> =
            self.packages.iter().map(|package| (&*package.id, &*package.name)).collect();
        let edges: HashMap<_, _> = self
            .resolve
            .iter()
            .flat_map(|resolve| &resolve.nodes)
            .map(|node| (&*node.id, &node.deps))
            .collect();

        let switched_on = self.switched_on_by_default();
        let mut seen: HashSet<&str> = self.members().map(|package| &*package.id).collect();
        let mut found: Vec<Shipped<'_>> = self
            .members()
            .map(|package| Shipped { id: &package.id, chain: vec![&package.name] })
            .collect();
        let mut next = 0;
        while next < found.len() {
            let Shipped { id, chain } = found[next].clone();
            next += 1;
            for edge in edges.get(id).into_iter().flat_map(|edges| edges.iter()) {
                let name = names.get(&*edge.pkg).copied().unwrap_or(&edge.pkg);
                let is_off = self.packages.iter().any(|package| {
                    package.id == id
                        && self.workspace_members.contains(&package.id)
                        && package.is_optional(name)
                        && !switched_on.contains(&(&*package.name, name))
                });
                if edge.is_shipped() && !is_off && seen.insert(&edge.pkg) {
                    let chain = chain.iter().copied().chain([name]).collect();
                    found.push(Shipped { id: &edge.pkg, chain });
                }
            }
        }
        found
    }
}

impl Metadata {
    /// The optional dependencies of the workspace's crates that their default features switch on,
    /// and those that these switch on in one another.
    fn switched_on_by_default(&self) -> HashSet<(&str, &str)> {
        let mut on = HashSet::new();
        let mut seen = HashSet::new();
        let mut open: Vec<(&str, &str)> =
            self.members().map(|package| (&*package.name, "default")).collect();
        while let Some((name, feature)) = open.pop() {
            if !seen.insert((name, feature)) {
                continue;
            }
            let package = self.members().find(|package| package.name == name);
            for asked in
                package.and_then(|package| package.features.get(feature)).into_iter().flatten()
            {
                if let Some(dependency) = asked.strip_prefix("dep:") {
                    on.insert((name, dependency));
                } else if let Some((dependency, feature)) = asked.split_once('/') {
                    if !dependency.ends_with('?') {
                        on.insert((name, dependency));
                    }
                    open.push((dependency.trim_end_matches('?'), feature));
                } else {
                    open.push((name, asked));
                }
            }
        }
        on
    }
}

impl Package {
    fn is_optional(&self, dependency: &str) -> bool {
        let mut of_name = self.dependencies.iter().filter(|known| known.name == dependency);
        of_name.clone().next().is_some() && of_name.all(|known| known.optional)
    }
}

impl Edge {
    fn is_shipped(&self) -> bool {
        self.dep_kinds.iter().any(|edge| edge.kind.as_deref() != Some("dev"))
    }
}

/// A package and the way it came in: from a crate of the workspace down to itself.
#[derive(Debug, Clone)]
pub(crate) struct Shipped<'a> {
    id: &'a str,
    pub(crate) chain: Vec<&'a str>,
}

impl Shipped<'_> {
    pub(crate) fn name(&self) -> &str {
        self.chain.last().copied().unwrap_or_default()
    }
}
