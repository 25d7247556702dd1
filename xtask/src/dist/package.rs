//! The Debian package, made by `dpkg-deb` from the list in the program's `Cargo.toml`.
//!
//! The list has the form that cargo-deb reads: `[package.metadata.deb]`.

use crate::build::cargo;
use crate::runner;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a source path begins with for what was built.
const BUILT: &str = "target/release/";

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Where a package comes from and goes to.
pub(super) struct Place<'p> {
    /// The repository, or a copy.
    pub(super) source: &'p Path,
    /// Where the program was built.
    pub(super) built: &'p Path,
    /// A folder for the package's content. What is in it is removed first.
    pub(super) stage: &'p Path,
    pub(super) package: &'p Path,
    /// Latest time of a file in it, in seconds since 1970.
    pub(super) time: &'p str,
}

/// Builds the package.
pub(super) fn build(place: &Place<'_>) -> Result<(), String> {
    let manifest = manifest(place.source)?;
    if place.stage.exists() {
        fs::remove_dir_all(place.stage).map_err(|error| failed(place.stage, &error))?;
    }
    let mut sums = Vec::new();
    for asset in manifest["metadata"]["deb"]["assets"].as_array().into_iter().flatten() {
        let [source, destination, mode] =
            [0, 1, 2].map(|at| asset[at].as_str().unwrap_or_default());
        for file in sources(place, source)? {
            let name = match destination.strip_suffix('/') {
                Some(folder) => format!("{folder}/{}", name(&file)),
                None => destination.to_owned(),
            };
            let content = fs::read(&file).map_err(|error| failed(&file, &error))?;
            put(place.stage, &name, &content, mode)?;
            sums.push(name);
        }
    }
    let copyright = "usr/share/doc/nfguard/copyright";
    put(place.stage, copyright, copyright_file(&manifest).as_bytes(), "644")?;
    sums.push(copyright.to_owned());
    write_control(place, &manifest, &sums)?;
    let mut dpkg = Command::new("dpkg-deb");
    // One thread, because more of them compress to other bytes.
    dpkg.args(["--build", "--root-owner-group", "--threads-max=1"]).arg(place.stage);
    dpkg.arg(place.package).env("SOURCE_DATE_EPOCH", place.time);
    runner::run(&mut dpkg).map(drop)
}

/// What cargo knows of the program's package.
fn manifest(source: &Path) -> Result<Value, String> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(source);
    let text = runner::output(&mut metadata)?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut packages = value["packages"].as_array().into_iter().flatten();
    let found = packages.find(|package| package["name"] == "nfguard");
    found.cloned().ok_or_else(|| "cargo knows no package nfguard".to_owned())
}

/// The files that a path of the list stands for, in order; its last part may hold one `*`.
fn sources(place: &Place<'_>, path: &str) -> Result<Vec<PathBuf>, String> {
    let path = match path.strip_prefix(BUILT) {
        Some(built) => place.built.join(built),
        None => place.source.join("crates/cli").join(path),
    };
    let pattern = name(&path);
    let Some((start, end)) = pattern.split_once('*') else { return Ok(vec![path]) };
    let folder = path.parent().unwrap_or(&path);
    let entries = fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
    let fits = |path: &PathBuf| {
        let name = name(path);
        path.is_file() && name.starts_with(start) && name.ends_with(end)
    };
    let files: BTreeSet<_> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    match files.is_empty() {
        true => Err(format!("{}: no such file", path.display())),
        false => Ok(files.into_iter().collect()),
    }
}

/// Writes a file of the package, with its folders.
fn put(stage: &Path, name: &str, content: &[u8], mode: &str) -> Result<(), String> {
    let path = stage.join(name);
    let mode = u32::from_str_radix(mode, 8).map_err(|_| format!("{name}: mode {mode}"))?;
    let parts: Vec<_> = Path::new(name).ancestors().skip(1).collect();
    let folders = parts.iter().rev().map(|part| stage.join(part));
    let written = folders
        .map(|folder| {
            fs::create_dir_all(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))
        })
        .collect::<Result<Vec<_>, _>>()
        .and_then(|_| fs::write(&path, content))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
    written.map_err(|error| failed(&path, &error))
}

