//! Manifests in, answers out.

mod fuzz;
mod properties;
mod rows;
mod wire;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Name as WireName, Rtype};
use domain::rdata::AllRecordData;

use super::message::{Transport, respond};
use super::name::ZoneName;
use super::zone::{Builder, Settings, Zone};
use crate::manifest::{self, Interner};
use crate::model::{Event, Object};

fn settings() -> Settings {
    Settings {
        zone: ZoneName::new("clusterset.local").unwrap(),
        ttl: 5,
        negative_ttl: 7,
        name_servers: vec!["10.1.1.1".parse().unwrap(), "fd00::53".parse().unwrap()],
    }
}

/// What manifests hold, in YAML.
fn objects(text: &str) -> Vec<Object> {
    let parsed = manifest::parse("test.yaml", text.as_bytes(), &mut Interner::default()).unwrap();
    assert!(parsed.broken.is_empty() && parsed.idle.is_empty(), "{:?}", parsed.problems);
    parsed.objects
}

fn apply(text: &str) -> Vec<Event> {
    objects(text).into_iter().map(Event::Apply).collect()
}

/// A zone with what manifests hold.
fn zone(text: &str) -> Zone {
    let mut zone = Zone::new(settings(), false);
    zone.apply(Builder::default().handle(apply(text).into_iter().chain([Event::Synced])), 1_700_000_000);
    zone
}

fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name.parse::<WireName<Vec<u8>>>().unwrap(), rtype, Class::IN)).unwrap();
    builder.finish()
}

/// A query with an OPT record.
fn query_edns(name: &str, rtype: Rtype, payload: u16, version: u8) -> Vec<u8> {
    let message = Message::from_octets(query(name, rtype)).unwrap();
    let mut builder = MessageBuilder::new_vec().question();
    *builder.header_mut() = message.header();
    builder.push(message.sole_question().unwrap()).unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(payload);
            opt.set_version(version);
            opt.set_dnssec_ok(true);
            Ok(())
        })
        .unwrap();
    builder.finish()
}

fn respond_to(zone: &Zone, query: &[u8], transport: Transport) -> Vec<u8> {
    let mut response = vec![1; 9];
    respond(zone, query, transport, &mut response);
    response
}

/// A response in words: the code, then each section's records, sorted within it.
fn words(response: &[u8]) -> Vec<String> {
    let message = Message::from_octets(response).unwrap();
    let header = message.header();
    assert!(header.qr());
    let flags = [(header.aa(), " aa"), (header.tc(), " tc"), (header.ra(), " ra")];
    let flags: String = flags.into_iter().filter_map(|(set, text)| set.then_some(text)).collect();
    let mut words = vec![format!("{}{flags}", header.rcode())];
    for (section, mark) in [
        (message.answer().unwrap(), ""),
        (message.authority().unwrap(), "authority: "),
        (message.additional().unwrap(), "additional: "),
    ] {
        let mut records: Vec<String> = section
            .map(|record| record.unwrap().into_any_record::<AllRecordData<_, _>>().unwrap())
            .filter(|record| record.rtype() != Rtype::OPT)
            .map(|record| {
                let (owner, ttl) = (record.owner(), record.ttl().as_secs());
                format!("{mark}{owner} {ttl} {} {}", record.rtype(), record.data())
            })
            .collect();
        records.sort();
        words.extend(records);
    }
    words
}

/// Asks over TCP, so that everything fits.
fn ask(zone: &Zone, name: &str, rtype: Rtype) -> Vec<String> {
    words(&respond_to(zone, &query(name, rtype), Transport::Tcp))
}

/// The code and how many records the answer has.
fn outcome(zone: &Zone, name: &str, rtype: Rtype) -> (Rcode, usize) {
    let response = Message::from_octets(respond_to(zone, &query(name, rtype), Transport::Tcp)).unwrap();
    let negative = response.header().rcode() != Rcode::REFUSED && response.header_counts().ancount() == 0;
    assert_eq!(response.header_counts().nscount(), u16::from(negative), "{name} {rtype}: an SOA record if negative");
    (response.header().rcode(), usize::from(response.header_counts().ancount()))
}

/// A ServiceImport by ClusterSetIP; `ports` as in YAML's flow style.
fn import(name: &str, ips: &str, ports: &str) -> String {
    format!(
        "---\n{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{namespace: shop, name: {name}}}, \
         spec: {{type: ClusterSetIP, ips: [{ips}], ports: [{ports}]}}}}\n"
    )
}

fn headless(name: &str) -> String {
    format!(
        "---\n{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{namespace: shop, name: {name}}}, \
         spec: {{type: Headless, ports: []}}}}\n"
    )
}

/// An EndpointSlice; `endpoints` and `ports` as in YAML's flow style.
fn slice(name: &str, of: &str, cluster: &str, family: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {name}, labels: \
         {{multicluster.kubernetes.io/service-name: {of}, multicluster.kubernetes.io/source-cluster: {cluster}}}}}, \
         addressType: {family}, ports: [{ports}], endpoints: [{endpoints}]}}\n"
    )
}
