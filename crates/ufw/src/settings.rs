//! `/etc/default/ufw` and `ufw.conf`: names and values, as a shell reads them.

use super::Text;

/// What UFW does where no rule says anything, and whether it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) input: Default,
    pub(super) output: Default,
    pub(super) forward: Default,
    pub(super) ipv6: bool,
    pub(super) enabled: bool,
    pub(super) log: LogLevel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Accept,
    Drop,
    Reject,
}

impl Default {
    /// As a policy writes it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }

    /// The action of a rule that does the same.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::Accept => "allow",
            Self::Drop => "deny",
            Self::Reject => "reject",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum LogLevel {
    Off,
    Low,
    Medium,
    High,
    Full,
}

impl Settings {
    /// Reads both files; an error says what UFW would stop at too.
    pub(super) fn read(defaults: &Text, conf: &Text) -> Result<Self, String> {
        let policy = |key| {
            let word = need(defaults, key)?;
            match word.to_ascii_lowercase().as_str() {
                "accept" => Ok(Default::Accept),
                "drop" => Ok(Default::Drop),
                "reject" => Ok(Default::Reject),
                _ => Err(format!("{}: {key} is {word:?}", defaults.name)),
            }
        };
        let is_yes = |word: String| word.eq_ignore_ascii_case("yes");
        // Without a level UFW logs nothing.
        let log = value(conf, "LOGLEVEL").map_or("off".to_owned(), |(_, word)| word);
        Ok(Self {
            input: policy("DEFAULT_INPUT_POLICY")?,
            output: policy("DEFAULT_OUTPUT_POLICY")?,
            forward: policy("DEFAULT_FORWARD_POLICY")?,
            ipv6: is_yes(need(defaults, "IPV6")?),
            enabled: is_yes(need(conf, "ENABLED")?),
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

fn need(file: &Text, key: &str) -> Result<String, String> {
    let found = value(file, key).map(|(_, value)| value);
    found.ok_or_else(|| format!("{}: no {key}; not a file of UFW", file.name))
}

/// The last value of a name, with its line.
pub(super) fn value(file: &Text, key: &str) -> Option<(usize, String)> {
    let lines = file.text.lines().zip(1..).filter_map(|(text, line)| {
        let (name, value) = text.split_once('=')?;
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            let (value, _) = value.strip_prefix(quote)?.split_once(quote)?;
            Some(value)
        });
        let word = || value.split_whitespace().next().unwrap_or_default();
        (name == key).then(|| (line, quoted.unwrap_or_else(word).trim().to_owned()))
    });
    lines.last()
}
