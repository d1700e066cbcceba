//! What comes out is parsed again and looked at node by node: never is one text compared with another where a parser would read both.

mod attacks;
mod bounds;
mod check;
mod looks;
mod mutated;
