//! The messages of the guard, each a line of JSON. `docs/api.md` of the repository describes them.

mod event;
mod request;
mod response;
pub mod watchdog;

pub use event::Event;
pub use request::{BanKey, NewBan, Release, Request, Time};
pub use response::{
    BatchCounts, Did, ErrorCode, ListedBan, PolicyState, RefusedEntry, Response, Status,
};

/// Version of the protocol that this crate speaks, and that [`Status::version`] names. It grows with
/// each change that an older client would misunderstand.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest number of bans that one request in bulk has.
pub const MAX_BATCH: usize = 50_000;

/// Largest number of bans that one answer to [`Request::Bans`] has, but for those of scans.
pub const PAGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use schemars::generate::SchemaSettings;

    use super::watchdog::{WatchdogRequest, WatchdogResponse};
    use super::*;

    /// Every line of both sockets.
    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is wanted")]
    struct Lines {
        request: Request,
        response: Response,
        event: Event,
        watchdog_request: WatchdogRequest,
        watchdog_response: WatchdogResponse,
    }

    #[test]
    fn the_schema_in_the_documentation_fits_the_code() {
        let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Lines>();
        let text = format!("{:#}\n", schema.as_value());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.schema.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).expect("docs can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == text, "run again with UPDATE_GOLDEN=1 to write docs/api.schema.json");
    }

    #[test]
    fn requests_read_as_they_are_written_and_a_misspelt_field_is_an_error() {
        let read = |text: &str| serde_json::from_str::<Request>(text).map_err(|it| it.to_string());
        let ban = NewBan::of("203.0.113.7").source("tool");
        let bulk = Request::BanAll {
            bans: vec![ban.clone()],
            source: None,
            duration: Some(Time::Text("1h".to_owned())),
            until: None,
            reason: None,
            force: false,
        };
        for request in [
            Request::Status {},
            Request::Ban(ban),
            bulk,
            Request::Unban(BanKey::of("203.0.113.7")),
            Request::Release { tables: Release::Loaded },
            Request::Release { tables: Release::Removed(vec!["nfguard".to_owned()]) },
        ] {
            let line = serde_json::to_string(&request).expect("JSON");
            assert_eq!(read(&line), Ok(request), "{line}");
        }
        assert_eq!(
            read(r#"{"op":"release"}"#),
            Ok(Request::Release { tables: Release::Loaded }),
            "what a load does"
        );
        for wrong in [
            r#"{"op":"ban","target":"203.0.113.7","fro":"1h"}"#,
            r#"{"op":"ban_all","bans":[{"target":"203.0.113.7","fro":"1h"}]}"#,
            r#"{"op":"unban","target":"203.0.113.7","for":"1h"}"#,
            r#"{"op":"status","more":1}"#,
            r#"{"op":"replace","bans":[]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_later_guard_adds_does_not_hinder_a_client_of_today() {
        let event: Event = serde_json::from_str(r#"{"event":"eclipse","sun":0}"#).expect("reads");
        assert_eq!(event, Event::Unknown);
        let text = r#"{"ok":false,"code":"eclipse","error":"dark","sun":0}"#;
        let response: Response = serde_json::from_str(text).expect("reads");
        assert_eq!(response.code, Some(ErrorCode::Unknown));
    }
}
