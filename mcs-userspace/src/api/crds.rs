//! The CustomResourceDefinitions of the API, generated from its types and put into the form that upstream's have.
//!
//! ```text
//!  kube-derive, schemars ──► one CRD a version ──► merged, tidied, labelled ──► `mcs crds`, deploy/crds, `mcs join`
//! ```
//!
//! What is tidied: what schemars says beyond the API (nullable, defaults, formats that Kubernetes does not know),
//! what it leaves out (`apiVersion`, `kind`, `metadata`), and `spec`, which no object needs.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt as _, ResourceExt as _};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{VERSIONS, cluster_property, v1alpha1, v1beta1};

/// Label of upstream's CRDs: the release that they are of.
pub const RELEASE_VERSION: &str = "multicluster.x-k8s.io/release-version";

/// Label of upstream's CRDs: a number that grows with every change within a release.
pub const SCHEMA_REVISION: &str = "multicluster.x-k8s.io/crd-schema-revision";

/// The release of kubernetes-sigs/mcs-api whose schema ours is.
pub const IMPLEMENTED_RELEASE: &str = "v0.5.2";

/// The CRDs of ServiceExport, ServiceImport and ClusterProperty: what a member needs.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut export = both_versions(v1alpha1::ServiceExport::crd(), v1beta1::ServiceExport::crd());
    let mut import = both_versions(v1alpha1::ServiceImport::crd(), v1beta1::ServiceImport::crd());
    let mut property = both_versions(
        cluster_property::v1alpha1::ClusterProperty::crd(),
        cluster_property::v1beta1::ClusterProperty::crd(),
    );
    for crd in [&mut export, &mut import] {
        let labels = crd.metadata.labels.get_or_insert_default();
        labels.insert(RELEASE_VERSION.to_owned(), IMPLEMENTED_RELEASE.to_owned());
        labels.insert(SCHEMA_REVISION.to_owned(), "0".to_owned());
    }
    property.spec.names.list_kind = Some("ClusterPropertyList".to_owned());
    vec![export, import, property]
}

/// One CRD of the two that kube-derive makes of the two versions.
fn both_versions(first: CustomResourceDefinition, mut stored: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut versions = first.spec.versions;
    for version in &mut versions {
        version.storage = false;
    }
    versions.append(&mut stored.spec.versions);
    stored.spec.versions = versions;
    tidy(&mut stored);
    stored
}

/// Puts a generated CRD into the form that controller-gen gives to its.
pub fn tidy(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        tidy_schema(root);
        root.required = None;
        let properties = root.properties.get_or_insert_default();
        for (name, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let schema = JSONSchemaProps { type_: Some(kind.to_owned()), ..JSONSchemaProps::default() };
            properties.insert(name.to_owned(), schema);
        }
    }
}

fn tidy_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.default = None;
    schema.title = None;
    if schema.format.as_deref().is_some_and(|format| format == "ip" || format.starts_with("uint")) {
        schema.format = None;
    }
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        tidy_schema(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy_schema(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy_schema),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy_schema(values);
    }
}

/// The schema of `status.conditions`: `meta/v1` Conditions with what controller-gen's markers ask of them, one of a type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "What the controller found, one condition of each type.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the object's state.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last became what it is.",
                },
                "message": {"type": "string", "maxLength": 32768, "description": "For people; may be empty."},
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The metadata.generation that the condition speaks of.",
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "For programs: why the status is what it is, in CamelCase; several are joined with commas.",
                },
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so."},
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                    "description": "What is said to be so, in CamelCase or as foo.example.com/CamelCase.",
                },
            },
        },
    })
}

/// Why an installed CRD is newer than ours, so that ours must not replace it; none if it is not.
///
/// Labels tell (`v0.6.0` after `v0.5.2`, then the revision), and so does a version that ours does not have. `release` and
/// `revision` name the labels.
#[must_use]
pub fn newer(
    installed: &CustomResourceDefinition,
    ours: &CustomResourceDefinition,
    release: &str,
    revision: &str,
) -> Option<String> {
    let of = |crd: &CustomResourceDefinition| {
        let number = crd.labels().get(revision).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        crd.labels().get(release).and_then(|text| release_numbers(text)).map(|release| (release, number))
    };
    if let (Some(installed_is), Some(ours_is)) = (of(installed), of(ours))
        && installed_is > ours_is
    {
        let label = |key| installed.labels().get(key).map_or("0", String::as_str);
        return Some(format!("{} revision {} is installed", label(release), label(revision)));
    }
    let unknown = installed
        .spec
        .versions
        .iter()
        .find(|theirs| !ours.spec.versions.iter().any(|version| version.name == theirs.name))?;
    Some(format!("version {} is installed", unknown.name))
}

/// `v0.5.2` as numbers. A pre-release counts as its release.
fn release_numbers(text: &str) -> Option<[u64; 3]> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts = text.split(['-', '+']).next()?.split('.');
    let mut numbers = [0; 3];
    for number in &mut numbers {
        match parts.next() {
            Some(part) => *number = part.parse().ok()?,
            None => break,
        }
    }
    Some(numbers)
}

/// Whether an API server serves the CRD.
#[must_use]
pub fn established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
}

/// Why the API server cannot serve the CRD; none if it is only not ready yet.
#[must_use]
pub fn refused(crd: &CustomResourceDefinition) -> Option<String> {
    let conditions = crd.status.as_ref()?.conditions.as_ref()?;
    let may_not_be = ["NamesAccepted", "KubernetesAPIApprovalPolicyConformant"];
    let bad = conditions.iter().find(|one| one.status == "False" && may_not_be.contains(&one.type_.as_str()))?;
    Some(bad.message.clone().unwrap_or_else(|| bad.type_.clone()))
}

/// What is wrong with an installed CRD for this build: absent, being deleted, or without the version that we write.
///
/// # Errors
/// A sentence for the user, with what to do.
pub fn check_installed(name: &str, installed: Option<&CustomResourceDefinition>) -> Result<(), String> {
    let Some(installed) = installed else {
        return Err(format!(
            "CustomResourceDefinition {name}: not installed: run `mcs join`, or `mcs crds | kubectl apply -f -`"
        ));
    };
    if installed.metadata.deletion_timestamp.is_some() {
        return Err(format!("CustomResourceDefinition {name}: is being deleted, and all its objects with it"));
    }
    let [_, stored] = VERSIONS;
    if !installed.spec.versions.iter().any(|version| version.name == stored && version.served) {
        return Err(format!(
            "CustomResourceDefinition {name}: does not serve {stored}: it is older than {IMPLEMENTED_RELEASE}: run `mcs \
             join` again, or `mcs crds | kubectl apply -f -`"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "crds_tests.rs"]
mod tests;
