//! How far each network is from each region: measured where anybody has, inherited where not.
//!
//! A round trip that a region measured is folded into the network's prefix and into every coarser one around it
//! ([`prefix`]), with decay ([`table`]). A question starts from what the region that was asked measures to its peers, and each
//! finer prefix that somebody measured draws the estimate towards what was measured there, the more the better it is known.
//! So a network that nobody has seen gets what its neighbours get.
//!
//! Each region tells the others only what it measured itself ([`report`]), so nothing is counted twice, and reports may come
//! late, doubled or in any order. The table survives a restart ([`saved`]).

pub mod prefix;
pub mod report;
pub mod sample;
pub mod saved;
pub mod table;
