//! Proof that something is not there, made for each question (RFC 9824: compact denial of existence).
//!
//! One NSEC record at the very name that was asked for says which types it has; a name that is not there is said to have
//! only the pseudo-type NXNAME. Nothing is told of other names, so the zone cannot be walked, and one signature is enough.

use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zone::build::NEGATIVE_TTL_S;

/// RFC 9824 section 3.1: the type of names that are not there.
pub(crate) const NXNAME: RecordType = RecordType::Unknown(128);
/// RFC 1035 section 3.1.
const LABEL_BYTES_MAX: usize = 63;

/// The record for a name with these types; for none at all where `exists` is false.
pub(crate) fn nsec(name: &Name, types: impl Iterator<Item = RecordType>, exists: bool) -> Record {
    let owner = name.to_lowercase();
    let next = successor(&owner);
    let missing = (!exists).then_some(NXNAME);
    let nsec = NSEC::new_cover_self(next, types.chain(missing));
    Record::from_rdata(name.clone(), NEGATIVE_TTL_S, RData::DNSSEC(DNSSECRData::NSEC(nsec)))
}

/// The name right behind one in canonical order (RFC 4034 section 6.1): `\000.name`, or where that would be too long, the next
/// one that is not (RFC 4471 section 3.1.2).
fn successor(name: &Name) -> Name {
    if let Ok(below) = name.prepend_label([0].as_slice()) {
        return below;
    }
    let mut labels: Vec<Vec<u8>> = name.iter().map(<[u8]>::to_vec).collect();
    while let Some(first) = labels.first_mut() {
        if first.len() < LABEL_BYTES_MAX {
            first.push(0);
            if let Ok(longer) = Name::from_labels(labels.iter().map(Vec::as_slice)) {
                return longer;
            }
            labels[0].pop();
        }
        // The last byte that can rise does; those behind it go.
        while let Some(last) = labels[0].pop() {
            if last < u8::MAX {
                // Upper case sorts as lower: 'A' is behind 'z' in no order.
                labels[0].push(if last + 1 == b'A' { b'[' } else { last + 1 });
                if let Ok(risen) = Name::from_labels(labels.iter().map(Vec::as_slice)) {
                    return risen;
                }
            }
        }
        labels.remove(0);
    }
    Name::root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_lies_between_a_name_and_its_successor() {
        let name = Name::from_ascii("nothing.example.org.").unwrap();
        assert_eq!(successor(&name).iter().next(), Some(&[0][..]));
        assert_eq!(successor(&name).base_name(), name);
    }

    proptest! {
        #[test]
        fn a_successor_comes_later_however_long_the_name(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..64), 1..6)
        ) {
            let Ok(name) = Name::from_labels(labels.iter().map(Vec::as_slice)) else { return Ok(()) };
            let name = name.to_lowercase();
            let next = successor(&name);
            prop_assert!(next > name || next.is_root(), "{name} {next}");
        }

        #[test]
        fn so_does_one_of_the_longest_names(first in proptest::collection::vec(any::<u8>(), 58..62)) {
            let mut labels: Vec<&[u8]> = vec![&first];
            let filling = [b'a'; 63];
            labels.extend([&filling[..]; 3]);
            let Ok(name) = Name::from_labels(labels) else { return Ok(()) };
            let name = name.to_lowercase();
            let next = successor(&name);
            prop_assert!(next > name, "{name} {next}");
        }
    }
}
