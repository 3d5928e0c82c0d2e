//! The file system against a real one: the same operations on both, the same results, the same tree.
//!
//! The model is the host's own file system, through `openat` and its kin. Operations that would
//! lead out of the base are refused here and not there; the base lies so deep that they do no harm.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::Path};

use proptest::prelude::*;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno as Host,
};

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Create { path: String, exclusive: bool },
    MakeDirectory(String),
    Symlink { target: String, path: String },
    Link { from: String, to: String },
    Unlink(String),
    RemoveDirectory(String),
    Rename { from: String, to: String },
    Write { path: String, at: u16, bytes: Vec<u8> },
    Truncate { path: String, to: u16 },
    Look { path: String, follow: bool },
}

fn path() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        8 => prop_oneof!["a", "b", "c"],
        1 => Just(".".to_owned()),
        1 => Just("..".to_owned()),
    ];
    (prop::collection::vec(component, 1..4), prop::bool::weighted(0.15))
        .prop_map(|(components, slash)| components.join("/") + if slash { "/" } else { "" })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (path(), any::<bool>()).prop_map(|(path, exclusive)| Op::Create { path, exclusive }),
        path().prop_map(Op::MakeDirectory),
        (prop::sample::select(&["a", "b", "../a", "b/c", "a/..", "c/"][..]), path())
            .prop_map(|(target, path)| Op::Symlink { target: target.into(), path }),
        (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        path().prop_map(Op::Unlink),
        path().prop_map(Op::RemoveDirectory),
        (path(), path()).prop_map(|(from, to)| Op::Rename { from, to }),
        (path(), 0..300u16, prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(path, at, bytes)| Op::Write { path, at, bytes }),
        (path(), 0..300u16).prop_map(|(path, to)| Op::Truncate { path, to }),
        (path(), any::<bool>()).prop_map(|(path, follow)| Op::Look { path, follow }),
    ]
}

/// What `stat` tells of a node, on both sides: its type, its size if it is a file.
type Seen = Option<(FileType, u64)>;

fn host(op: &Op, base: &OwnedFd) -> Result<Seen, Host> {
    let open =
        |path: &str, flags| fs::openat(base, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644));
    match op {
        Op::Create { path, exclusive } => {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            open(path, if *exclusive { flags | OFlags::EXCL } else { flags })?;
        }
        Op::MakeDirectory(path) => fs::mkdirat(base, path, Mode::from_raw_mode(0o755))?,
        Op::Symlink { target, path } => fs::symlinkat(target, base, path)?,
        Op::Link { from, to } => fs::linkat(base, from, base, to, AtFlags::empty())?,
        Op::Unlink(path) => fs::unlinkat(base, path, AtFlags::empty())?,
        Op::RemoveDirectory(path) => fs::unlinkat(base, path, AtFlags::REMOVEDIR)?,
        Op::Rename { from, to } => fs::renameat(base, from, base, to)?,
        Op::Write { path, at, bytes } => {
            let file = open(path, OFlags::WRONLY)?;
            rustix::io::pwrite(file, bytes, u64::from(*at))?;
        }
        Op::Truncate { path, to } => fs::ftruncate(open(path, OFlags::WRONLY)?, u64::from(*to))?,
        Op::Look { path, follow } => {
            let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            let stat = fs::statat(base, path, flags)?;
            return Ok(Some(match fs::FileType::from_raw_mode(stat.st_mode) {
                fs::FileType::Directory => (FileType::Directory, 0),
                fs::FileType::Symlink => (FileType::Symlink, 0),
                _ => (FileType::Regular, stat.st_size as u64),
            }));
        }
    }
    Ok(None)
}

fn ours(op: &Op, vfs: &mut Vfs, base: Id) -> Result<Seen> {
    let bytes = |path: &String| path.clone().into_bytes();
    let file = |vfs: &Vfs, path: &String| {
        let id = vfs.find(base, &bytes(path), true)?;
        if vfs.file_type(id) == FileType::Directory { Err(Errno::Isdir) } else { Ok(id) }
    };
    match op {
        Op::Create { path, exclusive } => {
            let place = vfs.resolve(base, &bytes(path), !exclusive)?;
            match place.node {
                Some(_) if *exclusive => return Err(Errno::Exist.into()),
                Some(id) if vfs.file_type(id) == FileType::Directory => return Err(Errno::Isdir.into()),
                Some(_) => {}
                None => drop(vfs.create(&place, 0)?),
            }
        }
        Op::MakeDirectory(path) => {
            let place = vfs.place(base, &bytes(path))?;
            vfs.make_directory(&place, 0)?;
        }
        Op::Symlink { target, path } => {
            let place = vfs.place(base, &bytes(path))?;
            vfs.make_symlink(&place, target.as_bytes(), 0)?;
        }
        Op::Link { from, to } => {
            let id = vfs.find(base, &bytes(from), false)?;
            let place = vfs.place(base, &bytes(to))?;
            vfs.link(id, &place, 0)?;
        }
        Op::Unlink(path) => {
            let place = vfs.place(base, &bytes(path))?;
            vfs.unlink(&place, 0)?;
        }
        Op::RemoveDirectory(path) => {
            let place = vfs.place(base, &bytes(path))?;
            vfs.remove_directory(&place, 0)?;
        }
        Op::Rename { from, to } => {
            let from = vfs.place(base, &bytes(from))?;
            let to = vfs.place(base, &bytes(to))?;
            vfs.rename(&from, &to, 0)?;
        }
        Op::Write { path, at, bytes } => {
            let id = file(vfs, path)?;
            vfs.write(id, u64::from(*at), bytes, 0)?;
        }
        Op::Truncate { path, to } => {
            let id = file(vfs, path)?;
            vfs.resize(id, u64::from(*to), 0)?;
        }
        Op::Look { path, follow } => {
            let id = vfs.find(base, &bytes(path), *follow)?;
            let size = if vfs.file_type(id) == FileType::Regular { vfs.len(id) } else { 0 };
            return Ok(Some((vfs.file_type(id), size)));
        }
    }
    Ok(None)
}

