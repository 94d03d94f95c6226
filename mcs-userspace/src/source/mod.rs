//! Where events come from.
//!
//! A source turns what it watches into [`crate::model::Event`]s and names what is wrong with it. It is fail static:
//! only an explicit word deletes an object. A source that goes away, text that cannot be read and objects that became
//! invalid leave everything as it was.

pub mod dir;
