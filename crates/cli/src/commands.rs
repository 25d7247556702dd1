//! The verbs: one file each, and none uses another.

pub(crate) mod ban;
pub(crate) mod boot;
pub(crate) mod check;
pub(crate) mod confirm;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod feed;
pub(crate) mod guard;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod never;
pub(crate) mod save;
pub(crate) mod scans;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod r#try;
