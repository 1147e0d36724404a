//! Commands that documents print, held against the programs: each must be one.

use crate::{arguments, deployment, torture};
use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use std::path::Path;

/// Documents that speak of the rigs.
const DOCUMENTS: [&str; 4] = ["jepsen/README.md", "docs/torture.md", "README.md", "ARCHITECTURE.md"];

/// How a program is called: by its name, through cargo, or through what runs it for everybody.
fn ways() -> Vec<(&'static str, Command)> {
    let (rig, torture, deployment) =
        (arguments::Cli::command(), torture::arguments::Cli::command(), deployment::arguments::Cli::command());
    vec![
        ("ashlar-jepsen ", rig.clone()),
        ("cargo ci torture -- ", rig.clone()),
        ("cargo run -p ashlar-jepsen -- ", rig.clone()),
        ("cargo ci torture", rig),
        ("ashlar-torture ", torture.clone()),
        ("cargo run -p ashlar-jepsen --bin ashlar-torture -- ", torture),
        ("cargo ci cluster -- ", deployment.clone()),
        ("ashlar-deployment ", deployment),
    ]
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Blocks of code, and what stands between backticks outside of them.
fn blocks_and_quotes(document: &str) -> (Vec<&str>, Vec<String>) {
    let (code, text): (Vec<_>, Vec<_>) = document.split("```").enumerate().partition(|(part, _)| part % 2 == 1);
    let text: String = text.into_iter().map(|(_, text)| text).collect();
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let quotes = flat.split('`').skip(1).step_by(2).map(String::from).collect();
    (code.into_iter().map(|(_, code)| code).collect(), quotes)
}

/// A line without prompt, comment and variables of the environment; words in capitals stand for something.
fn plain(line: &str) -> String {
    let line = line.trim().trim_start_matches("$ ").split(" #").next().unwrap_or_default().trim();
    let is_variable =
        |word: &&str| word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase()));
    line.split_whitespace().skip_while(is_variable).collect::<Vec<_>>().join(" ")
}

/// What follows a program's name, if the line calls one.
fn call(line: &str) -> Option<(Command, Vec<String>)> {
    let (way, command) =
        ways().into_iter().find(|(way, _)| format!("{line} ").starts_with(&format!("{} ", way.trim())))?;
    let rest = line.strip_prefix(way.trim()).unwrap_or_default();
    Some((command, words(rest)))
}

/// As a shell makes them.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in text.chars() {
        match (quote, c) {
            (None, ' ') => words.push(String::new()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => words.last_mut().expect("at least one").push(c),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

/// Numbers stand for themselves, and for what they are an example of; a word in capitals for anything.
fn parse(command: &Command, words: &[String]) -> Result<(), clap::Error> {
    let given = std::iter::once(command.get_name().to_string()).chain(words.iter().cloned());
    match command.clone().try_get_matches_from(given) {
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        outcome => outcome.map(drop),
    }
}

#[test]
fn every_command_in_a_block_is_one() {
    let (mut known, mut wrong) = (0, Vec::new());
    for name in DOCUMENTS {
        let document = read(name);
        for line in blocks_and_quotes(&document).0.into_iter().flat_map(str::lines) {
            let Some((command, words)) = call(&plain(line)) else { continue };
            known += 1;
            wrong.extend(parse(&command, &words).err().map(|error| format!("{name}: {line}\n{error}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(known >= 18, "{known} commands found: the documents are read wrongly");
}

#[test]
fn every_command_and_option_that_is_spoken_of_exists() {
    let (mut known, mut wrong) = (0, Vec::new());
    for name in &DOCUMENTS[..2] {
        for quote in blocks_and_quotes(&read(name)).1 {
            if let Some((command, words)) = call(&plain(&quote)) {
                known += 1;
                let outcome = parse(&command, &words);
                // It may leave out what it would have to name.
                let whole = outcome.or_else(|error| {
                    let is_part = [ErrorKind::MissingRequiredArgument, ErrorKind::MissingSubcommand]
                        .contains(&error.kind())
                        || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
                    if is_part { Ok(()) } else { Err(error) }
                });
                wrong.extend(whole.err().map(|error| format!("{name}: {quote}\n{error}")));
            } else if let Some(option) = quote.split([' ', '=']).next().filter(|word| word.starts_with("--")) {
                known += 1;
                if !exists(option) {
                    wrong.push(format!("{name}: no rig has {option}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(known >= 15, "{known} found: the documents are read wrongly");
}

/// Options of other programs that documents of the rigs speak of.
const OF_OTHERS: [&str; 2] = ["--features", "--durability"];

/// Whether any rig has an option.
fn exists(option: &str) -> bool {
    fn has(command: &Command, option: &str) -> bool {
        let own = command.get_arguments().filter_map(|argument| argument.get_long());
        own.into_iter().any(|long| option == format!("--{long}"))
            || command.get_subcommands().any(|sub| has(sub, option))
    }
    OF_OTHERS.contains(&option) || ways().iter().any(|(_, command)| has(command, option))
}

#[test]
fn what_is_shared_by_rigs_does_not_hide_what_they_are() {
    let torture = torture::arguments::Cli::command();
    for (name, about) in
        [("cluster", "A cluster"), ("store", "The store"), ("files", "A client's"), ("hooks", "Anything")]
    {
        let rig = torture.find_subcommand(name).expect(name);
        assert!(
            rig.get_about().is_some_and(|text| text.to_string().starts_with(about)),
            "{name}: {:?}",
            rig.get_about()
        );
        for option in ["--immediate-commit", "--out"] {
            assert!(rig.get_arguments().any(|argument| argument.get_long() == Some(&option[2..])), "{name} {option}");
        }
    }
    torture.debug_assert();
    arguments::Cli::command().debug_assert();
    deployment::arguments::Cli::command().debug_assert();
}