/// Writes what dpkg reads: the control file, checksums, configuration files and scripts.
fn write_control(place: &Place<'_>, manifest: &Value, names: &[String]) -> Result<(), String> {
    let deb = &manifest["metadata"]["deb"];
    let word = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let mut bytes = 0;
    let mut sums = String::new();
    let unique: BTreeSet<&String> = names.iter().collect();
    for name in unique {
        bytes += fs::metadata(place.stage.join(name)).map_or(0, |file| file.len());
        let sum = Command::new("md5sum").arg(name).current_dir(place.stage).output();
        let sum = sum.map_err(|error| format!("md5sum does not start: {error}"))?;
        sums += &String::from_utf8_lossy(&sum.stdout);
    }
    let mut control = format!(
        "Package: nfguard\nVersion: {}\nArchitecture: amd64\nMaintainer: {}\nSection: {}\n\
         Priority: {}\nInstalled-Size: {}\nHomepage: {}\n",
        word(&manifest["version"]),
        word(&deb["maintainer"]),
        word(&deb["section"]),
        word(&deb["priority"]),
        bytes.div_ceil(1024),
        word(&manifest["repository"]),
    );
    for (field, value) in [("Depends", &deb["depends"]), ("Suggests", &deb["suggests"])] {
        if !word(value).is_empty() {
            control += &format!("{field}: {}\n", word(value));
        }
    }
    control += &format!("Description: {}\n", word(&manifest["description"]));
    for line in word(&deb["extended-description"]).lines() {
        control += &format!(" {line}\n");
    }
    let conffiles = deb["conf-files"].as_array().into_iter().flatten();
    let conffiles: String = conffiles.map(|path| word(path) + "\n").collect();
    for (name, text) in [("control", &control), ("md5sums", &sums), ("conffiles", &conffiles)] {
        put(place.stage, &format!("DEBIAN/{name}"), text.as_bytes(), "644")?;
    }
    let scripts = place.source.join("crates/cli").join(word(&deb["maintainer-scripts"]));
    for script in SCRIPTS {
        let path = scripts.join(script);
        if path.exists() {
            let text = fs::read(&path).map_err(|error| failed(&path, &error))?;
            put(place.stage, &format!("DEBIAN/{script}"), &text, "755")?;
        }
    }
    Ok(())
}

/// The package's copyright file, in Debian's form.
fn copyright_file(manifest: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: nfguard\nSource: {}\n\nFiles: *\nCopyright: {}\nLicense: {}\n",
        word(&manifest["repository"]),
        word(&manifest["metadata"]["deb"]["copyright"]),
        word(&manifest["license"]).replace("OR", "or").replace("MIT", "Expat"),
    )
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::{Place, build};
    use crate::build::root;
    use crate::runner;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    /// A package of stand-ins for what the compiler makes.
    fn package(folder: &Path) -> Vec<u8> {
        let built = folder.join("built");
        for name in ["nfguard", "package/man/nfguard.1.gz", "package/nfguard.bash"] {
            let path = built.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "text").expect("written");
        }
        for name in ["package/nfguard.zsh", "package/nfguard.fish"] {
            fs::write(built.join(name), "text").expect("written");
        }
        let package = folder.join("nfguard.deb");
        let stage = folder.join("stage");
        let place = Place {
            source: root(),
            built: &built,
            stage: &stage,
            package: &package,
            time: "1700000000",
        };
        build(&place).expect("dpkg-deb is installed");
        fs::read(package).expect("it was made")
    }

    #[test]
    fn the_package_has_what_the_list_names_and_the_same_bytes_each_time() {
        let folder = std::env::temp_dir().join(format!("nfguard-package-{}", std::process::id()));
        let first = package(&folder);
        assert_eq!(first, package(&folder));
        let deb = folder.join("nfguard.deb");
        let list = runner::output(Command::new("dpkg-deb").arg("--contents").arg(&deb));
        let list = list.expect("a package");
        for line in ["-rwxr-xr-x root/root", "./usr/share/man/man1/nfguard.1.gz", "2023-11-14"] {
            assert!(list.contains(line), "{line}: {list}");
        }
        let fields = runner::output(Command::new("dpkg-deb").arg("--info").arg(&deb));
        let fields = fields.expect("a package");
        for line in [" Package: nfguard\n", " Suggests: fail2ban", " conffiles", " postinst"] {
            assert!(fields.contains(line), "{line}: {fields}");
        }
        fs::remove_dir_all(folder).expect("ours");
    }
}
