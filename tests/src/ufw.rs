//! The real `ufw` inside a namespace, with files of its own.

use std::process::Command;

use nfguard_lab::Netns;

/// The commands of the write-up on securing Traefik in Docker.
pub const WRITE_UP: [&str; 9] = [
    "default deny incoming",
    "default deny outgoing",
    "limit ssh",
    "allow 80/tcp",
    "allow 443/tcp",
    "allow out 53",
    "allow out 123/udp",
    "allow out 80/tcp",
    "allow out 443/tcp",
];

/// Files as they are after Debian's installation, where a plain user may read them. Settings of
/// the kernel are left as they are, so that two worlds differ in nothing but their rules.
const FRESH: &str = r"
set -e
mount -t tmpfs none /run
dir=/run/installed
mkdir $dir
cp -r /usr/share/ufw/iptables $dir/ufw
cp /usr/share/ufw/ufw.conf $dir/ufw
cp -r /etc/ufw/applications.d $dir/ufw
for init in before after; do cp /usr/share/ufw/$init.init $dir/ufw; done
sed 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/; s/^IPT_MODULES=.*/IPT_MODULES=/' /etc/default/ufw > $dir/default
mount --bind $dir/ufw /etc/ufw
mount --bind $dir/default /etc/default/ufw
";

/// Runs these commands on a freshly installed `ufw`, in this order, and enables it.
///
/// # Panics
/// If ufw is not installed, or refuses a command.
pub fn ufw(netns: &Netns, commands: &[&str]) {
    enabled_and(netns, "", commands, "");
}

/// Runs [`ufw()`] with this line at the end of its rules for incoming packets of both IP versions.
///
/// # Panics
/// As [`ufw()`].
pub fn ufw_with_rule(netns: &Netns, rule: &str, commands: &[&str]) {
    let rules = "/etc/ufw/before.rules /etc/ufw/before6.rules";
    enabled_and(netns, &format!("sed -i '/^COMMIT/i {rule}' {rules}\n"), commands, "");
}

/// Runs [`ufw()`] with `IPV6=no` in its defaults.
///
/// # Panics
/// As [`ufw()`].
pub fn ufw_without_ipv6(netns: &Netns, commands: &[&str]) {
    let without = "sed 's/^IPV6=.*/IPV6=no/' /etc/default/ufw > /run/defaults\n\
                   cat /run/defaults > /etc/default/ufw\n";
    enabled_and(netns, without, commands, "");
}

/// Runs [`ufw()`] and disables `ufw` afterwards.
///
/// # Panics
/// As [`ufw()`].
pub fn ufw_disabled_again(netns: &Netns, commands: &[&str]) {
    enabled_and(netns, "", commands, "ufw disable\n");
}

fn enabled_and(netns: &Netns, first: &str, commands: &[&str], then: &str) {
    let commands = commands.iter().map(|command| format!("ufw {command}\n"));
    let commands = commands.collect::<String>();
    let script = FRESH.to_owned() + first + &commands + "ufw --force enable\n" + then;
    let output = netns.run(|| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .output()
            .expect("unshare is installed")
    });
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(output.status.success(), "{script}\n{words}");
    assert!(words.contains("Firewall is active"), "{words}");
    assert!(!words.contains("Skipping"), "a command did nothing:\n{script}\n{words}");
}
