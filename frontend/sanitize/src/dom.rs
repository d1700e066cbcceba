//! The tree that a message's HTML is parsed into.
//!
//! Invariant: every node has a place in one vector, and nothing here calls itself: a tree of any depth is made, walked and dropped in
//! a stack of fixed size.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use html5ever::interface::tree_builder::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::StrTendril;
use html5ever::{Attribute, QualName};

/// Where a node stands in the vector.
pub(crate) type Place = usize;

/// The document itself.
pub(crate) const ROOT: Place = 0;

/// A node as the parser knows it.
#[derive(Clone)]
pub(crate) struct Handle {
    place: Place,
    name: Option<Rc<QualName>>,
}

/// One node.
pub(crate) struct Node {
    parent: Option<Place>,
    pub(crate) children: Vec<Place>,
    depth: u32,
    pub(crate) data: Data,
}

/// What a node is.
pub(crate) enum Data {
    /// The document, or the content of a template.
    Root,
    Element(Element),
    Text(StrTendril),
    /// A comment, a declaration.
    Other,
}

/// An element.
pub(crate) struct Element {
    pub(crate) name: Rc<QualName>,
    pub(crate) attributes: Vec<Attribute>,
    template: Option<Place>,
    is_integration_point: bool,
}

impl Element {
    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
    }
}

/// The tree while it grows.
pub(crate) struct Tree {
    nodes: RefCell<Vec<Node>>,
    /// How deep the node is that something was put into last.
    depth: Cell<u32>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node { parent: None, children: Vec::new(), depth: 0, data: Data::Root };
        Self { nodes: RefCell::new(vec![root]), depth: Cell::new(0) }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// How deep the parser is: never deeper than what it has open.
    pub(crate) fn depth(&self) -> u32 {
        self.depth.get()
    }

    fn add(&self, data: Data) -> Place {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { parent: None, children: Vec::new(), depth: 0, data });
        nodes.len() - 1
    }

    /// Puts something into `parent`, before its child number `at`.
    fn insert(&self, parent: Place, at: usize, what: NodeOrText<Handle>) {
        let mut nodes = self.nodes.borrow_mut();
        self.depth.set(nodes[parent].depth);
        let place = match what {
            NodeOrText::AppendText(text) => {
                let before = at.checked_sub(1).map(|before| nodes[parent].children[before]);
                if let Some(before) = before
                    && let Data::Text(known) = &mut nodes[before].data
                {
                    known.push_tendril(&text);
                    return;
                }
                nodes.push(Node { parent: None, children: Vec::new(), depth: 0, data: Data::Text(text) });
                nodes.len() - 1
            }
            NodeOrText::AppendNode(node) => node.place,
        };
        let depth = nodes[parent].depth + 1;
        if matches!(nodes[place].data, Data::Element(_)) {
            self.depth.set(depth);
        }
        nodes[place].parent = Some(parent);
        nodes[place].depth = depth;
        nodes[parent].children.insert(at, place);
    }

    fn detach(&self, place: Place) {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(parent) = nodes[place].parent.take() {
            // What is moved was put there last, mostly.
            let at = nodes[parent].children.iter().rposition(|child| *child == place);
            if let Some(at) = at {
                nodes[parent].children.remove(at);
            }
        }
    }

    fn children(&self, place: Place) -> usize {
        self.nodes.borrow()[place].children.len()
    }
}

impl TreeSink for Tree {
    type Handle = Handle;
    type Output = Vec<Node>;
    type ElemName<'a> = &'a QualName;

    fn finish(self) -> Vec<Node> {
        self.nodes.into_inner()
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> Handle {
        Handle { place: ROOT, name: None }
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> &'a QualName {
        target.name.as_deref().expect("the parser asks elements only for their names")
    }

    fn create_element(&self, name: QualName, attributes: Vec<Attribute>, flags: ElementFlags) -> Handle {
        let name = Rc::new(name);
        let template = flags.template.then(|| self.add(Data::Root));
        let is_integration_point = flags.mathml_annotation_xml_integration_point;
        let element = Element { name: Rc::clone(&name), attributes, template, is_integration_point };
        Handle { place: self.add(Data::Element(element)), name: Some(name) }
    }

    fn create_comment(&self, _: StrTendril) -> Handle {
        Handle { place: self.add(Data::Other), name: None }
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> Handle {
        Handle { place: self.add(Data::Other), name: None }
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        self.insert(parent.place, self.children(parent.place), child);
    }

    fn append_based_on_parent_node(&self, element: &Handle, previous: &Handle, child: NodeOrText<Handle>) {
        let has_parent = self.nodes.borrow()[element.place].parent.is_some();
        if has_parent {
            self.append_before_sibling(element, child);
        } else {
            self.append(previous, child);
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    fn get_template_contents(&self, target: &Handle) -> Handle {
        let nodes = self.nodes.borrow();
        let place = match &nodes[target.place].data {
            Data::Element(Element { template: Some(place), .. }) => *place,
            _ => target.place,
        };
        Handle { place, name: None }
    }

    fn same_node(&self, one: &Handle, other: &Handle) -> bool {
        one.place == other.place
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &Handle, new: NodeOrText<Handle>) {
        if let NodeOrText::AppendNode(node) = &new {
            self.detach(node.place);
        }
        let found = {
            let nodes = self.nodes.borrow();
            nodes[sibling.place].parent.and_then(|parent| {
                let at = nodes[parent].children.iter().rposition(|child| *child == sibling.place)?;
                Some((parent, at))
            })
        };
        if let Some((parent, at)) = found {
            self.insert(parent, at, new);
        }
    }

    fn add_attrs_if_missing(&self, target: &Handle, attributes: Vec<Attribute>) {
        let mut nodes = self.nodes.borrow_mut();
        if let Data::Element(element) = &mut nodes[target.place].data {
            for attribute in attributes {
                if !element.attributes.iter().any(|known| known.name == attribute.name) {
                    element.attributes.push(attribute);
                }
            }
        }
    }

    fn remove_from_parent(&self, target: &Handle) {
        self.detach(target.place);
    }

    fn reparent_children(&self, node: &Handle, new_parent: &Handle) {
        let mut nodes = self.nodes.borrow_mut();
        let moved = std::mem::take(&mut nodes[node.place].children);
        let depth = nodes[new_parent.place].depth + 1;
        for child in &moved {
            nodes[*child].parent = Some(new_parent.place);
            nodes[*child].depth = depth;
        }
        nodes[new_parent.place].children.extend(moved);
    }

    fn is_mathml_annotation_xml_integration_point(&self, target: &Handle) -> bool {
        let nodes = self.nodes.borrow();
        matches!(&nodes[target.place].data, Data::Element(element) if element.is_integration_point)
    }

    fn allow_declarative_shadow_roots(&self, _: &Handle) -> bool {
        false
    }
}
