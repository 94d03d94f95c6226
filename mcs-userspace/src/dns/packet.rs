//! The octets of a response while it is built, with names compressed against its question.
//!
//! All names of a response end as the question's does, so the question is the only place that a pointer (RFC 1035 §4.1.4)
//! needs to lead to: one comparison for each name, where a general compressor keeps a table.

use std::convert::Infallible;

use domain::base::name::{Label, ToName};
use domain::base::wire::Composer;
use domain::dep::octseq::builder::{OctetsBuilder, Truncate};

/// Where the question's name begins: after the header.
const QUESTION: usize = 12;

/// A response's octets.
#[derive(Debug)]
pub(super) struct Packet<'b> {
    octets: &'b mut Vec<u8>,
}

impl<'b> Packet<'b> {
    /// In a buffer, which is emptied.
    pub(super) fn new(octets: &'b mut Vec<u8>) -> Self {
        octets.clear();
        Self { octets }
    }

    /// The labels of the question's name, with where each begins.
    fn question(&self) -> impl Iterator<Item = (usize, &Label)> {
        let has_question = self.octets.get(4..6).is_some_and(|count| count != [0, 0]);
        let mut at = QUESTION;
        let labels = Label::iter_slice(self.octets, QUESTION).map(move |label| {
            let start = at;
            at += 1 + label.as_slice().len();
            (start, label)
        });
        has_question.then_some(labels).into_iter().flatten()
    }
}

impl OctetsBuilder for Packet<'_> {
    type AppendError = Infallible;

    fn append_slice(&mut self, slice: &[u8]) -> Result<(), Infallible> {
        self.octets.extend_from_slice(slice);
        Ok(())
    }
}

impl Truncate for Packet<'_> {
    fn truncate(&mut self, len: usize) {
        self.octets.truncate(len);
    }
}

impl AsRef<[u8]> for Packet<'_> {
    fn as_ref(&self) -> &[u8] {
        self.octets
    }
}

impl AsMut<[u8]> for Packet<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.octets
    }
}

impl Composer for Packet<'_> {
    fn append_compressed_name<N: ToName + ?Sized>(&mut self, name: &N) -> Result<(), Infallible> {
        let (ours, question) = (name.iter_labels().count(), self.question().count());
        // the longest suffix of the name that is one of the question's
        let (own, pointer) = {
            let both = ours.min(question);
            let aligned = name.iter_labels().skip(ours - both).zip(self.question().skip(question - both));
            let (mut own, mut pointer) = (ours, None);
            for ((label, (start, asked)), at) in aligned.zip(ours - both..) {
                if label == asked {
                    if pointer.is_none() {
                        (own, pointer) = (at, Some(start));
                    }
                } else {
                    (own, pointer) = (ours, None);
                }
            }
            (own, pointer)
        };
        // the root label alone is shorter than a pointer to it
        let pointer = pointer.filter(|_| own + 1 < ours).and_then(|start| u16::try_from(start).ok());
        let own = if pointer.is_some() { own } else { ours };
        for label in name.iter_labels().take(own) {
            label.compose(self)?;
        }
        pointer.map_or(Ok(()), |start| self.append_slice(&(0xc000 | start).to_be_bytes()))
    }

    fn can_compress(&self) -> bool {
        true
    }
}
