//! `mcs check`: what is wrong with manifests, without a kernel.
//!
//! Everything that the agent would name, from the same code: what [`crate::manifest`] finds in a file, and what
//! [`crate::claims`] and [`crate::desired`] find between objects. Beside that, notices about objects that do not meet:
//! in a cluster such things come and go, in a directory of manifests they are mostly a slip of the pen.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use serde::Serialize;

use crate::api;
use crate::claims::Claims;
use crate::desired::{NodeContext, desired};
use crate::manifest::{self, Counts, Interner, Parsed};
use crate::model::{Import, ImportState, Object, ObjectId, ObjectKey, World};
use crate::problem::{Problem, Severity};
use crate::programmer::claimed;
use crate::source::dir::{list_manifests, read_regular};

/// What was found.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Report {
    /// How many there are of what.
    pub objects: Objects,
    /// Sorted by file, object and field.
    pub problems: Vec<Problem>,
}

/// Objects by kind, valid or not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Objects {
    /// ServiceImports.
    pub serviceimports: usize,
    /// EndpointSlices, those of local services among them.
    pub endpointslices: usize,
    /// All that is not read.
    pub other: usize,
}

impl Report {
    /// Whether anything is invalid: exit code 1. Notices do not count.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity != Severity::Notice)
    }
}

/// Checks a file, or the manifests of a directory as the agent would read them. With ClusterSet CIDRs it also finds
/// addresses that an agent with these would not program.
///
/// # Errors
/// The path cannot be read.
pub fn run(path: &Path, cidrs: &[IpNet]) -> anyhow::Result<Report> {
    let found = fs::metadata(path).with_context(|| format!("check {}", path.display()))?;
    let mut check = Check::default();
    if found.is_dir() {
        for name in list_manifests(path).with_context(|| format!("list {}", path.display()))? {
            match read_regular(&path.join(&name)) {
                Ok(text) => check.file(&name, &text),
                Err(error) => check.problems.push(Problem {
                    object: name.clone(),
                    file: Some(name),
                    field: String::new(),
                    reason: format!("cannot be read: {error}"),
                    severity: Severity::Invalid,
                }),
            }
        }
    } else {
        let text = read_regular(path).with_context(|| format!("read {}", path.display()))?;
        check.file(&path.display().to_string(), &text);
    }
    Ok(check.finish(cidrs))
}

/// The objects of all files, and what is wrong so far.
#[derive(Default)]
struct Check {
    names: Interner,
    /// The file that each object came from, invalid and idle ones among them.
    files: HashMap<ObjectId, Arc<str>>,
    /// ServiceImports that are there and have no frontend.
    without_frontend: HashSet<ObjectKey>,
    world: World,
    counts: Counts,
    problems: Vec<Problem>,
}

impl Check {
    fn file(&mut self, file: &str, text: &[u8]) {
        let parsed = match manifest::parse(file, text, &mut self.names) {
            Ok(parsed) => parsed,
            Err(problem) => return self.problems.push(problem),
        };
        let Parsed { objects, broken, idle, unidentified: _, problems, counts, changed_at: _ } = parsed;
        self.problems.extend(problems);
        self.counts.imports += counts.imports;
        self.counts.slices += counts.slices;
        self.counts.other += counts.other;
        for object in objects {
            if !self.is_first(file, &object.id()) {
                continue;
            }
            if let Object::Headless(key) = &object {
                self.without_frontend.insert(key.clone());
            }
            self.world.apply(object);
        }
        for id in broken.into_iter().chain(idle) {
            if self.is_first(file, &id)
                && let ObjectId::Import(key) = id
            {
                self.without_frontend.insert(key);
            }
        }
    }

    /// Whether no file before has the object; of several forms the agent uses that of the first file.
    fn is_first(&mut self, file: &str, id: &ObjectId) -> bool {
        if let Some(first) = self.files.get(id) {
            self.problems.push(Problem {
                object: id.to_string(),
                file: Some(file.to_owned()),
                field: String::new(),
                reason: format!("also in {first}, which comes first by name and is used"),
                severity: Severity::Invalid,
            });
            return false;
        }
        self.files.insert(id.clone(), self.names.get(file));
        true
    }

