use serde_json::{Value, json};

use nfguard_netlink::{Family, IpVersion, PerIpVersion, Published};

use crate::diagnostic::Diagnostics;
use crate::framework::{self, Framework, FrameworkFiles, RuleState};
use crate::merge::{RuleVersions, merge};
use crate::shipped::shipped_rules;
use crate::{ContainerBridges, Import, SourceFile, UfwConfig, import, tuple};

fn file(name: &str, text: impl Into<String>) -> SourceFile {
    SourceFile { name: format!("/etc/ufw/{name}"), text: text.into() }
}

/// Returns a file of rules with these tuples.
fn rules(tuples: &[&str]) -> String {
    let lines = tuples.iter().map(|tuple| format!("\n### tuple ### {tuple}\n-A x -j ACCEPT\n"));
    format!("*filter\n### RULES ###\n{}\n### END RULES ###\nCOMMIT\n", lines.collect::<String>())
}

/// Returns the `before` or `after` file that UFW ships.
fn shipped(version: IpVersion, files: &str) -> String {
    let prefix = if version == IpVersion::V6 { "ufw6-" } else { "ufw-" };
    let rules = shipped_rules(version).into_iter().map(|rule| rule.text).filter(|rule| {
        let is_after = rule.starts_with("after-");
        is_after == (files == "after")
    });
    let line = |rule: String| {
        let rule = rule.replace(" -j logging", &format!(" -j {prefix}logging"));
        format!("-A {prefix}{}\n", rule.replace(" -j skip", &format!(" -j {prefix}skip")))
    };
    format!("*filter\n{}COMMIT\n", rules.map(line).collect::<String>())
}

fn config(v4: &[&str], v6: &[&str]) -> UfwConfig {
    let both = |name: &str| PerIpVersion {
        v4: file(&format!("{name}.rules"), shipped(IpVersion::V4, name)),
        v6: file(&format!("{name}6.rules"), shipped(IpVersion::V6, name)),
    };
    UfwConfig {
        defaults: file(
            "default",
            "IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_OUTPUT_POLICY=\"ACCEPT\"\n\
             DEFAULT_FORWARD_POLICY=\"DROP\"\nIPT_MODULES=\"\"\n",
        ),
        conf: file("ufw.conf", "ENABLED=yes\nLOGLEVEL=off\n"),
        user_rules: PerIpVersion {
            v4: file("user.rules", rules(v4)),
            v6: file("user6.rules", rules(v6)),
        },
        before_rules: both("before"),
        after_rules: both("after"),
        ..UfwConfig::default()
    }
}

fn imported(config: &UfwConfig) -> (Value, Import) {
    let import = import(config, ContainerBridges::Absent).expect("a configuration");
    (serde_json::from_str(&import.policy).expect("a policy is JSON"), import)
}

/// Returns the rules without the rule about pings, which every policy here has.
fn user_rules(v4: &[&str], v6: &[&str]) -> (Vec<Value>, Import) {
    let (policy, import) = imported(&config(v4, v6));
    let mut rules = policy["rules"].as_array().expect("a list").clone();
    assert_eq!(rules.remove(0)["name"], "ping-through");
    (rules, import)
}

