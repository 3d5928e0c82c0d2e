//! `run`: run a program that was built.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use node::{
    build::Builder,
    eval::Mode,
    realise::How,
    run::{Grant, Grants, ListenError, Listener, RunError},
};
use protocol::nar::Node;
use store::Archive;

use super::build::{Building, wanted};
use crate::{
    context::{Context, Project, label},
    exit::{CliError, Code},
    output::{self, Style, bytes},
    progress::Display,
};

/// Build a package if need be, and run its program
///
/// stdin, stdout and stderr are the program's, and its exit code is passed through; 134 if it
/// trapped, 130 if it was interrupted. It sees no files, no environment and no network but what is granted.
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    /// Attribute whose output to run [default: the file's own value]
    #[arg(value_name = "ATTR", default_value = "", hide_default_value = true)]
    attribute: String,

    #[command(flatten)]
    project: Project,

    #[command(flatten)]
    building: Building,

    /// Program in the output, as in `bin/lua.wasm` [default: the only one, or the package's own choice]
    #[arg(long, value_name = "PATH")]
    program: Option<String>,

    /// Let it use a directory: PATH, or PATH=NAME to show it under another name; `:ro` at the end
    /// to let it only read
    #[arg(long, value_name = "PATH[=NAME][:ro]")]
    dir: Vec<String>,

    /// Give it an environment variable: NAME=VALUE, or NAME to pass on its value
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Let it listen on a TCP address, as in 127.0.0.1:8080 or [::1]:0, and answer whoever connects;
    /// port 0 is any that is free
    ///
    /// The first is its descriptor 3, the next is 4, and so on; directories follow. LISTEN_FDS says
    /// how many there are. A program cannot connect to others, and there is no UDP.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = tcp_address)]
    net: Vec<SocketAddr>,

    /// Arguments of the program
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let grants = self.grants()?;
        let (root, evaluation) = context.evaluate(&self.project, Some(&self.attribute), Mode::Build)?;
        let only = super::target::only(&evaluation, &self.attribute)?;
        let store = context.store()?;
        context.take_sources(&store, &root, &evaluation)?;
        let compiled = {
            let display = Display::new(label(only, &evaluation), context.quiet, context.json);
            let (substitutes, _local) = self.building.substitutes(context, &store, &evaluation)?;
            let how = How { substitutes, ..self.building.how(context, false)? };
            let realiser = context.realiser(&store, how, display.observer());
            let realised = context.realise(&realiser, &evaluation)?;
            let outputs = wanted(&evaluation, &realised);
            let output = outputs.iter().find(|o| o.is_default()).or(outputs.first());
            let nar = output.ok_or_else(|| CliError::new(Code::NotFound, "it has no output"))?.nar;
            let archive = store.open_nar(&nar)?;
            let (path, wasm) = self.program(&archive, only.main.as_deref(), only_name(&evaluation, only))?;
            let builder = Builder::new(store.clone(), &std::env::current_exe()?);
            let compiling = || {
                context.tell(&format!(
                    "{} {path} to machine code ({}), once",
                    Style::Dim.paint("compiling"),
                    bytes(wasm.len() as u64)
                ));
            };
            let compiled = context.block_on(builder.modules().compiled(wasm, compiling))?;
            compiled.map_err(|e| {
                CliError::of(Code::Failed, &e).hint("only WASI preview 1 command modules are run")
            })?
        };
        // Others may use the store while the program runs.
        drop(store);
        let mut grants = grants;
        grants.args.insert(0, self.attribute.clone());
        for (descriptor, address) in (3u32..).zip(&self.net) {
            let listener = Listener::bind(*address).map_err(unavailable)?;
            tell_listening(context, descriptor, listener.address());
            grants.listeners.push(listener);
        }
        let teller = context.clone();
        let refused = move || {
            teller.tell(&format!(
                "{}: the program asked for a network that it was not granted; let it listen with --net ADDRESS:PORT",
                Style::Hint.paint("hint")
            ));
        };
        match context.block_on(node::run::run(&compiled, grants, refused))? {
            Ok(code) => Ok(ExitCode::from((code & 0xff) as u8)),
            Err(RunError::Trap { trap, backtrace }) => {
                let mut error = CliError::new(Code::Failed, format!("`{}` trapped: {trap}", self.attribute));
                for frame in backtrace {
                    error = error.detail(format!("at {frame}"));
                }
                error.report(context.json);
                Ok(ExitCode::from(134))
            }
            Err(error @ RunError::Directory { .. }) => {
                Err(CliError::of(Code::NotFound, &error).hint("grant a directory that exists with --dir"))
            }
            Err(error) => Err(CliError::of(Code::Failed, &error)),
        }
    }

    fn grants(&self) -> Result<Grants, CliError> {
        let mut grants = Grants { args: self.args.clone(), ..Grants::default() };
        for text in &self.env {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => match std::env::var(text) {
                    Ok(value) => (text.as_str(), value),
                    Err(_) => {
                        return Err(CliError::new(
                            Code::Usage,
                            format!("the variable `{text}` is not set, or not text"),
                        )
                        .hint(format!("give its value: --env {text}=VALUE")));
                    }
                },
            };
            grants.env.push((name.into(), value));
        }
        for text in &self.dir {
            let (text, read_only) = match text.strip_suffix(":ro") {
                Some(text) => (text, true),
                None => (text.as_str(), false),
            };
            let (host, guest) = text.split_once('=').unwrap_or((text, text));
            grants.directories.push(Grant { host: PathBuf::from(host), guest: guest.into(), read_only });
        }
        Ok(grants)
    }

    /// The program to run: the one named on the command line, the one its author names, the output
    /// itself if it is a file, `bin/<name>.wasm`, or the only executable.
    fn program<'a>(
        &self,
        archive: &'a Archive,
        main: Option<&str>,
        name: &str,
    ) -> Result<(String, &'a [u8]), CliError> {
        let content = |path: &str| {
            let found = archive.index().lookup(path.as_bytes(), archive.bytes())?;
            match archive.index().node_of(found) {
                Node::File { .. } => archive.index().content(found, archive.bytes()),
                _ => None,
            }
        };
        let programs = programs(archive);
        if let Some(path) = self.program.as_deref().or(main) {
            return content(path).map(|wasm| (path.to_owned(), wasm)).ok_or_else(|| {
                CliError::new(Code::NotFound, format!("there is no file `{path}` in `{}`", self.attribute))
                    .hint(choices(&programs))
            });
        }
        let own = [String::new(), format!("bin/{name}.wasm"), format!("{name}.wasm")];
        if let Some((path, wasm)) = own.iter().find_map(|path| Some((path.clone(), content(path)?))) {
            return Ok((if path.is_empty() { name.into() } else { path }, wasm));
        }
        match programs.as_slice() {
            [only] => match content(only) {
                Some(wasm) => Ok((only.clone(), wasm)),
                None => Err(CliError::new(Code::NotFound, format!("`{only}` is not a file"))),
            },
            _ => Err(CliError::new(
                Code::NotFound,
                format!("`{}` does not say which program to run", self.attribute),
            )
            .hint(choices(&programs))),
        }
    }
}

