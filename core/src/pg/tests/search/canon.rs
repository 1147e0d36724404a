//! A hash of a value's debug text that does not tell apart what the future does not depend on.
//!
//! The text is read as nested groups: fields of a struct and entries of a map in any order, lists in theirs. Keys of
//! slabs, numbers of calls and tokens are names without a meaning of their own, so they are left out; times count by how
//! far they are from now, in the classes that the world's jumps cannot tell apart.

use crate::time::Time;
use std::fmt::{Debug, Write};

/// Fields that name things, count what nobody asks for, or follow from other fields.
const SKIPPED: &[&str] = &[
    "call",
    "deadlines",
    "meta_pending",
    "next_meta",
    "order",
    "recovery",
    "sent",
    "stray_at",
    "token",
    "touched",
    "unreported",
];
/// Fields of which only the form counts: whether there is something.
const FORM_ONLY: &[&str] = &["meta_token"];
/// Nanoseconds: jumps of the world are of 5 s or of 700 s.
const SOON: u64 = 5_000_000_000;
const LATER: u64 = 600_000_000_000;

/// The hash of what `value` prints, at `now`.
pub fn hash_of(value: &impl Debug, now: Time) -> u64 {
    let mut text = String::with_capacity(8 << 10);
    write!(text, "{value:?}").expect("a string takes everything");
    hash_text(&text, now)
}

/// The hash of a debug text.
pub fn hash_text(text: &str, now: Time) -> u64 {
    Reader { text: text.as_bytes(), at: 0, now, form_only: false }.group(b'\0', false)
}

/// One step of a hash.
pub fn mix(hash: u64, word: u64) -> u64 {
    let x = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    x ^ (x >> 29)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    now: Time,
    form_only: bool,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(b'\0')
    }

    /// Elements up to the group's end, which is consumed.
    fn group(&mut self, end: u8, unordered: bool) -> u64 {
        let mut hash: u64 = 0x1234_5678_9abc_def1;
        loop {
            let element = self.element(end);
            hash = match element {
                None => hash,
                Some(element) if unordered => hash.wrapping_add(mix(element, element >> 7)),
                Some(element) => mix(hash, element),
            };
            let stop = self.peek();
            self.at += 1;
            if stop == end || self.at > self.text.len() {
                return hash;
            }
        }
    }

    /// One element, up to the comma or the group's end; none: it does not count.
    fn element(&mut self, end: u8) -> Option<u64> {
        let (mut hash, mut skipped, outer) = (1, false, self.form_only);
        loop {
            let byte = self.peek();
            if byte == end || byte == b',' || self.at >= self.text.len() {
                self.form_only = outer;
                return (!skipped).then_some(hash);
            }
            self.at += 1;
            match byte {
                b' ' => {}
                b'{' => hash = mix(hash, self.group(b'}', true)),
                b'[' => hash = mix(hash, self.group(b']', false)),
                b'(' => hash = mix(hash, self.group(b')', false)),
                b'"' => hash = mix(hash, self.quoted()),
                b'@' => self.skip_while(|byte| byte.is_ascii_digit() || byte == b'.'),
                b'0'..=b'9' if self.form_only => {}
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let from = self.at - 1;
                    self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                    let word = &self.text[from..self.at];
                    let is_field = self.peek() == b':';
                    skipped |= is_field && is_in(SKIPPED, word);
                    self.form_only |= is_field && is_in(FORM_ONLY, word);
                    hash = if word == b"Time" { mix(hash, self.time()) } else { mix(hash, hash_bytes(word)) };
                }
                byte => hash = mix(hash, byte.into()),
            }
        }
    }

    fn skip_while(&mut self, condition: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && condition(self.text[self.at]) {
            self.at += 1;
        }
    }

    fn quoted(&mut self) -> u64 {
        let from = self.at;
        while self.at < self.text.len() && self.text[self.at] != b'"' {
            self.at += if self.text[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        hash_bytes(&self.text[from..self.at.min(self.text.len())])
    }

    /// The class of `(nanoseconds)`.
    fn time(&mut self) -> u64 {
        let mut at = 0u64;
        self.at += 1;
        while self.peek().is_ascii_digit() {
            at = at * 10 + u64::from(self.peek() - b'0');
            self.at += 1;
        }
        self.at += 1;
        let (ahead, behind) = (at.saturating_sub(self.now.0), self.now.0.saturating_sub(at));
        match (ahead, behind) {
            (0, 0) => 3,
            (0, behind) => 4 + u64::from(behind >= LATER),
            (ahead, _) => 6 + u64::from(ahead > SOON),
        }
    }
}

fn is_in(list: &[&str], word: &[u8]) -> bool {
    list.iter().any(|name| name.as_bytes() == word)
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |hash, byte| mix(hash, u64::from(*byte)))
}

#[test]
fn names_and_orders_without_a_meaning_do_not_count() {
    let hash = |text: &str| hash_text(text, Time(1_000));
    assert_eq!(hash("A { x: 1, y: {@0.1: B, @1.0: C} }"), hash("A { y: {@7.0: C, @0.0: B}, x: 1 }"));
    assert_eq!(hash("[Call { call: 17, op: 1 }]"), hash("[Call { call: 4, op: 1 }]"));
    assert_eq!(hash("X { at: Time(1001) }"), hash("X { at: Time(1002) }"));
    assert_eq!(hash("X { meta_token: Some(12) }"), hash("X { meta_token: Some(99) }"));
    assert_ne!(hash("X { meta_token: Some(12) }"), hash("X { meta_token: None }"));
    assert_ne!(hash("X { at: Time(1001) }"), hash("X { at: Time(999) }"));
    assert_ne!(hash("[1, 2]"), hash("[2, 1]"));
    assert_ne!(hash("A { x: 1, y: 2 }"), hash("A { x: 2, y: 1 }"));
    assert_ne!(hash("3.1"), hash("3.2"));
}