#[test]
fn every_action_way_and_end_of_a_tuple_is_carried_over() {
    for (tuple, rule) in [
        (
            "allow tcp 22 0.0.0.0/0 any 192.0.2.0/24 in",
            json!({ "action": "allow", "proto": "tcp", "port": 22, "from": "192.0.2.0/24",
                    "comment": "ufw allow proto tcp from 192.0.2.0/24 to any port 22" }),
        ),
        (
            "deny any any 198.51.100.2 any 192.0.2.7 in_eth0",
            json!({ "action": "deny", "from": "192.0.2.7", "to": "198.51.100.2",
                    "in_interface": "eth0",
                    "comment": "ufw deny in on eth0 from 192.0.2.7 to 198.51.100.2" }),
        ),
        (
            "reject udp 53,6000:6007 192.0.2.0/255.255.255.0 4000 0.0.0.0/0 out_docker+",
            json!({ "action": "reject", "direction": "out", "out_interface": "docker*",
                    "proto": "udp", "port": [53, "6000-6007"], "from_port": 4000,
                    "to": "192.0.2.0/24",
                    "comment": "ufw reject out on docker+ proto udp from any port 4000 to \
                                192.0.2.0/24 port 53,6000:6007" }),
        ),
        (
            "route:limit tcp 80 172.17.0.2 any 0.0.0.0/0 in_eth0!out_docker0 comment=7765622066726f6e7",
            json!({ "action": "limit", "direction": "forward", "in_interface": "eth0",
                    "out_interface": "docker0", "proto": "tcp", "port": 80, "to": "172.17.0.2",
                    "comment": "web fron" }),
        ),
        (
            "allow vrrp any 0.0.0.0/0 any 192.0.2.7 in",
            json!({ "action": "allow", "proto": 112, "from": "192.0.2.7",
                    "comment": "ufw allow proto vrrp from 192.0.2.7" }),
        ),
        (
            "allow tcp 80,443 192.0.2.9 any 0.0.0.0/0 WWW%20Full - in",
            json!({ "name": "www-full", "action": "allow", "proto": "tcp", "port": [80, 443],
                    "to": "192.0.2.9", "comment": "UFW profile WWW Full" }),
        ),
    ] {
        let (rules, import) = user_rules(&[tuple], &[]);
        assert_eq!(rules, [rule], "{tuple}");
        assert!(import.not_carried_over.is_empty(), "{tuple}: {import:?}");
    }
}

#[test]
fn halves_for_both_families_become_one_rule_and_others_name_theirs() {
    let tcp = |port: u16| format!("allow tcp {port} 0.0.0.0/0 any 0.0.0.0/0 in");
    let v4 = [1, 2, 3, 4].map(tcp);
    let v6 = [9, 2, 1, 3].map(|port| tcp(port).replace("0.0.0.0/0", "::/0"));
    let as_text = |list: &[String; 4]| rules(&list.each_ref().map(String::as_str));
    let read = |list, version| {
        let file = file("user.rules", as_text(list));
        tuple::read(&file, version, &mut Diagnostics::default())
    };
    let merged = merge(read(&v4, IpVersion::V4), read(&v6, IpVersion::V6));
    let list: Vec<_> =
        merged.iter().map(|rule| (rule.tuple.spec.destination.ports[0].0, rule.versions)).collect();
    // The lists order 1 and 2 differently, so 2 becomes two rules.
    use RuleVersions::{Both, Only};
    let [v4_only, v6_only] = IpVersion::ALL.map(Only);
    assert_eq!(
        list,
        [(9, v6_only), (2, v6_only), (1, Both), (2, v4_only), (3, Both), (4, v4_only)]
    );

    let (rules, _) = user_rules(&[&v4[0], &v4[1]], &[&v6[1]]);
    assert_eq!((&rules[0]["from"], &rules[1]["from"]), (&json!("0.0.0.0/0"), &Value::Null));
    let (rules, _) = user_rules(&[], &[&v6[0]]);
    assert_eq!(rules[0]["from"], "::/0");
}

#[test]
fn what_nfguard_cannot_read_is_left_out_and_named() {
    let good = "allow tcp 80 0.0.0.0/0 any 192.0.2.7 in";
    for (bad, why) in [
        ("allow tcp 0 0.0.0.0/0 any 0.0.0.0/0 in", "port"),
        ("allow tcp 80 0.0.0.0/0 any 192.0.2.0/255.0.255.0 in", "netmask"),
        ("allow tcp 80 0.0.0.0/0 any 2001:db8::1 in", "family"),
        ("permit tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", "action"),
        ("allow tcp 80 0.0.0.0/0 in", "too few"),
        ("deny gre 80 0.0.0.0/0 any 0.0.0.0/0 in", "may get through"),
        ("allow what any 0.0.0.0/0 any 0.0.0.0/0 in", "what"),
    ] {
        let (rules, import) = user_rules(&[good, bad], &[]);
        assert_eq!(rules.len(), 1, "{bad}");
        let [lost] = import.not_carried_over.as_slice() else { panic!("{bad}: {import:?}") };
        assert_eq!((lost.line, &*lost.file), (Some(7), "/etc/ufw/user.rules"), "{bad}");
        assert!(lost.message.contains(why), "{bad}: {lost}");
    }
}

