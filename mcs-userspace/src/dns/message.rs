//! A query's octets to those of its response (RFC 1035 §4, RFC 6891). Pure, and total: there are no octets that it fails on.
//!
//! | query | response |
//! | --- | --- |
//! | shorter than a header, or itself a response | none: answering it could make a loop |
//! | another opcode than QUERY | NOTIMP |
//! | not one question, or not to be taken apart, or several OPT records | FORMERR |
//! | a version of EDNS other than 0 | BADVERS |
//! | another class than IN, a name outside of the zone, a transfer | REFUSED |
//!
//! What does not fit is cut off between records, and TC is set, but not for addresses that were only additional (RFC 2181
//! §9).

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{
    AdditionalBuilder, AnswerBuilder, AuthorityBuilder, MessageBuilder, QuestionBuilder,
};
use domain::base::name::{Chain, ParsedName};
use domain::base::opt::{Opt, OptRecord};
use domain::base::wire::ParseError;
use domain::base::{Message, Name as WireName, Question, RelativeName, Rtype, Serial, Ttl};
use domain::rdata::{A, Aaaa, Ns, Soa, Srv, Txt};

use super::lookup::{Answer, Targets};
use super::name::Name;
use super::packet::Packet;
use super::zone::{Settings, Zone};

/// The most bytes of a response over UDP without EDNS (RFC 1035 §4.2.1).
const UDP_PLAIN: usize = 512;
/// The most bytes of a response over UDP whatever the client offers: such a datagram is not fragmented anywhere (RFC 9715).
const UDP_MOST: u16 = 1232;
/// Bytes of an OPT record without options.
const OPT: usize = 11;
/// How long the version of the schema may be remembered, seconds (KEP-1645, `specification.md`).
const VERSION_TTL: u32 = 28_800;
/// The version of the schema, as CoreDNS says it.
const VERSION: &[u8] = b"\x051.1.0";
/// The greatest TTL of an SOA record that is given with a negative answer, as CoreDNS has it, seconds.
const SOA_TTL_MOST: u32 = 300;

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// The EDNS part of a query.
#[derive(Clone, Copy, Debug)]
struct Edns {
    payload: u16,
    version: u8,
    dnssec_ok: bool,
}

/// Answers a query. The response is in `out` afterwards; empty if there is to be none.
pub fn respond(zone: &Zone, query: &[u8], transport: Transport, out: &mut Vec<u8>) {
    out.clear();
    let Ok(query) = Message::from_slice(query) else { return };
    let header = query.header();
    if header.qr() {
        return;
    }
    let mut builder = start(out, query);
    if header.opcode() != Opcode::QUERY {
        builder.header_mut().set_rcode(Rcode::NOTIMP);
        return;
    }
    let (question, edns) = match take_apart(query) {
        Ok(parts) => parts,
        Err(NotWellFormed) => {
            builder.header_mut().set_rcode(Rcode::FORMERR);
            return;
        }
    };
    let limit = match (transport, edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.payload.min(UDP_MOST)).max(UDP_PLAIN),
        (Transport::Udp, None) => UDP_PLAIN,
    };
    let room = limit - if edns.is_some() { OPT } else { 0 };
    // a limit is the first length that is too long
    builder.set_push_limit(room + 1);
    let mut builder = builder.question();
    if builder.push(question).is_err() {
        // not with any limit there is: a name has at most 255 bytes
        return;
    }
    let additional = match edns {
        Some(Edns { version: 1.., .. }) => builder.additional(),
        _ => answer(zone, &question, builder),
    };
    finish(additional, edns);
}

/// A response to a query, with nothing in it.
fn start<'b>(out: &'b mut Vec<u8>, query: &Message<[u8]>) -> MessageBuilder<Packet<'b>> {
    let asked = query.header();
    // appending to a vector does not fail
    let mut builder = match MessageBuilder::from_target(Packet::new(out)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let header = builder.header_mut();
    header.set_id(asked.id());
    header.set_qr(true);
    header.set_opcode(asked.opcode());
    header.set_rd(asked.rd());
    // RFC 6840 §5.7, RFC 4035 §3.2.2: copied
    header.set_cd(asked.cd());
    builder
}

