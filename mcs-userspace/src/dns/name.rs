//! Names in wire form (RFC 1035 §3.1), lower case: what is asked for, and the zone.

use std::fmt;

use domain::base::name::ToLabelIter;

/// The most bytes of a name (RFC 1035 §2.3.4), root label included.
const LONGEST: usize = 255;

/// A name that was asked for, with where its labels begin. Lives on the stack: a question costs no allocation.
#[derive(Clone)]
pub struct Name {
    wire: [u8; LONGEST],
    len: usize,
    /// Where each label's length byte is; the root's is not among them.
    starts: [u8; LONGEST / 2 + 1],
    count: usize,
}

impl Name {
    /// Takes over a name that was parsed, in lower case: comparisons ignore it (RFC 4343).
    #[must_use]
    pub fn read(name: &impl ToLabelIter) -> Self {
        let mut read = Self { wire: [0; LONGEST], len: 0, starts: [0; LONGEST / 2 + 1], count: 0 };
        for label in name.iter_labels() {
            let label = label.as_slice();
            // a parsed name has at most 255 bytes and so at most 127 labels: this is for whoever makes others
            let fits = read.len + 1 + label.len() < LONGEST && read.count < read.starts.len();
            if label.is_empty() || !fits {
                break;
            }
            if let (Some(start), Ok(at)) = (read.starts.get_mut(read.count), u8::try_from(read.len)) {
                *start = at;
            }
            read.count += 1;
            let room = &mut read.wire[read.len..=read.len + label.len()];
            room[0] = u8::try_from(label.len()).unwrap_or(63);
            room[1..].copy_from_slice(label);
            room[1..].make_ascii_lowercase();
            read.len += 1 + label.len();
        }
        // the root label
        read.len += 1;
        read
    }

    /// How many labels the name has, the root's not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.count
    }

    /// A label's text; empty beyond the last.
    #[must_use]
    pub fn label(&self, n: usize) -> &[u8] {
        let wire = self.labels_from_to(n, n + 1);
        wire.get(1..).unwrap_or_default()
    }

    /// The labels `from..to` in wire form, without a root label.
    #[must_use]
    pub fn labels_from_to(&self, from: usize, to: usize) -> &[u8] {
        self.wire.get(self.start(from)..self.start(to)).unwrap_or_default()
    }

    /// The name that begins with a label, in wire form, root label included.
    #[must_use]
    pub fn suffix(&self, from: usize) -> &[u8] {
        self.wire.get(self.start(from)..self.len).unwrap_or_default()
    }

    /// How many labels stand before the zone's; none if the name does not lie in the zone.
    #[must_use]
    pub fn below(&self, zone: &ZoneName) -> Option<usize> {
        let below = self.count.checked_sub(zone.labels)?;
        (self.suffix(below) == &*zone.wire).then_some(below)
    }

    fn start(&self, n: usize) -> usize {
        if n < self.count { self.starts.get(n).copied().map_or(0, usize::from) } else { self.len.saturating_sub(1) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for n in 0..self.count {
            write!(f, "{}.", self.label(n).escape_ascii())?;
        }
        Ok(())
    }
}

/// The name of the zone that is served.
#[derive(Clone, PartialEq, Eq)]
pub struct ZoneName {
    /// With the root label, lower case.
    wire: Box<[u8]>,
    labels: usize,
}

impl ZoneName {
    /// From text, for instance `clusterset.local`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let name: domain::base::Name<Vec<u8>> =
            text.parse().map_err(|error| format!("{text:?} is no domain name: {error}"))?;
        if name.is_root() {
            return Err("the root cannot be served: name a zone, for instance clusterset.local".to_owned());
        }
        // 255 bytes less `<service>.<namespace>.svc.` with the longest of both
        if name.len() > 123 {
            return Err(format!("{text:?} is too long: not all services have a name below it"));
        }
        let mut read = Name::read(&name);
        let labels = read.labels();
        let len = read.len;
        Ok(Self { wire: read.wire.get_mut(..len).unwrap_or_default().into(), labels })
    }

    /// In wire form, root label included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match domain::base::Name::from_slice(&self.wire) {
            Ok(name) => write!(f, "{name}"),
            Err(_never_as_it_was_parsed) => Ok(()),
        }
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A label in wire form, lower case. Labels come from Kubernetes' names and have at most 63 bytes; a longer one is cut.
pub(super) fn push_label(wire: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes().get(..63).unwrap_or(text.as_bytes());
    wire.push(u8::try_from(text.len()).unwrap_or(63));
    wire.extend(text.iter().map(u8::to_ascii_lowercase));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::read(&text.parse::<domain::base::Name<Vec<u8>>>().unwrap())
    }

    #[test]
    fn names_lie_in_the_zone_or_not() {
        let zone = ZoneName::new("ClusterSet.Local.").unwrap();
        for (text, below) in [
            ("clusterset.local", Some(0)),
            ("CLUSTERSET.local", Some(0)),
            ("a.b.clusterSet.local", Some(2)),
            ("local", None),
            (".", None),
            ("xclusterset.local", None),
            ("clusterset.local.x", None),
            // the bytes of the zone's name, and not its labels
            (r"x\010clusterset.local", None),
            (r"\010clusterset\005local", None),
        ] {
            assert_eq!(name(text).below(&zone), below, "{text}");
        }
    }

    #[test]
    fn labels_are_told_apart() {
        let name = name("Cart.Shop.svc.clusterset.local");
        assert_eq!(
            (name.labels(), name.label(0), name.label(4), name.label(5)),
            (5, &b"cart"[..], &b"local"[..], &b""[..])
        );
        assert_eq!(name.labels_from_to(0, 2), b"\x04cart\x04shop");
        assert_eq!(name.suffix(3), b"\x0aclusterset\x05local\x00");
        assert_eq!(name.suffix(5), b"\x00");
    }

    #[test]
    fn the_longest_names_are_kept_whole() {
        let many = "a.".repeat(127);
        assert_eq!(name(&many).labels(), 127);
        let long = format!("{}.{}.{}.{}", "x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(61));
        let name = name(&long);
        assert_eq!((name.labels(), name.suffix(0).len(), name.label(3).len()), (4, 255, 61));
    }

    #[test]
    fn zones_that_cannot_be_served() {
        for bad in ["", ".", "a..b", &"x".repeat(64), &format!("{0}.{0}", "x".repeat(61))] {
            assert!(ZoneName::new(bad).is_err(), "{bad}");
        }
    }
}
