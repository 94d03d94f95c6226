//! What the controller asks its two API servers to learn whether they are there: for the Lease that is ours to renew.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;

use crate::apiserver::{Question, Reach};
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// For a Lease by its name, in our namespace there.
pub(super) struct LeaseQuestion {
    /// `member` or `broker`.
    pub(super) server: &'static str,
    /// The Lease's name.
    pub(super) lease: &'static str,
}

impl Question for LeaseQuestion {
    const EVERY: Duration = Duration::from_secs(5);

    async fn ask(&self, reach: &Reach) -> kube::Result<()> {
        let namespace = match &*reach.namespace {
            "" => SYSTEM_NAMESPACE,
            namespace => namespace,
        };
        let leases: Api<Lease> = Api::namespaced(reach.client.clone(), namespace);
        leases.get_opt(self.lease).await.map(drop)
    }

    fn refusal(&self, code: u16, message: &str) -> String {
        refusal(self.server, code, message)
    }
}

/// What an API server's refusal means to the one who can do something about it.
fn refusal(server: &str, code: u16, message: &str) -> String {
    match (server, code) {
        ("broker", 401) => {
            "refuses this member's credentials: they are wrong or expired: run `mcs join` again".to_owned()
        }
        ("broker", 403) => {
            format!("this member may not do what it has to: was it revoked? run `mcs join` again: {message}")
        }
        (_, 401) => "refuses our credentials: look at the kubeconfig, or at the ServiceAccount".to_owned(),
        (_, 403) => format!("we may not do what we have to: apply the RBAC of `mcs join` again: {message}"),
        (_, code) => format!("answers {code}: {message}"),
    }
}