/// Adds the OPT record where the query had one: it has its own room.
fn finish(mut builder: AdditionalBuilder<Packet<'_>>, edns: Option<Edns>) {
    let Some(edns) = edns else { return };
    builder.clear_push_limit();
    let pushed = builder.opt(|opt| {
        opt.set_udp_payload_size(UDP_MOST);
        opt.set_dnssec_ok(edns.dnssec_ok);
        if edns.version > 0 {
            opt.set_rcode(OptRcode::BADVERS);
        }
        Ok(())
    });
    debug_assert!(pushed.is_ok(), "appending to a vector does not fail");
}

/// A query is not as it should be. How does not matter: the code says no more.
struct NotWellFormed;

impl From<ParseError> for NotWellFormed {
    fn from(_what: ParseError) -> Self {
        Self
    }
}

type Parts<'q> = (Question<ParsedName<&'q [u8]>>, Option<Edns>);

/// The question, and the EDNS part.
fn take_apart(query: &Message<[u8]>) -> Result<Parts<'_>, NotWellFormed> {
    let counts = query.header_counts();
    // more is no query that anybody makes; an IXFR has its SOA record, others a TSIG beside the OPT record
    if counts.qdcount() != 1 || counts.ancount() > 1 || counts.nscount() > 1 || counts.arcount() > 2 {
        return Err(NotWellFormed);
    }
    let mut section = query.question();
    let Some(Ok(question)) = section.next() else { return Err(NotWellFormed) };
    let mut edns = None;
    if (counts.ancount(), counts.nscount(), counts.arcount()) == (0, 0, 0) {
        return Ok((question, edns));
    }
    let mut section = section.answer()?;
    for _ in 0..2 {
        section = section.next_section()?.ok_or(NotWellFormed)?;
    }
    for record in section {
        let record = record?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let opt = record.into_record::<Opt<_>>()?.ok_or(NotWellFormed)?;
        let opt = OptRecord::from_record(opt);
        let found = Edns { payload: opt.udp_payload_size(), version: opt.version(), dnssec_ok: opt.dnssec_ok() };
        if edns.replace(found).is_some() {
            return Err(NotWellFormed);
        }
    }
    Ok((question, edns))
}

/// Adds what there is to say to the question.
fn answer<'b>(
    zone: &Zone,
    question: &Question<ParsedName<&[u8]>>,
    mut builder: QuestionBuilder<Packet<'b>>,
) -> AdditionalBuilder<Packet<'b>> {
    if question.qclass() != Class::IN {
        builder.header_mut().set_rcode(Rcode::REFUSED);
        return builder.additional();
    }
    let owner = question.qname();
    let name = Name::read(owner);
    let settings = &zone.settings;
    let answer = zone.lookup(&name, question.qtype());
    let header = builder.header_mut();
    header.set_aa(!matches!(answer, Answer::Refused));
    let mut builder = builder.answer();
    match answer {
        Answer::Refused => builder.header_mut().set_rcode(Rcode::REFUSED),
        Answer::Unsynced => return negative(zone, Rcode::SERVFAIL, builder),
        Answer::NoName => return negative(zone, Rcode::NXDOMAIN, builder),
        Answer::NoData => return negative(zone, Rcode::NOERROR, builder),
        Answer::Soa => push(&mut builder, |builder| {
            soa(zone).is_some_and(|(apex, ttl, soa)| builder.push((apex, ttl, soa)).is_ok())
        }),
        Answer::NameServer => return name_server(settings, owner, builder),
        Answer::Version => push(&mut builder, |builder| {
            Txt::from_octets(VERSION).is_ok_and(|text| builder.push((owner, VERSION_TTL, text)).is_ok())
        }),
        Answer::V4(addresses, turn) => {
            around(&addresses, turn, &mut builder, |builder, ip| {
                builder.push((owner, settings.ttl, A::new(ip))).is_ok()
            });
        }
        Answer::V6(addresses, turn) => {
            around(&addresses, turn, &mut builder, |builder, ip| {
                builder.push((owner, settings.ttl, Aaaa::new(ip))).is_ok()
            });
        }
        Answer::Srv(targets) => return srv(settings, &targets, &name, owner, builder),
    }
    builder.additional()
}

/// Adds a list's records, from one on and then around, until no more fits.
fn around<'b, T: Copy>(
    list: &[T],
    turn: usize,
    builder: &mut AnswerBuilder<Packet<'b>>,
    mut push_one: impl FnMut(&mut AnswerBuilder<Packet<'b>>, T) -> bool,
) {
    let (before, after) = list.split_at(turn.checked_rem(list.len()).unwrap_or(0));
    push(builder, |builder| after.iter().chain(before).all(|one| push_one(builder, *one)));
}

