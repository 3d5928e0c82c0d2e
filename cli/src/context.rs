//! What commands share: where things are, and the store, the evaluator and the builder on demand.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use etcetera::BaseStrategy as _;
use node::{
    build::Builder,
    config::Config,
    eval::{self, EvalLimits, Evaluation, Mode, Request, Root},
    judgement::{Judgement, RosterFile},
    key::Keys,
    realise::{How, Observer, Realised, Realiser},
};
use protocol::{
    id::DerivationId,
    key::{AttesterKey, SigningKey},
};
use store::Store;

use crate::{
    exit::{self, CliError, Code},
    output::{self, Style},
};

/// Where the project is: the same for every command that evaluates.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Project {
    /// File to evaluate, or directory with a `build.jsonnet`
    #[arg(short, long, default_value = ".", value_name = "PATH")]
    pub(crate) file: PathBuf,

    /// Directory that imports and sources may not leave [default: the directory of the file]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// What every command is given.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) home: PathBuf,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    executable: PathBuf,
    config_file: PathBuf,
}

impl Context {
    pub(crate) fn new(home: Option<PathBuf>, json: bool, quiet: bool) -> Result<Self, CliError> {
        let strategy = etcetera::choose_base_strategy()
            .map_err(|e| CliError::of(Code::Failed, &e).hint("set HOME, or name a directory with --home"))?;
        // Not read by clap, whose usage line would then show `--home` as if it were required.
        let named = || std::env::var_os("ASSIZE_HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
        let home = match home.or_else(named) {
            Some(home) => std::path::absolute(home)?,
            None => strategy.data_dir().join("assize"),
        };
        let users = strategy.config_dir().join("assize").join("config.jsonnet");
        // A store that has a configuration of its own is a node of its own.
        let own = home.join("config.jsonnet");
        let config_file = if own.exists() { own } else { users };
        Ok(Self { home, json, quiet, executable: std::env::current_exe()?, config_file })
    }

    /// Opens the store; waits for another process that has it open.
    pub(crate) fn store(&self) -> Result<Arc<Store>, CliError> {
        let waiting = |pid: Option<u32>| {
            let owner = pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
            self.tell(&format!(
                "waiting for {owner}, which has the store open; nobody waits while `assize node start` runs"
            ));
            true
        };
        self.open(waiting)
    }

    fn open(&self, waiting: impl FnMut(Option<u32>) -> bool) -> Result<Arc<Store>, CliError> {
        let store = Store::open(&self.home, waiting).map_err(|e| {
            let code = match e {
                store::OpenError::Index(_) => Code::StoreDamaged,
                _ => Code::Failed,
            };
            match e {
                // It says itself what to do.
                store::OpenError::Unwelcome(_) | store::OpenError::Served(_) => CliError::of(code, &e),
                _ => CliError::of(code, &e).hint(format!(
                    "is `{}` writable, with space left? `assize doctor` tells",
                    self.home.display()
                )),
            }
        })?;
        for notice in store.notices() {
            self.tell(&format!("{}: {notice}", Style::Busy.paint("repaired")));
        }
        Ok(Arc::new(store))
    }

    /// Opens the store for a process that serves it to others: nobody else may have it open.
    pub(crate) fn own_store(&self) -> Result<(Arc<Store>, store::Service), CliError> {
        let store = self.open(|_| false)?;
        let service = store.serve().map_err(|e| {
            CliError::of(Code::Failed, &e)
                .hint("`assize node status` shows the node that runs, `assize node stop` ends it")
        })?;
        Ok((store, service))
    }

    /// Says something on stderr unless asked to be quiet.
    pub(crate) fn tell(&self, text: &str) {
        match (self.quiet, self.json) {
            (true, _) => {}
            (_, true) => output::complain(&output::envelope("notice", &text).to_string()),
            _ => output::complain(text),
        }
    }

    /// The owner's configuration.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        Config::read(&self.executable, &self.config_file).map_err(|e| {
            CliError::of(Code::Evaluation, &e).hint(format!("mend `{}`", self.config_file.display()))
        })
    }

    /// Where the configuration is read from.
    pub(crate) fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// Evaluates an attribute of the project.
    pub(crate) fn evaluate(
        &self,
        project: &Project,
        attribute: Option<&str>,
        mode: Mode,
    ) -> Result<(PathBuf, Evaluation), CliError> {
        let missing = |path: &Path| {
            let path = path.to_owned();
            move |e: std::io::Error| {
                CliError::unreadable(&path, &e)
                    .hint("name a Jsonnet file, or a directory with a `build.jsonnet`, with -f")
            }
        };
        let mut file = project.file.canonicalize().map_err(missing(&project.file))?;
        if file.is_dir() {
            file.push("build.jsonnet");
            file = file.canonicalize().map_err(missing(&file))?;
        }
        let root = match &project.root {
            Some(root) => root.canonicalize().map_err(missing(root))?,
            None => file.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let Ok(relative) = file.strip_prefix(&root) else {
            let what = format!("`{}` is not below `{}`", file.display(), root.display());
            return Err(CliError::new(Code::Usage, what).hint("name a --root that the file is below"));
        };
        let request = Request {
            root: root.clone(),
            file: relative.to_owned(),
            // The file's own value is called `.`, here and in what is said of it.
            attribute: attribute.filter(|a| !matches!(*a, "" | ".")).map(str::to_owned),
            mode,
        };
        let trace =
            |line: &str| self.tell(&format!("{} {}", Style::Dim.paint("trace:"), output::plain(line)));
        let evaluation = eval::evaluate(&self.executable, &request, &EvalLimits::default(), trace)?;
        Ok((root, evaluation))
    }

    /// Brings the sources that an evaluation hashed into the store.
    pub(crate) fn take_sources(
        &self,
        store: &Store,
        root: &Path,
        evaluation: &Evaluation,
    ) -> Result<(), CliError> {
        for source in &evaluation.sources {
            if store.contains(&source.hash) {
                continue;
            }
            let path = root.join(&source.path);
            node::source::take(store, &path, &source.exclude, source.hash).map_err(|e| {
                CliError::of(Code::Failed, &e).hint("run the command again when nothing changes the file")
            })?;
        }
        Ok(())
    }

    /// Where keys are.
    pub(crate) fn keys(&self) -> Keys {
        Keys::new(&self.home)
    }

    /// This machine's key, which is made if there is none.
    pub(crate) fn key(&self) -> Result<SigningKey, CliError> {
        let keys = self.keys();
        let (key, made) = keys.load_or_create()?;
        if made {
            self.tell(&format!(
                "made this machine's key, {}; keep a copy of it with `assize key backup DIR`",
                AttesterKey::of(&key)
            ));
        }
        Ok(key)
    }

    /// The file that says who counts.
    pub(crate) fn roster(&self) -> RosterFile {
        RosterFile::new(&self.home)
    }

    /// Who counts, how many must agree, and what was said. `policy` is instead of the configured one.
    pub(crate) fn judgement(
        &self,
        store: &Arc<Store>,
        policy: Option<serde_json::Value>,
    ) -> Result<Judgement, CliError> {
        let policy = match policy {
            Some(policy) => Some(policy),
            None => self.config()?.policy,
        };
        let own = self.keys().load()?.map(|key| AttesterKey::of(&key));
        let roster = self.roster().read()?;
        Ok(Judgement::new(store.clone(), roster, policy.as_ref(), own)?)
    }

    /// What executes actions for the store.
    pub(crate) fn builder(&self, store: &Arc<Store>) -> Builder {
        Builder::new(store.clone(), &self.executable)
    }

    /// A realiser for the store.
    pub(crate) fn realiser(&self, store: &Arc<Store>, how: How, observer: Arc<dyn Observer>) -> Realiser {
        Realiser::new(Arc::new(self.builder(store)), how, observer)
    }

    /// Makes the outputs of what was evaluated exist. What failed is an error, the first one at
    /// length, and the others were reported as they happened.
    pub(crate) fn realise(&self, realiser: &Realiser, evaluation: &Evaluation) -> Result<Realised, CliError> {
        match self.realise_some(realiser, evaluation)? {
            (realised, None) => Ok(realised),
            (_, Some(error)) => Err(error),
        }
    }

    /// The same, but for what succeeds beside a failure.
    pub(crate) fn realise_some(
        &self,
        realiser: &Realiser,
        evaluation: &Evaluation,
    ) -> Result<(Realised, Option<CliError>), CliError> {
        let roots: BTreeSet<DerivationId> = evaluation.roots.iter().map(|root| root.derivation).collect();
        let realised = self.block_on(realiser.realise(&evaluation.derivations, &roots))??;
        let error = realised.failed.first().map(exit::of_failed);
        Ok((realised, error))
    }

    /// Runs something asynchronous until it is done, or until Ctrl-C.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(async {
            tokio::select! {
                result = work => Some(result),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        match result {
            Some(result) => {
                runtime.shutdown_background();
                Ok(result)
            }
            None => {
                output::complain("interrupted");
                // Worker processes die with this one.
                std::process::exit(130)
            }
        }
    }
}

/// What a root is called: its attribute, or its derivation's name if it is the file's own value.
pub(crate) fn label(root: &Root, evaluation: &Evaluation) -> String {
    if !root.attribute.is_empty() {
        return root.attribute.clone();
    }
    evaluation.derivations.get(&root.derivation).map_or_else(String::new, |d| d.name().to_string())
}
