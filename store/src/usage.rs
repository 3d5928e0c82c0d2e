//! Counting: how much of the disk each part of the store takes.

use crate::{DiskError, Store, disk, gc::Area};

/// Files and bytes of each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Archives.
    pub nars: Area,
    /// Facts.
    pub journal: Area,
    /// The index over them.
    pub index: Area,
    /// Build logs.
    pub logs: Area,
    /// Compiled modules.
    pub modules: Area,
    /// What is in use by something that runs.
    pub temp: Area,
    /// Pieces of archives that are on their way.
    pub partial: Area,
    /// Damaged things that were moved aside.
    pub quarantine: Area,
}

impl Usage {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        let Self { nars, journal, index, logs, modules, temp, partial, quarantine } = self;
        [nars, journal, index, logs, modules, temp, partial, quarantine].iter().map(|area| area.bytes).sum()
    }
}

impl Store {
    /// Counts files and their lengths; takes time in proportion to the number of files.
    pub fn usage(&self) -> Result<Usage, DiskError> {
        let count = |dir| {
            let mut area = Area::default();
            disk::walk(dir, &mut |_, metadata| area.add(metadata.len()))?;
            Ok::<_, DiskError>(area)
        };
        Ok(Usage {
            nars: count(&self.home.cas)?,
            journal: count(&self.home.journal)?,
            index: count(&self.home.index)?,
            logs: count(&self.home.logs)?,
            modules: count(&self.home.modules)?,
            temp: count(&self.home.tmp)?,
            partial: count(&self.home.partial)?,
            quarantine: count(&self.home.quarantine)?,
        })
    }
}
