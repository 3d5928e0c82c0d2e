//! `files patch`: diffs of all kinds, and diffs that must be refused.

use std::fs;
use std::path::Path;
use std::process::Command;

use files::patch::{STRIP, patch};
use proptest::prelude::*;
use tempfile::TempDir;

const NUMBERS: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n";

#[test]
fn a_file_is_changed() {
    let dir = tree(&[("src/n", NUMBERS)]);
    applies(
        &dir,
        "Some words before.\n\n\
         --- a/src/n\t2024-01-01 00:00:00\n+++ b/src/n\t2024-01-01 00:00:00\n\
         @@ -1,3 +1,4 @@ context\n one\n-two\n+2\n+2.5\n three\n\
         @@ -6,2 +7,1 @@\n six\n-seven\n\
         -- \nand after\n",
    );
    has(&dir, "src/n", "one\n2\n2.5\nthree\nfour\nfive\nsix\n");
}

#[test]
fn files_are_created_deleted_renamed_and_copied() {
    let dir = tree(&[("old", "x\n"), ("gone", ""), ("a b", NUMBERS), ("c", "c\n")]);
    applies(
        &dir,
        "diff --git a/new/file b/new/file\nnew file mode 100644\nindex 000..111\n\
         --- /dev/null\n+++ b/new/file\n@@ -0,0 +1,2 @@\n+x\n+y\n\
         diff --git a/old b/old\ndeleted file mode 100644\nindex 111..000\n\
         --- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
         diff --git a/empty one b/empty one\nnew file mode 100644\nindex 000..e69\n\
         diff --git a/gone b/gone\ndeleted file mode 100644\nindex e69..000\n\
         diff --git a/a b b/b\nsimilarity index 90%\nrename from a b\nrename to b\n\
         --- a/a b\t\n+++ b/b\n@@ -1,2 +1,2 @@\n-one\n+1\n two\n\
         diff --git a/c b/d/c\nsimilarity index 100%\ncopy from c\ncopy to d/c\n\
         diff --git a/c b/c\nold mode 100644\nnew mode 100755\n",
    );
    has(&dir, "new/file", "x\ny\n");
    has(&dir, "empty one", "");
    has(&dir, "b", &NUMBERS.replace("one", "1"));
    has(&dir, "c", "c\n");
    has(&dir, "d/c", "c\n");
    for gone in ["old", "gone", "a b"] {
        assert!(!dir.path().join(gone).exists(), "{gone}");
    }
}

#[test]
fn diff_n_tells_absence_by_the_epoch() {
    let dir = tree(&[("old", "x\n")]);
    applies(
        &dir,
        "diff -Nru a/new b/new\n\
         --- a/new\t1970-01-01 01:00:00.000000000 +0100\n+++ b/new\t2024-01-01 00:00:00\n\
         @@ -0,0 +1 @@\n+y\n\
         --- a/old\t2024-01-01 00:00:00\n+++ b/old\t1970-01-01 00:00:00.000000000 +0000\n\
         @@ -1 +0,0 @@\n-x\n",
    );
    has(&dir, "new", "y\n");
    assert!(!dir.path().join("old").exists());
}

#[test]
fn the_end_without_a_newline_counts() {
    let dir = tree(&[("n", "a\nb")]);
    let no_newline = "\\ No newline at end of file\n";
    refuses(
        &dir,
        "--- a/n\n+++ b/n\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        "p:3: n: hunk 1 does not apply (expected at line 1)",
    );
    applies(
        &dir,
        &format!("--- a/n\n+++ b/n\n@@ -1,2 +1,2 @@\n a\n-b\n{no_newline}+c\n"),
    );
    has(&dir, "n", "a\nc\n");
    applies(
        &dir,
        &format!("--- a/n\n+++ b/n\n@@ -1,2 +1,2 @@\n a\n-c\n+d\n{no_newline}"),
    );
    has(&dir, "n", "a\nd");
}

#[test]
fn hunks_are_found_elsewhere_the_nearest_first() {
    finds("@@ -3 +3,2 @@\n+X\n x\n", "x\na\nX\nx\nx\nb\nx\n");
    finds("@@ -5 +5,2 @@\n+X\n x\n", "x\na\nx\nx\nb\nX\nx\n"); // Of two, the later.
    finds("@@ -99 +5,2 @@\n+X\n x\n", "x\na\nx\nx\nb\nX\nx\n");
    let first = "@@ -9 +9,2 @@\n a\n+A\n"; // Seven lines off, and so the next.
    finds(
        &format!("{first}@@ -11 +12,2 @@\n+X\n x\n"),
        "x\na\nA\nx\nX\nx\nb\nx\n",
    );
    finds(
        &format!("{first}@@ -4 +5,2 @@\n+X\n x\n"),
        "x\na\nA\nX\nx\nx\nb\nx\n",
    );
}

#[track_caller]
fn finds(hunks: &str, expected: &str) {
    let dir = tree(&[("n", "x\na\nx\nx\nb\nx\n")]);
    applies(&dir, &format!("--- a/n\n+++ b/n\n{hunks}"));
    has(&dir, "n", expected);
}

