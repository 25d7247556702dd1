//! The steps of a sequence, and the comparison after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_ban::ipnetwork::IpNetwork;
use nfguard_ban::{
    ActiveBan, Admitted, Ban, BanOutcome, Bans, NeverBan, NeverBanKind, Port, Target,
};
use nfguard_tests::wait::TIMEOUT;

use crate::model::{End, Held, Model, Network, Owned, Place};
use crate::packets::{Ground, Packet};
use crate::steps::{Action, From, Lasts, Notation, PORTS, SENDERS, SOURCES, Step, Wish};

/// The duration of a short ban beyond the time of a step and its comparison.
const SHORT_BAN_MARGIN: Duration = Duration::from_millis(300);
/// The longest time of a step. A slower machine cannot check short bans.
const SLOWEST_STEP: Duration = Duration::from_secs(3);
/// The greatest difference between our clock and the clock of the kernel, which counts in ticks.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);
/// The same on an emulated machine, whose ticks come late. Bans of hours differ by whole seconds.
const EMULATED_CLOCK_TOLERANCE: Duration = Duration::from_millis(400);

/// The count of each event.
pub(crate) type Seen = BTreeMap<&'static str, u32>;

/// Two programs that ban, and the model of their bans.
pub(crate) struct Run<'a> {
    pub(crate) ground: &'a mut Ground,
    seen: &'a mut Seen,
    /// The two programs. Only the first one sets never-ban entries. The second one reads them from
    /// the kernel.
    bans: [Bans; 2],
    pub(crate) model: Model,
    /// The time of a step with its comparison. The run waits for a ban that ends sooner.
    margin: Duration,
    /// The number of bans so far. Each ban lasts a bit longer than the one before, so no two end at
    /// the same moment.
    made: u32,
    /// Whether a ban has expired. The kernel may still count it.
    expired: bool,
}

/// The reason why a step cannot be checked, or the mistake.
pub(crate) enum Trouble {
    /// A ban may have ended during the step, because the machine is slow.
    TooLate,
    Wrong(String),
}

fn open(ground: &Ground) -> [Bans; 2] {
    ground.host.run(|| [(); 2].map(|()| Bans::open(NeverBan::default()).expect("the table")))
}

