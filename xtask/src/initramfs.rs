//! A root file system for a virtual machine: busybox, nft, the kernel's modules
//! and the test programs as they were built for this machine, with the
//! libraries they need.

use crate::build;
use crate::kernels::Guest;
use crate::netns::{self, Programs};
use crate::runner;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Printed when the tests begin.
pub(crate) const GREETING: &str = "nfguard-kernel ";
/// Printed with the exit status of each test program.
pub(crate) const EXIT: &str = "nfguard-exit ";
/// Printed when all programs ran.
pub(crate) const DONE: &str = "nfguard-done";

/// Modules that the tests may need, as folders or files below `kernel`; with
/// each come those it depends on.
const MODULES: [&str; 17] = [
    "net/netfilter/",
    "net/ipv4/netfilter/",
    "net/ipv6/netfilter/",
    "net/bridge/",
    "net/packet/",
    // The lists of sockets.
    "net/ipv4/tcp_diag.ko",
    "net/ipv4/udp_diag.ko",
    "net/sched/",
    "drivers/net/veth.ko",
    "drivers/net/dummy.ko",
    "drivers/net/macvlan.ko",
    "drivers/net/vxlan",
    "net/8021q/",
    "drivers/net/bonding/",
    "drivers/net/vrf.ko",
    "drivers/net/wireguard/",
    // The checksum that connection tracking asks for by name.
    "crypto/crc32c",
];

/// Tools besides busybox.
const TOOLS: [&str; 4] = ["nft", "ip", "wg", "unshare"];

/// Builds the image for the kernel unpacked in `folder` and returns its path.
pub(crate) fn build(
    folder: &Path,
    guests: &[Guest],
    programs: &Programs,
) -> Result<PathBuf, String> {
    let root = folder.join("initramfs");
    let image = folder.join("initramfs.cpio");
    fill(folder, &root, guests, programs).map_err(|error| format!("initramfs: {error}"))?;
    let pack = "find . -print0 | cpio --null --quiet --create --format=newc --owner=0:0 > \"$1\"";
    let mut sh = Command::new("sh");
    sh.args(["-c", pack, "sh"]).arg(&image).current_dir(&root);
    runner::run(&mut sh)?;
    fs::remove_dir_all(&root).map_err(|error| error.to_string())?;
    Ok(image)
}

fn fill(folder: &Path, root: &Path, guests: &[Guest], programs: &Programs) -> io::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    for part in ["bin", "sbin", "usr/sbin", "tests", "examples"] {
        fs::create_dir_all(root.join(part))?;
    }
    for part in ["proc", "sys", "dev", "tmp", "run", "root"] {
        fs::create_dir_all(root.join(part))?;
    }
    modules(folder, root)?;
    program(root, &tool("busybox")?, "bin/busybox")?;
    // The kernel itself calls it, to load what a rule needs. Not busybox's, which
    // says "done" while another instance is still loading the same module.
    program(root, &tool("modprobe")?, "sbin/modprobe")?;
    for name in TOOLS {
        program(root, &tool(name)?, &format!("usr/sbin/{name}"))?;
    }
    program(root, &programs.nfguard, "usr/sbin/nfguard")?;
    for example in &programs.examples {
        let name = example.file_name().unwrap_or_default().to_string_lossy();
        program(root, example, &format!("examples/{name}"))?;
    }
    for Guest { binary, .. } in guests {
        program(root, &binary.path, &format!("tests/{}", binary.name()))?;
        fs::create_dir_all(inside(root, &binary.dir))?;
    }
    // At the same place as here, where the tests were told to find them.
    for data in ["policies", "tests/golden"] {
        let source = build::root().join(data);
        if source.exists() {
            copy_folder(&source, &inside(root, &source))?;
        }
    }
    let init = root.join("init");
    fs::write(&init, init_script(guests))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
}

