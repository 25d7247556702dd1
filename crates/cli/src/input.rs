//! What comes in besides the arguments: lists of addresses.

pub(crate) mod ban_list;
pub(crate) mod feed_list;
