//! `nar`: archives as files, without a store.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufWriter, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use node::difference;
use protocol::{
    id::NarHash,
    nar::{Index, Node, NodeId},
};
use store::PackError;

use crate::{
    context::Context,
    exit::{CliError, Code},
    output,
};

/// Make, read and hash NAR archives
#[derive(clap::Subcommand, Debug)]
pub(crate) enum NarCommand {
    /// Write the archive of a file or directory to stdout
    ///
    /// The bytes are those of `nix-store --dump`.
    Dump {
        /// File, directory or symlink
        path: PathBuf,
    },
    /// Unpack an archive to a path that does not exist yet
    Restore {
        /// Archive; `-` for stdin
        archive: PathBuf,
        /// Where to
        to: PathBuf,
    },
    /// Print the NAR hash of a file or directory
    Hash {
        /// File, directory or symlink
        path: PathBuf,
        /// Print hexadecimal digits, as `b3sum` does of the archive
        #[arg(long)]
        hex: bool,
    },
    /// List what is in an archive
    Ls {
        /// Archive, `nar:…` of the store, or `-` for stdin
        archive: OsString,
        /// Path in the archive
        #[arg(default_value = "")]
        path: OsString,
    },
    /// Show where two archives differ; exits with 1 if they do
    Diff {
        /// Archive, or `nar:…` of the store
        left: OsString,
        /// Archive, or `nar:…` of the store
        right: OsString,
    },
    /// Print a file of an archive
    Cat {
        /// Archive, `nar:…` of the store, or `-` for stdin
        archive: OsString,
        /// Path in the archive; of the root if the archive is of a single file
        #[arg(default_value = "")]
        path: OsString,
    },
}

impl NarCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Dump { path } => dump(&path)?,
            Self::Restore { archive, to } => {
                let bytes = Bytes::read(&archive)?;
                let index = bytes.index()?;
                let stats = store::unpack(bytes.as_slice(), &index, &to).map_err(|e| {
                    CliError::of(Code::Failed, &e).hint("name a path that does not exist yet")
                })?;
                if context.json {
                    let data = serde_json::json!({
                        "path": to.display().to_string(),
                        "files": stats.files,
                        "directories": stats.directories,
                        "symlinks": stats.symlinks,
                        "bytes": stats.bytes,
                    });
                    output::json("restore", &data)?;
                }
            }
            Self::Hash { path, hex } => {
                let mut hasher = store::HashingWriter::sink();
                pack(&path, &mut hasher)?;
                let (_, hash, size) = hasher.finish();
                if context.json {
                    let data =
                        serde_json::json!({ "nar": hash.to_string(), "hex": hash.to_hex(), "size": size });
                    output::json("hash", &data)?;
                } else {
                    output::say(&if hex { hash.to_hex() } else { hash.to_string() })?;
                }
            }
            Self::Ls { archive, path } => {
                let bytes = Bytes::named(context, &archive)?;
                list(context, &bytes, &path)?;
            }
            Self::Diff { left, right } => {
                let (left, right) = (Bytes::named(context, &left)?, Bytes::named(context, &right)?);
                let difference = difference::compare(left.as_slice(), right.as_slice()).map_err(|e| {
                    CliError::of(Code::Failed, &e).hint("`assize nar ls` says what an archive has")
                })?;
                match context.json {
                    true => output::json("difference", &difference)?,
                    false => difference.to_string().lines().try_for_each(output::say)?,
                }
                if !difference.is_empty() {
                    return Ok(Code::Failed.into());
                }
            }
            Self::Cat { archive, path } => {
                let bytes = Bytes::named(context, &archive)?;
                let index = bytes.index()?;
                let id = find(&index, &bytes, &path)?;
                match (index.node_of(id), index.content(id, bytes.as_slice())) {
                    (Node::File { .. }, Some(content)) => output::raw(content)?,
                    _ => {
                        let what = format!("`{}` is not a file", path.display());
                        return Err(
                            CliError::new(Code::Failed, what).hint("list what there is with `assize nar ls`")
                        );
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn pack(path: &Path, to: impl io::Write) -> Result<(), CliError> {
    store::pack(path, &[], to).map(drop).map_err(|e| match &e {
        PackError::Disk(disk) if disk.source.kind() == io::ErrorKind::NotFound => {
            CliError::unreadable(&disk.path, &disk.source)
        }
        _ => CliError::of(Code::Failed, &e),
    })
}

fn dump(path: &Path) -> Result<(), CliError> {
    let mut to = BufWriter::with_capacity(1 << 20, output::Stdout);
    pack(path, &mut to)?;
    Ok(to.flush()?)
}

/// The bytes of an archive, read or mapped.
enum Bytes {
    Read(Vec<u8>),
    Mapped(store::Archive),
}

impl Bytes {
    fn read(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes)?;
            return Ok(Self::Read(bytes));
        }
        let read = || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut File::open(path)?, &mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        read().map(Self::Read).map_err(|e| CliError::unreadable(path, &e))
    }

    fn named(context: &Context, name: &OsStr) -> Result<Self, CliError> {
        if let Some(name) = name.to_str().filter(|name| name.starts_with("nar:")) {
            let hash: NarHash =
                name.parse().map_err(|e: protocol::id::IdError| CliError::of(Code::Usage, &e))?;
            return Ok(Self::Mapped(context.store()?.open_nar(&hash)?));
        }
        Self::read(Path::new(name))
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(archive) => archive.bytes(),
        }
    }

    fn index(&self) -> Result<Index, CliError> {
        match self {
            Self::Read(bytes) => {
                Index::read(bytes).map_err(|e| CliError::new(Code::Failed, format!("not a NAR archive: {e}")))
            }
            Self::Mapped(archive) => Ok(archive.index().clone()),
        }
    }
}

