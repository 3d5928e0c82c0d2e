//! `completions` and `man`: what shells and manual readers want to know.

use std::{path::PathBuf, process::ExitCode};

use clap::CommandFactory as _;

use super::Cli;
use crate::{context::Context, exit::CliError, output};

/// Print completions for a shell
#[derive(clap::Args, Debug)]
pub(crate) struct Completions {
    /// Shell to print them for
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode, CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "assize", &mut text);
        output::raw(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Print the manual page, or write all pages to a directory
#[derive(clap::Args, Debug)]
pub(crate) struct Man {
    /// Directory for a page of every command
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self.directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory)?;
                clap_mangen::generate_to(Cli::command(), &directory)?;
                if context.json {
                    output::json(
                        "man",
                        &serde_json::json!({ "directory": directory.display().to_string() }),
                    )?;
                }
            }
            None => {
                let mut text = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut text)?;
                output::raw(&text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
