//! How much a build may use. A limit only ever aborts: no guest can observe one (SPEC §7.4).

use serde::{Deserialize, Serialize};

use super::errno::Abort;

/// The limits of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of linear memory and tables together.
    pub memory: u64,
    /// Seconds by the wall clock.
    pub seconds: u64,
    /// Bytes of files written.
    pub disk: u64,
    /// Files, directories and symlinks written.
    pub files: u64,
    /// Bytes of log.
    pub log: u64,
}

impl Default for Limits {
    /// Room for the largest compilers known to run as wasm, on an ordinary laptop.
    fn default() -> Self {
        Self { memory: 4 << 30, seconds: 3600, disk: 8 << 30, files: 1 << 20, log: 64 << 20 }
    }
}

impl Limits {
    /// What a derivation asks for, but never more than these.
    pub fn within(self, asked: &protocol::derivation::Limits) -> Self {
        Self {
            memory: asked.memory.unwrap_or(self.memory).min(self.memory),
            seconds: asked.seconds.unwrap_or(self.seconds).min(self.seconds),
            disk: asked.disk.unwrap_or(self.disk).min(self.disk),
            ..self
        }
    }
}

/// Bytes that one element of a table takes.
const ELEMENT_BYTES: u64 = 8;

/// Counts linear memory and tables. Growth beyond the guest's own maximum is its own affair and
/// fails as the standard says; growth beyond the limit, or beyond what this machine has, aborts.
pub(crate) struct Limiter {
    limit: u64,
    used: u64,
    peak: u64,
}

impl Limiter {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0, peak: 0 }
    }

    /// The most that was used.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    fn grow(&mut self, from: u64, to: u64, maximum: Option<u64>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| to > maximum) {
            return Ok(false);
        }
        self.used = self.used.saturating_sub(from).saturating_add(to);
        if self.used > self.limit {
            return Err(super::wasi::End::Abort(Abort::Memory { limit: self.limit }).into());
        }
        self.peak = self.peak.max(self.used);
        Ok(true)
    }
}

impl wasmtime::ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(current as u64, desired as u64, maximum.map(|m| m as u64))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |n: usize| (n as u64).saturating_mul(ELEMENT_BYTES);
        self.grow(bytes(current), bytes(desired), maximum.map(bytes))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(super::wasi::End::Abort(Abort::Host(error.to_string())).into())
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(super::wasi::End::Abort(Abort::Host(error.to_string())).into())
    }
}
