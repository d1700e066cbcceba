//! CSS, read by its grammar (CSS Syntax Module Level 3) and written anew from lists of what may be in it.
//!
//! Nothing that is written fetches anything but what [`Images`] gave an address to, and nothing that comes back is text of the sender's:
//! names, strings and numbers are written from what was understood, strings with every character escaped that ends one, a style sheet or
//! an attribute somewhere.
//!
//! Not taken: `var()` and custom properties (what they mean is known only where they are used), `@import`, `@font-face`, `image-set()`,
//! `attr()`, `env()`, `src()`, `expression()`, `position`, animations, filters, `content`.

mod declaration;
mod property;
mod selector;
mod sheet;
mod value;

pub(crate) use declaration::{Traits, inline};
pub(crate) use selector::ID_PREFIX;
pub(crate) use sheet::Sheets;

/// Gives images addresses.
pub(crate) trait Images {
    /// What is to be fetched for `url`; `None`: nothing.
    fn background(&mut self, url: &str) -> Option<String>;
}

/// Whether declarations are written as they are here: what was read from them is all that they say.
pub(crate) fn is_own(style: &str) -> bool {
    struct AsTheyAre;
    impl Images for AsTheyAre {
        fn background(&mut self, url: &str) -> Option<String> {
            Some(url.to_owned())
        }
    }
    inline(style, &mut AsTheyAre).0 == style
}
