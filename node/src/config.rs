//! What a node's owner configures: `config.jsonnet`, every key with its default; an unknown key is
//! an error.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    build::Limits,
    eval::{self, EvalError, EvalLimits, Mode, Request},
    fetch,
};

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Executions at once; as many as there are processors if not given.
    pub jobs: Option<usize>,
    /// What one build may use at most.
    pub limits: Limits,
    /// How files are fetched.
    pub fetch: fetch::Config,
    /// Whether what is built here is signed, as far as nothing else is said; it is if not given.
    pub attest: Option<bool>,
    /// Where the node listens, and whom it looks for.
    pub network: crate::net::Config,
    /// What a rebuilder does (`assize watch`).
    pub watch: crate::watch::Config,
    /// How many must agree, as [`trust::policy::Policy::compile`] reads it; the default policy if
    /// not given.
    pub policy: Option<serde_json::Value>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It does not evaluate.
    #[error("the configuration does not evaluate")]
    Eval(#[source] EvalError),
    /// It evaluates to something else than a configuration.
    #[error("the configuration is not understood")]
    Content(#[source] serde_json::Error),
    /// Nothing could run.
    #[error("`jobs` must be at least 1")]
    NoJobs,
}

impl Config {
    /// Reads the configuration at `path`; the default if there is no such file. `executable` is
    /// this program, which evaluates in a process of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn read(executable: &Path, path: &Path) -> Result<Self, ConfigError> {
        let canonical = match path.canonicalize() {
            Ok(path) => path,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ConfigError::Io { path: path.into(), source }),
        };
        let (Some(root), Some(file)) = (canonical.parent(), canonical.file_name()) else {
            return Ok(Self::default());
        };
        let request = Request { root: root.into(), file: file.into(), attribute: None, mode: Mode::Json };
        let evaluation = eval::evaluate(executable, &request, &EvalLimits::default(), |_| {});
        let json = evaluation.map_err(ConfigError::Eval)?.json.unwrap_or_default();
        // In two steps, since a line of this JSON is no line of the file.
        let value: serde_json::Value = serde_json::from_str(&json).map_err(ConfigError::Content)?;
        let fields: serde_json::Map<_, _> = serde_json::from_value(value).map_err(ConfigError::Content)?;
        let config = serde_json::from_value::<Self>(fields.into()).map_err(ConfigError::Content)?;
        match config.jobs {
            Some(0) => Err(ConfigError::NoJobs),
            _ if config.watch.jobs == 0 => Err(ConfigError::NoJobs),
            _ => Ok(config),
        }
    }

    /// Whether what is built here is signed.
    pub fn attests(&self) -> bool {
        self.attest.unwrap_or(true)
    }

    /// Executions at once.
    pub fn jobs(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(processors)
    }
}