#[test]
fn strip_counts_components() {
    let dir = tree(&[("src/n", "a\n")]);
    let hunk = "@@ -1 +1 @@\n-a\n+b\n";
    patch_with(&dir, &format!("--- n\n+++ src/n\n{hunk}"), 0).unwrap();
    has(&dir, "src/n", "b\n");
    let back = "@@ -1 +1 @@\n-b\n+a\n";
    patch_with(&dir, &format!("--- x\n+++ x//y/src/n\n{back}"), 2).unwrap();
    has(&dir, "src/n", "a\n");
    assert_eq!(
        patch_with(&dir, &format!("--- n\n+++ src/n\n{hunk}"), 2).unwrap_err(),
        "p:2: name has too few components to strip"
    );
}

#[test]
fn several_patches_build_on_each_other_or_change_nothing() {
    let dir = tree(&[("n", "a\n")]);
    let first =
        "--- a/n\n+++ b/n\n@@ -1 +1 @@\n-a\n+b\n--- /dev/null\n+++ b/m\n@@ -0,0 +1 @@\n+m\n";
    let second =
        "--- a/n\n+++ b/n\n@@ -1 +1 @@\n-b\n+c\n--- a/m\n+++ /dev/null\n@@ -1 +0,0 @@\n-m\n";
    let bad = "--- a/n\n+++ b/n\n@@ -1 +1 @@\n-z\n+c\n";
    refuses(
        &dir,
        &format!("{first}{second}{bad}"),
        "p:21: n: hunk 1 does not apply (expected at line 1)",
    );
    has(&dir, "n", "a\n");
    applies(&dir, &format!("{first}{second}"));
    has(&dir, "n", "c\n");
    assert!(!dir.path().join("m").exists());
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tree(&[("n", NUMBERS), ("d/x", "x\n")]);
    stage0::tree::symlink(Path::new("n"), &dir.path().join("link")).unwrap();
    stage0::tree::symlink(Path::new("d"), &dir.path().join("dirlink")).unwrap();
    let hunk = "@@ -1 +1 @@\n-one\n+1\n";
    let modify = |name: &str| format!("--- a/{name}\n+++ b/{name}\n{hunk}");
    refuses(&dir, &modify("m"), "p:1: m: no such file");
    refuses(
        &dir,
        &modify("n/m"),
        "p:1: n/m: not a file, or not in a directory",
    );
    refuses(
        &dir,
        &modify("d"),
        "p:1: d: not a file, or not in a directory",
    );
    refuses(
        &dir,
        &modify("link"),
        "p:1: link: not a file, or not in a directory",
    );
    refuses(
        &dir,
        &modify("dirlink/x"),
        "p:1: dirlink/x: not a file, or not in a directory",
    );
    refuses(&dir, &modify("../n"), "p:2: path contains `..`");
    refuses(
        &dir,
        "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n",
        "p:1: n: exists already",
    );
    refuses(
        &dir,
        "--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n",
        "p:1: n: is not empty after its deletion",
    );
    refuses(
        &dir,
        "--- a/n\n+++ b/n\n@@ -3 +3 @@\n-three\n+3\n@@ -1 +1 @@\n-one\n+1\n",
        "p:6: n: hunk 2 does not apply (expected at line 1)",
    );
    refuses(
        &dir,
        "--- a/n\n+++ b/n\n@@ -99,0 +100 @@\n+x\n",
        "p:3: n: hunk 1 does not apply (expected at line 99)",
    );
}

#[test]
fn what_is_no_diff_is_refused() {
    let dir = tree(&[("n", NUMBERS)]);
    let names = "--- a/n\n+++ b/n\n";
    refuses(&dir, "", "p:1: no unified diff in this file");
    refuses(
        &dir,
        "*** a/n\n--- b/n\n",
        "p:1: no unified diff in this file",
    );
    refuses(&dir, "@@ -1 +1 @@\n-a\n+b\n", "p:1: hunk without a file");
    refuses(&dir, names, "p:3: malformed header of a hunk");
    refuses(
        &dir,
        &format!("{names}@@ -x +1 @@\n"),
        "p:3: malformed header of a hunk",
    );
    refuses(
        &dir,
        &format!("{names}@@ -0 +1 @@\n"),
        "p:3: malformed header of a hunk",
    );
    refuses(
        &dir,
        &format!("{names}@@ -99999999999 +1 @@\n"),
        "p:3: malformed header of a hunk",
    );
    refuses(
        &dir,
        &format!("{names}@@ -1 +1 @@\n-one\n"),
        "p:5: patch ends within a hunk",
    );
    refuses(
        &dir,
        &format!("{names}@@ -1 +1 @@\n-one\n-two\n"),
        "p:5: malformed line in a hunk",
    );
    refuses(
        &dir,
        &format!("{names}@@ -1 +1 @@\n?one\n"),
        "p:4: malformed line in a hunk",
    );
    refuses(
        &dir,
        "diff --git a/n b/n\nindex 1..2\nGIT binary patch\nliteral 1\n",
        "p:3: binary patches can't be applied",
    );
    refuses(
        &dir,
        "Binary files a/n and b/n differ\n",
        "p:1: binary patches can't be applied",
    );
    refuses(
        &dir,
        "--- \"a/\\303\\244\"\n+++ \"b/\\303\\244\"\n@@ -1 +1 @@\n-a\n+b\n",
        "p:2: quoted names can't be read",
    );
}

