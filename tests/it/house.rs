//! The house rules that a compiler does not check: which module may know which, how long a file may be, that
//! nothing on disk or on the wire depends on the host's byte order, that every file says what it is for, and
//! that `unsafe` stays where it is explained.
//!
//! Tests inside of `src` are left out: a test may know more than what it tests.

use crate::daemon::KVD;
use kvd::fault::POINTS;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Data flows down: each module, and the modules of the crate that it may name besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("lib", &["cli", "server", "wire", "command", "mutation", "engine", "table", "log", "tools", "timeline"]),
    ("main", &["cli", "server", "tools", "log", "fault"]),
    ("cli", &["command", "engine", "log", "tools"]),
    (
        "server",
        &[
            "cli",
            "wire",
            "command",
            "mutation",
            "engine",
            "table",
            "log",
            "descriptors",
            "threads",
            "fault",
            "timeline",
        ],
    ),
    ("tools", &["wire", "command", "mutation", "table", "log", "descriptors", "timeline"]),
    ("wire", &["command", "mutation", "decimal"]),
    ("engine", &["command", "mutation", "table", "decimal", "timeline"]),
    ("command", &["mutation"]),
    ("table", &["mutation"]),
    ("log", &["mutation", "descriptors", "threads", "fault", "timeline"]),
    ("mutation", &[]),
    ("timeline", &[]),
    ("decimal", &[]),
    ("descriptors", &[]),
    ("threads", &[]),
    ("fault", &[]),
];

/// The files that may hold `unsafe`, each with a `SAFETY:` comment.
const MAY_BE_UNSAFE: &[&str] = &[
    "src/descriptors.rs",
    "src/log/fs/mapping.rs",
    "src/server/router.rs",
    "src/table/allocation.rs",
    "src/table/entry.rs",
];

/// The files that may speak in the host's byte order, since whom they speak to does: libzmq's monitor within
/// the process, and an eventfd.
const MAY_SPEAK_HOST_ORDER: &[&str] = &["src/server/monitor.rs", "src/server/wake.rs"];

const LONGEST_FILE: usize = 600;

struct SourceFile {
    /// From the root of the repository.
    path: String,
    text: String,
    /// Without comments and without its tests.
    code: String,
}

impl SourceFile {
    /// The module of the crate's root that this file belongs to.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").expect("a file of src");
        inner.split('/').next().expect("a first part").trim_end_matches(".rs")
    }

    /// The modules that it names by a path from the crate's root.
    fn uses(&self) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for root in ["crate::", "kvd::"] {
            for (at, _) in self.code.match_indices(root) {
                let is_whole_word = !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                if is_whole_word {
                    named.extend(first_names(&self.code[at + root.len()..]));
                }
            }
        }
        named
    }
}

/// The first name of each path that begins here: one, or those of a `{…}` group.
fn first_names(code: &str) -> Vec<String> {
    let identifier = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = code.strip_prefix('{') else { return vec![identifier(code)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(group[start..at].trim()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The code without line comments, up to the tests.
fn strip(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let code = lines.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(|line| [line, "\n"]).collect()
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    rust_files(&root.join("src"), &mut paths);
    assert!(!paths.is_empty());
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let path = path.strip_prefix(root).expect("a path below the root").display().to_string();
        SourceFile { path, code: strip(&text), text }
    };
    paths.into_iter().map(read).collect()
}

/// Asserts that a list of complaints is empty.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_know_only_those_below_them() {
    let mut complaints = Vec::new();
    for file in sources() {
        let module = file.module();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!("{}: a module that the table in {} does not know", file.path, file!()));
            continue;
        };
        let known = |name: &String| MAY_USE.iter().any(|(module, _)| module == name);
        for used in file.uses().iter().filter(|name| known(name)) {
            if used != module && !allowed.contains(&used.as_str()) {
                complaints.push(format!("{}: {module} may not use {used}", file.path));
            }
        }
    }
    assert_none(&complaints);
}

