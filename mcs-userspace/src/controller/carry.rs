//! Carries out what was decided: one op, a request or a few, the object as it is now.
//!
//! Every update names the version, every deletion the UID that it was decided for. Writes are ours only while we lead.

use std::future::Future;

use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::convert::{self, Transition, conditions_with_times, import_body, patch, slice_body};
use super::kinds::place;
use super::recorder::{Recorder, Word, micros};
use super::sight::Heard;
use super::state;
use super::tenure::Tenure;
use super::write::Target;
use crate::apiserver::{REQUEST, Reach, Server, chain};
use crate::clusterset::event::{Event, Failure, Kind, Object, Op};
use crate::clusterset::local::{Condition, Import, Meta};
use crate::clusterset::record::{
    ExportRecord, LEASE, Reservation, ReservationSpec, SHARED_NAMESPACE, STATEMENT, SliceRecord, Statement,
    reservation_name,
};
use crate::model::ObjectKey;

/// For others to read; observers measure by their own clocks and settings.
const LEASE_SECONDS: u32 = 60;

/// The conditions of a ServiceExport that are ours (KEP-1645).
const EXPORT_CONDITIONS: [&str; 3] = ["Valid", "Ready", "Conflict"];

/// What a write needs, shared by all of them.
pub(super) struct Tools {
    pub(super) member: Server,
    pub(super) broker: Server,
    pub(super) recorder: Recorder,
    pub(super) identity: String,
    pub(super) tenure: Tenure,
}

/// Why an op was not carried out.
enum Trouble {
    Kube(kube::Error),
    /// No answer in time.
    Late,
    /// Nobody knows where the broker is.
    Unknown,
    /// We lead no more.
    Deposed,
    /// The object is not the one that the op is about.
    Another,
    /// It cannot be said in JSON, or came back as something else.
    Garbled(String),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Garbled(error.to_string())
    }
}

impl Trouble {
    fn failure(self) -> Failure {
        match self {
            Self::Kube(kube::Error::Api(status)) => match status.code {
                409 => Failure::Conflict,
                404 => Failure::NotFound,
                400 | 403 | 422 => Failure::Refused(status.message.clone()),
                401 => Failure::Unreachable("the API server refuses our credentials".to_owned()),
                code => Failure::Unreachable(format!("{code} {}", status.message)),
            },
            Self::Kube(error) => Failure::Unreachable(chain(&error)),
            Self::Late => Failure::Unreachable(format!("no answer within {} s", REQUEST.as_secs())),
            Self::Unknown => Failure::Unreachable("the broker is not known: run `mcs join`".to_owned()),
            Self::Deposed => Failure::Unreachable("another process leads".to_owned()),
            Self::Another => Failure::Conflict,
            Self::Garbled(why) => Failure::Refused(why),
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code == 404)
    }
}

impl Tools {
    /// What `op` writes.
    pub(super) fn target(&self, op: &Op) -> Target {
        let (kind, key) = match op {
            Op::PutImport(key, _) | Op::DeleteImport(key, _) => (Some(Kind::Imports), key.clone()),
            Op::PutImportedSlice(key, _) | Op::DeleteImportedSlice(key, _) => (Some(Kind::ImportedSlices), key.clone()),
            Op::SetExportConditions(key, ..) => (Some(Kind::Exports), key.clone()),
            Op::PutExportRecord(key, ..) | Op::DeleteExportRecord(key, _) => (Some(Kind::ExportRecords), key.clone()),
            Op::PutSliceRecord(key, ..) | Op::DeleteSliceRecord(key, _) => (Some(Kind::SliceRecords), key.clone()),
            Op::Reserve(spec) => (Some(Kind::Reservations), reservation_key(spec)),
            Op::Release(key, _) => (Some(Kind::Reservations), key.clone()),
            Op::Renew(_) => {
                let namespace = self.broker.now().map(|reach| reach.namespace).unwrap_or_default();
                (Some(Kind::Leases), ObjectKey::new(namespace, LEASE))
            }
            Op::Tell { regarding, reason, .. } => (None, ObjectKey::new(reason.as_str(), format!("{regarding:?}"))),
            Op::Remember(_) => (None, ObjectKey::new("", state::CONFIG_MAP)),
        };
        Target { kind, key }
    }

    /// What is to be heard of `op`, once it is carried out or has failed.
    pub(super) async fn carry_out(&self, op: Op, target: &Target) -> Option<Heard> {
        let outcome = if self.tenure.lasts() { self.try_to(&op, target).await } else { Err(Trouble::Deposed) };
        match outcome {
            Ok(heard) => heard,
            Err(trouble) => Some(Event::Failed(Box::new(op), trouble.failure()).into()),
        }
    }