#[test]
fn a_rule_that_no_command_made_is_named() {
    let mut config = config(&["allow tcp 80 0.0.0.0/0 any 192.0.2.7 in"], &[]);
    let by_hand = "\n-A ufw-user-input -p tcp --dport 9 -j ACCEPT\n\n### END RULES";
    config.user_rules.v4.text = config.user_rules.v4.text.replace("\n### END RULES", by_hand);
    let (_, import) = imported(&config);
    assert_eq!(import.not_carried_over.len(), 1, "{import:?}");
    assert!(import.not_carried_over[0].message.contains("--dport 9"), "{import:?}");
}

/// Reads the framework's files after a change of each line.
fn changed(change: impl Fn(&str) -> String) -> (Framework, Diagnostics) {
    let mut config = config(&[], &[]);
    for files in [&mut config.before_rules, &mut config.after_rules] {
        for file in [&mut files.v4, &mut files.v6] {
            file.text = file.text.lines().map(|line| change(line) + "\n").collect();
        }
    }
    let files = FrameworkFiles {
        before: &config.before_rules,
        after: &config.after_rules,
        ipv6: true,
        accepts_unmatched: false,
    };
    let mut diagnostics = Diagnostics::default();
    (framework::read(files, &mut diagnostics), diagnostics)
}

#[test]
fn shipped_rules_are_known_however_they_are_written() {
    for change in [
        |line: &str| line.to_owned(),
        |line: &str| line.replace("conntrack --ctstate", "state --state"),
        |line: &str| line.replace("ESTABLISHED,RELATED", "RELATED,ESTABLISHED") + "  ",
        |line: &str| format!("# a comment\n\n{}", line.replace("icmpv6 ", "ipv6-icmp ")),
    ] {
        let (framework, import) = changed(change);
        assert!(import.not_carried_over.is_empty(), "{import:?}");
        let shipped = PerIpVersion::from_fn(|_| RuleState::Shipped);
        assert!(framework.disabled_builtins.is_empty(), "{framework:?}");
        assert_eq!(framework.ping_in, shipped);
    }
}

#[test]
fn a_built_in_goes_off_with_all_rules_that_are_shipped_for_it() {
    let commented = |part: &'static str| {
        move |line: &str| if line.contains(part) { format!("#{line}") } else { line.to_owned() }
    };
    for (part, builtin) in [("5353", "mdns"), ("1900", "upnp"), ("--sport 67", "dhcpv4-client")] {
        let (framework, import) = changed(commented(part));
        assert_eq!(framework.disabled_builtins.into_iter().collect::<Vec<_>>(), [builtin]);
        assert!(import.not_carried_over.is_empty(), "{import:?}");
    }
    let (framework, import) = changed(commented("ff02::fb"));
    assert!(framework.disabled_builtins.is_empty());
    let [lost] = import.not_carried_over.as_slice() else { panic!("{import:?}") };
    assert!(lost.message.contains("`mdns`") && lost.message.contains("1 of the 2"), "{lost}");
}

#[test]
fn pings_that_before_rules_drop_are_denied() {
    let no_ping = |versions: &[IpVersion]| {
        let mut config = config(&[], &[]);
        for version in versions {
            let text = &mut config.before_rules[*version].text;
            *text = text
                .lines()
                .map(|line| {
                    let is_ping = line.contains("input") && line.contains("echo-request");
                    let end =
                        if is_ping { line.replace("ACCEPT", "DROP") } else { line.to_owned() };
                    end + "\n"
                })
                .collect();
        }
        config
    };
    let (policy, import) = imported(&no_ping(&IpVersion::ALL));
    assert_eq!(policy["builtin"], json!({ "ping-in": false }));
    assert_eq!(policy["rules"].as_array().map(Vec::len), Some(1), "the default denies them");
    assert!(import.not_carried_over.is_empty(), "{import:?}");

    let (policy, _) = imported(&no_ping(&[IpVersion::V4]));
    assert_eq!(policy["builtin"], Value::Null);
    let rule = &policy["rules"][0];
    assert_eq!((&rule["action"], &rule["proto"]), (&json!("deny"), &json!("icmp")));

    let mut open = no_ping(&IpVersion::ALL);
    open.defaults.text = open.defaults.text.replace("INPUT_POLICY=\"DROP", "INPUT_POLICY=\"ACCEPT");
    let (policy, _) = imported(&open);
    assert_eq!(policy["rules"][0]["proto"], json!(["icmp", "icmpv6"]));
}