/// The command line may know how to spell a sync policy, and nothing else of the log.
#[test]
fn the_command_line_knows_only_the_sync_policy_of_the_log() {
    let cli = sources().into_iter().filter(|file| file.module() == "cli");
    for file in cli {
        for (at, _) in file.code.match_indices("crate::log") {
            let rest = &file.code[at + "crate::log".len()..];
            assert!(rest.starts_with("::SyncPolicy"), "{}: crate::log{:.40}", file.path, rest);
        }
    }
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().filter(|file| file.text.lines().count() > LONGEST_FILE);
    let complaint = |file: SourceFile| format!("{}: {} lines: two nouns", file.path, file.text.lines().count());
    assert_none(&long.map(complaint).collect::<Vec<_>>());
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = sources().into_iter().filter(|file| !file.text.starts_with("//! "));
    assert_none(&silent.map(|file| format!("{} opens without a `//!` line", file.path)).collect::<Vec<_>>());
}

#[test]
fn no_bytes_are_in_the_hosts_order() {
    let forbidden = ["to_ne_bytes", "from_ne_bytes"];
    let unexcused = sources().into_iter().filter(|file| !MAY_SPEAK_HOST_ORDER.contains(&file.path.as_str()));
    let host = unexcused.filter(|file| forbidden.iter().any(|name| file.code.contains(name)));
    assert_none(&host.map(|file| format!("{} depends on the host's byte order", file.path)).collect::<Vec<_>>());
}

#[test]
fn unsafe_stays_where_it_is_explained() {
    let word = |code: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let mut complaints = Vec::new();
    for file in sources().iter().filter(|file| word(&file.code)) {
        if !MAY_BE_UNSAFE.contains(&file.path.as_str()) {
            complaints.push(format!("{} holds unsafe code and is not on the list in {}", file.path, file!()));
        }
        if !file.text.contains("SAFETY:") {
            complaints.push(format!("{} holds unsafe code and no SAFETY comment", file.path));
        }
    }
    assert_none(&complaints);
}

/// A point of no use, or one of two places, would let the test of fault points pass over what it is for.
#[test]
fn every_fault_point_stands_at_one_place() {
    let sources = sources();
    let code: String = (sources.iter().filter(|file| file.module() != "fault")).map(|file| &*file.code).collect();
    let places = |point: &str| code.matches(&format!("\"{point}\"")).count();
    let lost = POINTS.iter().filter(|point| places(point) != 1);
    assert_none(&lost.map(|point| format!("{point} stands at {} places", places(point))).collect::<Vec<_>>());
    let used = ["fault::at(\"", "fault::after(\""].iter().flat_map(|call| code.split(call).skip(1));
    let unknown = used.filter_map(|rest| rest.split('"').next()).filter(|point| !POINTS.contains(point));
    assert_none(&unknown.map(|point| format!("{point} is not on the list of fault points")).collect::<Vec<_>>());
}

/// A release holds nothing of them.
#[test]
fn fault_points_are_in_no_other_build() {
    assert_eq!(fail::has_failpoints(), cfg!(feature = "fault-points"));
    let binary = fs::read(KVD).expect("kvd");
    let holds = |text: &str| memchr::memmem::find(&binary, text.as_bytes()).is_some();
    // Where they are, this finds them.
    assert_eq!(holds("FAILPOINTS"), cfg!(feature = "fault-points"));
    assert_eq!(holds("commit-written"), cfg!(feature = "fault-points"));
}

#[test]
fn paths_are_read_as_rust_reads_them() {
    assert_eq!(first_names("log::{Batch, Log};"), ["log"]);
    assert_eq!(first_names("{log::{Batch, Log}, mutation::Key, table};"), ["log", "mutation", "table"]);
    assert_eq!(strip("use crate::a; // crate::b\n#[cfg(test)]\nuse crate::c;\n"), "use crate::a; \n");
}

#[test]
fn no_sentence_has_a_hole() {
    // A string that is broken without a backslash takes the indentation in, and one that was joined again keeps it.
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file");
        for (number, line) in source.lines().enumerate() {
            let line = line.trim();
            let hole =
                line.find("   ").filter(|_| !line.starts_with("//") && !line.starts_with(|c: char| c.is_ascii_digit()));
            assert!(hole.is_none(), "{}:{}: {line}", file.display(), number + 1);
        }
    }
}
