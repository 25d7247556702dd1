//! `/etc/default/ufw` and `ufw.conf`: names and values, read as a shell reads them.

use crate::config::SourceFile;

/// The settings of UFW outside its rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) input: DefaultPolicy,
    pub(crate) output: DefaultPolicy,
    pub(crate) forward: DefaultPolicy,
    pub(crate) ipv6: bool,
    pub(crate) enabled: bool,
    pub(crate) log: LogLevel,
}

/// What UFW does with a packet that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultPolicy {
    Accept,
    Drop,
    Reject,
}

impl DefaultPolicy {
    /// Returns the word for `default` of a policy file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }

    /// Returns the action of a rule that does the same.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Accept => "allow",
            Self::Drop => "deny",
            Self::Reject => "reject",
        }
    }
}

/// How much UFW logs; each level logs what the level before it logs, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum LogLevel {
    Off,
    Low,
    Medium,
    High,
    Full,
}

impl Settings {
    /// Reads both files. An error names a setting that UFW refuses too.
    pub(crate) fn read(defaults: &SourceFile, conf: &SourceFile) -> Result<Self, String> {
        let policy = |key| {
            let word = required(defaults, key)?;
            match word.to_ascii_lowercase().as_str() {
                "accept" => Ok(DefaultPolicy::Accept),
                "drop" => Ok(DefaultPolicy::Drop),
                "reject" => Ok(DefaultPolicy::Reject),
                _ => Err(format!("{}: {key} is {word:?}", defaults.name)),
            }
        };
        // UFW logs nothing without a level.
        let log = setting(conf, "LOGLEVEL").map_or("off".to_owned(), |setting| setting.value);
        Ok(Self {
            input: policy("DEFAULT_INPUT_POLICY")?,
            output: policy("DEFAULT_OUTPUT_POLICY")?,
            forward: policy("DEFAULT_FORWARD_POLICY")?,
            ipv6: !ipv6_is_off(defaults),
            enabled: is_yes(conf, "ENABLED"),
            log: match log.to_ascii_lowercase().as_str() {
                "off" => LogLevel::Off,
                "low" | "on" => LogLevel::Low,
                "medium" => LogLevel::Medium,
                "high" => LogLevel::High,
                "full" => LogLevel::Full,
                _ => return Err(format!("{}: LOGLEVEL is {log:?}", conf.name)),
            },
        })
    }
}

/// Returns whether `/etc/default/ufw` switches IPv6 off. UFW then reads no `*6.rules` file.
#[must_use]
pub fn ipv6_is_off(defaults: &SourceFile) -> bool {
    !is_yes(defaults, "IPV6")
}

/// Returns the path of the file that `/etc/default/ufw` names for kernel settings.
#[must_use]
pub fn sysctl_path(defaults: &SourceFile) -> Option<String> {
    setting(defaults, "IPT_SYSCTL").map(|setting| setting.value)
}

/// Returns whether a setting is on, as the script that starts UFW reads it. Without the setting it is off.
fn is_yes(file: &SourceFile, key: &str) -> bool {
    setting(file, key).is_some_and(|setting| matches!(&*setting.value, "yes" | "YES"))
}

fn required(file: &SourceFile, key: &str) -> Result<String, String> {
    let found = setting(file, key).map(|setting| setting.value);
    found.ok_or_else(|| format!("{}: no {key}; not a file of UFW", file.name))
}

/// A value and the line that sets it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) line: usize,
    pub(crate) value: String,
}

/// Returns the last value that a file gives to a name.
pub(crate) fn setting(file: &SourceFile, key: &str) -> Option<Setting> {
    let settings = file.text.lines().zip(1..).filter_map(|(text, line)| {
        let (name, value) = text.split_once('=')?;
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            let (value, _) = value.strip_prefix(quote)?.split_once(quote)?;
            Some(value)
        });
        let word = || value.split_whitespace().next().unwrap_or_default();
        let value = || quoted.unwrap_or_else(word).trim().to_owned();
        let name = name.trim_start();
        let name = name.strip_prefix("export ").unwrap_or(name);
        (name == key).then(|| Setting { line, value: value() })
    });
    settings.last()
}
