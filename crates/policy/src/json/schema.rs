//! The JSON schema of the policy language, from which editors complete.

use schemars::generate::SchemaSettings;

use crate::json::file::File;

/// Returns the JSON schema of a policy file, as text that ends in a newline. Its version is draft 7,
/// which most editors support.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "nfguard policy".into());
    // Editors take a file for strict JSON unless its schema says otherwise.
    for key in ["allowComments", "allowTrailingCommas"] {
        schema.insert(key.to_owned(), true.into());
    }
    format!("{:#}\n", schema.as_value())
}
