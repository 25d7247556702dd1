//! Any files of UFW are a policy or an error.

use nfguard_policy::Policy;
use nfguard_ufw::{ContainerBridges, SourceFile, UfwConfig};

/// Imports a configuration in which the file that the first byte chooses has the other bytes as its
/// text. It must not panic.
pub(crate) fn run(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let file = |text: &str| SourceFile { name: "a file".to_owned(), text: text.to_owned() };
    let mut config = UfwConfig {
        defaults: file(
            "IPV6=yes\nDEFAULT_INPUT_POLICY=DROP\nDEFAULT_OUTPUT_POLICY=DROP\n\
             DEFAULT_FORWARD_POLICY=DROP\n",
        ),
        conf: file("ENABLED=yes\nLOGLEVEL=low\n"),
        profiles: vec![file("[Web]\ntitle=a\ndescription=b\nports=80,443/tcp\n")],
        ..UfwConfig::default()
    };
    for rules in [&mut config.user_rules, &mut config.before_rules, &mut config.after_rules] {
        rules.v4 = file("*filter\nCOMMIT\n");
        rules.v6 = rules.v4.clone();
    }
    let files = [
        &mut config.user_rules.v4,
        &mut config.user_rules.v6,
        &mut config.before_rules.v4,
        &mut config.before_rules.v6,
        &mut config.after_rules.v4,
        &mut config.after_rules.v6,
        &mut config.defaults,
        &mut config.conf,
        &mut config.profiles[0],
    ];
    let which = usize::from(*which);
    let text = String::from_utf8_lossy(bytes);
    let count = files.len();
    if let Some(chosen) = files.into_iter().nth(which % count) {
        chosen.text = text.into_owned();
    }
    let _ = nfguard_ufw::sysctl_path(&config.defaults);
    let bridges = match which / count % 2 {
        0 => ContainerBridges::Docker,
        _ => ContainerBridges::Absent,
    };
    if let Ok(import) = nfguard_ufw::import(&config, bridges) {
        let (policy, _) = Policy::parse(&import.policy).expect("what is imported is a policy");
        let _ = policy.compile();
    }
}