fn find(index: &Index, bytes: &Bytes, path: &OsStr) -> Result<NodeId, CliError> {
    index.lookup(path.as_bytes(), bytes.as_slice()).ok_or_else(|| {
        CliError::new(Code::NotFound, format!("there is no `{}` in the archive", path.display()))
            .hint("list what there is with `assize nar ls`")
    })
}

fn list(context: &Context, bytes: &Bytes, path: &OsStr) -> Result<(), CliError> {
    let index = bytes.index()?;
    find(&index, bytes, path)?;
    let parts: Vec<_> = path.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
    let path = &parts.join(&b'/')[..];
    let below = |entry: &[u8]| {
        path.is_empty() || entry == path || (entry.starts_with(path) && entry.get(path.len()) == Some(&b'/'))
    };
    let mut data = Vec::new();
    for (entry, id) in index.walk(bytes.as_slice()).into_iter().filter(|(entry, _)| below(entry)) {
        let shown = String::from_utf8_lossy(&entry);
        let target = || index.content(id, bytes.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
        let (kind, size, link) = match index.node_of(id) {
            Node::Directory(_) => ("directory", 0, None),
            Node::File { executable: true, len, .. } => ("executable", len, None),
            Node::File { len, .. } => ("file", len, None),
            Node::Symlink { .. } => ("symlink", 0, Some(target())),
        };
        if context.json {
            data.push(serde_json::json!({ "path": shown, "kind": kind, "size": size, "target": link }));
            continue;
        }
        let mark = match kind {
            "directory" => 'd',
            "executable" => 'x',
            "symlink" => 'l',
            _ => '-',
        };
        let arrow = link.map_or(String::new(), |target| format!(" -> {target}"));
        let name = if shown.is_empty() { "." } else { &shown };
        // A name may have line breaks; a line is one entry.
        let line = format!("{mark} {size:>12}  {name}{arrow}").replace('\n', "\\n").replace('\t', "\\t");
        output::say(&output::plain(&line))?;
    }
    if context.json {
        output::json("ls", &data)?;
    }
    Ok(())
}