    async fn try_to(&self, op: &Op, target: &Target) -> Result<Option<Heard>, Trouble> {
        let body = |value: serde_json::Result<Value>| value.map_err(Trouble::from);
        let key = &target.key;
        let kind = match target.kind {
            Some(kind) => kind,
            None => return self.keep(op).await.map(|()| None),
        };
        let object = match op {
            Op::PutImport(_, import) => self.put_import(key, import).await?,
            Op::PutImportedSlice(_, slice) => {
                let fields = ["/metadata/labels", "/metadata/annotations", "/ports", "/endpoints"];
                self.put(kind, key, slice.meta.resource_version, slice_body(key, slice), &fields).await?
            }
            Op::SetExportConditions(_, meta, generation, conditions) => {
                self.set_conditions(key, meta, *generation, conditions).await?
            }
            Op::PutExportRecord(_, meta, spec) => {
                let record = body(serde_json::to_value(ExportRecord::new(&key.name, (**spec).clone())))?;
                self.put(kind, key, meta.resource_version, record, &["/spec"]).await?
            }
            Op::PutSliceRecord(_, meta, spec) => {
                let record = body(serde_json::to_value(SliceRecord::new(&key.name, (**spec).clone())))?;
                self.put(kind, key, meta.resource_version, record, &["/spec"]).await?
            }
            Op::Reserve(spec) => {
                let reservation = body(serde_json::to_value(Reservation::new(&key.name, spec.clone())))?;
                self.put(kind, key, 0, reservation, &[]).await?
            }
            Op::Renew(statement) => self.renew(key, statement).await?,
            Op::DeleteImport(_, meta)
            | Op::DeleteImportedSlice(_, meta)
            | Op::DeleteExportRecord(_, meta)
            | Op::DeleteSliceRecord(_, meta)
            | Op::Release(_, meta) => return self.delete(kind, key, meta).await.map(Some),
            Op::Tell { .. } | Op::Remember(_) => return Ok(None),
        };
        heard(kind, object).map(Some)
    }

    /// Ops without an object that is watched.
    async fn keep(&self, op: &Op) -> Result<(), Trouble> {
        let Reach { client, .. } = self.reach(Kind::Imports)?;
        match op {
            Op::Remember(dead) => within(state::remember(&client, dead)).await,
            Op::Tell { regarding, warning, reason, message } => {
                let word = Word {
                    regarding: regarding.clone(),
                    warning: *warning,
                    reason: reason.clone(),
                    message: message.clone(),
                };
                within(self.recorder.say(&client, &word)).await
            }
            Op::PutImport(..)
            | Op::DeleteImport(..)
            | Op::PutImportedSlice(..)
            | Op::DeleteImportedSlice(..)
            | Op::SetExportConditions(..)
            | Op::PutExportRecord(..)
            | Op::DeleteExportRecord(..)
            | Op::PutSliceRecord(..)
            | Op::DeleteSliceRecord(..)
            | Op::Reserve(_)
            | Op::Release(..)
            | Op::Renew(_) => Ok(()),
        }
    }

    fn reach(&self, kind: Kind) -> Result<Reach, Trouble> {
        if kind.at_broker() { &self.broker } else { &self.member }.now().ok_or(Trouble::Unknown)
    }

    fn api(&self, kind: Kind, key: &ObjectKey) -> Result<kube::Api<DynamicObject>, Trouble> {
        let Reach { client, .. } = self.reach(kind)?;
        Ok(kube::Api::namespaced_with(client, &key.namespace, &place(kind).resource))
    }

    /// Creates `body`, or sets `fields` of the object at `version` to what `body` has there.
    async fn put(
        &self,
        kind: Kind,
        key: &ObjectKey,
        version: u64,
        body: Value,
        fields: &[&str],
    ) -> Result<DynamicObject, Trouble> {
        let api = self.api(kind, key)?;
        if version == 0 {
            let mut object: DynamicObject = serde_json::from_value(body)?;
            object.metadata.namespace = Some(key.namespace.to_string());
            return within(api.create(&PostParams::default(), &object)).await;
        }
        let mut operations = patch::at_version(version, patch::fields_of(body, fields));
        if is_ours_alone(kind) {
            operations.push(patch::without_managers());
        }
        within(api.patch(&key.name, &PatchParams::default(), &json_patch(operations)?)).await
    }

    async fn put_import(&self, key: &ObjectKey, import: &Import) -> Result<DynamicObject, Trouble> {
        let fields = ["/metadata/labels", "/metadata/annotations", "/spec"];
        let version = import.meta.resource_version;
        let object = self.put(Kind::Imports, key, version, import_body(key, import), &fields).await?;
        let present = match convert::read(Kind::Imports, object.clone()) {
            Some(Object::Import(present)) => present,
            Some(_) | None => return Err(Trouble::Garbled("what came back is no ServiceImport".to_owned())),
        };
        let same = present.clusters == import.clusters
            && present.conditions == import.conditions
            && present.slices_present == import.slices_present;
        if same {
            return Ok(object);
        }
        let conditions = conditions_with_times(&Transition {
            object: &object.data,
            wanted: &import.conditions,
            ours: None,
            generation: object.metadata.generation,
            now: Timestamp::now(),
        });
        let status = json!({
            "clusters": import.clusters.iter().map(|cluster| json!({"cluster": cluster})).collect::<Vec<_>>(),
            "conditions": conditions,
            "endpointSliceObjects": if import.slices_present { "Present" } else { "Absent" },
        });
        self.patch_status(Kind::Imports, key, &object, "/status", status).await
    }

