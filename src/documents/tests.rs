//! What documents, messages and help say of commands, held against the commands.

use crate::{Cli, arguments};
use clap::CommandFactory;
use clap::error::ErrorKind;
use clap_complete::Shell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[test]
fn all_commands_are_sound_and_shells_know_them() {
    Cli::command().debug_assert();
    let mut script = Vec::new();
    clap_complete::generate(Shell::Bash, &mut Cli::command(), "ashlar", &mut script);
    let script = String::from_utf8(script).expect("a script is text");
    for word in ["why-slow", "--meta-ca", "break-lock", "--durability"] {
        assert!(script.contains(word), "{word}");
    }
}

/// All commands below one, itself included.
fn all(command: &clap::Command) -> Vec<&clap::Command> {
    std::iter::once(command).chain(command.get_subcommands().flat_map(all)).collect()
}

#[test]
fn no_command_asks_for_one_of_nothing() {
    let mut cli = Cli::command();
    cli.build();
    for command in all(&cli) {
        for group in command.get_groups().filter(|group| group.is_required_set()) {
            assert!(group.get_args().next().is_some(), "{}: {group:?}", command.get_name());
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files with this extension, in a directory and (if `deep`) below it.
fn files(directory: &str, extension: &str, deep: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the sources") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() && deep {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<PathBuf> {
    let mut found = files("docs", "md", true);
    found.extend(files(".", "md", false));
    found.push(root().join("jepsen/README.md"));
    found
}

/// Blocks of code, and what is left of a document without them.
fn blocks_and_text(document: &str) -> (Vec<&str>, String) {
    let (code, text): (Vec<_>, Vec<_>) = document.split("```").enumerate().partition(|(part, _)| part % 2 == 1);
    (code.into_iter().map(|(_, code)| code).collect(), text.into_iter().map(|(_, text)| text).collect())
}

/// The commands of a block: lines without prompts and comments, cut where a shell would.
fn commands(block: &str) -> Vec<Vec<String>> {
    let plain =
        |line: &str| line.trim().trim_start_matches("$ ").split(" #").next().map(|line| line.trim().to_string());
    let lines = block.lines().filter_map(plain);
    let parts: Vec<String> = lines
        .flat_map(|line| line.replace("&&", ";").split(';').map(|p| p.trim().to_string()).collect::<Vec<_>>())
        .collect();
    // A diagram has a command's name in one of its columns.
    let is_command = |part: &&String| part.starts_with("ashlar ") && !part.contains("  ") && !part.contains("...");
    parts.iter().filter(is_command).map(|part| words(part)).collect()
}

/// Words up to a redirection, as a shell makes them of quoted ones.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, ' ') => words.push(String::new()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => words.last_mut().expect("at least one").push(c),
        }
    }
    let is_end = |word: &String| [">", "|", "&"].contains(&word.as_str());
    words.into_iter().take_while(|word| !is_end(word)).filter(|word| !word.is_empty()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\|", "|");
    flat.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

/// `osd list|show 3` is `osd list` and `osd show 3`.
fn alternatives(mention: &str) -> Vec<Vec<String>> {
    let mut lines = vec![Vec::new()];
    for word in words(mention) {
        let choices: Vec<&str> = word.split('|').collect();
        lines = lines
            .into_iter()
            .flat_map(|line: Vec<String>| {
                choices.iter().map(move |choice| [line.clone(), vec![choice.to_string()]].concat())
            })
            .collect();
    }
    lines
}

/// The commands, and the configuration file that we give away.
fn given_away() -> &'static (clap::Command, toml::Table) {
    static BOTH: OnceLock<(clap::Command, toml::Table)> = OnceLock::new();
    BOTH.get_or_init(|| {
        let mut cli = Cli::command();
        cli.build();
        let file: toml::Table = read(&root().join("deploy/ashlar.toml")).parse().expect("TOML");
        arguments::check(&file, &cli).expect("a file that goes with every command");
        (cli, file)
    })
}

/// As the program reads it, on a machine with that file.
fn parse(words: &[String]) -> Result<(), clap::Error> {
    let (cli, file) = given_away();
    let given = words.iter().map(Into::into).collect();
    let given = arguments::add(given, cli, file, |_| false).expect("values that were checked");
    match cli.clone().try_get_matches_from(given) {
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// A command that is spoken of may leave out what it would have to name; what it names has to exist.
fn mention(words: &[String]) -> Result<(), clap::Error> {
    let stands_for = |word: &String| {
        let placeholder = word.len() > 1 || ["N"].contains(&word.as_str());
        word.contains('{') || (placeholder && word.chars().all(|c| c.is_ascii_uppercase()))
    };
    // An option that is only named has a value somewhere else.
    let unfinished = words.last().is_some_and(|word| word.starts_with("--"));
    let has_placeholder = words.iter().any(stands_for);
    match parse(words) {
        Err(error) => match error.kind() {
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
            ErrorKind::InvalidValue if unfinished => Ok(()),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation if has_placeholder => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

#[test]
fn every_command_in_a_document_is_one() {
    let (mut known, mut wrong) = (0, Vec::new());
    for path in documents() {
        let document = read(&path);
        for words in blocks_and_text(&document).0.into_iter().flat_map(commands) {
            known += 1;
            if let Err(error) = parse(&words) {
                wrong.push(format!("{}: {}: {error}", path.display(), words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(known >= 15, "{known} commands found: the documents are read wrongly");
}

/// What documents, messages and help speak of, with where.
fn mentions() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut add = |place: &str, text: &str| {
        found.extend(quoted(text).into_iter().map(|mention| (mention, place.to_string())));
    };
    for path in documents() {
        add(&path.display().to_string(), &blocks_and_text(&read(&path)).1);
    }
    for source in ["src", "core/src", "osd/src", "mon/src", "client/src", "runtime/src"] {
        for path in files(source, "rs", true).iter().filter(|path| !path.ends_with("documents/tests.rs")) {
            // Line by line: backticks need not match in code.
            read(path).lines().for_each(|line| add(&path.display().to_string(), line));
        }
    }
    let mut cli = Cli::command();
    cli.build();
    for command in all(&cli) {
        let texts = [command.get_about(), command.get_long_about(), command.get_after_help()];
        let of_arguments = command.get_arguments().flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
        texts.into_iter().chain(of_arguments).flatten().for_each(|text| add("help", &text.to_string()));
    }
    found
}

#[test]
fn every_command_that_is_spoken_of_is_one() {
    let names: BTreeSet<String> =
        Cli::command().get_subcommands().filter(|c| c.has_subcommands()).map(|c| c.get_name().to_string()).collect();
    let (mut known, mut wrong) = (0, Vec::new());
    for (text, place) in mentions() {
        // In lists, the program's name is left out.
        let is_short = text.split_once(' ').is_some_and(|(first, _)| names.contains(first));
        let whole = if is_short { format!("ashlar {text}") } else { text.clone() };
        if !whole.starts_with("ashlar ") || ["...", "{}", "->", ": "].iter().any(|mark| whole.contains(mark)) {
            continue;
        }
        let first = whole.split(';').next().unwrap_or_default();
        for words in alternatives(first) {
            known += 1;
            if let Err(error) = mention(&words) {
                wrong.push(format!("{place}: {}: {error}", words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(known >= 100, "{known} commands found: mentions are read wrongly");
}

#[test]
fn services_start_with_the_file_that_goes_with_them() {
    let mut known = 0;
    for path in files("deploy/systemd", "service", false) {
        let unit = read(&path);
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/")) {
            known += 1;
            if let Err(error) = parse(&words(&line.replace("%i", "1"))) {
                panic!("{}: {line}: {error}", path.display());
            }
        }
    }
    assert_eq!(known, 3, "OSD, monitor, NBD server");
}
