//! The JSON schema of the policy language, from which editors complete.

use schemars::generate::SchemaSettings;

use crate::json::file::File;

/// The JSON schema (draft 7, which editors know best) of a policy file, as text that ends in a
/// newline.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "nfguard policy".into());
    format!("{:#}\n", schema.as_value())
}