#[test]
fn what_diff_writes_is_applied() {
    let old = tree(&[
        ("n", NUMBERS),
        ("gone", "x\n"),
        ("d/same", "s"),
        ("d/end", "a\nb"),
    ]);
    let new = tree(&[
        ("n", "zero\none\ntwo\nfour\n"),
        ("d/same", "s"),
        ("d/end", "a\nb\n"),
        ("x/y", "y"),
    ]);
    let both = tempfile::tempdir().unwrap();
    fs::rename(old.path(), both.path().join("a")).unwrap();
    fs::rename(new.path(), both.path().join("b")).unwrap();
    let diff = Command::new("diff")
        .args(["-Nru", "a", "b"])
        .current_dir(both.path())
        .output();
    let Ok(diff) = diff else {
        return; // No `diff` here.
    };
    let file = both.path().join("p");
    fs::write(&file, diff.stdout).unwrap();
    patch(&both.path().join("a"), &[file.to_str().unwrap()], STRIP).unwrap();
    let content = |root: &str| -> Vec<_> {
        let root = both.path().join(root);
        let files = stage0::tree::walk(&root).unwrap().into_iter();
        files
            .map(|entry| (entry.path.to_string(), fs::read(entry.path.on(&root)).ok()))
            .collect()
    };
    assert_eq!(content("a"), content("b"));
}

proptest! {
    /// A diff of two files makes the one from the other, also when lines were added above.
    #[test]
    fn a_diff_makes_new_from_old(
        old in prop::collection::vec("[a-c]{1,2}", 0..12),
        replaced in any::<(prop::sample::Index, prop::sample::Index)>(),
        new in prop::collection::vec("[a-c]{1,2}", 0..4),
        above in 0..5_usize,
    ) {
        let (x, y) = (replaced.0.index(old.len() + 1), replaced.1.index(old.len() + 1));
        let (from, to) = (x.min(y), x.max(y));
        let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let expected = lines(&old[..from]) + &lines(&new) + &lines(&old[to..]);

        // All lines are context, so there is one place where they fit.
        let count = old.len() - (to - from) + new.len();
        let mut diff = format!(
            "--- a/n\n+++ b/n\n@@ -{},{} +1,{count} @@\n",
            usize::from(!old.is_empty()),
            old.len(),
        );
        old[..from].iter().for_each(|line| diff += &format!(" {line}\n"));
        old[from..to].iter().for_each(|line| diff += &format!("-{line}\n"));
        new.iter().for_each(|line| diff += &format!("+{line}\n"));
        old[to..].iter().for_each(|line| diff += &format!(" {line}\n"));

        let above = if old.is_empty() { String::new() } else { "above\n".repeat(above) };
        let dir = tree(&[("n", &(above.clone() + &lines(&old)))]);
        patch_with(&dir, &diff, STRIP).unwrap();
        has(&dir, "n", &(above + &expected));
    }

    /// Whatever a patch is, it is applied or refused.
    #[test]
    fn no_patch_breaks_the_tool(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "--- a/n\n", "+++ b/n\n", "@@ -1 +1 @@\n", "@@ -1,2 +1,0 @@\n", "@@ -0,0 +1 @@\n",
            " one\n", "-one\n", "+x\n", "\\ No newline\n", "\n", "diff --git a/n b/n\n",
            "new file mode 1\n", "rename from n\n", "rename to m\n", "copy from n\n", "copy to m\n",
            "--- /dev/null\n", "+++ /dev/null\n", "@@ -\n", "--- \n", "diff --git \n", "+++ b/",
        ]), 0..10),
        strip in 0..3_usize,
    ) {
        let dir = tree(&[("n", NUMBERS)]);
        let _ = patch_with(&dir, &pieces.concat(), strip);
    }
}

fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// Applies `diff`, which is called `p` in messages.
fn patch_with(dir: &TempDir, diff: &str, strip: usize) -> Result<(), String> {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("p");
    fs::write(&file, diff).unwrap();
    patch(dir.path(), &[file.to_str().unwrap()], strip)
        .map_err(|error| error.to_string().replace(file.to_str().unwrap(), "p"))
}

#[track_caller]
fn applies(dir: &TempDir, diff: &str) {
    assert_eq!(patch_with(dir, diff, STRIP), Ok(()));
}

#[track_caller]
fn refuses(dir: &TempDir, diff: &str, message: &str) {
    assert_eq!(patch_with(dir, diff, STRIP), Err(message.to_owned()));
}

#[track_caller]
fn has(dir: &TempDir, name: &str, content: &str) {
    assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), content);
}
