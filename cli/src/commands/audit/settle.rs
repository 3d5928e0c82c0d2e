//! `audit settle`: whom an execution on this machine supports.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use node::{
    build::{self, Call},
    control::Node,
    rebuild::{RebuildError, Rebuilder, Subject},
};
use protocol::{
    evidence::{self, Evidence},
    id::ActionId,
    trace::{Event, Parting, Trace},
};
use serde_json::json;
use store::Store;
use trust::audit::{Found, Support};

use super::lines;
use crate::{
    commands::watch,
    context::Context,
    exit::{CliError, Code},
    file,
    output::{self, Style},
};

/// Files that are read and written.
pub(super) struct Files {
    /// Where everybody's statements go.
    pub(super) statements: Option<PathBuf>,
    /// Where the trace of an execution here goes.
    pub(super) record: Option<PathBuf>,
    /// Traces of others.
    pub(super) traces: Vec<PathBuf>,
}

/// `audit settle`.
pub(super) fn run(
    context: &Context,
    store: &Arc<Store>,
    action: &ActionId,
    times: u32,
    files: Files,
    node: Option<Node>,
) -> Result<ExitCode, CliError> {
    let traces = files.traces.iter().map(|path| read(path, action)).collect::<Result<Vec<_>, _>>()?;
    let rebuilder = watch::rebuilder(context, store, node, context.config()?.watch.limits)?;
    let (subject, settled) = context
        .block_on(async {
            let found = rebuilder.find(*action).await?;
            let often = if times == 1 { "once".into() } else { format!("{times} times") };
            context.tell(&format!("executing {} {often}", found.name()));
            let settled = rebuilder.settle(found.clone(), times, &|_| ()).await;
            Ok::<_, RebuildError>((found, settled))
        })?
        .map_err(|e| watch::of_rebuild(action, &e))?;
    let found = match settled {
        Ok(rebuilt) => rebuilt.found(),
        Err(RebuildError::Unstable) => None,
        Err(error) => return Err(watch::of_rebuild(action, &error)),
    };
    let judgement = context.judgement(store, None)?;
    let dispute = judgement.dispute(action)?;
    let mut comparisons = Vec::new();
    if files.record.is_some() || !traces.is_empty() {
        context.tell("executing it once more, for its trace");
        let tracer = Tracer { context, rebuilder: &rebuilder, subject: &subject, action };
        let (own, _) = tracer.trace(None)?;
        if let Some(to) = files.record {
            file::write(&to, |file| Ok(file.write_all(&own.to_bytes())?))?;
        }
        for (path, trace) in files.traces.iter().zip(&traces) {
            comparisons.push(tracer.compare(path, &own, trace)?);
        }
    }
    if let Some(to) = files.statements {
        let statements = store.claims(action)?;
        file::write(&to, |file| {
            file.write_all(evidence::MAGIC)?;
            let items = statements.into_iter().map(Evidence::Statement);
            items.map(|item| item.to_bytes()).try_for_each(|bytes| Ok(file.write_all(&bytes)?))
        })?;
    }
    let settled = dispute.settled(found.as_ref());
    if context.json {
        output::json(
            "settled",
            &json!({
                "action": action.to_string(),
                "found": found,
                "settled": settled,
                "traces": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
            }),
        )?;
    } else {
        match &found {
            None => output::say(&format!("{} executions on this machine differ", Style::Error.paint("✘")))?,
            Some(found) => lines(found).iter().try_for_each(|line| output::say(&format!("here: {line}")))?,
        }
        for (who, support) in &settled {
            let (style, sign, text) = words(*support);
            output::say(&format!("{} {who}: {text}", style.paint(sign)))?;
        }
        for line in comparisons.iter().flat_map(Comparison::lines) {
            output::say(&line)?;
        }
        if let Some((who, _)) = settled.iter().find(|(_, support)| support.is_against()) {
            output::complain(&format!(
                "{}: whoever is wrong can withdraw it (`assize attest retract`); to count {who} no more: `assize trust remove {who}`",
                Style::Hint.paint("hint")
            ));
        }
    }
    Ok(match found {
        Some(Found::Built(_)) => ExitCode::SUCCESS,
        Some(Found::Failed { .. }) => Code::BuildFailed.into(),
        None => Code::NotDeterministic.into(),
    })
}

