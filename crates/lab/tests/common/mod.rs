//! A world for each test, or an error that says what is missing.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use nfguard_lab::{Netns, World};

pub(crate) fn world() -> World {
    World::new().unwrap_or_else(|error| needs_namespaces(&error))
}

pub(crate) fn needs_namespaces(error: &std::io::Error) -> ! {
    panic!("{error}\nrun me with `cargo xtask netns-test`")
}

/// Loads rules in the language of nft, so that the tests of the lab do not need
/// our compiler. Semicolons separate rules.
#[allow(dead_code, reason = "not every test program loads rules")]
pub(crate) fn nft(netns: &Netns, hook: &str, rules: &str) {
    let text = format!(
        "table inet t {{\n counter seen {{}}\n chain c {{\n type filter hook {hook} priority 0\n {rules}\n }}\n}}\n"
    );
    let output = netns.run(|| {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nft is installed");
        let mut stdin = nft.stdin.take().expect("stdin is a pipe");
        stdin.write_all(text.as_bytes()).expect("nft reads");
        drop(stdin);
        nft.wait_with_output().expect("nft ends")
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft refused {text}: {words}");
}
