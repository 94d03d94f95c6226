//! The verbs that prepare a ClusterSet: `mcs broker init`, `mcs join`, `mcs leave`, `mcs broker revoke`, join tokens.
//! They run once, on somebody's machine, with somebody's kubeconfig; what runs all the time is `crate::controller`.
//!
//! ```text
//!  BROKER kubeconfig ──► broker: CRDs, RBAC, admission policy, ClusterSet, Member, namespace and account of the member
//!                           │ token of that account
//!  MEMBER kubeconfig ──► member: CRDs, RBAC, ClusterProperties, Secret and ConfigMap in `mcs-system` ──► mcs controller
//! ```
//!
//! * [`objects`], [`policy`], [`member_objects`]: what is to be, as pure functions; [`documents`] shows it as YAML.
//! * [`apply`] makes it so, and says what it did; [`kubeconfig`] is how the two servers are reached.
//! * [`preflight`] decides what a join does; [`init`], [`join`], [`invitation`], [`leave`], [`revoke`]: the verbs; [`records`] what
//!   the last two take away.

pub mod apply;
pub mod credentials;
pub mod documents;
pub mod init;
pub mod invitation;
pub mod join;
pub mod kubeconfig;
pub mod leave;
pub mod member_objects;
pub mod objects;
pub mod policy;
pub mod preflight;
pub mod records;
pub mod revoke;

/// Label of everything of ours, and its value.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "mcs");

/// Label of the broker's CRDs: the release of this project that they are of.
pub const BROKER_CRD_RELEASE: &str = "mcs.internal/release-version";

/// Label of the broker's CRDs: a number that grows with every change of a schema.
pub const BROKER_CRD_REVISION: &str = "mcs.internal/crd-schema-revision";

/// Annotation of the broker's shared namespace: the CIDRs that `mcs broker init` was given before the ClusterSet had an id,
/// comma separated. The first join makes them the ClusterSet's.
pub const CIDRS_TO_BE: &str = "mcs.internal/clusterset-cidrs";
