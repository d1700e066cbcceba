//! Names of folders and labels.

use crate::rest::problem::Problem;

/// Refuses what no folder and no label is called: the shard has the same rules, and speaks of them to nobody.
pub(crate) fn check(name: &str, bytes_max: usize) -> Result<(), Problem> {
    let fits = !name.is_empty() && name.len() <= bytes_max && name.trim() == name;
    if fits && !name.contains(|c: char| c == '/' || c.is_control()) {
        return Ok(());
    }
    let detail =
        format!("a name has 1 to {bytes_max} bytes, neither '/' nor control characters, and no space at either end");
    Err(Problem::field("name", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a b", "받은편지함", &"x".repeat(255)] {
            assert!(check(good, 255).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a/b", "a\nb", "\u{85}", &"x".repeat(256)] {
            assert!(check(bad, 255).is_err(), "{bad:?}");
        }
    }
}