#[test]
fn rules_of_the_framework_that_ufw_does_not_ship_are_named() {
    let mut config = config(&[], &[]);
    config.before_rules.v4.text += "*nat\n:POSTROUTING ACCEPT [0:0]\n\
                              -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE\nCOMMIT\n";
    let line = config.before_rules.v4.text.lines().count() - 1;
    config.scripts = vec!["/etc/ufw/after.init".to_owned()];
    config.defaults.text = config.defaults.text.replace("MODULES=\"\"", "MODULES=\"nf_nat_ftp\"");
    let (_, import) = imported(&config);
    let lost: Vec<String> = import.not_carried_over.iter().map(ToString::to_string).collect();
    assert_eq!(lost.len(), 3, "{lost:#?}");
    let masquerade = "-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE";
    assert!(lost.contains(&format!("/etc/ufw/before.rules:{line}: table nat: {masquerade}")));
}

#[test]
fn without_ipv6_all_of_it_is_denied() {
    let mut config = config(&["allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"], &["nonsense"]);
    config.defaults.text = config.defaults.text.replace("IPV6=yes", "IPV6=no");
    let (policy, import) = imported(&config);
    let rules = policy["rules"].as_array().expect("a list");
    assert!(rules[..3].iter().all(|rule| rule["from"] == "::/0" && rule["action"] == "deny"));
    assert_eq!(rules[4]["from"], Value::Null);
    assert_eq!(policy["builtin"]["neighbour-discovery"], json!(false));
    assert!(import.not_carried_over.is_empty(), "{import:?}");
}

#[test]
fn logs_go_where_ufw_writes_them_as_far_as_a_policy_can_say() {
    let tuples =
        ["allow_log tcp 80 0.0.0.0/0 any 192.0.2.7 in", "limit tcp 22 0.0.0.0/0 any 192.0.2.7 in"];
    let of = |level: &str| {
        let mut config = config(&tuples, &[]);
        config.conf.text = format!("ENABLED=yes\nLOGLEVEL={level}\n");
        imported(&config)
    };
    let (policy, import) = of("off");
    assert!(!policy.to_string().contains("\"log\""), "{policy:#}");
    assert!(import.not_carried_over.is_empty(), "{import:?}");
    let (policy, import) = of("low");
    assert_eq!(policy["log"], json!({ "prefix": "[UFW BLOCK] ", "unmatched": ["in", "forward"] }));
    assert_eq!(policy["rules"][1]["log"], json!({ "prefix": "[UFW ALLOW] " }));
    assert_eq!(policy["rules"][2]["log"]["prefix"], "[UFW LIMIT BLOCK] ");
    assert_eq!(policy["rules"][4]["name"], "quiet-udp");
    assert!(import.not_carried_over.is_empty(), "{import:?}");
    assert_eq!(of("medium").1.not_carried_over.len(), 1);
    assert_eq!(of("full").0["log"]["rate"], "unlimited");
}

#[test]
fn what_containers_send_is_for_the_rules_that_hold_for_them() {
    let routes = ["route:allow tcp 443 0.0.0.0/0 any 172.17.0.0/16 in_docker0!out_eth0"];
    let import = import(&config(&routes, &[]), ContainerBridges::Docker).expect("good");
    let policy: Value = serde_json::from_str(&import.policy).expect("JSON");
    assert_eq!(policy["rules"][1]["direction"], "out");
    assert_eq!(import.notes.len(), 2, "{import:?}");
    let (rules, import) = user_rules(&routes, &[]);
    assert!(import.notes.is_empty(), "{import:?}");
    assert_eq!(rules[0]["direction"], "forward");
}