    /// Conditions are set at whatever version the export has now: others may write theirs at any time.
    async fn set_conditions(
        &self,
        key: &ObjectKey,
        meta: &Meta,
        generation: i64,
        wanted: &[Condition],
    ) -> Result<DynamicObject, Trouble> {
        let api = self.api(Kind::Exports, key)?;
        let object = within(api.get(&key.name)).await?;
        if object.metadata.uid.as_deref() != Some(&meta.uid) {
            return Err(Trouble::Another);
        }
        let now = Timestamp::now();
        let generation = Some(generation);
        let conditions = conditions_with_times(&Transition {
            object: &object.data,
            wanted,
            ours: Some(&EXPORT_CONDITIONS),
            generation,
            now,
        });
        let (path, value) = if object.data.get("status").is_some_and(Value::is_object) {
            ("/status/conditions", json!(conditions))
        } else {
            ("/status", json!({"conditions": conditions}))
        };
        self.patch_status(Kind::Exports, key, &object, path, value).await
    }

    async fn patch_status(
        &self,
        kind: Kind,
        key: &ObjectKey,
        object: &DynamicObject,
        path: &str,
        value: Value,
    ) -> Result<DynamicObject, Trouble> {
        let operations = patch::at_version(convert::version(object), [(path, value)]);
        let api = self.api(kind, key)?;
        within(api.patch_status(&key.name, &PatchParams::default(), &json_patch(operations)?)).await
    }

    /// The sign of life needs no precondition: whoever leads gives it.
    async fn renew(&self, key: &ObjectKey, statement: &Statement) -> Result<DynamicObject, Trouble> {
        let api = self.api(Kind::Leases, key)?;
        let said = serde_json::to_string(statement)?;
        let mut body = json!({
            "metadata": {"annotations": {STATEMENT: said}},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": micros(Timestamp::now()),
            },
        });
        match within(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&body))).await {
            Err(trouble) if trouble.is_missing() => {
                body["apiVersion"] = json!("coordination.k8s.io/v1");
                body["kind"] = json!("Lease");
                body["metadata"]["name"] = json!(&*key.name);
                within(api.create(&PostParams::default(), &serde_json::from_value(body)?)).await
            }
            other => other,
        }
    }

    /// What is gone already is deleted.
    async fn delete(&self, kind: Kind, key: &ObjectKey, meta: &Meta) -> Result<Heard, Trouble> {
        let api = self.api(kind, key)?;
        let uid = Some(meta.uid.clone()).filter(|uid| !uid.is_empty());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::background()
        };
        match within(api.delete(&key.name, &params)).await {
            // A finalizer of somebody's keeps it for now.
            Ok(either) => match either.left() {
                Some(object) if object.metadata.deletion_timestamp.is_some() => heard(kind, object),
                Some(_) | None => Ok(Event::Deleted(kind, key.clone()).into()),
            },
            Err(trouble) if trouble.is_missing() => Ok(Event::Deleted(kind, key.clone()).into()),
            Err(trouble) => Err(trouble),
        }
    }
}

/// The object that a write left, as it is heard of.
fn heard(kind: Kind, object: DynamicObject) -> Result<Heard, Trouble> {
    let (key, version) = (convert::key(&object), convert::version(&object));
    let object = convert::read(kind, object)
        .ok_or_else(|| Trouble::Garbled(format!("{key}: what came back is none of ours")))?;
    Ok(Heard { event: Event::Applied(kind, key, Box::new(object)), version })
}

/// Kinds of which nobody else writes a field. Of ServiceImports users write labels and annotations, perhaps by apply.
const fn is_ours_alone(kind: Kind) -> bool {
    matches!(kind, Kind::ImportedSlices | Kind::SliceRecords | Kind::ExportRecords)
}

fn json_patch(operations: Vec<Value>) -> Result<Patch<()>, Trouble> {
    Ok(Patch::Json(serde_json::from_value(Value::Array(operations))?))
}

fn reservation_key(spec: &ReservationSpec) -> ObjectKey {
    let name = spec.address.parse().map_or_else(|_not_an_address| spec.address.clone(), reservation_name);
    ObjectKey::new(SHARED_NAMESPACE, name)
}

/// The outcome of a request, or that there was none in time.
async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(outcome) => Ok(outcome?),
        Err(_elapsed) => Err(Trouble::Late),
    }
}
