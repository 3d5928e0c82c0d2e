//! Opening the journal: finding its segments, replaying its records, repairing what is damaged.
//!
//! Two kinds of damage are told apart by where they are. At the end of the last segment it is an
//! append that was not finished, and so was never acknowledged: it is cut off. Anywhere else it is
//! a disk that forgot: the segment is copied to the quarantine and written anew from the records
//! that are whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::{
    Location, Placed, Tail,
    frame::{self, FRAME_BYTES, Piece},
    segment_path,
};
use crate::{
    Notice,
    disk::{self, DiskError, Doing as _, sync_dir, sync_file},
    fact::{FACT_BYTES, Fact},
    index::{Applied, Gist},
};

/// What was found between two places of the journal.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Facts that were whole.
    pub(crate) facts: u64,
    /// Stretches that are no records: segment, from, to.
    pub(crate) gaps: Vec<(u32, u32, u32)>,
    /// An append that was not finished: segment, from, to.
    pub(crate) torn: Option<(u32, u32, u32)>,
    /// Whole records that are no facts known to this version.
    pub(crate) unknown: Vec<(u32, u32)>,
    /// Segments that should be there and are not.
    pub(crate) missing: Vec<u32>,
    /// Where the last good record ends.
    pub(crate) end: (u32, u32),
}