#[test]
fn names_are_kept_apart_and_comments_short() {
    let app = "allow tcp 22 192.0.2.9 any 0.0.0.0/0 OpenSSH - in";
    let other = "deny tcp 22 0.0.0.0/0 any 192.0.2.7 OpenSSH - in";
    let long = format!("allow tcp 9 0.0.0.0/0 any 192.0.2.7 in comment={}", "c3a9".repeat(90));
    let (rules, import) = user_rules(&[app, other, &long], &[]);
    assert_eq!((&rules[0]["name"], &rules[1]["name"]), (&json!("openssh"), &json!("openssh-2")));
    assert_eq!(rules[2]["comment"], "é".repeat(60));
    assert!(import.notes.iter().any(|note| note.message.contains("cut")), "{import:?}");
}

#[test]
fn what_is_counted_or_denied_otherwise_is_noted_once() {
    let limit = "limit tcp 22 0.0.0.0/0 any 192.0.2.7 in";
    let deny = "deny any any 0.0.0.0/0 any 192.0.2.8 in";
    let (_, import) = user_rules(&[limit, deny, limit], &[]);
    let notes: Vec<_> = import.notes.iter().map(|note| note.line).collect();
    assert_eq!(notes, [Some(4), Some(7)], "{import:?}");
}

/// A configuration with port forwards in `before.rules`.
fn with_nat(v4: &[&str], v6: &[&str], nat: &str) -> UfwConfig {
    let mut config = config(v4, v6);
    let lines = nat.lines().map(|line| format!("-A PREROUTING {line}\n")).collect::<String>();
    config.before_rules.v4.text += &format!("*nat\n:PREROUTING ACCEPT [0:0]\n{lines}COMMIT\n");
    config
}

fn before_nat(config: &UfwConfig) -> Vec<Value> {
    before_nat_of(&imported(config).1)
}

/// Returns the rules before NAT, without their comments.
fn before_nat_of(import: &Import) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&import.policy).expect("a policy is JSON");
    let rules = policy["rules"].as_array().expect("a list").clone();
    let is_added =
        |rule: &Value| rule["comment"].as_str().is_some_and(|it| it.starts_with("before NAT: "));
    let mut added: Vec<Value> = rules.into_iter().filter(is_added).collect();
    for rule in &mut added {
        rule.as_object_mut().expect("a rule").remove("comment");
    }
    added
}

