//! Groups of fields, as reports have them (RFC 3464 section 2.1: the grammar of a header section, in several blocks).

/// Bytes of one value that are kept.
const VALUE_BYTES_MAX: usize = 1000;
/// Fields of one report that are kept.
const FIELDS_MAX: usize = 20_000;

/// One block of fields.
#[derive(Debug, Default)]
pub(super) struct Group(Vec<(String, String)>);

impl Group {
    /// The first value of a field, unfolded.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// All of them.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Reads the blocks of `body`, of which blank lines are the bounds; at most `groups_max`.
pub(super) fn groups(body: &[u8], groups_max: usize) -> Vec<Group> {
    let text = String::from_utf8_lossy(body);
    let (mut groups, mut group, mut fields) = (Vec::new(), Group::default(), 0);
    for line in text.lines() {
        if line.trim().is_empty() {
            if !group.0.is_empty() {
                groups.push(std::mem::take(&mut group));
            }
            if groups.len() == groups_max {
                return groups;
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.0.last_mut() {
                keep(value, " ");
                keep(value, line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields += 1;
            if fields > FIELDS_MAX {
                break;
            }
            let mut kept = String::new();
            keep(&mut kept, value.trim());
            group.0.push((name.trim().chars().take(100).collect(), kept));
        }
    }
    if !group.0.is_empty() {
        groups.push(group);
    }
    groups
}

/// Adds as much of `more` as there is room for, without control characters.
fn keep(value: &mut String, more: &str) {
    for c in more.chars() {
        if value.len() + c.len_utf8() > VALUE_BYTES_MAX {
            return;
        }
        value.push(if c.is_control() { ' ' } else { c });
    }
}