fn init_script(guests: &[Guest]) -> String {
    let mut script = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/usr/sbin:/sbin:/bin HOME=/root RUST_BACKTRACE=1\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mkdir -p /dev/pts && mount -t devpts devpts /dev/pts\n\
         mount -t tmpfs tmpfs /run\n\
         ip link set lo up\n\
         modprobe br_netfilter\n\
         export NFGUARD_BIN=/usr/sbin/nfguard NFGUARD_EXAMPLES=/examples\n\
         export NFGUARD_EMULATED=1 RUST_TEST_THREADS=4\n\
         export NFGUARD_NETNS_TEST=$(readlink /proc/self/ns/net | tr -cd 0-9)\n\
         echo \"{GREETING}$(uname -r)\"\n"
    );
    for Guest { binary, tests } in guests {
        let (dir, name) = (binary.dir.display(), binary.name());
        // As on the host: no more privilege than needed.
        let user = if netns::needs_root(binary) { "" } else { "-U -r " };
        let exact = if tests.is_empty() { "" } else { "--exact" };
        let tests = tests.join(" ");
        script += &format!(
            "echo '-- {name}'\n\
             cd '{dir}'\n\
             CARGO_MANIFEST_DIR='{dir}' unshare {user}-n -m '/tests/{name}' {exact} {tests} </dev/null 2>&1\n\
             echo \"{EXIT}$?\"\n"
        );
    }
    script + &format!("echo {DONE}\npoweroff -f\n")
}

/// Copies a program without its debug information, and its libraries.
fn program(root: &Path, source: &Path, destination: &str) -> io::Result<()> {
    let destination = root.join(destination);
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&destination).arg(source);
    if !strip.stderr(Stdio::null()).status()?.success() {
        fs::copy(source, &destination)?;
    }
    for library in libraries(source)? {
        let copy = inside(root, &library);
        if !copy.exists() {
            fs::create_dir_all(copy.parent().unwrap_or(root))?;
            fs::copy(&library, &copy)?;
        }
    }
    Ok(())
}

/// The absolute paths in what `ldd` says; none for a static program.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().filter_map(|line| {
        line.split_whitespace().find(|word| word.starts_with('/') && !word.ends_with(':'))
    });
    Ok(words.map(PathBuf::from).collect())
}

/// Copies the modules and their index.
fn modules(folder: &Path, root: &Path) -> io::Result<()> {
    let all = ["lib/modules", "usr/lib/modules"].map(|place| folder.join(place));
    let all = all.iter().find(|place| place.exists()).ok_or(io::ErrorKind::NotFound)?;
    let release = fs::read_dir(all)?.next().ok_or(io::ErrorKind::NotFound)??.file_name();
    let (source, copy) = (all.join(&release), root.join("lib/modules").join(&release));
    depmod(folder, &source, &release)?;
    for module in closure(&fs::read_to_string(source.join("modules.dep"))?) {
        let destination = copy.join(&module);
        fs::create_dir_all(destination.parent().unwrap_or(root))?;
        fs::copy(source.join(&module), &destination)?;
        // Not every modprobe reads compressed modules.
        if module.ends_with(".xz") {
            checked(Command::new("xz").arg("-d").arg(destination))?;
        }
    }
    for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(source.join(index), copy.join(index))?;
    }
    depmod(root, &copy, &release)
}

/// Writes the index of the modules in `place`, which may lie in `lib` or
/// `usr/lib` of `base`.
fn depmod(base: &Path, place: &Path, release: &std::ffi::OsStr) -> io::Result<()> {
    let usr = base.join("usr");
    let base = if place.starts_with(&usr) { usr } else { base.to_owned() };
    checked(Command::new(tool("depmod")?).arg("-b").arg(base).arg(release))
}

/// The modules wanted and all that they depend on; `index` has lines of
/// `module: module module…`.
fn closure(index: &str) -> BTreeSet<String> {
    let depends: BTreeMap<&str, &str> =
        index.lines().filter_map(|line| line.split_once(':')).collect();
    let wanted = |module: &str| {
        let path = module.strip_prefix("kernel/").unwrap_or(module);
        MODULES
            .iter()
            .any(|wanted| path.starts_with(wanted) || path.contains(&format!("/{wanted}")))
    };
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = depends.keys().copied().filter(|module| wanted(module)).collect();
    while let Some(module) = open.pop() {
        if found.insert(module.to_owned()) {
            open.extend(depends.get(module).into_iter().flat_map(|list| list.split_whitespace()));
        }
    }
    found
}

fn tool(name: &str) -> io::Result<PathBuf> {
    let mut folders = std::env::split_paths(&runner::path()).collect::<Vec<_>>().into_iter();
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} not found")))
}

fn checked(command: &mut Command) -> io::Result<()> {
    runner::run(command).map(|_| ()).map_err(io::Error::other)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy_folder(source: &Path, destination: &Path) -> io::Result<()> {
    fs::create_dir_all(destination)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let copy = destination.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}
