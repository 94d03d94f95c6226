//! Kubernetes Multi-Cluster Services, the userspace side: from API objects to what the kernel programs read.
//!
//! ```text
//!  source ──Event──► model (World) ──► claims, desired (Service) ──► plan (Op, Op, …) ──► maps {bpf, fake}
//!   dir, kube          pure                    pure                     pure              the only unsafe
//! ```
//!
//! # Layout
//! * [`api`] the Kubernetes types, labels and annotations; [`manifest`] text to objects, with what is wrong with it.
//! * [`source`] where events come from.
//! * [`model`] what objects say; [`problem`] what is wrong with one.
//! * [`claims`] who owns a frontend; [`desired`] an import to the services it wants.
//! * [`tables`] what maps hold, in words; [`plan`] the stores that lead there, [`arena`] and [`ids`] where rows lie.
//! * [`programmer`] all of it together, over any [`maps`]; [`dump`] the way back, from maps to words.
//! * [`dataplane`] programs, links and pins; [`failclosed`] what holds traffic back while there are none.
//! * [`clusterset`] the control plane's decisions.
//! * [`apiserver`] a Kubernetes API server, followed; [`controller`] the edges of the control plane.
//! * [`dns`] names of the ClusterSet.
//! * [`broker`] the verbs that prepare a ClusterSet: init, join, leave, revoke.
//! * `monitoring` health and metrics over HTTP.
//! * [`agent`] the loop; [`report`] what it says of itself; [`check`] manifests without a kernel; [`doctor`] the machine
//!   without an agent; [`cli`] the verbs.

pub mod agent;
pub mod api;
pub mod apiserver;
pub mod arena;
pub mod broker;
pub mod check;
pub mod claims;
pub mod cli;
pub mod clusterset;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod dns;
pub mod doctor;
pub mod dump;
pub mod failclosed;
pub mod ids;
pub mod manifest;
pub mod maps;
pub mod model;
mod monitoring;
pub mod plan;
pub mod problem;
pub mod programmer;
pub mod report;
pub mod source;
pub mod tables;
