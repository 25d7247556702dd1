//! Names of interfaces in a policy, compared with those of this host.

use std::collections::{BTreeMap, BTreeSet};

use nfguard_netlink::{CmpOp, Expr, MetaKey, Rtnetlink, Table};

/// Returns the interfaces that the rules of a table name, as a policy has them: `eth0`, `wg*`.
#[must_use]
pub fn of_table(table: &Table) -> BTreeSet<String> {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    let pairs = rules.flat_map(|rule| rule.exprs.windows(2));
    let name = |pair: &[Expr]| match pair {
        [
            Expr::Meta { key: MetaKey::Iifname | MetaKey::Oifname, .. },
            Expr::Cmp { op: CmpOp::Eq, data, .. },
        ] => {
            let name = String::from_utf8_lossy(data);
            // Behind a whole name stands a zero, behind the beginning of one nothing.
            let whole = name.split_once('\0').map(|(whole, _)| whole.to_owned());
            Some(whole.unwrap_or_else(|| format!("{name}*")))
        }
        _ => None,
    };
    pairs.filter_map(name).collect()
}

/// Returns a warning for each of these interfaces that is here under another name: rules do not see
/// alternative names. An interface that is absent may still come, and is no mistake.
///
/// Returns nothing if this host cannot be asked.
#[must_use]
pub fn warnings(wanted: &BTreeSet<String>) -> Vec<String> {
    let read = || {
        let mut rtnetlink = Rtnetlink::open().ok()?;
        let names = rtnetlink.interfaces().ok()?.into_values().collect();
        Some((names, rtnetlink.alternative_names().ok()?))
    };
    let Some((names, alternatives)) = read() else { return Vec::new() };
    compare(wanted, &names, &alternatives)
}

fn compare(
    wanted: &BTreeSet<String>,
    names: &BTreeSet<String>,
    alternatives: &BTreeMap<String, String>,
) -> Vec<String> {
    let matches = |wanted: &str, name: &str| match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    };
    let mut warnings = Vec::new();
    for wanted in wanted {
        if names.iter().any(|name| matches(wanted, name)) {
            continue;
        }
        for (alternative, name) in alternatives {
            if matches(wanted, alternative) {
                warnings.push(format!(
                    "the interface {wanted:?} of the policy never matches: {alternative} is an \
                     alternative name, and rules see the name alone, which is {name:?}"
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_the_interfaces_of_its_policy() {
        let text = r#"{ "version": 1, "containers": { "interfaces": ["br-*"] }, "rules": [
            { "action": "allow", "port": 22, "in_interface": ["eth0", "wg*"] },
            { "action": "deny", "direction": "out", "out_interface": "ppp0" } ] }"#;
        let (policy, _) = nfguard_policy::Policy::parse(text).expect("a policy");
        let mut named = of_table(&policy.compile());
        named.remove("lo");
        assert_eq!(named, policy.interfaces());
    }

    #[test]
    fn an_alternative_name_is_named_unless_the_policy_has_the_name_too() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let names: BTreeSet<String> = set(&["lo", "eth0", "wg0"]);
        let alternatives: BTreeMap<String, String> =
            [("enp0s3", "eth0"), ("wan", "eth0"), ("enx0", "wg0")]
                .map(|(one, other)| (one.to_owned(), other.to_owned()))
                .into();
        let compared = |wanted: &[&str]| compare(&set(wanted), &names, &alternatives);
        for fine in ["eth0", "wg*", "e*", "docker0", "br-*", "enp0", "lo"] {
            assert_eq!(compared(&[fine]), Vec::<String>::new(), "{fine}");
        }
        let [one] = &compared(&["enp0s3", "eth0"])[..] else { panic!("one warning") };
        assert!(one.contains("\"enp0s3\"") && one.contains("is \"eth0\""), "{one}");
        assert_eq!(compared(&["wan", "enp*", "en*"]).len(), 4);
    }
}
