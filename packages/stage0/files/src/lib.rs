//! `files TOOL [ARGS...]`: file operations, one tool for each.
//!
//! ```text
//! place.rs     where files are: copy, select, split, link, mkdir, remove, list
//! content.rs   what is in them: concat, write, substitute, test-equal
//! patch.rs     unified diffs: patch/diff.rs reads them, patch/apply.rs applies hunks
//! ```
//!
//! Equal arguments and equal files give equal results: whatever depends on an order is done in byte
//! order of names. A file that is written gets the directories it needs. Existing files are
//! replaced, except by `link` and by a patch that creates them.

#![forbid(unsafe_code)]

pub mod content;
pub mod patch;
pub mod place;

use std::io::{Read, Write};
use std::path::Path;

use stage0::command::Failure;

/// One tool: its name, how it is used, and what it does.
struct Tool {
    name: &'static str,
    usage: &'static str,
    run: fn(&[&str], &mut Streams<'_>) -> Result<(), Failure>,
}

/// What a tool reads and writes other than files.
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub output: &'a mut dyn Write,
}

/// How a tool's own `run` says that its arguments make no sense; [`run`] adds the usage.
const UNUSABLE: Failure = Failure::Usage("");

const TOOLS: &[Tool] = &[
    Tool {
        name: "copy",
        usage: "files copy FROM... TO",
        run: copy,
    },
    Tool {
        name: "select",
        usage: "files select FROM TO GLOB...",
        run: select,
    },
    Tool {
        name: "split",
        usage: "files split FROM NAME=GLOB[,GLOB...]...",
        run: split,
    },
    Tool {
        name: "concat",
        usage: "files concat TO FROM...",
        run: concat,
    },
    Tool {
        name: "write",
        usage: "files write [--json-field KEY] TO",
        run: write,
    },
    Tool {
        name: "substitute",
        usage: "files substitute FILE FROM=TO...\n       \
                files substitute --in FILE --out FILE --replace FROM TO [--replace FROM TO]...",
        run: substitute,
    },
    Tool {
        name: "patch",
        usage: "files patch [--strip N] DIR PATCHFILE...",
        run: apply_patches,
    },
    Tool {
        name: "remove",
        usage: "files remove PATH...",
        run: remove,
    },
    Tool {
        name: "mkdir",
        usage: "files mkdir PATH...",
        run: make_directories,
    },
    Tool {
        name: "link",
        usage: "files link TARGET NAME",
        run: link,
    },
    Tool {
        name: "test-equal",
        usage: "files test-equal A B",
        run: test_equal,
    },
    Tool {
        name: "list",
        usage: "files list DIR",
        run: list,
    },
];

const USAGE: &str = "files TOOL [ARGS...]
tools: copy, select, split, concat, write, substitute, patch, remove, mkdir, link, test-equal, list";

/// The full name, for messages, of the tool that `arguments` ask for.
pub fn name(arguments: &[String]) -> String {
    match tool(arguments) {
        Some((tool, _)) => format!("files {}", tool.name),
        None => "files".to_owned(),
    }
}

/// Runs the tool that `arguments` ask for.
///
/// # Errors
///
/// [`Failure::Usage`] if there is no such tool or it can't be used like this, or
/// [`Failure::Failed`] with what a [`place::PlaceError`], a [`content::ContentError`], a
/// [`patch::PatchError`] or a [`stage0::tree::TreeError`] says.
pub fn run(arguments: &[String], streams: &mut Streams<'_>) -> Result<(), Failure> {
    let Some((tool, arguments)) = tool(arguments) else {
        return Err(Failure::Usage(USAGE));
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    (tool.run)(&arguments, streams).map_err(|failure| match failure {
        Failure::Usage(_) => Failure::Usage(tool.usage),
        Failure::Failed(message) => Failure::Failed(message),
    })
}

fn tool(arguments: &[String]) -> Option<(&'static Tool, &[String])> {
    let (name, arguments) = arguments.split_first()?;
    let tool = TOOLS.iter().find(|tool| tool.name == name)?;
    Some((tool, arguments))
}

fn copy(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [from @ .., to] if !from.is_empty() => Ok(place::copy(from, to)?),
        _ => Err(UNUSABLE),
    }
}

