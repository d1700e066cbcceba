//! Keys of the state database.
//!
//! ```text
//! group 0x00 0x00     what was applied last, and the members then
//! group 0x01 …        the machine's own rows
//! ```
//! The group is big-endian, so that one group's rows lie together.

use crate::ids::GroupId;

const RAFT: u8 = 0x00;
const MACHINE: u8 = 0x01;
const META: u8 = 0x00;
const END: u8 = 0xff;

/// What every key of `group`'s machine starts with.
pub fn state_prefix(group: GroupId) -> [u8; 5] {
    with_tag(group, MACHINE)
}

/// The key of the row that says how far `group` was applied.
pub(crate) fn meta(group: GroupId) -> [u8; 6] {
    let [a, b, c, d, tag] = with_tag(group, RAFT);
    [a, b, c, d, tag, META]
}

/// The first key that `group` could have.
pub(crate) fn start(group: GroupId) -> [u8; 5] {
    with_tag(group, RAFT)
}

/// The first key after all of `group`'s.
pub(crate) fn end(group: GroupId) -> [u8; 5] {
    with_tag(group, END)
}

fn with_tag(group: GroupId, tag: u8) -> [u8; 5] {
    let [a, b, c, d] = group.0.to_be_bytes();
    [a, b, c, d, tag]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_groups_keys_lie_between_its_bounds(group in any::<u32>(), other in any::<u32>(), rest in any::<Vec<u8>>()) {
            let group = GroupId(group);
            let mut row = state_prefix(group).to_vec();
            row.extend(rest);
            for key in [row.as_slice(), &meta(group)] {
                prop_assert!(key >= &start(group)[..] && key < &end(group)[..]);
                let other = GroupId(other);
                let inside = key >= &start(other)[..] && key < &end(other)[..];
                prop_assert_eq!(inside, other == group);
            }
        }
    }
}
