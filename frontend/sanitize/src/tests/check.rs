//! What must be so of every document that comes out.

pub(super) use crate::audit::Seen;
use crate::audit::audit;
use crate::dom::Element;
use crate::{Addresses, Theme, View};

/// Our addresses, by which a test knows them.
pub(super) struct Ours;

impl Addresses for Ours {
    fn remote(&self, url: &str) -> Option<String> {
        let digits: String = url.bytes().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("/proxy?{digits}"))
    }

    fn inline(&self, content_id: &str) -> Option<String> {
        (content_id == "known@here").then(|| "/part/known".to_owned())
    }
}

/// Nobody gets an image.
pub(super) struct Blocked;

impl Addresses for Blocked {
    fn remote(&self, _: &str) -> Option<String> {
        None
    }

    fn inline(&self, _: &str) -> Option<String> {
        None
    }
}

impl Seen {
    /// The first element of a name within the body.
    pub(super) fn first(&self, name: &str) -> Option<&Element> {
        self.elements().into_iter().map(|(_, element)| element).find(|element| &*element.name.local == name)
    }

    /// What an element's attribute is.
    pub(super) fn value(&self, name: &str, attribute: &str) -> Option<&str> {
        self.first(name).and_then(|element| element.attribute(attribute))
    }

    /// The text that readers see.
    pub(super) fn text(&self) -> String {
        let body = self.elements().into_iter().find(|(_, element)| &*element.name.local == "body");
        self.text_of(body.unwrap().0)
    }

    /// The style sheets, ours and the sender's.
    pub(super) fn sheets(&self) -> Vec<String> {
        let styles = self.elements().into_iter().filter(|(_, element)| &*element.name.local == "style");
        styles.map(|(place, _)| self.text_of(place)).collect()
    }
}

/// What is wrong with a document of a test; nothing should be.
pub(super) fn wrongs(document: &str) -> Vec<String> {
    audit(document, &|url| url.starts_with("/proxy?") || url == "/part/known")
}

/// Makes HTML harmless in every way that there is, and checks each.
pub(super) fn harmless(html: &str) -> View {
    let mut views = Vec::new();
    for theme in [Theme::Light, Theme::Dark] {
        for addresses in [&Ours as &dyn Addresses, &Blocked] {
            let view = crate::html(html, theme, addresses);
            let wrongs = wrongs(&view.document);
            assert!(wrongs.is_empty(), "{wrongs:#?}\nof {html}\nmade {}", view.document);
            views.push(view);
        }
    }
    views.swap_remove(0)
}
