//! The language of `raw_placement` and `level_placement`.
//!
//! Owns: text to rules and back. Invariant: whatever is written is either understood to the last character or refused
//! with the place and what to write instead.
//!
//! ```text
//! rules     = part { ("," | newline) part }          one part for each member of a group
//! part      = "any" | rule { rule }
//! rule      = level operator argument
//! operator  = "=" | "!=" | ">" | "?="
//! argument  = value | "(" value { "," value } ")"
//! value     = number of an earlier part | '"' node '"'
//! level     = letters, digits, "_", "-", "."
//! ```

use super::{Argument, Operator, Rule, Rules};
use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

/// What a text is made of.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
    NewLine,
}

/// A token and where it begins: characters from 1.
type Placed = (usize, Token);

struct Lexer<'a> {
    chars: Peekable<CharIndices<'a>>,
    text: &'a str,
}

impl Lexer<'_> {
    /// Column of a byte.
    fn column(&self, byte: usize) -> usize {
        self.text[..byte].chars().count() + 1
    }

    fn next(&mut self) -> Result<Option<Placed>, String> {
        while self.chars.next_if(|(_, c)| c.is_whitespace() && *c != '\n').is_some() {}
        let Some((byte, first)) = self.chars.next() else { return Ok(None) };
        let column = self.column(byte);
        let token = match first {
            '\n' => Token::NewLine,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => Token::Operator(Operator::Equal),
            '>' => Token::Operator(Operator::Later),
            '!' if self.chars.next_if(|(_, c)| *c == '=').is_some() => Token::Operator(Operator::Different),
            '?' if self.chars.next_if(|(_, c)| *c == '=').is_some() => Token::Operator(Operator::Preferred),
            '"' => Token::Text(self.quoted(column)?),
            c if is_word(c) => Token::Word(self.word(c)),
            c => return Err(format!("column {column}: {c:?} is not expected; use any, or rules such as host!=1")),
        };
        Ok(Some((column, token)))
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some((_, c)) = self.chars.next_if(|(_, c)| is_word(*c)) {
            word.push(c);
        }
        word
    }

    fn quoted(&mut self, column: usize) -> Result<String, String> {
        let mut name = String::new();
        for (_, c) in self.chars.by_ref() {
            match c {
                '"' if name.is_empty() => return Err(format!("column {column}: a node without a name; write one")),
                '"' => return Ok(name),
                c if c.is_control() => break,
                c => name.push(c),
            }
        }
        Err(format!("column {column}: the quotation mark is not closed; write \"NODE\""))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Reads the tokens one after the other.
struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    end: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Parser, String> {
        let mut lexer = Lexer { chars: text.char_indices().peekable(), text };
        let mut tokens = Vec::new();
        while let Some(token) = lexer.next()? {
            tokens.push(token);
        }
        Ok(Parser { tokens, next: 0, end: text.chars().count() + 1 })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    /// Takes the next token if it is this one.
    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn is_at_end_of_part(&self) -> bool {
        matches!(self.peek(), None | Some(Token::Comma | Token::NewLine))
    }

    /// An error at the next token.
    fn wrong(&self, wanted: &str) -> String {
        match self.tokens.get(self.next) {
            Some((column, token)) => format!("column {column}: {wanted} expected, found {token}"),
            None => format!("column {}: {wanted} expected, but the text ends", self.end),
        }
    }

    fn part(&mut self, number: usize) -> Result<Vec<Rule>, String> {
        if self.take(&Token::Word("any".into())) {
            return if self.is_at_end_of_part() { Ok(Vec::new()) } else { Err(self.wrong("\",\" after any")) };
        }
        let mut rules = vec![self.rule(number)?];
        while !self.is_at_end_of_part() {
            rules.push(self.rule(number)?);
        }
        Ok(rules)
    }

    fn rule(&mut self, part: usize) -> Result<Rule, String> {
        let Some(Token::Word(level)) = self.peek().cloned() else {
            return Err(self.wrong("any or the name of a level"));
        };
        self.next += 1;
        let Some(Token::Operator(operator)) = self.peek().cloned() else {
            return Err(self.wrong(&format!("one of = != > ?= after the level {level:?}")));
        };
        self.next += 1;
        Ok(Rule { level, operator, arguments: self.arguments(part)? })
    }

    fn arguments(&mut self, part: usize) -> Result<Vec<Argument>, String> {
        if !self.take(&Token::Open) {
            return Ok(vec![self.argument(part)?]);
        }
        let mut arguments = vec![self.argument(part)?];
        while self.take(&Token::Comma) {
            arguments.push(self.argument(part)?);
        }
        if self.take(&Token::Close) { Ok(arguments) } else { Err(self.wrong("\",\" or \")\"")) }
    }

    fn argument(&mut self, part: usize) -> Result<Argument, String> {
        let argument = match self.peek() {
            Some(Token::Text(name)) => Argument::Node(name.clone()),
            Some(Token::Word(word)) => Argument::Part(earlier(word, part).map_err(|wanted| self.wrong(&wanted))?),
            _ => return Err(self.wrong("the number of an earlier part, or a node's name in quotation marks,")),
        };
        self.next += 1;
        Ok(argument)
    }
}

/// The number of an earlier part, counted from 0; an error says what is expected.
fn earlier(word: &str, part: usize) -> Result<usize, String> {
    let Ok(number) = word.parse::<usize>() else {
        return Err(format!("the number of an earlier part, or \"{word}\" in quotation marks if it is a node,"));
    };
    match part {
        _ if (1..=part).contains(&number) => Ok(number - 1),
        0 => Err("a node's name in quotation marks (no part comes before the first)".into()),
        _ => Err(format!("a part from 1 to {part} (rules of part {} refer to earlier parts)", part + 1)),
    }
}

impl Rules {
    /// Reads the rules of a group of so many parts.
    pub fn parse(text: &str, size: usize) -> Result<Rules, String> {
        let mut parser = Parser::new(text)?;
        let mut parts = Vec::new();
        loop {
            while parser.take(&Token::NewLine) {}
            if parser.peek().is_none() && !parts.is_empty() {
                break;
            }
            let number = parts.len();
            let part = parser.part(number).map_err(|reason| format!("part {}, {reason}", number + 1))?;
            parts.push(part);
            if parser.take(&Token::Comma) {
                while parser.take(&Token::NewLine) {}
                if parser.peek().is_none() {
                    return Err(parser.wrong(&format!("part {}", parts.len() + 1)));
                }
            }
        }
        if parts.len() != size {
            return Err(format!("there are {} parts; write {size}, one for each member of a group", parts.len()));
        }
        Ok(Rules { parts })
    }
}

/// Reads `level=classes` pairs, separated by spaces or commas, such as `dc=112233 host=123456`.
pub fn parse_pattern(text: &str, size: usize) -> Result<Vec<(String, Vec<char>)>, String> {
    let mut pattern: Vec<(String, Vec<char>)> = Vec::new();
    for item in text.split([' ', ',', '\t', '\n']).filter(|item| !item.is_empty()) {
        let (level, classes) = item
            .split_once('=')
            .ok_or_else(|| format!("{item:?} has no \"=\"; write LEVEL=CHARACTERS, such as dc=112233"))?;
        let classes: Vec<char> = classes.chars().collect();
        if level.is_empty() || !level.chars().all(is_word) {
            return Err(format!("{level:?} is not the name of a level; write LEVEL=CHARACTERS, such as dc=112233"));
        }
        if classes.len() != size || !classes.iter().all(|c| c.is_alphanumeric()) {
            return Err(format!(
                "{item:?}: write {size} letters or digits after \"=\", one for each member of a group"
            ));
        }
        if pattern.iter().any(|(other, _)| other == level) {
            return Err(format!("level {level:?} comes twice; leave one out"));
        }
        pattern.push((level.into(), classes));
    }
    Ok(pattern)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "{word:?}"),
            Token::Text(name) => write!(f, "the node {name:?}"),
            Token::Operator(operator) => write!(f, "\"{operator}\""),
            Token::Open => f.write_str("\"(\""),
            Token::Close => f.write_str("\")\""),
            Token::Comma => f.write_str("\",\""),
            Token::NewLine => f.write_str("the end of the line"),
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Part(part) => write!(f, "{}", part + 1),
            Argument::Node(name) => write!(f, "\"{name}\""),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.level, self.operator)?;
        match &self.arguments[..] {
            [argument] => write!(f, "{argument}"),
            several => {
                let texts: Vec<String> = several.iter().map(ToString::to_string).collect();
                write!(f, "({})", texts.join(","))
            }
        }
    }
}

/// As the language writes them.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rules) in self.parts.iter().enumerate() {
            f.write_str(if number > 0 { ", " } else { "" })?;
            let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
            f.write_str(if texts.is_empty() { "any" } else { "" })?;
            f.write_str(&texts.join(" "))?;
        }
        Ok(())
    }
}