impl<'a> Run<'a> {
    pub(crate) fn new(ground: &'a mut Ground, seen: &'a mut Seen) -> Run<'a> {
        let bans = open(ground);
        let margin = Duration::from_millis(150) + 2 * ground.pace;
        Run { ground, seen, bans, model: Model::default(), margin, made: 0, expired: false }
    }

    /// Takes a step, and compares the bans afterwards.
    pub(crate) fn take(&mut self, action: &Action) -> Result<(), Trouble> {
        self.settle(match action.step {
            Step::Wait => None,
            _ => Some(Instant::now() + self.margin),
        });
        let (before, start) = (self.model.clone(), Instant::now());
        let outcome = self.step(action).and_then(|()| self.compare(1 - action.by));
        self.ground.pace = start.elapsed().max(self.ground.pace * 7 / 8).min(SLOWEST_STEP);
        let late = Instant::now() + CLOCK_TOLERANCE + self.ground.pace / 2;
        let is_late = |model: &Model| !model.ending(late).is_empty();
        if is_late(&before) || is_late(&self.model) || self.model.is_unsure {
            return Err(Trouble::TooLate);
        }
        outcome.map_err(Trouble::Wrong)
    }

    /// Waits for all bans that end before `before`, or for all short bans.
    fn settle(&mut self, before: Option<Instant>) {
        let soon = Instant::now() + TIMEOUT;
        for owned @ (place, source) in self.model.ending(before.unwrap_or(soon)) {
            let (target, from) = (target_of(place.0), place.1);
            while self.bans[0].look_up_of(source, target, from).expect("an answer").is_some() {
                assert!(Instant::now() < soon + TIMEOUT, "{owned:?} does not end");
                thread::sleep(Duration::from_millis(5));
            }
            self.model.bans.remove(&owned);
            self.expired = true;
            self.count_event("expired");
        }
    }

    pub(crate) fn count_event(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn step(&mut self, Action { by, step }: &Action) -> Result<(), String> {
        let by = *by;
        let start = Instant::now();
        match step {
            Step::Ban(wish) => {
                let Some(order) = self.order(wish)? else { return Ok(()) };
                let got = self.bans[by].ban(&order.ban());
                let (place, held) = order.into_held(start);
                let want = self.model.ban(place, held);
                self.count_event(match want {
                    BanOutcome::Added => "added",
                    BanOutcome::Extended => "extended",
                    BanOutcome::Kept => "kept",
                });
                compare_values("made", &got.map_err(to_text)?, &want)
            }
            Step::BanAll(list) => {
                let orders = self.orders(list)?;
                let got = self.bans[by].ban_all(orders.iter().map(Order::ban));
                let want = self.model.ban_all(to_held_list(orders, start));
                self.count_event("lists");
                compare_values("the counts", &got.map_err(to_text)?, &want)
            }
            Step::Replace(source, list) => {
                let orders = self.orders(list)?;
                let got = self.bans[by].replace(source, orders.iter().map(Order::ban));
                let want = self.model.replace(source, to_held_list(orders, start));
                self.count_event("replaced bans of a source");
                if self.model.is_unsure {
                    return Ok(());
                }
                compare_values("the counts", &got.map_err(to_text)?, &want)
            }
            Step::Extend(source, target, from) => {
                let longer = Duration::from_secs(1000);
                let got = self.bans[by].extend(source, parsed(target.0), port(*from), longer);
                let owned = (place(*target, *from), *source);
                let want = self.model.extend(owned, longer, start.elapsed()).is_some();
                if want {
                    self.count_event("extended by request");
                }
                compare_values("extended by request", &got.map_err(to_text)?.is_some(), &want)
            }
            Step::Unban(target, from) => {
                let got = self.bans[by].unban(parsed(target.0), port(*from));
                let want = self.model.unban(place(*target, *from));
                self.count_event(if want { "unbanned" } else { "nothing to unban" });
                compare_values("unbanned", &got.map_err(to_text)?, &want)
            }
            Step::UnbanOf(source, target, from) => {
                let got = self.bans[by].unban_of(source, parsed(target.0), port(*from));
                let place = place(*target, *from);
                let want = self.model.unban_of((place, source));
                let is_left = self.model.bans.keys().any(|(other, _)| *other == place);
                self.count_event(match (want, is_left) {
                    (true, true) => "banned by others still",
                    (true, false) => "unbanned by its owner",
                    (false, _) => "nothing of this owner",
                });
                compare_values("unbanned", &got.map_err(to_text)?, &want)
            }
            Step::Flush(source) => {
                let got = self.bans[by].flush(source);
                let want = self.model.flush(source);
                if want > 0 {
                    self.count_event("flushed");
                }
                compare_values("flushed", &got.map_err(to_text)?, &want)
            }
            Step::ReplaceNeverBan(reason, entries) => {
                self.model.replace_never_ban(reason, &networks_of(entries));
                self.bans[0]
                    .replace_never_ban(&NeverBanKind::by_hand(reason), &parse_networks(entries))
                    .map_err(to_text)
            }
            Step::RemoveNeverBan(entries) => {
                self.model.remove_never_ban(&networks_of(entries));
                self.bans[0].remove_never_ban(&parse_networks(entries)).map_err(to_text)
            }
            Step::Wait => Ok(()),
            Step::Reopen => {
                self.bans = open(self.ground);
                Ok(())
            }
        }
    }

    /// Admits a wished ban. The library must refuse it exactly when the model does.
    fn order(&mut self, wish: &Wish) -> Result<Option<Order>, String> {
        let target = parsed(wish.target.0);
        let asked = self.bans[0].admit(target).ok();
        compare_values(
            "admitted",
            &asked.is_some(),
            &self.model.admits(Network::new(wish.target.1)),
        )?;
        if asked.is_none() {
            self.count_event("refused");
        }
        let knows_nobody = NeverBan::default().admit(target).ok();
        let admitted = asked.or(knows_nobody.filter(|_| wish.unasked));
        self.made += 1;
        let lasts = match wish.lasts {
            Lasts::Short => {
                Some(self.margin + SHORT_BAN_MARGIN + self.made * Duration::from_millis(20))
            }
            Lasts::Hours(hours) => Some(Duration::from_secs(hours * 3600 + u64::from(self.made))),
            Lasts::Ever => None,
        };
        let (place, source) = (place(wish.target, wish.from), wish.source);
        let reason = format!("ban {}", self.made);
        Ok(admitted.map(|target| Order { place, target, lasts, source, reason }))
    }

    fn orders(&mut self, wishes: &[Wish]) -> Result<Vec<Order>, String> {
        wishes.iter().filter_map(|wish| self.order(wish).transpose()).collect()
    }

    /// Compares the view of one program and the verdicts of the kernel with the model.
    fn compare(&mut self, by: usize) -> Result<(), String> {
        let start = Instant::now();
        let bans = &mut self.bans[by];
        let listed = bans.list().map_err(to_text)?;
        let end = Instant::now();
        let owned: Vec<Owned> = listed.iter().map(owned_of).collect();
        let wanted: BTreeSet<&Owned> = self.model.bans.keys().collect();
        compare_values("the list", &owned.iter().collect(), &wanted)?;
        compare_values("the length of the list", &owned.len(), &wanted.len())?;
        for (owned, active) in owned.iter().zip(&listed) {
            let held = &self.model.bans[owned];
            compare_ban(active, held, start, end)?;
            let (source, target, port) = (&active.source, active.target, active.port);
            let found = bans.look_up_of(source, target, port).map_err(to_text)?;
            let Some(found) = found else { return Err(format!("{owned:?} is not found")) };
            compare_ban(&found, held, start, Instant::now())?;
            let last = bans.look_up(target, port).map_err(to_text)?;
            // It was asked later than the list.
            let tolerance = start.elapsed() + EMULATED_CLOCK_TOLERANCE;
            let is_last = last.is_some_and(|last| {
                last.expires_in
                    .is_none_or(|end| active.expires_in.is_some_and(|own| own <= end + tolerance))
            });
            if !is_last {
                return Err(format!("the set that drops ends before {owned:?}"));
            }
        }
        let count = bans.count().map_err(to_text)?;
        let wanted = wanted.len() as u64;
        if count < wanted || (count > wanted && !self.expired) {
            return Err(format!("counts {count}, not {wanted}"));
        }

        if self.model.shared() > 0 {
            self.count_event("shared");
        }
        let packets = packets();
        let came = self.ground.send_volley(&packets);
        for packet @ (from, port) in packets {
            let passes = self.model.passes(from, port);
            if came.contains(&packet) != passes {
                let not = if passes { "does not get" } else { "gets" };
                return Err(format!("{from} to {port} {not} through"));
            }
            self.count_event(if passes { "passed" } else { "dropped" });
        }
        Ok(())
    }
}