/// All that is below a directory: by path, what it is, its content or target, its number of names.
type Tree = BTreeMap<String, (char, Vec<u8>, u64)>;

fn host_tree(base: &Path, prefix: &str, tree: &mut Tree) {
    use std::os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _};
    for entry in std::fs::read_dir(base).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = entry.path().symlink_metadata().unwrap();
        if metadata.is_dir() {
            tree.insert(path.clone(), ('d', vec![], 0));
            host_tree(&entry.path(), &format!("{path}/"), tree);
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            tree.insert(path, ('l', target.as_os_str().as_bytes().to_vec(), metadata.nlink()));
        } else {
            tree.insert(path, ('f', std::fs::read(entry.path()).unwrap(), metadata.nlink()));
        }
    }
}

fn our_tree(vfs: &Vfs, base: Id, prefix: &str, tree: &mut Tree) {
    for (name, id) in vfs.entries(base, None) {
        let path = format!("{prefix}{}", String::from_utf8_lossy(name));
        match (vfs.file_type(id), vfs.target(id)) {
            (FileType::Directory, _) => {
                tree.insert(path.clone(), ('d', vec![], 0));
                our_tree(vfs, id, &format!("{path}/"), tree);
            }
            (_, Some(target)) => drop(tree.insert(path, ('l', target.to_vec(), vfs.stat(id).links))),
            _ => drop(tree.insert(path, ('f', vfs.read_all(id).unwrap(), vfs.stat(id).links))),
        }
    }
}

/// Whether an error here is the one there.
///
/// Where several apply, systems differ in which one they see first: with two paths, and with a
/// path that ends in `/`, `.` or `..`. Then it is enough that both refuse.
fn same(op: &Op, ours: Errno, host: Host) -> bool {
    let path = match op {
        // Creating follows symlinks, whose targets may end in `/` or `..` too.
        Op::Link { .. } | Op::Rename { .. } | Op::Create { exclusive: false, .. } => return true,
        Op::Create { path, .. }
        | Op::MakeDirectory(path)
        | Op::Symlink { path, .. }
        | Op::Unlink(path)
        | Op::RemoveDirectory(path)
        | Op::Write { path, .. }
        | Op::Truncate { path, .. }
        | Op::Look { path, .. } => path,
    };
    let known = [
        (Errno::Exist, Host::EXIST),
        (Errno::Inval, Host::INVAL),
        (Errno::Isdir, Host::ISDIR),
        (Errno::Loop, Host::LOOP),
        (Errno::Noent, Host::NOENT),
        (Errno::Notdir, Host::NOTDIR),
        (Errno::Notempty, Host::NOTEMPTY),
        (Errno::Perm, Host::PERM),
    ];
    path.ends_with(['/', '.']) || known.contains(&(ours, host))
}

fn empty(scratch: &Path) -> (Vfs, Id) {
    let mut vfs = Vfs::new(0, Quota { bytes: 1 << 30, files: 1 << 20 }, scratch);
    let base = vfs.fixture("build", false);
    (vfs, base)
}