/// Reads somebody's trace.
fn read(path: &Path, action: &ActionId) -> Result<Trace, CliError> {
    let bytes = file::read(path, Trace::MAX_BYTES)?;
    let trace = Trace::from_bytes(&bytes).map_err(|e| {
        CliError::new(Code::Usage, format!("{}: {e}", path.display()))
            .hint("a trace is what `assize audit settle --record FILE` writes")
    })?;
    if trace.action() != action {
        let text = format!("{} is a trace of {}, not of {action}", path.display(), trace.action());
        return Err(CliError::new(Code::Usage, text).hint("settle the action that it is of"));
    }
    Ok(trace)
}

/// Executes for traces.
struct Tracer<'a> {
    context: &'a Context,
    rebuilder: &'a Rebuilder,
    subject: &'a Subject,
    action: &'a ActionId,
}

/// How an execution here compares with somebody's trace.
struct Comparison<'a> {
    of: &'a Path,
    /// Steps and calls here.
    marks: usize,
    /// Where they part, and the call here.
    parting: Option<(Parting, Option<Call>)>,
}

impl Tracer<'_> {
    fn trace(&self, call: Option<usize>) -> Result<(Trace, Option<Call>), CliError> {
        let traced = self.context.block_on(self.rebuilder.trace(self.subject, call, &|_| ()))?;
        traced.map_err(|e| watch::of_rebuild(self.action, &e))
    }

    fn compare<'p>(&self, of: &'p Path, own: &Trace, other: &Trace) -> Result<Comparison<'p>, CliError> {
        let parting = match own.first_difference(other) {
            Some(parting) => {
                let shown = matches!(parting.here, Some(Event::Call(_))).then_some(parting.mark);
                let call = if shown.is_some() { self.trace(shown)?.1 } else { None };
                Some((parting, call))
            }
            None => None,
        };
        Ok(Comparison { of, marks: own.len(), parting })
    }
}

impl Comparison<'_> {
    fn json(&self) -> serde_json::Value {
        let parting = self.parting.as_ref().map(|(parting, call)| {
            let event = |event: Option<Event>| match event {
                Some(Event::Step) => json!("step"),
                Some(Event::Call(function)) => json!(build::function_name(function)),
                None => json!(null),
            };
            json!({
                "step": parting.step,
                "call": parting.call,
                "here": event(parting.here),
                "there": event(parting.there),
                "shown": call,
            })
        });
        json!({ "file": self.of.display().to_string(), "marks": self.marks, "parting": parting })
    }

    fn lines(&self) -> Vec<String> {
        let of = output::plain(&self.of.display().to_string());
        let Some((parting, call)) = &self.parting else {
            return vec![format!("{} {of}: the same {} steps and calls", Style::Good.paint("✔"), self.marks)];
        };
        let Parting { step, call: nth, here, there, .. } = *parting;
        let mut lines = vec![
            format!("{} {of}: parts from here at call {nth} of step {step}", Style::Error.paint("✘")),
            format!("    here:  {}", call.as_ref().map_or_else(|| event(here), shown)),
        ];
        for region in call.iter().flat_map(|call| &call.regions) {
            let more = if region.start.len() < region.len { "…" } else { "" };
            lines.push(format!("        {} bytes: {}{more}", region.len, region.start));
        }
        let same = here == there;
        let there = if same { "the same function, with something else".into() } else { event(there) };
        lines.push(format!("    there: {there}"));
        lines
    }
}

fn event(event: Option<Event>) -> String {
    match event {
        Some(Event::Step) => "the next step begins".into(),
        Some(Event::Call(function)) => build::function_name(function).unwrap_or("?").into(),
        None => "nothing more".into(),
    }
}

/// A call, as one would write it.
fn shown(call: &Call) -> String {
    let arguments: Vec<_> = call.arguments.iter().map(u64::to_string).collect();
    let errno = if call.errno == 0 { String::new() } else { format!(" = errno {}", call.errno) };
    format!("{}({}){errno}", call.function, arguments.join(", "))
}

fn words(support: Support) -> (Style, &'static str, &'static str) {
    match support {
        Support::Proven => (Style::Good, "✔", "got the same, and has executed it"),
        Support::Supported => (Style::Good, "✔", "got the same; nothing proves that it was executed"),
        Support::Copied => {
            (Style::Error, "✘", "names the same, and has not executed it: the witness is wrong")
        }
        Support::Refuted => {
            (Style::Error, "✘", "names something else, which execution here does not support")
        }
        Support::Undecided => (Style::Busy, "·", "cannot be right or wrong"),
    }
}
