//! The bans in Fail2Ban's database.
//!
//! The database is an SQLite file. Where there is one, there is the Python that Fail2Ban runs on, with
//! the SQLite that wrote the file. So Python reads it, and this program has no C library in it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Error, child};

/// The interpreter of Debian's Fail2Ban, by its path: root does not search for it.
const PYTHON: &str = "/usr/bin/python3";

/// Longest time to read a database.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Prints each current ban as a line of JSON. The database is opened for reading only. The file may
/// come from another host.
const PROGRAM: &str = r#"
import json, pathlib, sqlite3, sys
path = pathlib.Path(sys.argv[1]).resolve()
base = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True)
found = base.execute("select name from sqlite_master where type = 'table' and name = 'bips'").fetchone()
if not found:
    sys.exit("no table of current bans: expected the database of Fail2Ban 0.11 or newer")
for ip, jail, made, lasts in base.execute("select ip, jail, timeofban, bantime from bips"):
    ban = {"target": ip, "source": "fail2ban/" + jail, "reason": "taken over from Fail2Ban", "created_at": made}
    if lasts == -1:
        ban["expires_in_seconds"] = None
    else:
        ban["until"] = made + lasts
    print(json.dumps(ban))
"#;

/// Returns the bans of a database as lines of JSON.
///
/// # Errors
/// If Python cannot be started, or cannot read the database.
pub fn dump(database: &Path) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Usage(format!("{}: {why}", database.display()));
    let mut command = Command::new(PYTHON);
    // `-I`: nothing of the working directory or of the user is imported.
    command.args(["-I", "-c", PROGRAM]).arg(database);
    let output = child::output(&mut command, TIME_LIMIT).map_err(|error| {
        failed(format!("{PYTHON}, which reads Fail2Ban's database, failed: {error}"))
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or("python3 failed").to_owned();
        return Err(failed(last));
    }
    Ok(output.stdout)
}
