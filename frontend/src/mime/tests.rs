//! The module as a whole: real mail, hostile mail, and the way back.