    fn finish(mut self, cidrs: &[IpNet]) -> Report {
        let ctx = NodeContext {
            cluster: Arc::from(""),
            node: Arc::from(""),
            zone: None,
            prefer_local_cluster: false,
            cidrs: if cidrs.is_empty() { self.vips() } else { cidrs.to_vec() },
        };
        let mut between = Vec::new();
        let mut claims = Claims::default();
        let mut services = Vec::new();
        for (key, state) in self.world.iter() {
            let wanted = desired(&ctx, state);
            between.extend(wanted.problems);
            let created = state.import.as_ref().and_then(|import| import.created);
            claims.set(key, created, wanted.services.iter().map(|service| service.frontend).collect());
            services.extend(wanted.services);
            match &state.import {
                Some(import) => unmet(import, state, &mut between),
                None => self.without_import(key, state, &mut between),
            }
        }
        for service in &services {
            if let Some(owner) = claims.owner(&service.frontend)
                && *owner != service.import
            {
                between.push(claimed(service, owner));
            }
        }
        let files: HashMap<String, &Arc<str>> = self.files.iter().map(|(id, file)| (id.to_string(), file)).collect();
        for problem in &mut between {
            problem.file = files.get(&problem.object).map(ToString::to_string);
        }
        self.problems.append(&mut between);
        self.problems.sort_by(|a, b| (&a.file, a).cmp(&(&b.file, b)));
        let Counts { imports, slices, other } = self.counts;
        Report { objects: Objects { serviceimports: imports, endpointslices: slices, other }, problems: self.problems }
    }

    /// All ClusterSetIPs, each as a CIDR of its own: what is certainly a frontend where no CIDRs were given.
    fn vips(&self) -> Vec<IpNet> {
        let imports = self.world.iter().filter_map(|(_, state)| state.import.as_ref());
        imports.flat_map(|import| import.vips.iter().copied().map(IpNet::from)).collect()
    }

    /// Names the slices of an import that is not there.
    fn without_import(&self, import: &ObjectKey, state: &ImportState, problems: &mut Vec<Problem>) {
        // headless, or named as invalid already
        if self.without_frontend.contains(import) {
            return;
        }
        for slice in state.slices.values() {
            let id = ObjectId::Slice(slice.key.clone());
            let field = format!("metadata.labels[{}]", api::SERVICE_NAME);
            problems.push(notice(&id, &field, format!("there is no ServiceImport {import}")));
        }
    }
}

/// Names what of an import nobody serves.
fn unmet(import: &Import, state: &ImportState, problems: &mut Vec<Problem>) {
    let id = ObjectId::Import(import.key.clone());
    if state.slices.values().all(|slice| slice.endpoints.is_empty()) {
        problems.push(notice(&id, "", "no EndpointSlice has an endpoint for it: connections are refused".to_owned()));
        return;
    }
    for vip in &import.vips {
        let mut endpoints = state.slices.values().flat_map(|slice| &slice.endpoints);
        if !endpoints.any(|endpoint| endpoint.addr.is_v4() == vip.is_ipv4()) {
            problems.push(notice(
                &id,
                "spec.ips",
                format!("no endpoint is of the family of {vip}: connections are refused"),
            ));
        }
    }
    for port in &import.ports {
        let mut ports = state.slices.values().flat_map(|slice| &slice.ports);
        if !ports.any(|served| served.name == port.name && served.protocol == port.protocol) {
            let named = if port.name.is_empty() { "without a name".to_owned() } else { format!("named {}", port.name) };
            let reason = format!(
                "no EndpointSlice has a {} port {named}: connections to {} are refused",
                port.protocol, port.port
            );
            problems.push(notice(&id, "spec.ports", reason));
        }
    }
}

