//! The formats in which programs write dates.

/// Whether an offset from UTC may follow a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    Never,
    Maybe,
}

/// Formats in which programs write dates, in the terms of strftime(3), each with who writes it. A blank
/// stands for one or two, and a second may have a fraction. Of two dates that begin at one place of a
/// line, the format that is first here counts, so a long one is before those that it begins with.
pub(super) const FORMATS: [(&str, Offset); 27] = [
    // asctime(3), with which Apache and many others begin their lines; date(1)
    ("%a %b %d %H:%M:%S %Y", Offset::Never),
    ("%a %b %d %H:%M:%S %Z %Y", Offset::Never),
    // ECMAScript's Date
    ("%a %b %d %Y %H:%M:%S", Offset::Never),
    ("%a %b %d %H:%M:%S", Offset::Never),
    // syslog by RFC 3164, and with a year as Cisco's `service timestamps log datetime year`
    ("%b %d %H:%M:%S %Y", Offset::Never),
    ("%b %d %H:%M:%S", Offset::Never),
    ("%b %d %Y %H:%M:%S", Offset::Never),
    // Monit
    ("%Z %b %d %H:%M:%S", Offset::Never),
    // RFC 3339: syslog by RFC 5424, systemd
    ("%Y-%m-%dT%H:%M:%S", Offset::Maybe),
    // Python's logging, PostgreSQL, MySQL 8
    ("%Y-%m-%d %H:%M:%S", Offset::Maybe),
    // nginx's errors, Squid's cache.log
    ("%Y/%m/%d %H:%M:%S", Offset::Maybe),
    // stunnel
    ("%Y.%m.%d %H:%M:%S", Offset::Never),
    // ISO 8601 without separators
    ("%Y%Exm%ExdT%ExH%ExM%ExS", Offset::Maybe),
    ("%Y%Exm%Exd %H:%M:%S", Offset::Never),
    ("%Y%Exm%Exd%ExH%ExM%ExS", Offset::Never),
    // the Common Log Format, Kerio's servers
    ("%d/%b/%Y:%H:%M:%S", Offset::Maybe),
    ("%d/%b/%Y %H:%M:%S", Offset::Maybe),
    // BIND's `print-time`, PHP's error_log
    ("%d-%b-%Y %H:%M:%S", Offset::Maybe),
    // mail by RFC 5322
    ("%d %b %Y %H:%M:%S", Offset::Maybe),
    // what strftime's `%x %X` gives in Europe, then in the United States
    ("%d/%m/%Y %H:%M:%S", Offset::Never),
    ("%d-%m-%Y %H:%M:%S", Offset::Never),
    ("%d.%m.%Y %H:%M:%S", Offset::Never),
    ("%d/%m/%y %H:%M:%S", Offset::Never),
    ("%m/%d/%Y %H:%M:%S", Offset::Never),
    // Source's game servers
    ("%m/%d/%Y - %H:%M:%S", Offset::Never),
    // MySQL before 5.6
    ("%y%Exm%Exd %k:%M:%S", Offset::Never),
    // java.util.logging
    ("%b %d, %Y %I:%M:%S %p", Offset::Never),
];

/// Formats that would be too weak elsewhere than at the beginning of a line: Minecraft's, ASSP's.
pub(super) const WEAK_FORMATS: [&str; 2] = ["%H:%M:%S", "%b-%d-%y %H:%M:%S"];

/// What stands before and after a number of seconds since 1970 where programs write one: Squid begins a
/// line of its access.log with it, Nagios does in brackets, and auditd(8) has it in each record.
pub(super) const EPOCH_PLACES: [(&str, &str); 3] =
    [("^", ""), (r"^\[", r"\]"), (r"audit\(", r":[0-9]+\)")];