/// Compares a listed ban with the model, and its end with the clock.
fn compare_ban(
    active: &ActiveBan,
    held: &Held,
    start: Instant,
    end: Instant,
) -> Result<(), String> {
    compare_values("the source", &&*active.source, &held.source)?;
    compare_values("the reason", &active.reason, &held.reason)?;
    let is_right = match (active.expires_in, held.ends) {
        (None, None) => true,
        (Some(left), Some(ends)) => {
            end + left + EMULATED_CLOCK_TOLERANCE >= ends.earliest
                && start + left <= ends.latest + EMULATED_CLOCK_TOLERANCE
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(format!("{active:?} is not {held:?}")) }
}

fn compare_values<T: PartialEq + Debug>(what: &str, got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?}, not {want:?}")) }
}

fn to_text(error: nfguard_ban::Error) -> String {
    error.to_string()
}

fn packets() -> Vec<Packet> {
    let to_all = |from: &&str| {
        let from = from.parse().expect("an address");
        PORTS.map(|port| (from, port.parse().expect("a port")))
    };
    SENDERS.iter().flat_map(to_all).collect()
}

fn parsed(text: &str) -> Target {
    text.parse().expect("a target")
}

fn port(from: From) -> Option<Port> {
    from.map(|port| port.parse().expect("a port"))
}

fn place(target: Notation, from: From) -> Place {
    (Network::new(target.1), port(from))
}

fn owned_of(active: &ActiveBan) -> Owned {
    let network = active.target.network();
    let source = SOURCES.into_iter().find(|source| **source == active.source);
    let place = (Network { address: network.ip(), bits: network.prefix().into() }, active.port);
    (place, source.unwrap_or("an unknown source"))
}

fn target_of(network: Network) -> Target {
    parsed(&format!("{}/{}", network.address, network.bits))
}

fn networks_of(entries: &[Notation]) -> Vec<Network> {
    entries.iter().map(|entry| Network::new(entry.1)).collect()
}

fn parse_networks(entries: &[Notation]) -> Vec<IpNetwork> {
    entries.iter().map(|entry| entry.0.parse().expect("a network")).collect()
}

/// An admitted ban.
struct Order {
    place: Place,
    target: Admitted,
    lasts: Option<Duration>,
    source: &'static str,
    reason: String,
}

impl Order {
    fn ban(&self) -> Ban<'_> {
        let Order { place: (_, port), target, lasts, source, ref reason } = *self;
        Ban { target, port, duration: lasts, source, reason, created_at: None }
    }

    /// Returns the ban that results from a call between `start` and now.
    fn into_held(self, start: Instant) -> (Place, Held) {
        let Order { place, lasts, source, reason, .. } = self;
        let now = Instant::now();
        let ends = lasts.map(|lasts| End { earliest: start + lasts, latest: now + lasts });
        (place, Held { ends, source, reason })
    }
}

fn to_held_list(orders: Vec<Order>, start: Instant) -> Vec<(Place, Held)> {
    orders.into_iter().map(|order| order.into_held(start)).collect()
}