/// The numbers of the segments, in order.
pub(crate) fn segments(dir: &Path) -> Result<Vec<u32>, DiskError> {
    let number = |entry: &fs::DirEntry| -> Option<u32> {
        let name = entry.file_name();
        let number = name.to_str()?.strip_suffix(".log")?.parse().ok()?;
        (number > 0 && *segment_path(dir, number) == entry.path()).then_some(number)
    };
    let mut segments: Vec<_> = disk::list(dir)?.iter().filter_map(number).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// The journal's id: what the first segment says whose head is whole.
pub(crate) fn id(dir: &Path, segments: &[u32]) -> Result<Option<[u8; 16]>, DiskError> {
    for segment in segments {
        let path = segment_path(dir, *segment);
        let mut start = Vec::new();
        let file = File::open(&path).doing("open", &path)?;
        file.take(256).read_to_end(&mut start).doing("read", &path)?;
        if let Some((id, _)) = frame::whole(&start).and_then(|f| frame::read_head(f.payload)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether the record that was applied last is where it was.
pub(crate) fn holds(dir: &Path, applied: &Applied) -> Result<bool, DiskError> {
    let path = segment_path(dir, applied.last.segment);
    let mut file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.doing("open", &path)?,
    };
    if applied.last.len as usize > FACT_BYTES {
        return Ok(false);
    }
    file.seek(io::SeekFrom::Start(applied.last.offset.into())).doing("read", &path)?;
    let mut bytes = Vec::new();
    file.take(u64::from(FRAME_BYTES + applied.last.len)).read_to_end(&mut bytes).doing("read", &path)?;
    Ok(frame::whole(&bytes)
        .is_some_and(|frame| frame.crc == applied.crc && frame.payload.len() == applied.last.len as usize))
}

/// Gives every record from `from` on to `each`, and says what is not a record.
///
/// `until` is where to stop in the last segment: everything behind is not yet acknowledged.
/// Memory: one segment.
pub(crate) fn survey(
    dir: &Path,
    segments: &[u32],
    from: (u32, u32),
    until: Option<(u32, u32)>,
    mut each: impl FnMut(&Placed, &[u8]),
) -> Result<Survey, DiskError> {
    let mut survey = Survey { end: from, ..Survey::default() };
    let last = until.map_or(segments.last().copied().unwrap_or(0), |(segment, _)| segment);
    survey.missing = (from.0..=last).filter(|n| segments.binary_search(n).is_err()).collect();
    for segment in segments.iter().copied().filter(|n| (from.0..=last).contains(n)) {
        let path = segment_path(dir, segment);
        let start = if segment == from.0 { from.1 } else { 0 };
        let end = until.filter(|(last, _)| *last == segment).map_or(u32::MAX, |(_, end)| end);
        let mut bytes = Vec::new();
        let mut file = File::open(&path).doing("open", &path)?;
        file.seek(io::SeekFrom::Start(start.into())).doing("read", &path)?;
        file.take(end.saturating_sub(start).into()).read_to_end(&mut bytes).doing("read", &path)?;
        survey.end = (segment, start);
        for piece in frame::pieces(&bytes, start) {
            match piece {
                Piece::Record { at, frame } => {
                    survey.record(segment, at, frame, &mut each);
                    survey.end = (segment, at + FRAME_BYTES + frame.payload.len() as u32);
                }
                Piece::Gap { from, to } if segment == last && (to - start) as usize == bytes.len() => {
                    survey.torn = Some((segment, from, to));
                }
                Piece::Gap { from, to } => survey.gaps.push((segment, from, to)),
            }
        }
        if survey.end == (segment, 0) && segment != last {
            survey.gaps.push((segment, 0, 0));
        }
    }
    Ok(survey)
}

impl Survey {
    fn record(
        &mut self,
        segment: u32,
        offset: u32,
        frame: frame::Frame<'_>,
        each: &mut impl FnMut(&Placed, &[u8]),
    ) {
        let head = frame::read_head(frame.payload).is_some();
        match (offset, head) {
            (0, true) => return,
            // A segment that has lost its head gets a new one.
            (0, false) => self.gaps.push((segment, 0, 0)),
            (_, true) => return self.unknown.push((segment, offset)),
            (_, false) => {}
        }
        let at = Location { segment, offset, len: frame.payload.len() as u32 };
        match Fact::from_bytes(frame.payload) {
            Ok(fact) => {
                self.facts += 1;
                each(&Placed { at, crc: frame.crc, gist: Gist::of(&fact) }, frame.payload);
            }
            Err(_) => self.unknown.push((segment, offset)),
        }
    }

    /// What is wrong, if `end` is where the last acknowledged record ends.
    pub(crate) fn damage(&self, end: (u32, u32)) -> Vec<Notice> {
        let missing = self.missing.iter().map(|segment| Notice::SegmentMissing { segment: *segment });
        let gaps = self.gaps.iter().chain(&self.torn);
        let gaps = gaps.map(|(segment, from, to)| Notice::JournalDamaged {
            segment: *segment,
            from: *from,
            to: *to,
        });
        let short = (self.end.0 == end.0 && self.end.1 < end.1 && self.torn.is_none())
            .then_some(Notice::JournalDamaged { segment: end.0, from: self.end.1, to: end.1 });
        missing.chain(gaps).chain(short).collect()
    }

    /// The segments that have gaps.
    pub(crate) fn damaged(&self) -> Vec<u32> {
        let mut damaged: Vec<_> = self.gaps.iter().map(|(segment, ..)| *segment).collect();
        damaged.dedup();
        damaged
    }
}

/// Opens the end of the journal for appending, creating the first segment of a new journal.
///
/// `survey` has no gaps any more; what is torn is cut off here.
pub(crate) fn tail(dir: &Path, id: [u8; 16], survey: &Survey) -> Result<Tail, DiskError> {
    let (segment, end) = survey.end;
    if end == 0 {
        return Tail::create(dir, id, segment.max(1));
    }
    let path = segment_path(dir, segment);
    let file = OpenOptions::new().read(true).write(true).open(&path).doing("open", &path)?;
    if survey.torn.is_some() {
        file.set_len(end.into()).and_then(|()| sync_file(&file)).doing("shorten", &path)?;
    }
    Ok(Tail::new(file, segment, end))
}

/// Copies a torn end to the quarantine, if it is as long as the record it begins is said to be:
/// then it was perhaps a record once. Returns the copy.
pub(crate) fn save_torn(
    dir: &Path,
    quarantine: &Path,
    (segment, from, to): (u32, u32, u32),
) -> Result<Option<PathBuf>, DiskError> {
    let path = segment_path(dir, segment);
    let mut file = File::open(&path).doing("open", &path)?;
    let mut len = [0; 4];
    let read = file.seek(io::SeekFrom::Start(from.into())).and_then(|_| file.read_exact(&mut len));
    if let Err(e) = read {
        return if e.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(e).doing("read", &path) };
    }
    let len = u32::from_le_bytes(len);
    if len == 0 || u64::from(from) + u64::from(FRAME_BYTES) + u64::from(len) > u64::from(to) {
        return Ok(None);
    }
    disk::save_copy(&path, quarantine).map(Some)
}

/// Writes a damaged segment anew from its whole records and returns the copy of what it was.
///
/// Places change, so the index is worth nothing from here on, and must be gone before.
pub(crate) fn rewrite(
    dir: &Path,
    segment: u32,
    id: [u8; 16],
    tmp: &Path,
    quarantine: &Path,
) -> Result<PathBuf, DiskError> {
    let path = segment_path(dir, segment);
    let bytes = fs::read(&path).doing("read", &path)?;
    let mut good = frame::head(id, segment);
    for piece in frame::pieces(&bytes, 0) {
        if let Piece::Record { frame, .. } = piece
            && frame::read_head(frame.payload).is_none()
        {
            frame::put(&mut good, frame.payload);
        }
    }
    let saved = disk::save_copy(&path, quarantine)?;
    let mut new = tempfile::NamedTempFile::new_in(tmp).doing("create a file in", tmp)?;
    new.write_all(&good).and_then(|()| sync_file(new.as_file())).doing("write", new.path())?;
    new.persist(&path).map_err(|e| e.error).doing("replace", &path)?;
    sync_dir(dir)?;
    Ok(saved)
}
