//! `attest`: what this machine and others signed.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use node::attest::{self, Attested};
use protocol::{
    evidence::{self, Evidence, EvidenceError, UnverifiedEvidence},
    id::ActionId,
    key::AttesterKey,
    limits,
    statement::{Body, Ending, Signed},
};
use serde_json::json;
use store::{Kept, Store};
use trust::{
    roster::SELF,
    standing::{Against, Standing, Standings},
};

use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    file,
    output::{self, Style},
};

/// Keys of one machine, one after the other, that are looked through for its own.
const MACHINE_KEYS: usize = 64;

/// Statements about builds: list, sign, withdraw, and carry from machine to machine
#[derive(clap::Subcommand, Debug)]
pub(crate) enum AttestCommand {
    /// List the feeds that are here, or the statements of one
    List {
        /// Whose: a name of `assize trust list`, `self`, or a key
        #[arg(value_name = "NAME|key:…")]
        attester: Option<String>,
        /// Begin at this place
        #[arg(long, default_value_t = 0, value_name = "PLACE")]
        from: u64,
    },
    /// Sign what was built here and is not signed yet
    Publish,
    /// Execute an action that others attested, and sign what it gives
    ///
    /// Asks the node that runs, or runs one meanwhile, what the action is and for its inputs. Exits
    /// with 11 if others say that it gives something else, and 100 if it fails; both are signed.
    Rebuild {
        /// The actions, as others name them
        #[arg(value_name = "act:…", required = true)]
        actions: Vec<ActionId>,
        /// Use no network: what is not in the store cannot be executed
        #[arg(long)]
        offline: bool,
    },
    /// Withdraw what this machine said at one place of its feed, or from one to another
    Retract {
        /// The place
        first: u64,
        /// The last place, if there are several
        last: Option<u64>,
    },
    /// Write feeds, and proofs against their keys, to a file
    Export {
        /// Whose: names, `self`, keys [default: self]
        #[arg(value_name = "NAME|key:…")]
        attesters: Vec<String>,
        /// Leave out what is before this place
        #[arg(long, default_value_t = 0, value_name = "PLACE")]
        from: u64,
        /// Write one attestation of this machine as an in-toto statement with SLSA provenance, in
        /// a DSSE envelope, instead
        #[arg(long, value_name = "ATTR|act:…", conflicts_with_all = ["attesters", "from"])]
        in_toto: Option<String>,
        #[command(flatten)]
        project: Project,
        /// File to write; `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take statements and proofs from a file; every signature is checked
    Import {
        /// File that `export` or `assize key revoke` wrote; `-` for stdin
        file: PathBuf,
    },
    /// Check a file of statements and proofs and say what is in it; needs no store
    Verify {
        /// File to read; `-` for stdin
        file: PathBuf,
    },
}

impl AttestCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::List { attester: None, .. } => feeds(context)?,
            Self::List { attester: Some(attester), from } => list(context, &attester, from)?,
            Self::Publish => publish(context)?,
            Self::Rebuild { actions, offline } => return super::watch::rebuild(context, &actions, offline),
            Self::Retract { first, last } => retract(context, first, last.unwrap_or(first))?,
            Self::Export { in_toto: Some(target), project, output, .. } => {
                in_toto(context, &project, &target, &output)?;
            }
            Self::Export { attesters, from, output, .. } => export(context, &attesters, from, &output)?,
            Self::Import { file } => {
                let store = context.store()?;
                let counted = import_file(context, &store, &file)?;
                if context.json {
                    output::json("import", &counted)?;
                } else {
                    output::say(&counted.to_string())?;
                }
            }
            Self::Verify { file } => verify(context, &file)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whose key a text means.
pub(crate) fn attester(context: &Context, text: &str) -> Result<AttesterKey, CliError> {
    if text.starts_with("key:") {
        return text.parse().map_err(|e: protocol::key::KeyError| CliError::of(Code::Key, &e));
    }
    if text == SELF {
        return Ok(AttesterKey::of(&context.key()?));
    }
    let roster = context.roster().read()?;
    let named = text.parse().ok().and_then(|name| roster.get(&name).map(|attester| attester.key));
    named.ok_or_else(|| {
        CliError::new(Code::NotFound, format!("nobody is called `{text}` here"))
            .hint("list names with `assize trust list`, or give a key (`key:…`)")
    })
}

fn feeds(context: &Context) -> Result<(), CliError> {
    let (store, roster) = (context.store()?, context.roster().read()?);
    let own = context.keys().load()?.map(|key| AttesterKey::of(&key));
    let mut standings = Standings::default();
    let attesters = store.attesters()?;
    for key in &attesters {
        store.bearing(key)?.iter().for_each(|evidence| standings.apply(evidence));
    }
    let successor = |key: &AttesterKey| standings.of(key).and_then(Standing::successor);
    let mut data = Vec::new();
    for key in attesters {
        let head = store.head(&key)?;
        let against = standings.of(&key).and_then(Standing::against_all);
        // As many steps as there are successors: they may name each other.
        let mut successors = std::iter::successors(Some(key), successor).take(MACHINE_KEYS);
        let name = match roster.name_of(&key) {
            _ if own == Some(key) => SELF.to_owned(),
            Some(name) => name.to_string(),
            None if own.is_some_and(|own| successors.any(|key| key == own)) => format!("{SELF}, before"),
            None => "a stranger".to_owned(),
        };
        if !context.json {
            let against = against.map_or_else(String::new, |a| format!("  {}", describe_against(a)));
            output::say(&format!("{key}  {name}  {}{against}", output::count(head.len(), "statement")))?;
        }
        data.push(json!({ "key": key, "name": name, "statements": head.len(), "against": against }));
    }
    if context.json {
        output::json("feeds", &data)?;
    }
    Ok(())
}

/// Why something does not count, for people.
pub(crate) fn describe_against(against: Against) -> String {
    match against {
        Against::Equivocated => "equivocated: nothing it says counts, for ever".into(),
        Against::Revoked { since } => format!("revoked from place {since} on"),
        Against::Ended { at } => format!("its feed ended at place {at}"),
        Against::Retracted { by } => format!("withdrawn at place {by}"),
    }
}

/// What a statement says, in a line.
pub(super) fn describe(signed: &Signed) -> String {
    match &signed.statement().body {
        Body::Built(built) => {
            let outputs: Vec<_> = built.outputs.iter().map(|(n, o)| format!("{n} {}", o.nar)).collect();
            format!("{} gave {}", built.action, outputs.join(", "))
        }
        Body::Failed(failed) => {
            let how = match failed.ending {
                Ending::Exit(code) => format!("exit code {code}"),
                Ending::Signal(signal) => format!("signal {signal}"),
                Ending::Trap => "a trap".into(),
                Ending::Unstable => "executions that differ".into(),
            };
            format!("{} failed in step {} with {how}", failed.action, failed.step)
        }
        Body::Retract { first, last } if first == last => format!("withdraws place {first}"),
        Body::Retract { first, last } => format!("withdraws places {first} to {last}"),
        Body::Succeed { successor, .. } => format!("goes on as {successor}"),
    }
}

fn as_json(signed: &Signed) -> serde_json::Value {
    let statement = signed.statement();
    let mut data = json!({
        "id": signed.id().to_string(),
        "attester": statement.attester,
        "seq": statement.seq,
        "time": statement.time,
    });
    let body = match &statement.body {
        Body::Built(built) => json!({ "built": {
            "action": built.action.to_string(),
            "outputs": built.outputs,
            "witness": built.witness.map(|w| format!("{w:?}")),
            "platform": built.platform,
        }}),
        Body::Failed(failed) => json!({ "failed": {
            "action": failed.action.to_string(), "step": failed.step, "ending": failed.ending,
            "platform": failed.platform,
        }}),
        Body::Retract { first, last } => json!({ "retract": { "first": first, "last": last } }),
        Body::Succeed { successor, .. } => json!({ "succeed": { "successor": successor } }),
    };
    if let (Some(data), serde_json::Value::Object(body)) = (data.as_object_mut(), body) {
        data.extend(body);
    }
    data
}

fn list(context: &Context, whose: &str, from: u64) -> Result<(), CliError> {
    let key = attester(context, whose)?;
    let store = context.store()?;
    let standing: Standings = store.bearing(&key)?.iter().collect();
    for signed in store.statements(&key, from) {
        let signed = signed?;
        let place = signed.statement().seq;
        let against = standing.of(&key).and_then(|standing| standing.against(place));
        if context.json {
            // One object a line: a feed may be long.
            let mut data = as_json(&signed);
            data["against"] = json!(against);
            output::json("statement", &data)?;
            continue;
        }
        let against = against.map_or_else(String::new, |a| format!("  ({})", describe_against(a)));
        output::say(&format!("{place:>6}  {}{against}", describe(&signed)))?;
    }
    Ok(())
}

fn publish(context: &Context) -> Result<(), CliError> {
    let key = context.key()?;
    let store = context.store()?;
    let (mut said, mut contradictions) = (Vec::new(), Vec::new());
    let mut owed = attest::owed(&store, &AttesterKey::of(&key))?;
    // In the order in which it was built.
    owed.reverse();
    for built in owed {
        match attest::attest(&store, &key, &built)? {
            Attested::New(signed) => said.push(signed),
            Attested::Known => {}
            Attested::Contradicts { place } => contradictions.push((built.action, place)),
        }
    }
    for (action, place) in &contradictions {
        context.tell(&format!("{action} is not signed: place {place} of the feed says something else"));
    }
    if context.json {
        let said: Vec<_> = said.iter().map(|signed| as_json(signed)).collect();
        return Ok(output::json("published", &said)?);
    }
    for signed in &said {
        output::say(&format!("{:>6}  {}", signed.statement().seq, describe(signed)))?;
    }
    context.tell(&output::count(said.len(), "new statement"));
    Ok(())
}

fn retract(context: &Context, first: u64, last: u64) -> Result<(), CliError> {
    let key = context.key()?;
    let store = context.store()?;
    let attester = AttesterKey::of(&key);
    let len = store.head(&attester)?.len();
    if first > last || last >= len {
        let what = format!("there are no places {first} to {last} in a feed of {len} statements");
        return Err(CliError::new(Code::Usage, what).hint("list it with `assize attest list self`"));
    }
    let standing: Standings = store.bearing(&attester)?.iter().collect();
    let counts = |place| standing.of(&attester).is_none_or(|standing| standing.against(place).is_none());
    if !(first..=last).any(counts) {
        context.tell(if first == last { "it counts no more already" } else { "they count no more already" });
        return Ok(());
    }
    let said = store.say(&key, attest::now(), [Body::Retract { first, last }])?;
    for signed in &said {
        if context.json {
            output::json("statement", &as_json(signed))?;
        } else {
            context.tell(&format!("place {} {}", signed.statement().seq, describe(signed)));
        }
    }
    Ok(())
}

fn export(context: &Context, whose: &[String], from: u64, to: &Path) -> Result<(), CliError> {
    let own = [SELF.to_owned()];
    let whose = if whose.is_empty() { &own } else { whose };
    let keys: Vec<_> = whose.iter().map(|text| attester(context, text)).collect::<Result<_, _>>()?;
    let store = context.store()?;
    let count = file::write(to, |file| export_feeds(&store, &keys, from, file))?;
    if context.json && !file::is_standard(to) {
        return Ok(output::json("export", &json!({ "items": count }))?);
    }
    context.tell(&format!("exported {count} statements and proofs"));
    Ok(())
}

/// Writes an evidence file: what bears on each key, then its feed. Returns how many items.
pub(crate) fn export_feeds(
    store: &Store,
    keys: &[AttesterKey],
    from: u64,
    to: &mut (impl Write + ?Sized),
) -> Result<u64, CliError> {
    let mut count = 0;
    to.write_all(evidence::MAGIC)?;
    for key in keys {
        // Retractions and successions are in the feed.
        let proofs = store.bearing(key)?.into_iter().filter(|e| !matches!(e, Evidence::Statement(_)));
        let statements = store.statements(key, from).map(|signed| signed.map(Evidence::Statement));
        for item in proofs.map(Ok).chain(statements) {
            to.write_all(&item?.to_bytes())?;
            count += 1;
        }
    }
    Ok(count)
}

/// What became of the items of a file.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Counted {
    new: u64,
    known: u64,
    equivocations: Vec<AttesterKey>,
    refused: u64,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} new, {} known", self.new, self.known)?;
        if self.refused > 0 {
            write!(f, ", {} that do not fit", self.refused)?;
        }
        for key in &self.equivocations {
            write!(f, "\n{key} equivocated: it said two things at one place, and counts no more")?;
        }
        Ok(())
    }
}

