//! The verbs that prepare a ClusterSet: `mcs broker init`, `mcs join`, `mcs leave`, `mcs broker revoke`, join tokens.
//! They run once, on somebody's machine, with somebody's kubeconfig; what runs all the time is `crate::controller`.
//!
//! ```text
//!  BROKER kubeconfig ──► broker: CRDs, RBAC, admission policy, ClusterSet, Member, namespace and account of the member
//!                           │ token of that account
//!  MEMBER kubeconfig ──► member: CRDs, RBAC, ClusterProperties, Secret and ConfigMap in `mcs-system` ──► mcs controller
//! ```

pub mod credentials;
pub mod documents;
