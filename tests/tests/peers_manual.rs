//! Manual pages, read by groff, and completions, loaded by the shells.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nfguard_tests::program;

/// Returns the output of the program.
fn output_of(arguments: &[&str]) -> String {
    let output = program::command(arguments).output().expect("nfguard starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the page names of all commands in the help, such as `nfguard-feed-add`.
fn commands(of: &[&str]) -> BTreeSet<String> {
    let help = output_of(&[of, &["--help"]].concat());
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut found =
        BTreeSet::from([["nfguard"].iter().chain(of).copied().collect::<Vec<_>>().join("-")]);
    for name in names.filter(|name| !name.is_empty() && *name != "help") {
        found.extend(commands(&[of, &[name]].concat()));
    }
    found
}

/// Returns the warnings of groff about a page.
fn complaints(page: &Path) -> String {
    let mut groff = Command::new("groff");
    let output = groff.args(["-ww", "-man", "-Tutf8", "-z"]).arg(page).output();
    let output = output.expect("groff is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_command_has_a_manual_page_that_groff_accepts() {
    let folder = tempfile::tempdir().expect("a folder");
    output_of(&["man", folder.path().to_str().expect("plain letters")]);
    let mut pages = BTreeSet::new();
    for page in fs::read_dir(folder.path()).expect("a folder") {
        let page = page.expect("a page").path();
        let name = page.file_name().and_then(|name| name.to_str()).expect("plain letters");
        let name = name.strip_suffix(".1").expect("of section 1").to_owned();
        let text = fs::read_to_string(&page).expect("text");
        assert_eq!(complaints(&page), "", "{name}");
        let title = format!(".TH {name} 1 ");
        assert!(text.contains(&title), "{name}: {text}");
        pages.insert(name);
    }
    let commands = commands(&[]);
    assert!(commands.len() > 30 && commands.contains("nfguard-feed-add"), "{commands:?}");
    assert_eq!(pages, commands);

    let bad = folder.path().join("bad.1");
    fs::write(&bad, ".TH bad 1\n.SH NAME\n.nosuch macro\n").expect("written");
    assert!(complaints(&bad).contains("nosuch"), "{}", complaints(&bad));
}

/// Runs a script in a shell and returns its output. `$FOLDER` has a file with the completions for
/// the shell.
fn shell(name: &str, quiet: &str, file: &str, script: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let completions = output_of(&["completions", name]);
    assert!(!completions.contains("watchdog"), "it is hidden");
    fs::write(folder.path().join(file), completions).expect("written");
    let mut command = Command::new("timeout");
    command.args(["60", name, quiet, "-c", script]).current_dir(folder.path());
    command.env("FOLDER", folder.path()).env("HOME", folder.path()).stdin(Stdio::null());
    let output = command.output().expect("coreutils are installed");
    assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn bash_completes_commands_subcommands_and_options() {
    let script = r#"
        source "$FOLDER/nfguard"
        complete -p nfguard | grep -o -- '-F _nfguard nfguard'
        COMP_CWORD=1 COMP_WORDS=(nfguard unl); _nfguard nfguard unl nfguard; echo "${COMPREPLY[@]}"
        COMP_CWORD=2 COMP_WORDS=(nfguard feed a); _nfguard nfguard a feed; echo "${COMPREPLY[@]}"
        COMP_CWORD=2 COMP_WORDS=(nfguard ban --fo); _nfguard nfguard --fo ban; echo "${COMPREPLY[@]}"
    "#;
    let completed = shell("bash", "--norc", "nfguard", script);
    assert_eq!(completed, "-F _nfguard nfguard\nunload\nadd\n--for --force\n");
}

#[test]
fn zsh_completes_at_its_prompt() {
    // A shell in a terminal of its own, and its output after a key.
    let script = r#"
        zmodload zsh/zpty
        zpty inner zsh -f -i
        zpty -w inner 'PS1=; fpath=($FOLDER $fpath); autoload -Uz compinit; compinit -u -D; echo rea""dy'
        zpty -r inner heard '*ready*' || exit 3
        zpty -w -n inner $'nfguard unl\t'
        zpty -r inner heard '*unload*' || exit 4
        zpty -w -n inner $'\C-unfguard ban --fo\t'
        zpty -r inner heard '*--for*' || exit 5
        zpty -d inner
        print completed
    "#;
    assert_eq!(shell("zsh", "-f", "_nfguard", script), "completed\n");
}

#[test]
fn fish_completes_commands_subcommands_and_options() {
    let script = r#"
        source $FOLDER/nfguard.fish
        for line in "nfguard unl" "nfguard feed a" "nfguard ban --fo"
            complete -C $line | string split --fields 1 \t
        end
    "#;
    assert_eq!(
        shell("fish", "--no-config", "nfguard.fish", script),
        "unload\nadd\n--for\n--force\n"
    );
}

#[test]
fn the_version_says_commit_features_and_target() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let git =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(top).output();
    let commit = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    // Sources without git have no commit.
    let commit = commit.unwrap_or_else(|| b"unknown".to_vec());
    let commit = String::from_utf8(commit).expect("text");
    let expected = |state: &str, libc: &str| {
        format!(
            "nfguard {} (commit {}{state}, features: none, {}-unknown-linux-{libc})\n",
            env!("CARGO_PKG_VERSION"),
            commit.trim(),
            std::env::consts::ARCH
        )
    };
    // The program as it is handed out may have another C library inside.
    let all = ["gnu", "musl"].map(|libc| ["", " and changes"].map(|state| expected(state, libc)));
    let said = output_of(&["--version"]);
    assert!(all.concat().contains(&said), "{said}");
}
