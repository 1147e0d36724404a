//! Rules that need the syntax tree: how long functions are, where unsafe code stands.

use super::{Finding, Source};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Longest function, in lines from its `fn` to its closing brace: what fits on a screen.
const FUNCTION_MAX_LINES: usize = 70;
/// The one crate that may hold unsafe code.
const UNSAFE_CRATE: &str = "runtime";

/// Checks one file and adds the lengths of its functions.
pub fn check(source: &Source<'_>, lengths: &mut Vec<usize>) -> Vec<Finding> {
    let file = match syn::parse_file(source.text) {
        Ok(file) => file,
        Err(error) => return vec![source.finding(error.span().start().line, format!("does not parse: {error}"))],
    };
    let mut walk = Walk { source, lengths, findings: Vec::new() };
    walk.visit_file(&file);
    walk.findings
}

struct Walk<'a> {
    source: &'a Source<'a>,
    lengths: &'a mut Vec<usize>,
    findings: Vec<Finding>,
}

impl Walk<'_> {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let length = body.span().end().line - first + 1;
        self.lengths.push(length);
        if length > FUNCTION_MAX_LINES {
            let problem =
                format!("`{}` has {length} lines; the limit is {FUNCTION_MAX_LINES}: split it", signature.ident);
            self.findings.push(self.source.finding(first, problem));
        }
    }

    fn unsafe_at(&mut self, line: usize) {
        if !self.source.is_in(UNSAFE_CRATE) {
            let problem = format!("unsafe code outside {UNSAFE_CRATE}/: find a safe wrapper, or move it there");
            self.findings.push(self.source.finding(line, problem));
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(body) = &node.default {
            self.function(&node.sig, body);
        }
        visit::visit_trait_item_fn(self, node);
    }

    fn visit_signature(&mut self, node: &'ast syn::Signature) {
        if let Some(word) = &node.unsafety {
            self.unsafe_at(word.span().start().line);
        }
        visit::visit_signature(self, node);
    }

    fn visit_expr_unsafe(&mut self, node: &'ast syn::ExprUnsafe) {
        self.unsafe_at(node.unsafe_token.span().start().line);
        visit::visit_expr_unsafe(self, node);
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        if let Some(word) = &node.unsafety {
            self.unsafe_at(word.span().start().line);
        }
        visit::visit_item_impl(self, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<Finding> {
        check(&Source { path, text }, &mut Vec::new())
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_no_more() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines - 2));
        assert_eq!(findings("core/src/a.rs", &function(70)), []);
        let found = findings("core/src/a.rs", &function(71));
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.contains("`f` has 71 lines"), "{}", found[0]);
    }

    #[test]
    fn methods_and_defaults_count_too() {
        let body = "g();\n".repeat(70);
        assert_eq!(findings("a/b.rs", &format!("impl A {{\nfn f() {{\n{body}}}\n}}")).len(), 1);
        assert_eq!(findings("a/b.rs", &format!("trait A {{\nfn f() {{\n{body}}}\n}}")).len(), 1);
    }

    #[test]
    fn unsafe_is_for_the_runtime() {
        for text in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for A {}"] {
            assert_eq!(findings("osd/src/a.rs", text).len(), 1, "{text}");
            assert_eq!(findings("runtime/src/a.rs", text), [], "{text}");
        }
        assert_eq!(findings("osd/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\";"), []);
    }

    #[test]
    fn what_does_not_parse_is_said() {
        assert!(findings("a/b.rs", "fn (").first().is_some_and(|found| found.problem.contains("does not parse")));
    }
}
