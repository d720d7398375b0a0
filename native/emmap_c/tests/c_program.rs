//! Checks that the header and the library match: a C program that is compiled with all warnings as errors uses every function
//! of the header, and the library exports no others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(CRATE).join(file)).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The directory with the library, built as this test was.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--package", "emmap_c"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // With a target, cargo adds a directory for it.
    let mut target = profile.parent().unwrap();
    if let Ok(triple) = std::env::var("CARGO_BUILD_TARGET") {
        target = target
            .parent()
            .filter(|_| target.ends_with(&triple))
            .unwrap_or(target);
    }
    build.arg("--target-dir").arg(target);
    run(build.current_dir(CRATE));
    profile.to_owned()
}

fn names<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let ends = |name: &'a str| {
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &name[..end.unwrap_or(name.len())]
    };
    text.lines()
        .filter_map(|line| line.split_once(before))
        .map(|(_, name)| ends(name))
        .collect()
}

#[test]
fn the_header_declares_what_there_is_and_the_program_uses_it() {
    let sources = [
        "src/lib.rs",
        "src/blocks.rs",
        "src/queue.rs",
        "src/counters.rs",
        "src/dynamic.rs",
        "src/map.rs",
    ]
    .map(read);
    let sources = sources.concat();
    let exported = names(&sources, "extern \"C\" fn ");
    let header = read("include/emmap.h");
    // A declaration begins its line, and its name is followed by a parenthesis.
    let declared: BTreeSet<&str> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '*', '#']))
        .filter_map(|line| line.split_once('('))
        .filter_map(|(before, _)| before.rsplit([' ', '*']).next())
        .collect();
    assert!(exported.len() > 25);
    assert_eq!(declared, exported);
    let program = read("tests/program.c");
    for function in exported {
        assert!(
            program.contains(&format!("{function}(")),
            "{function} is not tried"
        );
    }
}

#[test]
fn a_c_program() {
    let library = built();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    run(Command::new("cc")
        .args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"])
        .arg(format!("-I{CRATE}/include"))
        .arg("-o")
        .arg(&program)
        .arg(format!("{CRATE}/tests/program.c"))
        .arg(library.join("libemmap_c.a"))
        .args(["-lpthread", "-ldl", "-lm"]));
    let counters = format!("{CRATE}/../../test/fixtures/formats/counters-v1-named.bin");
    let version = run(Command::new(&program)
        .arg(directory.path())
        .env("EMMAP_NAMED_COUNTERS", counters)
        .env("EMMAP_NAME", "errors"));
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
}
