//! Reads of files that other programs write: a process that runs for long neither waits at a pipe nor
//! takes a file of any size.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Most bytes of a file: a utmp of forty thousand logins.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a file, as far as it can be read now.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mut bytes = Vec::new();
    let len = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if len as u64 > MAX_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn a_pipe_is_not_waited_for_and_a_file_without_end_is_not_read_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").expect("written");
        assert_eq!(read(at("file")).expect("read"), b"text");
        mkfifoat(CWD, at("pipe"), Mode::from_raw_mode(0o600)).expect("made");
        let kind = |path: &Path| read(path).map_err(|error| error.kind());
        assert_eq!(kind(&at("pipe")), Ok(Vec::new()));
        let _end = OpenOptions::new().read(true).write(true).open(at("pipe")).expect("opens");
        assert_eq!(kind(&at("pipe")), Err(ErrorKind::WouldBlock));
        assert_eq!(kind(Path::new("/dev/null")), Ok(Vec::new()));
        assert_eq!(kind(Path::new("/dev/zero")), Err(ErrorKind::FileTooLarge));
        let large = std::fs::File::create(at("large")).expect("made");
        large.set_len(MAX_BYTES + 1).expect("a hole");
        assert_eq!(kind(&at("large")), Err(ErrorKind::FileTooLarge));
        assert_eq!(kind(&at("absent")), Err(ErrorKind::NotFound));
    }
}