fn select(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [from, to, globs @ ..] if !globs.is_empty() => {
            Ok(place::select(Path::new(from), Path::new(to), globs)?)
        }
        _ => Err(UNUSABLE),
    }
}

fn split(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    let [from, groups @ ..] = arguments else {
        return Err(UNUSABLE);
    };
    let groups: Option<Vec<_>> = groups.iter().copied().map(place::Group::parse).collect();
    match groups {
        Some(groups) if !groups.is_empty() => {
            Ok(place::split(Path::new(from), Path::new("/"), &groups)?)
        }
        _ => Err(UNUSABLE),
    }
}

fn concat(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [to, from @ ..] if !from.is_empty() => Ok(content::concat(Path::new(to), from)?),
        _ => Err(UNUSABLE),
    }
}

fn write(arguments: &[&str], streams: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        ["--json-field", key, to] => Ok(content::write_field(streams.input, key, Path::new(to))?),
        [to] if !to.starts_with("--") => Ok(content::write(streams.input, Path::new(to))?),
        _ => Err(UNUSABLE),
    }
}

fn substitute(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    let Substitution {
        from,
        to,
        replacements,
    } = Substitution::parse(arguments).ok_or(UNUSABLE)?;
    let is_usable = !replacements.is_empty() && replacements.iter().all(|(old, _)| !old.is_empty());
    if !is_usable {
        return Err(UNUSABLE);
    }
    Ok(content::substitute(from, to, &replacements)?)
}

struct Substitution<'a> {
    from: &'a Path,
    to: &'a Path,
    /// Old text and new text.
    replacements: Vec<(&'a str, &'a str)>,
}

impl<'a> Substitution<'a> {
    fn parse(arguments: &[&'a str]) -> Option<Self> {
        match arguments {
            [first, ..] if first.starts_with("--") => Self::parse_options(arguments),
            [file, replacements @ ..] => {
                let replacements = replacements.iter().map(|text| text.split_once('='));
                Some(Self {
                    from: Path::new(*file),
                    to: Path::new(*file),
                    replacements: replacements.collect::<Option<_>>()?,
                })
            }
            [] => None,
        }
    }

    fn parse_options(mut arguments: &[&'a str]) -> Option<Self> {
        let (mut from, mut to, mut replacements) = (None, None, Vec::new());
        while !arguments.is_empty() {
            arguments = match arguments {
                ["--in", file, rest @ ..] if from.is_none() => {
                    from = Some(Path::new(*file));
                    rest
                }
                ["--out", file, rest @ ..] if to.is_none() => {
                    to = Some(Path::new(*file));
                    rest
                }
                ["--replace", old, new, rest @ ..] => {
                    replacements.push((*old, *new));
                    rest
                }
                _ => return None,
            };
        }
        Some(Self {
            from: from?,
            to: to?,
            replacements,
        })
    }
}

fn apply_patches(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    let (strip, arguments) = match arguments {
        ["--strip", count, rest @ ..] => (count.parse().map_err(|_| UNUSABLE)?, rest),
        _ => (patch::STRIP, arguments),
    };
    match arguments {
        [dir, patches @ ..] if !patches.is_empty() && !dir.starts_with("--") => {
            Ok(patch::patch(Path::new(dir), patches, strip)?)
        }
        _ => Err(UNUSABLE),
    }
}

fn remove(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    for path in some(arguments)? {
        place::remove(Path::new(path))?;
    }
    Ok(())
}

fn make_directories(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    for path in some(arguments)? {
        stage0::tree::make_directory(Path::new(path))?;
    }
    Ok(())
}

fn link(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [target, name] if !target.is_empty() => {
            Ok(place::link(Path::new(target), Path::new(name))?)
        }
        _ => Err(UNUSABLE),
    }
}

fn test_equal(arguments: &[&str], _: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [a, b] => Ok(content::test_equal(Path::new(a), Path::new(b))?),
        _ => Err(UNUSABLE),
    }
}

fn list(arguments: &[&str], streams: &mut Streams<'_>) -> Result<(), Failure> {
    match arguments {
        [dir] => Ok(place::list(Path::new(dir), streams.output)?),
        _ => Err(UNUSABLE),
    }
}

fn some<'a, 'b>(arguments: &'a [&'b str]) -> Result<&'a [&'b str], Failure> {
    if arguments.is_empty() {
        return Err(UNUSABLE);
    }
    Ok(arguments)
}
