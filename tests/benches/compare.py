#!/usr/bin/env python3
"""Measures Assize beside its alternatives, in turn, in one run; docs/performance.md says how to read it.

usage: compare.py ASSIZE [NAME...]

CPU time (user and system, children included) and the largest resident size of one process are what
the operating system says of each finished run. The ratio is of medians.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(HERE, "..", "..", "packages")
RUNS = 7


def run(command, env=None):
    """Runs a shell command; gives CPU seconds, wall seconds and peak MiB."""
    import time

    begun = time.monotonic()
    child = subprocess.Popen(
        ["bash", "-c", command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - begun
    child.returncode = status
    if status != 0:
        sys.exit(f"{command}\nfailed: {error.decode(errors='replace')[-2000:]}")
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def compare(name, ours, other, what="cpu", runs=RUNS, goal=None):
    """Runs two commands in turn and prints medians and their ratio."""
    which = {"cpu": 0, "wall": 1}[what]
    samples = ([], [])
    for n in range(runs + 1):
        for side, command in enumerate((ours, other)):
            if command is not None:
                sample = run(command)
                if n > 0:
                    samples[side].append(sample)
    text = [f"{name:<44}"]
    for side in samples:
        if side:
            value = statistics.median(s[which] for s in side)
            memory = max(s[2] for s in side)
            text.append(f"{value:8.3f} s {memory:6.0f} MiB")
    if all(samples):
        a, b = (statistics.median(s[which] for s in side) for side in samples)
        text.append(f"ratio {a / b:5.2f}")
    if goal:
        text.append(f"(aim: {goal})")
    print("  ".join(text), flush=True)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    assize = os.path.abspath(sys.argv[1])
    wanted = sys.argv[2:]
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "assize-tests", "home")
    os.environ["ASSIZE_HOME"] = cache
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        for name, bench in BENCHES.items():
            if not wanted or name in wanted:
                bench(assize, work)


def clang(assize, work):
    """One large file of Lua, compiled by the same module in three ways."""
    quiet = f"{assize} -q"
    for attribute in ("lua", "clang", "sysroot"):
        run(f"{quiet} build -f {PACKAGES} {attribute}")
    run(f"{quiet} build -f {PACKAGES} sysroot -o sysroot")
    built = json.loads(subprocess.run([assize, "store", "ls", "--json"], capture_output=True, check=True).stdout)
    source = next(o["nar"] for o in built["data"] if o["name"] == "lua-source")
    os.makedirs("lua")
    listing = subprocess.run([assize, "nar", "ls", "--json", source, "lua-5.4.8"], capture_output=True, check=True)
    for entry in json.loads(listing.stdout)["data"]:
        if entry["kind"] == "file":
            run(f"{assize} nar cat {source} {entry['path']} > lua/{os.path.basename(entry['path'])}")
    for seed in ("files.wasm", "unpack.wasm", "wat.wasm"):
        shutil.copy(os.path.join(PACKAGES, "stage0", "seeds", seed), seed)
    shutil.copy(os.path.join(PACKAGES, "clang.libsonnet"), "clang.libsonnet")
    flags = "-O2 -mllvm -wasm-enable-sjlj -mllvm -wasm-use-legacy-eh=false -D_WASI_EMULATED_SIGNAL"
    listed = json.dumps(flags.split()[1:])
    with open("build.jsonnet", "w") as file:
        file.write(f"""
