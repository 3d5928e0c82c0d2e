//! Power cuts, simulated: a store that keeps what was synced, and of the rest what an unkind disk keeps.
//!
//! Every sync of the store goes through `disk.rs`, which tells this module before and after. So it
//! is known of each file which bytes are durable, and of each directory which names are: a file is
//! found again only if its content was synced, and every directory above it. At every sync, before
//! it and after it, the power fails: what is durable is laid out anew in another directory, with what
//! was only written lost, cut, or zeros; and the machine boots. Then the store must open, and have all
//! that was acknowledged.
//!
//! Removals count as lost with the rest. What sled syncs is its own affair: the index is there as it
//! was last written, or not, or with some of its pages as they were when it was last closed.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use protocol::{
    action::{Action, FetchAction},
    id::NarHash,
    key::{AttesterKey, SigningKey},
    name::Name,
    nar,
    output::Output,
    statement::{Body, Ending, Failure, Platform},
};

use crate::{Fact, Notice, Realisation, Store};

thread_local! {
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
    static BOOT: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
}

/// The boot that is simulated, if one is.
pub(crate) fn boot() -> Option<[u8; 16]> {
    BOOT.get()
}

/// A file, whose name at this time is of no importance, is about to be synced, or was.
pub(crate) fn file(file: &File, synced: bool) {
    event(|disk| {
        let (id, bytes) = (file.metadata().unwrap().ino(), content(file));
        if synced {
            disk.files.insert(id, bytes);
            disk.cut(None);
        } else {
            disk.cut(Some((id, bytes)));
        }
    });
}

/// A directory is about to be synced, or was.
pub(crate) fn directory(path: &Path, synced: bool) {
    event(|disk| {
        if synced {
            let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
            let names = entries.map(|entry| {
                let metadata = entry.metadata().unwrap();
                (PathBuf::from(entry.file_name()), (metadata.ino(), metadata.is_dir()))
            });
            disk.directories.insert(path.metadata().unwrap().ino(), names.collect());
        }
        disk.cut(None);
    });
}

/// Takes the disk out meanwhile, so that what a booted store syncs is no event.
fn event(then: impl FnOnce(&mut Disk)) {
    let Some(mut disk) = DISK.take() else { return };
    then(&mut disk);
    DISK.set(Some(disk));
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// What a disk writes, or does not, as one.
const PAGE_BYTES: usize = 4096;

type Names = BTreeMap<PathBuf, (u64, bool)>;

/// What is durable, by inode, and what was acknowledged.
struct Disk {
    home: PathBuf,
    files: HashMap<u64, Vec<u8>>,
    directories: HashMap<u64, Names>,
    /// The files of the index when it was last closed, and so synced.
    index: HashMap<PathBuf, Vec<u8>>,
    acknowledged: Vec<u32>,
    random: u64,
    cuts: u32,
}

/// What is left of the index.
#[derive(Debug, Clone, Copy)]
enum IndexLeft {
    Nothing,
    All,
    Holes,
}

impl Disk {
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % below.max(1)
    }

    /// The power fails, in a way that changes from one time to the next. `writing` is a file that is
    /// being synced: any of its bytes may be on the disk.
    fn cut(&mut self, writing: Option<(u64, Vec<u8>)>) {
        self.cuts += 1;
        let index = [IndexLeft::Nothing, IndexLeft::All, IndexLeft::Holes][self.cuts as usize % 3];
        let mut files = self.files.clone();
        if let Some((id, mut bytes)) = writing {
            let durable = files.get(&id).map_or(0, Vec::len);
            let reached = durable + self.random((bytes.len() + 1).saturating_sub(durable));
            match self.random(2) {
                0 => bytes.truncate(reached),
                // The length is on the disk, the bytes are not.
                _ => bytes[reached..].fill(0),
            }
            files.insert(id, bytes);
        }
        let after = tempfile::tempdir_in(scratch()).unwrap();
        let root = self.home.metadata().unwrap().ino();
        self.lay_out(root, &files, &after.path().join("home"));
        self.lay_out_index(index, &after.path().join("home"));
        self.check(&after.path().join("home"), index);
    }

    fn lay_out(&self, directory: u64, files: &HashMap<u64, Vec<u8>>, to: &Path) {
        fs::create_dir(to).unwrap();
        for (name, (id, is_directory)) in self.directories.get(&directory).into_iter().flatten() {
            if *is_directory {
                self.lay_out(*id, files, &to.join(name));
            } else {
                fs::write(to.join(name), files.get(id).map_or(&[][..], Vec::as_slice)).unwrap();
            }
        }
    }

    fn lay_out_index(&mut self, left: IndexLeft, home: &Path) {
        let to = home.join("index");
        let _ = fs::remove_dir_all(&to);
        let mut files = Vec::new();
        // Its directory may be missing already.
        let _ = crate::disk::walk(&self.home.join("index"), &mut |path, _| files.push(path.to_owned()));
        if matches!(left, IndexLeft::Nothing) || files.is_empty() {
            return;
        }
        for from in files {
            let path = to.join(from.strip_prefix(self.home.join("index")).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut bytes = fs::read(&from).unwrap();
            if matches!(left, IndexLeft::Holes) {
                let before = self.index.get(&from).cloned().unwrap_or_default();
                for (n, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
                    let before = before.chunks(PAGE_BYTES).nth(n).unwrap_or_default();
                    if page != before && self.random(3) == 0 {
                        page.fill(0);
                        let len = before.len().min(page.len());
                        page[..len].copy_from_slice(&before[..len]);
                    }
                }
            }
            fs::write(path, bytes).unwrap();
        }
        if let Ok(mark) = fs::read(self.home.join("index.synced")) {
            fs::write(home.join("index.synced"), mark).unwrap();
        }
    }

    /// The machine boots.
    fn check(&mut self, home: &Path, index: IndexLeft) {
        let cut = self.cuts;
        BOOT.set(Some([cut as u8 | 0x80; 16]));
        let store = Store::open(home, |_| false).unwrap_or_else(|e| panic!("cut {cut}, {index:?}: {e:?}"));
        for notice in store.notices() {
            let harmless = matches!(
                notice,
                Notice::TornTail { .. } | Notice::IndexRebuilt { .. } | Notice::IndexSaved { .. }
            );
            assert!(harmless, "cut {cut}, {index:?}: {notice}");
        }
        for n in &self.acknowledged {
            let (action, bytes) = (action(*n), archive(*n));
            let hash = NarHash::of(&bytes);
            let found = store.open_nar(&hash).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
            assert!(found.bytes() == bytes, "cut {cut}: archive {n}");
            let built = store.realisation(&action.id()).unwrap();
            assert_eq!(built.map(|built| built.outputs[&Name::out()].nar), Some(hash), "cut {cut}: fact {n}");
            assert!(store.pins().unwrap().contains_key(&format!("pin {n}")), "cut {cut}: pin {n}");
        }
        let said = store.head(&AttesterKey::of(&key())).unwrap().len();
        assert!(said >= self.acknowledged.len() as u64, "cut {cut}: {said} statements");
        let report = store.verify(false, |_, _| {}).unwrap();
        assert!(report.is_clean(), "cut {cut}, {index:?}: {report:?}");
        one_thing(&store, 1_000_000);
        drop(store);
        assert_eq!(Store::open(home, |_| false).unwrap().notices(), [], "cut {cut}, {index:?}");
        BOOT.set(None);
    }
}

/// In memory if there is such a place: here nothing needs to last.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn action(n: u32) -> Action {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&n.to_le_bytes());
    let sri = format!("sha256-{}", data_encoding::BASE64.encode(&hash)).parse().unwrap();
    Action::Fetch(FetchAction { sri, executable: false })
}

