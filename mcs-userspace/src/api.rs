//! Labels and annotations.

/// Annotation of a ServiceImport: `{"a":90,"b":10}`, the share of each source cluster as a whole.
pub const CLUSTER_WEIGHTS: &str = "mcs.internal/cluster-weights";
