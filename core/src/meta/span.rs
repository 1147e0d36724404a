//! Ranges of keys, as etcd describes them: one key, everything before an end, or everything from a start on.

use super::Keys;
use std::ops::Bound;

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Directly after the first key: the range is one key.
    Only,
    /// Before this key, which need not be text.
    Before(Vec<u8>),
    /// Nowhere: all keys from the start on.
    Never,
}

/// A range of keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    start: String,
    end: End,
}

impl Span {
    /// The keys from `start` to `end`.
    pub fn new(start: impl Into<String>, end: End) -> Span {
        Span { start: start.into(), end }
    }

    /// One key.
    pub fn one(key: impl Into<String>) -> Span {
        Span::new(key, End::Only)
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Span {
        let start: String = prefix.into();
        let mut end = start.clone().into_bytes();
        // Bytes of text are never 0xff, so there is no carry.
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                End::Before(end)
            }
            None => End::Never,
        };
        Span { start, end }
    }

    /// Where it begins.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// Where it ends.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &str) -> bool {
        key >= self.start.as_str() && self.ends_after(key)
    }

    /// Whether `key`, which is not before the start, is in it.
    pub(super) fn ends_after(&self, key: &str) -> bool {
        match &self.end {
            End::Only => key == self.start,
            End::Before(end) => key.as_bytes() < end.as_slice(),
            End::Never => true,
        }
    }

    /// Where a search in an ordered map begins.
    pub(super) fn lower_bound(&self) -> (Bound<&str>, Bound<&str>) {
        (Bound::Included(self.start.as_str()), Bound::Unbounded)
    }
}

impl From<&Keys> for Span {
    fn from(keys: &Keys) -> Span {
        match keys {
            Keys::One(key) => Span::one(key.as_str()),
            Keys::Prefix(prefix) => Span::prefix(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_begins_with_it() {
        let span = Span::prefix("/a/");
        for (key, inside) in [("/a/", true), ("/a/\u{10ffff}", true), ("/a", false), ("/a0", false), ("/b", false)] {
            assert_eq!(span.contains(key), inside, "{key}");
        }
        assert!(Span::prefix("").contains("\u{10ffff}"));
    }

    #[test]
    fn an_end_may_be_any_bytes() {
        let span = Span::new("a", End::Before(vec![b'b', 0xff]));
        assert!(span.contains("b~") && !span.contains("c") && !span.contains("A"));
        assert!(!Span::new("b", End::Before(b"a".to_vec())).contains("b"));
        assert!(Span::one("x").contains("x") && !Span::one("x").contains("xx"));
    }
}