fn archive(n: u32) -> Vec<u8> {
    let content = n.to_le_bytes().repeat(n as usize % 5 * 700);
    nar::dump_file(Vec::new(), n.is_multiple_of(2), content.len() as u64, &content[..]).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// Admits an archive, records what it is of, pins it, and says something of it.
fn one_thing(store: &Store, n: u32) {
    let (action, bytes) = (action(n), archive(n));
    let nar = store.admit(&bytes[..], None, u64::MAX).unwrap().hash;
    let id = action.id();
    let built = Realisation {
        action: id,
        derivation: None,
        name: Name::new("hello").unwrap(),
        outputs: BTreeMap::from([(Name::out(), Output { nar, size: bytes.len() as u64 })]),
        finished: 1,
        millis: 1,
        transcript: None,
    };
    store.record_all(&[Fact::Action(action), Fact::Built(built)]).unwrap();
    store.pin(&format!("pin {n}"), &BTreeSet::from([nar])).unwrap();
    let platform = Platform::here(Name::new("none").unwrap());
    let failed = Failure { action: id, step: 1, ending: Ending::Trap, platform };
    store.say(&key(), 0, [Body::Failed(failed)]).unwrap();
}

#[test]
fn what_was_acknowledged_survives_lost_power() {
    let outer = tempfile::tempdir_in(scratch()).unwrap();
    let home = outer.path().join("home");
    // The home's own name is its user's to keep.
    fs::create_dir(&home).unwrap();
    DISK.set(Some(Disk {
        home: home.clone(),
        files: HashMap::new(),
        directories: HashMap::new(),
        index: HashMap::new(),
        acknowledged: Vec::new(),
        random: 88172645463325252,
        cuts: 0,
    }));
    fs::create_dir(home.join("cas")).unwrap();
    for run in 0..4 {
        if run == 2 {
            // As does a process that is killed before it syncs what it has made.
            for shard in 0..=255 {
                let _ = fs::create_dir(home.join(format!("cas/{shard:02x}")));
            }
        }
        let store = Store::open(&home, |_| false).unwrap();
        for n in run * 6..run * 6 + 6 {
            one_thing(&store, n);
            event(|disk| disk.acknowledged.push(n));
        }
        // A name that is there already is acknowledged only when it is durable.
        one_thing(&store, run * 6);
        drop(store);
        event(|disk| {
            let mut index = HashMap::new();
            let mut each =
                |path: &Path, _: &fs::Metadata| drop(index.insert(path.to_owned(), fs::read(path).unwrap()));
            crate::disk::walk(&home.join("index"), &mut each).unwrap();
            disk.index = index;
        });
    }
    let cuts = DISK.take().unwrap().cuts;
    assert!(cuts > 200, "the power failed {cuts} times only");
}
