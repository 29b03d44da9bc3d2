//! The README can be believed: its Python client and its frames example print what it says they print, and
//! every flag that there is has a row in a table. So can the documents beside it: links lead somewhere, and the
//! tests that are named exist.

use crate::daemon::{Daemon, KVD, Store};
use crate::tutorial::python;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The address that the README's examples go to.
const SHOWN: &str = "127.0.0.1:43000";

/// What a file of the repository says.
pub fn text_of(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What stands between the fences of this language, in order.
pub fn fenced(text: &str, language: &str) -> Vec<String> {
    let opening = format!("\n```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("```").next().expect("a first part").to_owned()).collect()
}

/// The one shell session of the README that begins so, as what follows in its command and what it prints.
fn session(readme: &str, begins: &str, ends: &str) -> (String, String) {
    let sessions = fenced(readme, "console");
    let rest = sessions.iter().find_map(|session| session.strip_prefix(begins));
    let rest = rest.unwrap_or_else(|| panic!("no session in the README begins with {begins}"));
    let (command, printed) = rest.split_once(ends).expect("the end of the command");
    (command.to_owned(), printed.to_owned())
}

/// What Python prints.
pub fn printed_by(arguments: &[&str]) -> String {
    let output = Command::new(python()).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", python().display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn address(daemon: &Daemon) -> &str {
    daemon.endpoint().strip_prefix("tcp://").expect("a TCP endpoint")
}

/// In the order of the README, since its versions count from the first example on.
#[test]
fn its_examples_print_what_it_says() {
    let readme = text_of("README.md");
    let store = Store::new();
    let daemon = store.start();

    let (arguments, printed) = session(&readme, "$ python3 client.py ", "\n");
    assert_eq!(arguments.replace(' ', ":"), SHOWN);
    let (host, port) = address(&daemon).split_once(':').expect("a port");
    let [client] = &fenced(&readme, "python")[..] else { panic!("one client in the README") };
    let script = store.beside("client.py");
    fs::write(&script, client).expect("a script");
    assert_eq!(printed_by(&[script.to_str().expect("a path"), host, port]), printed);

    let (command, printed) = session(&readme, "$ python3 -c '", "'\n");
    assert!(command.contains(SHOWN) && !command.contains('\''));
    assert_eq!(command.lines().count(), 4, "four lines, as it is easy to say");
    assert_eq!(printed_by(&["-c", &command.replace(SHOWN, address(&daemon))]), printed);
}

/// What `kvd` says of its flags, and the rows of the tables in which they must stand.
fn help_and_rows(arguments: &[&str], documents: &[&str]) -> (String, Vec<String>) {
    let output = Command::new(KVD).args(arguments).arg("--help").output().expect("kvd runs");
    let help = String::from_utf8(output.stdout).expect("text");
    let tables: String = documents.iter().map(|document| text_of(document)).collect();
    (help, tables.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect())
}

fn has_row(rows: &[String], name: &str) -> bool {
    let ends = |rest: &str| rest.starts_with(['`', ' ']);
    rows.iter().any(|row| row.split(&format!("`{name}")).skip(1).any(ends))
}

#[test]
fn every_flag_has_a_row() {
    for (arguments, documents) in
        [(&[][..], &["README.md", "docs/operations.md"][..]), (&["bench"], &["docs/benchmarks.md"])]
    {
        let (help, rows) = help_and_rows(arguments, documents);
        let lines = help.lines().map(str::trim_start);
        let flags: Vec<_> = lines.filter(|line| line.starts_with('-') && line.contains("--")).collect();
        assert!(flags.len() >= 10, "the flags of\n{help}");
        for line in flags {
            let flag = line.split([' ', ',', '=']).find(|word| word.starts_with("--")).expect("a long flag");
            assert!(flag == "--help" || has_row(&rows, flag), "{flag} stands in no table of {documents:?}");
        }
        // Help is wrapped, so only the names.
        for variable in help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()) {
            assert!(has_row(&rows, variable), "{variable} stands in no table of {documents:?}");
        }
    }
}

/// The words between backticks, fences left out.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn documents_link_to_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = fs::read_dir(root.join("docs")).expect("a directory").map(|entry| entry.expect("an entry").path());
    let documents = documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut dead = Vec::new();
    for document in documents.chain(["README.md", "CHANGELOG.md"].map(|name| root.join(name))) {
        let text = fs::read_to_string(&document).expect("a document");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let local = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let missing = local.filter(|link| !document.with_file_name(link).exists());
        dead.extend(missing.map(|link| format!("{}: {link}", document.display())));
    }
    assert!(dead.is_empty(), "links to nowhere: {dead:#?}");
}

/// A promise is worth no more than the test that holds it, so the table of promises must name real ones.
#[test]
fn promises_name_tests_that_exist() {
    let text = text_of("docs/durability.md");
    let (_, table) = text.split_once("\n| promise | held by |\n").expect("the table of promises");
    let table = table.split("\n\n").next().expect("a first part");
    let (mut named, mut missing) = (0, Vec::new());
    let mut file_of = None;
    // From behind: a file stands after the tests that are in it.
    for word in quoted(table).into_iter().rev() {
        if word.split('.').next_back() == Some("rs") {
            file_of = Some(format!("src/{word}"));
            continue;
        }
        let (file, name) = match word.split_once("::") {
            Some((module, name)) => (format!("tests/it/{module}.rs"), name),
            None if word.contains('_') => (file_of.clone().expect("a file after the test"), word),
            None => continue,
        };
        let declared = name.strip_suffix('…').map_or_else(|| format!("fn {name}("), |begins| format!("fn {begins}"));
        named += 1;
        if !text_of(&file).contains(&declared) {
            missing.push(format!("{file}: {declared}"));
        }
    }
    assert!(named > 40, "only {named} tests are named");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// Whether a reply is the one that an example tells: of an error the code, and the message where it is told.
fn is_as_told(told: &str, reply: &[Vec<u8>]) -> bool {
    let words: Vec<String> = reply.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect();
    let spelled = |words: &[String]| {
        words.iter().map(|word| if word.is_empty() { "''" } else { word }).collect::<Vec<_>>().join(" ")
    };
    match &words[..] {
        [err, code, message] if err == "ERR" => {
            told == format!("ERR {code}") || told == format!("ERR {code} {message}")
        }
        words => told == spelled(words),
    }
}

#[test]
fn the_examples_of_the_protocol_are_answered_as_it_says() {
    let page = text_of("docs/protocol.md");
    let mut played = 0;
    for block in fenced(&page, "text").iter().filter(|block| block.contains(" -> ")) {
        let store = Store::new();
        let daemon = store.start();
        let client = daemon.client();
        for line in block.lines() {
            let (request, rest) = line.split_once(" -> ").unwrap_or_else(|| panic!("no example: {line}"));
            let told = rest.split("  ").next().unwrap_or_default();
            let frames: Vec<&[u8]> =
                request.split_whitespace().map(|word| if word == "''" { &b""[..] } else { word.as_bytes() }).collect();
            let reply = client.call(&frames);
            // Where a page ends is another number in every store.
            if frames[0] != b"SCAN" {
                assert!(is_as_told(told, &reply), "{line}\nbut it is {reply:?}");
                played += 1;
            }
        }
    }
    assert!(played > 30, "{played}");
}
