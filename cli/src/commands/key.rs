//! `key`: the key under which this machine attests.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use node::attest::{against_next, now};
use protocol::{
    evidence::{self, Evidence, Revocation},
    key::{AttesterKey, Context as Signed, Signature, SigningKey, parse_secret, secret_text},
    statement::{Body, succession},
};

use trust::standing::Against;

use super::attest::{export_feeds, import_file};
use crate::{
    context::Context,
    exit::{CliError, Code},
    file,
    output::{self, Style},
};

/// The secret key, in a backup.
const SECRET: &str = "attester.secret";

/// The feed, in a backup.
const FEED: &str = "feed.evidence";

/// Look after this machine's key: show, back up, restore, succeed, revoke
///
/// The key signs what this machine built. It is made on first use, and kept in the store's
/// directory, readable by its owner only.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Print the public key, for others to trust
    Show,
    /// Write the secret key and its feed to a new directory, readable by its owner only
    ///
    /// Both belong together: a key that goes on without the newest statements of its feed says
    /// two things at one place, which ends it.
    Backup {
        /// Directory to make
        dir: PathBuf,
    },
    /// Take the key and its feed from a backup
    Restore {
        /// Directory that `backup` made
        dir: PathBuf,
    },
    /// Make a new key and name it in the old one's feed: both are one voter for those who trust it
    Rotate,
    /// Write a revocation certificate; or end the key now
    ///
    /// A certificate can be made in advance and kept in a safe place. Whoever imports it with
    /// `assize attest import` no longer counts what the key says.
    Revoke {
        /// The first place of the feed that does not count any more [default: 0, all of it]
        #[arg(long, value_name = "PLACE", default_value_t = 0, hide_default_value = true)]
        since: u64,
        /// File to write the certificate to
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Revoke it here and now, which cannot be undone
        #[arg(long)]
        now: bool,
    },
}

impl KeyCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Show => show(context)?,
            Self::Backup { dir } => backup(context, &dir)?,
            Self::Restore { dir } => restore(context, &dir)?,
            Self::Rotate => rotate(context)?,
            Self::Revoke { since, output, now } => revoke(context, since, output.as_deref(), now)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(context: &Context) -> Result<(), CliError> {
    let attester = AttesterKey::of(&context.key()?);
    if context.json {
        let file = context.keys().path();
        return Ok(output::json("key", &serde_json::json!({ "key": attester, "file": file }))?);
    }
    Ok(output::say(&attester.to_string())?)
}

/// The key that is there, which is not made for the occasion.
fn existing(context: &Context) -> Result<SigningKey, CliError> {
    context.keys().load()?.ok_or_else(|| {
        CliError::new(Code::NotFound, "this machine has no key yet")
            .hint("it is made with the first build, or with `assize key show`")
    })
}

fn backup(context: &Context, dir: &Path) -> Result<(), CliError> {
    let key = existing(context)?;
    let store = context.store()?;
    let failed = |e: std::io::Error| {
        CliError::new(Code::Failed, format!("cannot write `{}`: {e}", dir.display()))
            .hint("name a directory that does not exist yet")
    };
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(failed)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut secret = options.open(dir.join(SECRET)).map_err(failed)?;
    writeln!(secret, "{}", secret_text(&key)).and_then(|()| secret.sync_all()).map_err(failed)?;
    let mut feed = options.open(dir.join(FEED)).map_err(failed)?;
    let count = export_feeds(&store, &[AttesterKey::of(&key)], 0, &mut feed)?;
    feed.sync_all().map_err(failed)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    if context.json {
        let data = serde_json::json!({ "key": AttesterKey::of(&key), "dir": dir, "items": count });
        return Ok(output::json("backup", &data)?);
    }
    context.tell(&format!(
        "the key and {} of its feed are in `{}`; make a new backup now and then",
        output::count(count, "statement"),
        dir.display()
    ));
    Ok(())
}

fn restore(context: &Context, dir: &Path) -> Result<(), CliError> {
    let path = dir.join(SECRET);
    let text = fs::read_to_string(&path).map_err(|e| {
        CliError::new(Code::NotFound, format!("cannot read `{}`: {e}", path.display()))
            .hint("name a directory that `assize key backup` made")
    })?;
    let key = parse_secret(text.trim_end()).map_err(|e| CliError::of(Code::Key, &e))?;
    let store = context.store()?;
    // The feed first: a key without it must not speak.
    import_file(context, &store, &dir.join(FEED))?;
    context.keys().create(&key)?;
    let attester = AttesterKey::of(&key);
    let len = store.head(&attester)?.len();
    if context.json {
        return Ok(output::json("restore", &serde_json::json!({ "key": attester, "statements": len }))?);
    }
    context.tell(&format!("restored {attester} with {}", output::count(len, "statement")));
    context.tell(
        "if it said more after that backup, import that first from whoever has it, before the next build",
    );
    Ok(())
}

fn rotate(context: &Context) -> Result<(), CliError> {
    let old = existing(context)?;
    let store = context.store()?;
    let keys = context.keys();
    let new = keys.prepare_successor()?;
    let (from, successor) = (AttesterKey::of(&old), AttesterKey::of(&new));
    let void = against_next(&store, &from)?.filter(|why| !matches!(why, Against::Ended { .. }));
    // Interrupted after it was said: only the files are to be put right.
    if void.is_none() && !store.head(&from)?.ended() {
        let consent = Signature::sign(&new, Signed::Succession, &succession(&from, &successor));
        store.say(&old, now(), [Body::Succeed { successor, consent }])?;
    }
    keys.succeed()?;
    if context.json {
        return Ok(output::json("rotate", &serde_json::json!({ "from": from, "to": successor }))?);
    }
    output::say(&successor.to_string())?;
    context.tell(match void {
        None => "those who trust the old key count the new one as the same voter once they have its feed",
        Some(_) => "the old key counts no more, so it can name no successor: give others the new one",
    });
    Ok(())
}

fn revoke(context: &Context, since: u64, output: Option<&Path>, now: bool) -> Result<(), CliError> {
    if output.is_none() && !now {
        return Err(CliError::new(Code::Usage, "revoke it now, or write a certificate to do so later?")
            .hint("`--output FILE` writes one; `--now` revokes the key here, which cannot be undone"));
    }
    let key = existing(context)?;
    let attester = AttesterKey::of(&key);
    let certificate = Evidence::Revocation(Revocation::sign(&key, since));
    if let Some(path) = output {
        let bytes = [evidence::MAGIC, &certificate.to_bytes()].concat();
        file::write(path, |file| Ok(file.write_all(&bytes)?))?;
        context.tell(&format!(
            "whoever imports `{}` no longer counts what {attester} says; keep it safe",
            path.display()
        ));
    }
    if now {
        context.store()?.keep([certificate])?;
        context.tell(&format!("{} {attester}; give its feed to others", Style::Busy.paint("revoked")));
        context.tell("nothing more is signed with it: `assize key rotate` makes another");
    }
    if context.json {
        let data = serde_json::json!({ "key": attester, "since": since, "file": output, "now": now });
        output::json("revocation", &data)?;
    }
    Ok(())
}
