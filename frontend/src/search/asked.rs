//! What was asked for.

use postrider_api::pb::{FolderRole, SearchNode, SearchNodes, search_node};

/// What may be added to a text by [`Asked::and`] and [`Asked::with`], nodes: a parameter is one, what it denies two, and a list around all.
pub(super) const BESIDE_NODES_MAX: usize = 10;

/// A condition on messages, and where it is not looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What matches; `None`: every message.
    pub node: Option<SearchNode>,
    /// Messages in folders with these roles are left out: Junk and Trash, where they were not named.
    pub without: Vec<FolderRole>,
    /// The same text asks for something else a moment later: it names an age.
    pub moves_with_time: bool,
}

impl Asked {
    /// Both at once. A folder that one of them names is not left out.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let without = self.without.into_iter().filter(|role| other.without.contains(role)).collect();
        let nodes = [self.node, other.node].into_iter().flatten().collect();
        Self { node: all(nodes), without, moves_with_time: self.moves_with_time || other.moves_with_time }
    }

    /// The same with one condition more.
    #[must_use]
    pub fn with(self, node: SearchNode) -> Self {
        let nodes = self.node.into_iter().chain([node]).collect();
        Self { node: all(nodes), ..self }
    }
}

/// A node of one kind.
pub(super) fn node(node: search_node::Node) -> SearchNode {
    SearchNode { node: Some(node) }
}

/// All of these; `None` where there are none. What is a list of this kind itself becomes part of it.
pub(super) fn all(nodes: Vec<SearchNode>) -> Option<SearchNode> {
    let mut children = Vec::with_capacity(nodes.len());
    for child in nodes {
        match child.node {
            Some(search_node::Node::All(list)) => children.extend(list.nodes),
            _ => children.push(child),
        }
    }
    list(children, search_node::Node::All)
}

/// One of these; `None` where there are none.
pub(super) fn any(nodes: Vec<SearchNode>) -> Option<SearchNode> {
    list(nodes, search_node::Node::Any)
}

fn list(mut nodes: Vec<SearchNode>, of: fn(SearchNodes) -> search_node::Node) -> Option<SearchNode> {
    if nodes.len() > 1 { Some(node(of(SearchNodes { nodes }))) } else { nodes.pop() }
}

/// Nodes of a condition: conditions, and what joins or denies them.
pub(super) fn nodes(of: &SearchNode) -> usize {
    let below = match &of.node {
        Some(search_node::Node::All(list) | search_node::Node::Any(list)) => list.nodes.iter().map(nodes).sum(),
        Some(search_node::Node::Not(not)) => nodes(not),
        _ => 0,
    };
    below + 1
}

/// How deep a condition nests; one alone is 1.
pub(super) fn depth(of: &SearchNode) -> usize {
    let below = match &of.node {
        Some(search_node::Node::All(list) | search_node::Node::Any(list)) => {
            list.nodes.iter().map(depth).max().unwrap_or(0)
        }
        Some(search_node::Node::Not(not)) => depth(not),
        _ => 0,
    };
    below + 1
}
