//! What was taken out of a message.

use crate::limit::TRACKERS_MAX;

/// What is not in the document, and what is in it by another address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Images of the network that are not shown.
    pub images_blocked: u32,
    /// Those of them that nobody would see: they are shown to nobody.
    pub images_unseen: u32,
    /// Images of the network that are shown by an address of ours.
    pub images_shown: u32,
    /// Images of the message that are shown.
    pub images_inline: u32,
    /// Images that could not be shown whoever asked: of no part of the message, of a kind that is not shown, or with no usable URL.
    pub images_unusable: u32,
    /// Scripts, and attributes that would run one.
    pub scripts: u32,
    /// Forms and their fields.
    pub forms: u32,
    /// Frames, plug-ins, audio, video, SVG and MathML.
    pub embedded: u32,
    /// Style sheets and fonts of the network.
    pub remote_styles: u32,
    /// `meta` that would lead elsewhere, and `base`.
    pub redirects: u32,
    /// Links that lead to what no mail program should open.
    pub unsafe_links: u32,
    /// Links whose text names another host than they lead to.
    pub misleading_links: u32,
    /// What would tell somebody that the message was read or which link was followed; the first [`TRACKERS_MAX`].
    pub trackers: Vec<Tracker>,
    /// Whether the message had more than is shown.
    pub is_truncated: bool,
}

/// Something that tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    /// Who would be told, in A-labels.
    pub host: String,
    /// How.
    pub kind: TrackerKind,
}

/// How a tracker tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerKind {
    /// An image that nobody would see.
    Pixel,
    /// An image that is seen, at an address that counts who opens messages.
    Image,
    /// A link whose URL names its reader.
    Link,
}

impl TrackerKind {
    /// For whoever shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pixel => "pixel",
            Self::Image => "image",
            Self::Link => "link",
        }
    }
}

impl Report {
    /// Notes one; the same host and kind once.
    pub(crate) fn track(&mut self, host: &str, kind: TrackerKind) {
        let is_known = self.trackers.iter().any(|known| known.kind == kind && known.host == host);
        if !is_known && self.trackers.len() < TRACKERS_MAX {
            self.trackers.push(Tracker { host: host.to_owned(), kind });
        }
    }
}