fn broken(path: &Path, error: &EvidenceError) -> CliError {
    let code = match error {
        EvidenceError::Signature(_) | EvidenceError::Equivocation(_) => Code::Key,
        EvidenceError::Magic | EvidenceError::TooLong { .. } | EvidenceError::Item { .. } => Code::Failed,
    };
    CliError::of(code, error).detail(format!("in `{}`", path.display()))
}

/// Items of evidence that are verified and kept at once.
const BATCH: usize = 4096;

/// Takes what an evidence file has; what was good before an error is kept.
pub(crate) fn import_file(context: &Context, store: &Arc<Store>, path: &Path) -> Result<Counted, CliError> {
    let bytes = file::read(path, limits::EVIDENCE_BYTES)?;
    let mut counted = Counted::default();
    let mut items = evidence::read(&bytes).map_err(|e| broken(path, &e))?;
    let mut failed = None;
    while failed.is_none() {
        let mut batch = Vec::new();
        for item in items.by_ref().take(BATCH) {
            match item.and_then(UnverifiedEvidence::verify) {
                Ok(item) => batch.push(item),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if batch.is_empty() {
            break;
        }
        for kept in store.keep(batch)? {
            match kept {
                Kept::New => counted.new += 1,
                Kept::Known => counted.known += 1,
                Kept::Equivocation(proof) => {
                    if !counted.equivocations.contains(&proof.attester()) {
                        counted.equivocations.push(proof.attester());
                    }
                }
                Kept::Refused(why) => {
                    if counted.refused == 0 {
                        context.tell(&format!("the first that does not fit: {why}"));
                    }
                    counted.refused += 1;
                }
            }
        }
    }
    match failed {
        None => Ok(counted),
        Some(error) => {
            Err(broken(path, &error).hint(format!("get the file again; kept of it so far: {counted}")))
        }
    }
}

fn verify(context: &Context, path: &Path) -> Result<(), CliError> {
    let bytes = file::read(path, limits::EVIDENCE_BYTES)?;
    let mut found: BTreeMap<AttesterKey, (u64, Vec<String>)> = BTreeMap::new();
    for item in evidence::read(&bytes).map_err(|e| broken(path, &e))? {
        let item = item.and_then(UnverifiedEvidence::verify).map_err(|e| broken(path, &e))?;
        let (statements, proofs) = found.entry(item.attester()).or_default();
        match &item {
            Evidence::Statement(_) => *statements += 1,
            Evidence::Revocation(revocation) => {
                proofs.push(format!("revoked from place {} on", revocation.since()));
            }
            Evidence::Equivocation(proof) => {
                let [first, second] = proof.statements();
                proofs.push(format!(
                    "equivocated: place {}: {}; place {}: {}",
                    first.statement().seq,
                    describe(first),
                    second.statement().seq,
                    describe(second)
                ));
            }
        }
    }
    if context.json {
        let data: Vec<_> = found
            .iter()
            .map(|(key, (statements, proofs))| json!({ "key": key, "statements": statements, "proofs": proofs }))
            .collect();
        return Ok(output::json("evidence", &data)?);
    }
    for (key, (statements, proofs)) in &found {
        output::say(&format!("{key}  {}, all signed by it", output::count(*statements, "statement")))?;
        for proof in proofs {
            output::say(&format!("  {} {proof}", Style::Busy.paint("!")))?;
        }
    }
    Ok(())
}

fn in_toto(context: &Context, project: &Project, target: &str, to: &Path) -> Result<(), CliError> {
    let key = context.key()?;
    let store = context.store()?;
    let action = super::target::find(context, &store, project, target)?.known()?;
    let own = AttesterKey::of(&key);
    let said = store.claims(&action)?.into_iter().rev().find(|signed| {
        signed.statement().attester == own && matches!(signed.statement().body, Body::Built(_))
    });
    let Some(said) = said else {
        return Err(CliError::new(Code::NotFound, format!("this machine did not attest {action}"))
            .hint("build it, or sign what was built with `assize attest publish`"));
    };
    let known = store.action(&action)?;
    let envelope = protocol::intoto::envelope(&said, known.as_ref(), &key);
    file::write(to, |file| Ok(writeln!(file, "{envelope}")?))
}
