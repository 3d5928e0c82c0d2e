//! Each tool, through its arguments, on real directories.

use std::fs;
use std::path::Path;

use files::place::{self, Group};
use files::{Streams, run};
use stage0::command::Failure;
use tempfile::TempDir;

/// A directory to work in. In arguments and messages, `@` stands for its path.
struct Bench(TempDir);

impl Bench {
    /// A bench with files: `name=content ...`, `name/` for a directory, `name->target` for a link.
    fn new(files: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        for file in files.split_whitespace() {
            if let Some((name, target)) = file.split_once("->") {
                stage0::tree::symlink(Path::new(target), &bench.path(name)).unwrap();
            } else if let Some((name, content)) = file.split_once('=') {
                fs::create_dir_all(bench.path(name).parent().unwrap()).unwrap();
                fs::write(bench.path(name), content).unwrap();
            } else {
                fs::create_dir_all(bench.path(file)).unwrap();
            }
        }
        bench
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run_with(&self, arguments: &str, input: &str) -> Result<String, String> {
        let root = self.0.path().display().to_string();
        let arguments: Vec<_> = arguments
            .split_whitespace()
            .map(|argument| argument.replace('@', &root))
            .collect();
        let mut output = Vec::new();
        let mut streams = Streams {
            input: &mut input.as_bytes(),
            output: &mut output,
        };
        match run(&arguments, &mut streams) {
            Ok(()) => Ok(String::from_utf8(output).unwrap()),
            Err(Failure::Usage(usage)) => Err(format!("usage: {usage}")),
            Err(Failure::Failed(message)) => Err(message.replace(&root, "@")),
        }
    }

    #[track_caller]
    fn works(&self, arguments: &str) {
        assert_eq!(self.run_with(arguments, ""), Ok(String::new()));
    }

    #[track_caller]
    fn fails(&self, arguments: &str, message: &str) {
        assert_eq!(self.run_with(arguments, ""), Err(message.to_owned()));
    }

    /// Checks what is below `dir`: files with content, in the form that [`Bench::new`] takes.
    #[track_caller]
    fn has(&self, dir: &str, files: &str) {
        let root = self.path(dir);
        let found: Vec<_> = stage0::tree::walk(&root)
            .unwrap()
            .into_iter()
            .map(|entry| {
                let path = &entry.path;
                match entry.kind {
                    stage0::tree::Kind::File => {
                        format!("{path}={}", fs::read_to_string(path.on(&root)).unwrap())
                    }
                    stage0::tree::Kind::Directory => format!("{path}/"),
                    stage0::tree::Kind::Symlink(to) => format!("{path}->{}", to.display()),
                }
            })
            .collect();
        assert_eq!(found.join(" "), files);
    }
}

#[test]
fn copy_of_one_file() {
    let bench = Bench::new("a=1 d/");
    bench.works("copy @/a @/b");
    bench.works("copy @/a @/d");
    bench.works("copy @/a @/new/");
    bench.works("copy @/a @/x/y/z");
    bench.has("", "a=1 b=1 d/ d/a=1 new/ new/a=1 x/ x/y/ x/y/z=1");
}

#[test]
fn copy_of_trees() {
    let bench = Bench::new("s/a=1 s/d/b=2 s/e/ s/l->../away t/s/a=0");
    bench.works("copy @/s @/u");
    bench.has("u", "a=1 d/ d/b=2 e/ l->../away");
    bench.works("copy @/s @/t");
    bench.has("t", "s/ s/a=1 s/d/ s/d/b=2 s/e/ s/l->../away");
    bench.works("copy @/s/. @/v");
    bench.works("copy @/s/d/. @/v");
    bench.has("v", "a=1 b=2 d/ d/b=2 e/ l->../away");
    bench.works("copy @/s/a @/s/d @/w");
    bench.has("w", "a=1 d/ d/b=2");
}

#[test]
fn copy_into_itself_ends() {
    let bench = Bench::new("s/a=1");
    bench.works("copy @/s @/s/t");
    bench.has("s", "a=1 t/ t/a=1");
}

#[test]
fn copy_refuses() {
    let bench = Bench::new("a=1 d/ l->a");
    bench.fails("copy @/x @/y", "@/x: no such file");
    bench.fails("copy @/a @/a", "@/a: is what is to be copied to it");
    bench.fails("copy @/.. @/d", "@/..: has no name to be copied by");
    bench.fails("copy @/d @/a", "@/a: not a directory");
    bench.fails("copy @/a @/a/b", "@/a: not a directory");
    bench.fails("copy @/l @/l", "@/l: exists already");
    bench.fails("copy @/a", "usage: files copy FROM... TO");
}

#[test]
fn select_keeps_places() {
    let bench = Bench::new("s/a.c=1 s/a.h=2 s/d/b.c=3 s/t/b.c=4 s/l.c->a.c");
    bench.works("select @/s @/o **/*.c !t/**");
    bench.has("o", "a.c=1 d/ d/b.c=3 l.c->a.c");
    bench.fails("select @/s @/o *.rs", "@/s: no file is selected for @/o");
    bench.fails("select @/s @/o", "usage: files select FROM TO GLOB...");
}

#[test]
fn split_sorts_into_outputs() {
    let bench = Bench::new("s/bin/x=1 s/include/x.h=2 s/lib/x.a=3 s/notes=4");
    let split = |groups: &[&str]| {
        let groups: Vec<_> = groups
            .iter()
            .map(|text| Group::parse(text).unwrap())
            .collect();
        place::split(&bench.path("s"), bench.0.path(), &groups)
    };
    split(&["out=bin/**", "dev=include/**,lib/**,!**/*.o"]).unwrap();
    bench.has("out", "bin/ bin/x=1");
    bench.has("out-dev", "include/ include/x.h=2 lib/ lib/x.a=3");
    let error = split(&["out=bin/**", "doc=share/**"]).unwrap_err();
    assert!(error.to_string().ends_with("/out-doc"), "{error}");
    let usage = "usage: files split FROM NAME=GLOB[,GLOB...]...";
    bench.fails("split @/s", usage);
    bench.fails("split @/s dev", usage);
    bench.fails("split @/s ../x=*", usage);
}

#[test]
fn concat_puts_together() {
    let bench = Bench::new("a=1 b=2");
    bench.works("concat @/d/c @/b @/a @/b");
    bench.has("d", "c=212");
    bench.fails("concat @/a @/b @/./a", "@/a: is both read and written");
    bench.fails("concat @/c @/x", "@/x: no such file");
    bench.fails("concat @/c", "usage: files concat TO FROM...");
}

#[test]
fn write_takes_stdin_or_a_field() {
    let bench = Bench::new("");
    bench.run_with("write @/d/a", "text").unwrap();
    let document = r#"{"s": "häß", "l": ["x", "y"], "n": 1, "mixed": ["x", 1]}"#;
    bench
        .run_with("write --json-field s @/s", document)
        .unwrap();
    bench
        .run_with("write --json-field l @/l", document)
        .unwrap();
    bench.has("", "d/ d/a=text l=x\ny\n s=häß");
    let fails = |key: &str, document: &str, message: &str| {
        let error = bench.run_with(&format!("write --json-field {key} @/x"), document);
        let error = error.unwrap_err();
        assert!(error.starts_with(message), "{error}");
    };
    fails("z", document, "stdin: no field `z`");
    fails(
        "n",
        document,
        "stdin: byte 37: field is not a string or an array",
    );
    fails(
        "mixed",
        document,
        "stdin: byte 55: field is not a string or an array",
    );
    fails("s", "[1]", "stdin: byte 0: not a JSON object");
    fails("s", r#"{"s": "x"} x"#, "stdin: byte 11: not JSON");
    assert!(!bench.path("x").exists());
    bench.fails("write", "usage: files write [--json-field KEY] TO");
    bench.fails(
        "write --json @/x",
        "usage: files write [--json-field KEY] TO",
    );
}

#[test]
fn substitute_replaces_or_refuses() {
    let bench = Bench::new("d/a=x.y.x d/b=one");
    bench.works("substitute @/d/b one=a=b b=c");
    bench.works("substitute --in @/d/a --out @/d/e/c --replace x z --replace z. w");
    bench.has("d", "a=x.y.x b=a=c e/ e/c=wy.z");
    fs::write(bench.path("bytes"), b"\xff\0x\xfe").unwrap();
    bench.works("substitute @/bytes x=yy");
    assert_eq!(fs::read(bench.path("bytes")).unwrap(), b"\xff\0yy\xfe");

    bench.fails("substitute @/d/a x=z q=r", "@/d/a: `q` does not occur");
    bench.fails("substitute @/d/x x=z", "@/d/x: no such file");
    bench.has("d", "a=x.y.x b=a=c e/ e/c=wy.z");
    for arguments in [
        "substitute @/d/a",
        "substitute @/d/a x",
        "substitute @/d/a =x",
        "substitute --in @/d/a --replace x y",
        "substitute --in @/d/a --out @/d/b",
        "substitute --in @/d/a --out @/d/b --replace x",
        "substitute --in @/d/a --in @/d/a --out @/d/b --replace x y",
    ] {
        let message = bench.run_with(arguments, "").unwrap_err();
        assert!(message.starts_with("usage: files substitute"), "{message}");
    }
}

#[test]
fn remove_link_mkdir_list() {
    let bench = Bench::new("a=1 d/e/b=2 d/c=3 l->d");
    bench.works("remove @/a @/l");
    bench.has("", "d/ d/c=3 d/e/ d/e/b=2");
    bench.works("link ../d @/new/l");
    bench.fails("link x @/new/l", "@/new/l: exists already");
    bench.works("mkdir @/m/n @/d");
    assert_eq!(
        bench.run_with("list @", "").unwrap(),
        "d/\nd/c\nd/e/\nd/e/b\nm/\nm/n/\nnew/\nnew/l -> ../d\n"
    );
    bench.works("remove @/d");
    bench.has("", "m/ m/n/ new/ new/l->../d");
    bench.fails("remove @/d", "@/d: no such file");
    bench.fails("list @/d", "@/d: no such file");
    bench.fails("remove", "usage: files remove PATH...");
    bench.fails("mkdir", "usage: files mkdir PATH...");
    bench.fails("link x", "usage: files link TARGET NAME");
    bench.fails("list", "usage: files list DIR");
}

#[test]
fn test_equal_tells_the_first_difference() {
    let bench = Bench::new("a=abc b=abc c=abd d=ab e= dir/");
    bench.works("test-equal @/a @/b");
    bench.works("test-equal @/e @/e");
    bench.fails(
        "test-equal @/a @/c",
        "@/a and @/c differ at byte 2: 0x63 and 0x64",
    );
    bench.fails(
        "test-equal @/a @/d",
        "@/a and @/d differ at byte 2: @/d has ended",
    );
    bench.fails(
        "test-equal @/e @/a",
        "@/e and @/a differ at byte 0: @/e has ended",
    );
    bench.fails("test-equal @/a @/x", "@/x: no such file");
    bench.fails("test-equal @/a @/dir", "@/dir: is a directory");
    bench.fails("test-equal @/a", "usage: files test-equal A B");
}

#[test]
fn unknown_tools_are_refused() {
    let bench = Bench::new("");
    for arguments in ["", "sh", "--help"] {
        let message = bench.run_with(arguments, "").unwrap_err();
        assert!(message.starts_with("usage: files TOOL"), "{message}");
    }
}
