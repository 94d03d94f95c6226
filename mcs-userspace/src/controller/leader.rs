//! Which of a member's controllers acts: the holder of a Lease.
//!
//! ```text
//!             nobody renewed it for 10 s, as we saw it; or it was released
//!   follow ──────────────────────────────────────────────────────────────► lead ──► renewed every 2 s
//!     ▲                                                                      │
//!     └──────────── somebody else holds it, or 8 s without a renewal ────────┘
//! ```
//!
//! No clock of another machine counts: a follower measures from the moment at which it saw the Lease change. The leader
//! stops sooner than any follower begins.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::convert::version;
use super::recorder::micros;
use super::tenure::Tenure;
use crate::apiserver::{Server, Troubles, chain, jittered};
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// The Lease in [`SYSTEM_NAMESPACE`].
pub const LEASE: &str = "mcs-controller";

/// How long a Lease counts after a follower saw it renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(10);

/// How long a leader acts after it began its last renewal that worked.
const DEADLINE: Duration = Duration::from_secs(8);

/// How often the Lease is renewed, or looked at.
const RENEW: Duration = Duration::from_secs(2);

/// How long a request for the Lease may take.
const REQUEST: Duration = Duration::from_secs(3);

/// One of the controllers.
pub(super) struct Candidate {
    pub(super) identity: String,
    pub(super) member: Server,
    pub(super) tenure: Tenure,
    /// Told whether this process leads.
    pub(super) leads: watch::Sender<bool>,
    pub(super) troubles: Troubles,
}

/// What a follower knows of the Lease.
struct Observed {
    version: u64,
    since: Instant,
}

/// What became of a try to hold the Lease.
enum Outcome {
    Held(Box<DynamicObject>),
    /// Somebody changed it meanwhile.
    Lost,
    Unanswered(String),
}

impl Candidate {
    /// Follows or leads until `stop` says that the process ends; then the Lease is released.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut observed: Option<Observed> = None;
        let mut held: Option<DynamicObject> = None;
        loop {
            let began = Instant::now();
            match held.take() {
                Some(lease) => held = self.renew(lease, began).await,
                None => held = self.follow(&mut observed).await,
            }
            if held.is_some() {
                observed = None;
            }
            let pause = match &observed {
                // Not later than the moment at which the Lease runs out.
                Some(Observed { since, .. }) => {
                    (*since + LEASE_TIME).saturating_duration_since(Instant::now()).min(RENEW)
                }
                None => RENEW.saturating_sub(began.elapsed()),
            };
            tokio::select! {
                () = tokio::time::sleep(pause.max(jittered(Duration::from_millis(100)))) => {}
                _ = &mut stop => break,
            }
        }
        self.tenure.end();
        if let Some(lease) = held {
            self.release(lease).await;
        }
    }

    /// Renews what we hold. None if it is ours no more.
    async fn renew(&mut self, mut lease: DynamicObject, began: Instant) -> Option<DynamicObject> {
        lease.data["spec"]["renewTime"] = json!(micros(Timestamp::now()));
        match self.write(&lease).await {
            Outcome::Held(lease) => {
                self.tenure.extend(began, DEADLINE);
                Some(*lease)
            }
            Outcome::Lost => {
                // An answer that was lost looks the same: our own renewal, with a version that we have not seen.
                let ours = self.read().await.ok().flatten().filter(|lease| holder(lease) == self.identity);
                if ours.is_none() {
                    self.step_down("another process holds the Lease");
                }
                ours
            }
            Outcome::Unanswered(why) => {
                if self.tenure.lasts() {
                    return Some(lease);
                }
                self.step_down(&why);
                None
            }
        }
    }

    fn step_down(&mut self, why: &str) {
        self.tenure.end();
        warn!("leads no more: {why}");
        self.leads.send_replace(false);
    }

    /// Looks at the Lease, and takes it if nobody renews it.
    async fn follow(&mut self, observed: &mut Option<Observed>) -> Option<DynamicObject> {
        let lease = match self.read().await {
            Ok(lease) => lease,
            Err(why) => {
                self.troubles.report("leader election", &why);
                return None;
            }
        };
        self.troubles.clear("leader election");
        let began = Instant::now();
        let wanted = match lease {
            None => self.body(None),
            Some(lease) => {
                // Released, or still ours: nobody took over while the API server did not answer.
                let free = holder(&lease).is_empty() || holder(&lease) == self.identity;
                let seen = version(&lease);
                let since = match observed {
                    Some(Observed { version, since }) if *version == seen => *since,
                    Some(_) | None => began,
                };
                *observed = Some(Observed { version: seen, since });
                if !free && since.elapsed() < LEASE_TIME {
                    return None;
                }
                self.body(Some(lease))
            }
        };
        match self.write(&wanted).await {
            Outcome::Held(lease) => {
                self.tenure.extend(began, DEADLINE);
                info!(identity = self.identity, "leads");
                self.leads.send_replace(true);
                Some(*lease)
            }
            // Somebody else was first: its renewals are seen from now on.
            Outcome::Lost => None,
            Outcome::Unanswered(why) => {
                self.troubles.report("leader election", &why);
                None
            }
        }
    }

    /// The Lease as ours: a new one, or `present` taken over.
    fn body(&self, present: Option<DynamicObject>) -> DynamicObject {
        let now = micros(Timestamp::now());
        let mut lease = present.unwrap_or_else(|| DynamicObject::new(LEASE, &resource()).within(SYSTEM_NAMESPACE));
        let transitions = lease.data.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(-1) + 1;
        lease.data = json!({"spec": {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_TIME.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }});
        lease
    }

    async fn release(&self, mut lease: DynamicObject) {
        lease.data["spec"]["holderIdentity"] = json!("");
        if let Outcome::Unanswered(why) = self.write(&lease).await {
            warn!("the Lease is not released: {why}: another process waits for it to run out");
        }
    }

    fn leases(&self) -> Result<Api<DynamicObject>, String> {
        let reach = self.member.now().ok_or("the member's API server is not known")?;
        Ok(Api::namespaced_with(reach.client, SYSTEM_NAMESPACE, &resource()))
    }

    async fn read(&self) -> Result<Option<DynamicObject>, String> {
        let leases = self.leases()?;
        match tokio::time::timeout(REQUEST, leases.get_opt(LEASE)).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_elapsed) => Err(format!("no answer within {} s", REQUEST.as_secs())),
        }
    }

    /// Writes the Lease at the version that it has here; creates one without a version.
    async fn write(&self, lease: &DynamicObject) -> Outcome {
        let leases = match self.leases() {
            Ok(leases) => leases,
            Err(why) => return Outcome::Unanswered(why),
        };
        let params = PostParams::default();
        let request = async {
            if lease.metadata.resource_version.is_none() {
                leases.create(&params, lease).await
            } else {
                leases.replace(LEASE, &params, lease).await
            }
        };
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(lease)) => Outcome::Held(Box::new(lease)),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                if lease.metadata.resource_version.is_none() && status.code == 404 {
                    return Outcome::Unanswered(format!("{}: run `mcs join`", status.message));
                }
                Outcome::Lost
            }
            Ok(Err(error)) => Outcome::Unanswered(chain(&error)),
            Err(_elapsed) => Outcome::Unanswered(format!("no answer within {} s", REQUEST.as_secs())),
        }
    }
}

fn resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::coordination::v1::Lease>(&())
}

/// Who holds it; empty if it was released.
fn holder(lease: &DynamicObject) -> &str {
    lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default()
}
