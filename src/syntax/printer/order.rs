//! Patterns, blocks and priority lists -> lines.

use super::expr::{count, expr};
use super::{Page, WIDTH};
use crate::ir::Span;
use crate::syntax::ast::{Block, Greedy, GreedyForm, Member, OrderForm, PatternForm};

impl Page<'_> {
    pub(super) fn order(&mut self, span: Span, order: &OrderForm) {
        match order {
            OrderForm::Pattern(pattern) => {
                let parts = match &pattern.form {
                    PatternForm::Sequence(parts) => parts.iter().map(super::pattern).collect(),
                    _ => vec![super::pattern(pattern)],
                };
                self.list(span, "order", parts);
            }
            OrderForm::Block(block) => self.slots(span, block),
            OrderForm::Greedy(greedy) => self.greedy(span, greedy),
        }
    }

    /// A word and what stands behind it; the parts of a long list go on below the first.
    fn list(&mut self, span: Span, word: &str, parts: Vec<String>) {
        self.before(span.start);
        let mut code = word.to_owned();
        let mut used = 0;
        for part in parts {
            if used > 0 && 4 * self.level + code.len() + 1 + part.len() > WIDTH {
                self.line(std::mem::replace(&mut code, " ".repeat(word.len())));
                used = 0;
            }
            code.push(' ');
            code.push_str(&part);
            used += 1;
        }
        self.line(code);
        self.end = self.end.max(span.end);
    }

    /// A block; what follows the passes stands in one column.
    fn slots(&mut self, span: Span, block: &Block) {
        let passes: Vec<String> = block.entries.iter().map(|entry| member(&entry.pass)).collect();
        let widths = passes.iter().map(String::len).filter(|&width| width <= MAX_COLUMN);
        let column = widths.max().unwrap_or(0);
        self.block(span, format!("block every {} {{", expr(&block.every)), |page| {
            for (entry, pass) in block.entries.iter().zip(&passes) {
                let slot =
                    entry.at.as_ref().map_or_else(|| "fill".to_owned(), |at| format!("at {}", expr(at)));
                page.entry(entry.span, format!("{pass:column$} {slot}"));
            }
        });
    }

    /// A priority list with its limits.
    fn greedy(&mut self, span: Span, greedy: &Greedy) {
        self.block(span, "greedy {".to_owned(), |page| {
            for item in &greedy.items {
                match &item.form {
                    GreedyForm::Limit { class, most } => {
                        page.entry(item.span, format!("limit {} <= {}", class.text, expr(most)));
                    }
                    GreedyForm::Prefer(passes) => {
                        page.list(item.span, "prefer", passes.iter().map(member).collect());
                    }
                }
            }
        });
    }
}

/// The slot of a longer pass stands right behind it.
const MAX_COLUMN: usize = 24;

fn member(member: &Member) -> String {
    let chunk = member.chunk.as_ref().map_or(String::new(), |chunk| format!(".{}", count(chunk)));
    format!("{}{chunk}", member.pass.text)
}