/// `[tcp:]ADDRESS:PORT`, in numbers: what a name stands for is another machine's to say.
fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    if text.starts_with("udp:") {
        return Err("WASI preview 1 has no UDP".into());
    }
    text.strip_prefix("tcp:").unwrap_or(text).parse().map_err(|_| {
        "an address is its number and a port: 127.0.0.1:8080 or [::1]:8080 for this machine alone, \
         0.0.0.0:8080 for all who can reach it"
            .into()
    })
}

fn unavailable(error: ListenError) -> CliError {
    let hint = match error.source.kind() {
        io::ErrorKind::AddrInUse => "choose another port, or 0 for any that is free",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or 0 for any that is free",
        _ => "127.0.0.1 and [::1] are for this machine alone, 0.0.0.0 and [::] for all who can reach it",
    };
    CliError::of(Code::Failed, &error).hint(hint)
}

/// Says where a program can be reached, before it runs.
fn tell_listening(context: &Context, descriptor: u32, address: SocketAddr) {
    if context.json && !context.quiet {
        let listening = serde_json::json!({ "address": address.to_string(), "descriptor": descriptor });
        output::complain(&output::envelope("listening", &listening).to_string());
    } else {
        context.tell(&format!("listening on {address}"));
    }
}

fn only_name<'e>(evaluation: &'e node::eval::Evaluation, root: &node::eval::Root) -> &'e str {
    evaluation.derivations.get(&root.derivation).map_or("", |d| d.name().as_str())
}

/// The executables of an output.
fn programs(archive: &Archive) -> Vec<String> {
    let nodes = archive.index().walk(archive.bytes());
    let executable = nodes
        .into_iter()
        .filter(|(_, id)| matches!(archive.index().node_of(*id), Node::File { executable: true, .. }));
    executable.map(|(path, _)| String::from_utf8_lossy(&path).into_owned()).collect()
}

fn choices(programs: &[String]) -> String {
    match programs {
        [] => "its output has no program in it".into(),
        some => {
            let some: Vec<_> = some.iter().take(8).map(String::as_str).collect();
            format!("choose with --program: {}", some.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers() {
        let address = |text: &str| tcp_address(text).map(|a| a.to_string());
        for right in ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:80", "[::]:65535"] {
            assert_eq!(address(right), Ok(right.into()));
            assert_eq!(address(&format!("tcp:{right}")), Ok(right.into()));
        }
        for wrong in
            ["", "8080", ":8080", "localhost:8080", "127.0.0.1", "::1:80", "1.2.3.4:65536", "udp:1.2.3.4:5"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
