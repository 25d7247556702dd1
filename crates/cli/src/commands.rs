//! The verbs: one file each, and none uses another.

mod ban;
mod bans;
mod boot;
mod check;
mod completions;
mod confirm;
mod diff;
mod doctor;
mod explain;
mod feed;
mod guard;
mod history;
mod import;
mod import_bans;
mod jail;
mod load;
mod log;
mod man;
mod never;
mod restore;
mod rollback;
mod save;
mod scans;
mod show;
mod status;
mod r#try;
mod unban;
mod unload;
mod watchdog;

use nfguard_control::context::Context;

use crate::args::{Args, ImportVerb, Verb};
use crate::output::{self, Done};

/// Runs the verb of the command line.
pub(crate) fn run(args: Args) -> Done {
    let json = args.json;
    let context = Context::new(args.state_dir, output::warning);
    let history = &context.history;
    match args.verb {
        Verb::Check { file } => check::check(&file, json),
        Verb::Load { file, dry_run, lockout } => {
            load::load(&file, dry_run, &lockout.caution(), &context, json)
        }
        Verb::Boot { file, bans } => boot::boot(&file, bans, &context, json),
        Verb::Confirm => confirm::confirm(&context, json),
        Verb::Rollback { number, lockout } => {
            rollback::rollback(number, &lockout.caution(), &context, json)
        }
        Verb::History { of } => history::history(of.as_ref(), history, json),
        Verb::Watchdog { session } => watchdog::watchdog(session, &context),
        Verb::Diff { file, offline } => diff::diff(&file, offline.as_deref(), json),
        Verb::Unload { all } => unload::unload(all, &context, json),
        Verb::Show { file } => show::show(file.as_deref(), json),
        Verb::Explain(request) => explain::explain(&request, json),
        Verb::Status(request) => status::status(&request, history, json),
        Verb::Log(request) => log::log(&request, history, json),
        Verb::Scans { address } => scans::scans(address, history, json),
        Verb::Doctor(request) => doctor::doctor(&request, &context, json),
        Verb::Ban(request) => ban::ban(&request, &context, json),
        Verb::Unban(request) => unban::unban(&request, &context, json),
        Verb::Bans(request) => bans::bans(&request, &context, json),
        Verb::Save { file } => save::save(&file, &context, json),
        Verb::Restore { file, force } => restore::restore(&file, force, &context, json),
        Verb::Feed(verb) => feed::feed(&verb, &context, json),
        Verb::Never { change } => never::never(change.as_ref(), &context, json),
        Verb::Jail(verb) => jail::jail(&verb, json),
        Verb::Import(ImportVerb::Ufw(request)) => import::import(&request, json),
        Verb::Import(ImportVerb::Bans(request)) => import_bans::import(&request, &context, json),
        Verb::Import(ImportVerb::Fail2ban(request)) => import::fail2ban::import(&request, json),
        Verb::Completions { shell } => completions::completions(shell),
        Verb::Man { folder } => man::man(folder.as_deref()),
        Verb::Guard(request) => guard::guard(&request, &context),
        Verb::Try { file } => r#try::r#try(&file, json),
    }
}