fn notice(id: &ObjectId, field: &str, reason: String) -> Problem {
    Problem { object: id.to_string(), file: None, field: field.to_owned(), reason, severity: Severity::Notice }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objects: Objects { serviceimports, endpointslices, other }, problems } = self;
        for problem in problems {
            let severity = match problem.severity {
                Severity::Notice => "notice",
                Severity::Invalid | Severity::NoRoom => "invalid",
            };
            writeln!(f, "{severity:<7}  {problem}")?;
        }
        let invalid = problems.iter().filter(|problem| problem.severity != Severity::Notice).count();
        writeln!(
            f,
            "{serviceimports} ServiceImports, {endpointslices} EndpointSlices, {other} others: {invalid} invalid, {} notices",
            problems.len() - invalid
        )
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn import(name: &str, ip: &str, kind: &str) -> String {
        format!(
            "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{type: {kind}, ips: [{ip}], ports: [{{name: http, port: 80}}]}}\n---\n"
        )
    }

    fn slice(name: &str, import: &str, port: &str, addresses: &str) -> String {
        let endpoints: String =
            addresses.split_whitespace().map(|address| format!("{{addresses: [\"{address}\"]}}, ")).collect();
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: shop\n  labels:\n    \
             multicluster.kubernetes.io/service-name: {import}\n    multicluster.kubernetes.io/source-cluster: a\n\
             addressType: IPv4\nports: [{{name: {port}, port: 8080}}]\nendpoints: [{endpoints}]\n---\n"
        )
    }

    fn check(files: &[(&str, String)], cidrs: &[&str]) -> Report {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let cidrs: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        run(dir.path(), &cidrs).unwrap()
    }

    fn texts(report: &Report) -> Vec<String> {
        report.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_wrong() {
        let text = import("cart", "10.96.0.1", "ClusterSetIP") + &slice("cart-a", "cart", "http", "10.0.0.1");
        let headless = import("db", "''", "Headless") + &slice("db-a", "db", "http", "10.0.0.1");
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\n".to_owned();
        let report = check(&[("a.yaml", text), ("b.yaml", headless), ("c.yaml", service)], &[]);
        assert_eq!(texts(&report), [""; 0]);
        assert!(!report.is_invalid());
        assert_eq!(report.to_string(), "2 ServiceImports, 2 EndpointSlices, 1 others: 0 invalid, 0 notices\n");
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({"objects": {"serviceimports": 2, "endpointslices": 2, "other": 1}, "problems": []})
        );
    }

    #[test]
    fn what_is_found_between_objects() {
        let cart = import("cart", "10.96.0.1", "ClusterSetIP") + &slice("cart-a", "cart", "web", "10.0.0.1");
        let same = import("same", "10.96.0.1", "ClusterSetIP");
        let six = import("six", "fd00::1", "ClusterSetIP") + &slice("six-a", "six", "http", "10.0.0.1 10.96.0.1");
        let lost = slice("lost-a", "lost", "http", "10.0.0.1");
        let files = [("a.yaml", cart.clone()), ("b.yaml", same), ("c.yaml", six), ("d.yaml", lost), ("e.yaml", cart)];
        let report = check(&files, &[]);
        assert_eq!(
            texts(&report),
            [
                "a.yaml: ServiceImport shop/cart: spec.ports: no EndpointSlice has a TCP port named http: connections to 80 are refused",
                "b.yaml: ServiceImport shop/same: no EndpointSlice has an endpoint for it: connections are refused",
                "b.yaml: ServiceImport shop/same: spec.ports[http]: 10.96.0.1:80/TCP belongs to ServiceImport shop/cart, which is older",
                "c.yaml: EndpointSlice shop/six-a: endpoints[1]: 10.96.0.1 lies in a ClusterSet CIDR: no backend can",
                "c.yaml: ServiceImport shop/six: spec.ips: no endpoint is of the family of fd00::1: connections are refused",
                "d.yaml: EndpointSlice shop/lost-a: metadata.labels[multicluster.kubernetes.io/service-name]: there is no ServiceImport shop/lost",
                "e.yaml: EndpointSlice shop/cart-a: also in a.yaml, which comes first by name and is used",
                "e.yaml: ServiceImport shop/cart: also in a.yaml, which comes first by name and is used",
            ]
        );
        assert!(report.is_invalid());
    }

    #[test]
    fn addresses_outside_the_cidrs() {
        let text = import("cart", "10.96.0.1", "ClusterSetIP") + &slice("cart-a", "cart", "http", "10.0.0.1");
        assert!(!check(&[("a.yaml", text.clone())], &["10.96.0.0/16"]).is_invalid());
        assert!(check(&[("a.yaml", text)], &["10.97.0.0/16"]).is_invalid());
    }

    #[test]
    fn one_file_and_none() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.json");
        assert!(run(&path, &[]).is_err());
        fs::write(&path, "{").unwrap();
        assert!(run(&path, &[]).unwrap().is_invalid());
    }
}