/// The first entry of a directory.
fn first(vfs: &Vfs, directory: Id) -> Option<(Vec<u8>, Id)> {
    vfs.entries(directory, None).next().map(|(name, id)| (name.to_vec(), id))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_real_one(ops in prop::collection::vec(op(), 1..40), tight in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        // Deeper than the symlinks that one path may follow.
        let base_path = directory.path().join("p/".repeat(50)).join("base");
        std::fs::create_dir_all(&base_path).unwrap();
        let base = fs::open(&base_path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (mut vfs, root) = empty(directory.path());
        if tight {
            // So that even these small files spill, to the file they share and to their own.
            vfs.spill = Spill::with_limits(directory.path(), 60, 200);
        }
        for op in &ops {
            let found = ours(op, &mut vfs, root);
            match found {
                Err(Stop::Errno(Errno::Notcapable)) => continue,
                Err(Stop::Errno(errno)) => {
                    let theirs = host(op, &base);
                    prop_assert!(
                        matches!(theirs, Err(e) if same(op, errno, e)),
                        "{op:?}: {errno:?} here, {theirs:?} there"
                    );
                }
                Ok(seen) => prop_assert_eq!(host(op, &base).ok(), Some(seen), "{:?}", op),
                Err(Stop::Abort(abort)) => prop_assert!(false, "{op:?}: {abort}"),
            }
        }
        let (mut here, mut there) = (Tree::new(), Tree::new());
        our_tree(&vfs, root, "", &mut here);
        host_tree(&base_path, "", &mut there);
        prop_assert_eq!(here, there);
    }

    /// Whatever was done, removing everything gives back everything that was charged.
    #[test]
    fn accounts_are_settled(ops in prop::collection::vec(op(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut vfs, root) = empty(directory.path());
        for op in &ops {
            let _ = ours(op, &mut vfs, root);
        }
        while let Some((mut path, id)) = first(&vfs, root) {
            let mut id = id;
            while let Some((name, child)) = first(&vfs, id) {
                path = [path, name].join(&b'/');
                id = child;
            }
            let place = vfs.place(root, &path).unwrap();
            match vfs.file_type(id) {
                FileType::Directory => vfs.remove_directory(&place, 0).unwrap(),
                _ => vfs.unlink(&place, 0).unwrap(),
            }
        }
        prop_assert_eq!((vfs.used_bytes, vfs.used_files), (0, 0));
    }
}

#[test]
fn a_file_lives_as_long_as_it_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let (mut vfs, root) = empty(directory.path());
    let place = vfs.place(root, b"f").unwrap();
    let id = vfs.create(&place, 0).unwrap();
    vfs.hold(id);
    vfs.write(id, 0, b"hello", 0).unwrap();
    let place = vfs.place(root, b"f").unwrap();
    vfs.unlink(&place, 0).unwrap();
    assert_eq!(vfs.read_all(id).unwrap(), b"hello");
    assert_eq!(vfs.stat(id).links, 0);
    vfs.release(id);
    assert_eq!((vfs.used_bytes, vfs.used_files), (0, 0));
}

#[test]
fn a_removed_directory_takes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let (mut vfs, root) = empty(directory.path());
    let place = vfs.place(root, b"d").unwrap();
    let id = vfs.make_directory(&place, 0).unwrap();
    vfs.hold(id);
    let place = vfs.place(root, b"d").unwrap();
    vfs.remove_directory(&place, 0).unwrap();
    let inside = vfs.place(id, b"f").unwrap();
    assert!(matches!(vfs.create(&inside, 0), Err(Stop::Errno(Errno::Noent))));
    let (this, parent) = vfs.dots(id);
    assert_eq!(this, parent);
    vfs.release(id);
}

#[test]
fn large_and_sparse_files_go_to_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut vfs = Vfs::new(0, Quota { bytes: 8 << 30, files: 10 }, directory.path());
    let root = vfs.fixture("build", false);
    let place = vfs.place(root, b"f").unwrap();
    let id = vfs.create(&place, 0).unwrap();
    vfs.write(id, 5 << 30, b"end", 0).unwrap();
    assert_eq!(vfs.len(id), (5 << 30) + 3);
    let mut end = [9; 5];
    assert_eq!(vfs.read(id, (5 << 30) - 2, &mut end).unwrap(), 5);
    assert_eq!(&end, b"\0\0end");
    vfs.resize(id, 1, 0).unwrap();
    assert_eq!(vfs.read_all(id).unwrap(), [0]);
    assert!(matches!(vfs.resize(id, 9 << 30, 0), Err(Stop::Abort(Abort::Disk { .. }))));
}

#[test]
fn loops_and_escapes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut vfs, root) = empty(directory.path());
    for (name, target) in [("a", "b"), ("b", "a"), ("up", ".."), ("abs", "/build")] {
        let place = vfs.place(root, name.as_bytes()).unwrap();
        vfs.make_symlink(&place, target.as_bytes(), 0).unwrap();
    }
    let fails = |base, path: &[u8]| vfs.find(base, path, true).unwrap_err();
    assert_eq!(fails(root, b"a"), Errno::Loop);
    assert_eq!(fails(root, b"a/x"), Errno::Loop);
    assert_eq!(fails(root, b".."), Errno::Notcapable);
    assert_eq!(fails(root, b"up"), Errno::Notcapable);
    assert_eq!(fails(root, b"abs"), Errno::Notcapable);
    assert_eq!(fails(root, b"/build"), Errno::Notcapable);
    assert_eq!(fails(root, &[b'x'; 256]), Errno::Nametoolong);
    assert_eq!(fails(root, &b"x/".repeat(2049)), Errno::Nametoolong);
    // From the root, an absolute symlink stays inside.
    assert_eq!(vfs.find(ROOT, b"build/abs", true).unwrap(), root);
    assert_eq!(vfs.find(ROOT, b"build/abs/up/build", true).unwrap(), root);
}
