//! Netlink's own language: messages and attributes, as bytes.

pub(crate) mod attr;
pub(crate) mod batch;
pub(crate) mod channel;
pub(crate) mod element;
pub(crate) mod expr;
pub(crate) mod message;
pub(crate) mod object;
pub(crate) mod reply;
pub(crate) mod uapi;