local assize = import 'assize.libsonnet';
local stage0 = {{ files: assize.source('files.wasm'), unpack: assize.source('unpack.wasm') }};
local tools = assize.tools(stage0.files, stage0.unpack);
local compiler = (import 'clang.libsonnet')(assize, stage0, tools);
local cc = assize.c {{ clang:: compiler.clang, sysroot:: compiler.sysroot, tools:: tools, module:: 'llvm.core.wasm' }};
{{ lvm: cc.object({{ name: 'lvm', src: assize.source('lua'), file: 'lvm.c', flags: {listed} }}) }}
""")
    stock = (
        f"{quiet} run -f {PACKAGES} clang --dir sysroot=/sysroot:ro --dir lua=/lua --dir .=/out --dir /tmp=/tmp -- "
        f"--target=wasm32-wasip1 --sysroot=/sysroot -resource-dir=/sysroot {flags} -I/lua -c /lua/lvm.c -o /out/lvm.o"
    )
    compare("clang -O2 lvm.c: assize / stock WASI", f"{quiet} build --rebuild lvm", stock, goal="at most 1.0")
    native = shutil.which("clang")
    command = f"{native} -O2 -c lua/lvm.c -o native.o" if native else None
    if native is None:
        print("clang is not installed here: no comparison with native code")
    compare("clang -O2 lvm.c: assize / native clang", f"{quiet} build --rebuild lvm", command, goal="at most 2")


def nar(assize, work):
    """Archiving and hashing a tree of many files and one large file."""
    os.makedirs("tree")
    for n in range(4000):
        directory = f"tree/{n % 64}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/{n}", "wb") as file:
            file.write(os.urandom(64) * (n % 512))
    with open("large", "wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
    for tree in ("tree", "large"):
        compare(
            f"archive and hash `{tree}`: assize / nix",
            f"{assize} nar hash {tree}",
            f"nix-store --dump {tree} | sha256sum",
            what="wall",
            goal="at most 0.2",
        )


# One graph in two languages: the same nodes with the same edges, texts and arguments. A list of inputs in
# Nix is an object in Jsonnet, because here each input has a name.
GRAPH = """
local assize = import 'assize.libsonnet';
local files = assize.source('files.wasm');
local
  node(n) = assize.derivation({{
    name: 'n' + n,
    inputs: {{ files: files, [if n > 0 then 'i0']: nodes[std.floor(n / 2)], [if n > 2 then 'i1']: nodes[n - 3] }},
    steps: [{{ run: '/in/files', args: ['files', 'write', '--json-field', 'text', '/out/text'] }}],
    stdin: {{ text: 'n' + n }},
  }}),
  nodes = [node(n) for n in std.range(0, {count} - 1)];
{{ nodes:: nodes }}
"""

NIX = """
let
  node = n: derivation {{
    name = "n${{toString n}}"; system = "x86_64-linux"; builder = "/bin/sh";
    inputs = (if n > 0 then [ (builtins.elemAt nodes (n / 2)) ] else [])
      ++ (if n > 2 then [ (builtins.elemAt nodes (n - 3)) ] else []);
    args = [ "write" "--json-field" "text" "/out/text" ]; text = "n${{toString n}}";
  }};
  nodes = builtins.genList node {count};
  group = g: derivation {{
    name = "g${{toString g}}"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "list" ];
    inputs = builtins.genList (n: builtins.elemAt nodes (g * 1000 + n)) 1000;
  }};
in derivation {{
  name = "all"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "list" ];
  inputs = builtins.genList group ({count} / 1000);
}}
"""

# In groups, because a derivation has at most 16,384 inputs.
ALL = """
local assize = import 'assize.libsonnet';
local nodes = (import 'graph.jsonnet').nodes;
local list(name, inputs) = assize.derivation({{
  name: name, inputs: {{ files: assize.source('files.wasm') }} + inputs,
  steps: [{{ run: '/in/files', args: ['files', 'list', '/in'] }}],
}});
local group(g) = list('g' + g, {{ ['n' + n]: nodes[n] for n in std.range(g * 1000, g * 1000 + 999) }});
list('all', {{ ['g' + g]: group(g) for g in std.range(0, {count} / 1000 - 1) }})
"""


def graph(assize, work):
    """Large graphs: evaluating one, and finding that nothing is to be done."""
    os.makedirs("graph")
    shutil.copy(os.path.join(PACKAGES, "stage0", "seeds", "files.wasm"), "graph/files.wasm")

    def write(count):
        with open("graph/graph.jsonnet", "w") as file:
            file.write(GRAPH.format(count=count))
        with open("graph/build.jsonnet", "w") as file:
            file.write(ALL.format(count=count))
        with open("graph/graph.nix", "w") as file:
            file.write(NIX.format(count=count))

    home = os.path.join(work, "home")
    write(1000)
    build = f"ASSIZE_HOME={home} {assize} -q build -f graph"
    print("building 1,000 derivations:", "%.1f s" % run(build)[1], flush=True)
    compare("nothing to do in 1,000 derivations", build, None, what="wall", goal="under 0.3 s")
    nix = (
        f"NIX_STORE_DIR={work}/nix/store NIX_STATE_DIR={work}/nix/var NIX_LOG_DIR={work}/nix/log "
        f"NIX_CONF_DIR={work}/nix/etc nix-instantiate graph/graph.nix"
    )
    for count, runs in ((10000, 7), (40000, 3)):
        write(count)
        compare(
            f"evaluate {count:,} derivations: assize / nix",
            f"{assize} -q eval -f graph",
            nix,
            what="wall",
            runs=runs,
            goal="at most 0.2",
        )


def start(assize, work):
    compare("assize --version", f"{assize} --version", None, what="wall", runs=15, goal="under 0.02 s")


BENCHES = {"start": start, "nar": nar, "graph": graph, "clang": clang}

if __name__ == "__main__":
    main()