/// Adds records, and says so if not all of them fit.
fn push<'b>(builder: &mut AnswerBuilder<Packet<'b>>, all: impl FnOnce(&mut AnswerBuilder<Packet<'b>>) -> bool) {
    if !all(builder) {
        builder.header_mut().set_tc(true);
    }
}

/// There is no answer: the SOA record says for how long that may be remembered.
fn negative<'b>(zone: &Zone, rcode: Rcode, mut builder: AnswerBuilder<Packet<'b>>) -> AdditionalBuilder<Packet<'b>> {
    builder.header_mut().set_rcode(rcode);
    let mut builder: AuthorityBuilder<_> = builder.authority();
    if let Some((apex, ttl, soa)) = soa(zone)
        && builder.push((apex, ttl, soa)).is_err()
    {
        builder.header_mut().set_tc(true);
    }
    builder.additional()
}

/// The zone's SOA record, as a record is pushed.
type SoaRecord<'z> = (WireName<&'z [u8]>, u32, Soa<Below<'z>>);

fn soa(zone: &Zone) -> Option<SoaRecord<'_>> {
    let Settings { zone: name, negative_ttl, .. } = &zone.settings;
    let apex = WireName::from_octets(name.wire()).ok()?;
    let soa = Soa::new(
        below(b"\x02ns\x03dns", name.wire())?,
        below(b"\x0ahostmaster", name.wire())?,
        Serial::from(zone.serial()),
        Ttl::from_secs(7200),
        Ttl::from_secs(1800),
        Ttl::from_secs(86_400),
        Ttl::from_secs(*negative_ttl),
    );
    Some((apex, (*negative_ttl).min(SOA_TTL_MOST), soa))
}

fn name_server<'b>(
    settings: &Settings,
    owner: &ParsedName<&[u8]>,
    mut builder: AnswerBuilder<Packet<'b>>,
) -> AdditionalBuilder<Packet<'b>> {
    let Some(server) = below(b"\x02ns\x03dns", settings.zone.wire()) else { return builder.additional() };
    push(&mut builder, |builder| builder.push((owner, settings.ttl, Ns::new(server.clone()))).is_ok());
    let mut builder = builder.additional();
    for ip in &settings.name_servers {
        if push_address(&mut builder, &server, settings.ttl, *ip).is_none() {
            break;
        }
    }
    builder
}

fn srv<'b>(
    settings: &Settings,
    targets: &Targets<'_>,
    name: &Name,
    owner: &ParsedName<&[u8]>,
    mut builder: AnswerBuilder<Packet<'b>>,
) -> AdditionalBuilder<Packet<'b>> {
    let service = name.suffix(targets.below);
    let mut is_whole = true;
    targets.each_srv(&mut |record| {
        // a name that is too long to be one
        let Some(target) = below(record.target, service) else { return true };
        is_whole = builder.push((owner, settings.ttl, Srv::new(0, record.weight, record.port, target))).is_ok();
        is_whole
    });
    if !is_whole {
        builder.header_mut().set_tc(true);
        return builder.additional();
    }
    let mut builder = builder.additional();
    targets.each_address(&mut |target, ip| {
        let Some(target) = below(target, service) else { return true };
        push_address(&mut builder, &target, settings.ttl, ip).is_some()
    });
    builder
}

/// A name of which two parts are known.
type Below<'a> = Chain<RelativeName<&'a [u8]>, WireName<&'a [u8]>>;

/// The name of some labels and of what they stand before, in wire form; none if that is too long to be one.
fn below<'a>(labels: &'a [u8], above: &'a [u8]) -> Option<Below<'a>> {
    RelativeName::from_octets(labels).ok()?.chain(WireName::from_octets(above).ok()?).ok()
}

fn push_address(
    builder: &mut AdditionalBuilder<Packet<'_>>,
    owner: &Below<'_>,
    ttl: u32,
    ip: std::net::IpAddr,
) -> Option<()> {
    match ip {
        std::net::IpAddr::V4(ip) => builder.push((owner, ttl, A::new(ip))).ok(),
        std::net::IpAddr::V6(ip) => builder.push((owner, ttl, Aaaa::new(ip))).ok(),
    }
}