#[test]
fn a_rule_about_a_redirected_port_is_one_about_the_port_before_too() {
    let allow = "allow tcp 8443 0.0.0.0/0 any 0.0.0.0/0 in";
    let redirect = "-p tcp --dport 443 -j REDIRECT --to-port 8443";
    let config = with_nat(&[allow], &[], redirect);
    let expected = json!({ "action": "allow", "proto": "tcp", "from": "0.0.0.0/0", "port": 443 });
    assert_eq!(before_nat(&config), [expected]);
    let (_, import) = imported(&config);
    let note = import.notes.iter().find(|note| note.message.contains("NAT")).expect("a note");
    assert!(note.message.contains(r#"{"action":"allow","proto":"tcp""#), "{note}");
    // The translation itself is still for another program to do.
    assert_eq!(import.not_carried_over.len(), 1, "{import:?}");
    // A rule for every port has the port before NAT already, and one for another port has not.
    for other in [
        "allow any any 0.0.0.0/0 any 192.0.2.7 in",
        "allow tcp 443,8443 0.0.0.0/0 any 192.0.2.7 in",
        "allow udp 8443 0.0.0.0/0 any 192.0.2.7 in",
        "allow tcp 8444 0.0.0.0/0 any 192.0.2.7 in",
        "allow tcp 8443 0.0.0.0/0 any 192.0.2.7 out",
    ] {
        assert_eq!(before_nat(&with_nat(&[other], &[], redirect)), [] as [Value; 0], "{other}");
    }
}

#[test]
fn a_rule_about_a_forwarded_port_is_one_about_the_port_that_the_sender_sees() {
    let nat = "-i ppp+ -p tcp -m multiport --dports 8080,8443:8444 -j DNAT --to-destination 10.0.0.2:80\n\
               -d 198.51.100.9 -p udp -m udp --dport 5000:5010 -j DNAT --to 10.0.0.3";
    for (tuple, expected) in [
        (
            "route:allow tcp 80 10.0.0.0/24 any 0.0.0.0/0 in_ppp0!out_eth1",
            vec![
                json!({ "action": "allow", "proto": "tcp", "port": 8080, "in_interface": "ppp0",
                        "from": "0.0.0.0/0" }),
                json!({ "action": "allow", "proto": "tcp", "port": "8443-8444",
                        "in_interface": "ppp0", "from": "0.0.0.0/0" }),
            ],
        ),
        (
            "route:deny any any 10.0.0.3 any 192.0.2.0/24 in",
            vec![json!({ "action": "deny", "proto": "udp", "port": "5000-5010",
                         "from": "192.0.2.0/24", "to": "198.51.100.9" })],
        ),
        (
            "route:limit udp 5009:5020 0.0.0.0/0 any 0.0.0.0/0 in",
            vec![json!({ "action": "limit", "proto": "udp", "port": "5009-5010",
                         "to": "198.51.100.9" })],
        ),
        ("route:allow tcp 80 10.0.0.9 any 0.0.0.0/0 in", vec![]),
        ("route:allow tcp 81 0.0.0.0/0 any 0.0.0.0/0 in", vec![]),
        ("route:allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in_eth0", vec![]),
        ("route:allow udp 4000 0.0.0.0/0 any 0.0.0.0/0 in", vec![]),
        ("allow tcp 80 0.0.0.0/0 any 192.0.2.7 in", vec![]),
    ] {
        assert_eq!(before_nat(&with_nat(&[tuple], &[], nat)), expected, "{tuple}");
    }
    // UFW forwards all of them by default.
    let mut open = with_nat(&[], &[], nat);
    open.defaults.text =
        open.defaults.text.replace("FORWARD_POLICY=\"DROP", "FORWARD_POLICY=\"ACCEPT");
    assert_eq!(before_nat(&open).len(), 3);
}

#[test]
fn a_translation_that_cannot_be_read_is_named_with_the_rule_that_it_needs() {
    for nat in [
        "-p tcp ! -s 192.0.2.0/24 --dport 80 -j DNAT --to-destination 10.0.0.2:80",
        "-p tcp -m set --match-set friends src --dport 80 -j DNAT --to-destination 10.0.0.2:80",
        "-j DNAT --to-destination 10.0.0.2",
        "-p tcp --dport 80 -j DNAT --to-destination 10.0.0.2-10.0.0.9:80",
    ] {
        let config = with_nat(&["route:allow tcp 80 10.0.0.2 any 0.0.0.0/0 in"], &[], nat);
        let (_, import) = imported(&config);
        let needed =
            import.not_carried_over.iter().find(|lost| lost.message.contains("the sender sees"));
        assert!(needed.is_some_and(|lost| lost.line.is_some()), "{nat}: {import:?}");
        assert_eq!(before_nat(&config), [] as [Value; 0], "{nat}");
    }
}

#[test]
fn a_route_to_a_container_is_a_rule_for_its_published_port() {
    let route = "route:allow tcp 80 172.17.0.2 any 0.0.0.0/0 in_eth0!out_docker0";
    let docker = |config: &UfwConfig| import(config, ContainerBridges::Docker).expect("good");
    // Nothing says which port is published: the import names the rule to write.
    let mut config = config(&[route], &[]);
    let unknown = docker(&config);
    let [lost] = unknown.not_carried_over.as_slice() else { panic!("{unknown:?}") };
    assert!(lost.message.contains(r#""in_interface":"eth0""#), "{lost}");
    assert!(lost.message.contains("PUBLISHED") && !lost.message.contains("172.17"), "{lost}");
    // The kernel says it.
    let published = |ports, on: Option<[u8; 4]>, to_port| Published {
        table: (Family::Ip, "nat".to_owned()),
        protocol: 6,
        ports,
        on: on.map(Into::into),
        to: [172, 17, 0, 2].into(),
        to_port,
    };
    config.published = vec![
        published((8080, 8080), None, Some(80)),
        published((9090, 9090), None, Some(90)),
        published((81, 81), Some([127, 0, 0, 1]), Some(80)),
    ];
    let known = docker(&config);
    assert!(known.not_carried_over.is_empty(), "{known:?}");
    let expected = json!({ "action": "allow", "proto": "tcp", "port": 8080, "in_interface": "eth0",
                           "from": "0.0.0.0/0" });
    assert_eq!(before_nat_of(&known), [expected]);
}
