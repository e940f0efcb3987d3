//! Tree -> text: one item a line, four spaces a level; every comment and single blank lines are kept.
//!
//! A comment that stood inside an item moves to the end of the item's line, or below it.

mod expr;
mod order;

use self::expr::{count, expr, exprs};
use super::ast::{
    At, Barrier, Clause, ClauseForm, DeclaredSite, File, Item, Limit, Need, NeedForm, PassDecl, Pattern,
    PatternForm, Placement, Schedule, ScheduleForm, ScheduleItem, Site, Times, Transform, TransformForm,
    Trivia, Word,
};
use crate::ir::{Measure, Span};

/// Lines longer than this are broken where that is possible.
const WIDTH: usize = 110;

/// The text of a tree.
#[must_use]
pub fn print(file: &File) -> String {
    let mut page = Page { trivia: &file.trivia, next: 0, end: 0, level: 0, lines: Vec::new() };
    for item in &file.items {
        page.item(item);
    }
    page.before(u32::MAX);
    page.finish()
}

/// The lines so far, and how far in the source they go.
struct Page<'file> {
    trivia: &'file Trivia,
    /// The first comment that is not printed yet.
    next: usize,
    /// The end of what is printed, in the source.
    end: u32,
    level: usize,
    lines: Vec<Line<'file>>,
}

/// One line.
struct Line<'file> {
    level: usize,
    code: String,
    comment: Option<&'file str>,
}

impl Page<'_> {
    /// Prints what stands before `start`: comments, and the blank line above what starts there.
    fn before(&mut self, start: u32) {
        let trivia = self.trivia;
        while let Some(comment) = trivia.comments.get(self.next).filter(|comment| comment.span.start < start)
        {
            self.next += 1;
            let trails =
                |line: &&mut Line<'_>| !comment.own_line && line.comment.is_none() && !line.code.is_empty();
            if let Some(line) = self.lines.last_mut().filter(trails) {
                line.comment = Some(&comment.text);
            } else {
                self.blank(comment.span.start);
                self.lines.push(Line {
                    level: self.level,
                    code: String::new(),
                    comment: Some(&comment.text),
                });
            }
            self.end = self.end.max(comment.span.end);
        }
        if start != u32::MAX {
            self.blank(start);
        }
    }

    /// Keeps a blank line between what is printed and `start`, but not at the top of a block.
    fn blank(&mut self, start: u32) {
        let inside = self.lines.last().is_some_and(|line| !line.code.ends_with('{'));
        if inside && self.trivia.blank_within(self.end, start) {
            self.lines.push(Line { level: 0, code: String::new(), comment: None });
        }
    }

    fn line(&mut self, code: String) {
        self.lines.push(Line { level: self.level, code, comment: None });
    }

    /// A line for what stands at `span`.
    fn entry(&mut self, span: Span, code: String) {
        self.before(span.start);
        self.line(code);
        self.end = self.end.max(span.end);
    }

    /// A head, indented entries, and a closing brace.
    fn block(&mut self, span: Span, head: String, entries: impl FnOnce(&mut Self)) {
        self.before(span.start);
        self.line(head);
        self.end = self.end.max(span.start);
        self.level += 1;
        entries(self);
        self.comments_before(span.end);
        self.level -= 1;
        self.line("}".to_owned());
        self.end = self.end.max(span.end);
    }

    /// Prints the comments before `end`, without a blank line after them.
    fn comments_before(&mut self, end: u32) {
        if self.trivia.comments.get(self.next).is_some_and(|comment| comment.span.start < end) {
            self.before(end);
            while self.lines.last().is_some_and(|line| line.code.is_empty() && line.comment.is_none()) {
                self.lines.pop();
            }
        }
    }

    /// All lines, trailing comments of neighbouring lines in one column.
    fn finish(self) -> String {
        let mut text = String::new();
        let mut column = 0;
        for (index, line) in self.lines.iter().enumerate() {
            let width = |line: &Line<'_>| 4 * line.level + line.code.chars().count();
            let trails = |line: &Line<'_>| line.comment.is_some() && !line.code.is_empty();
            if trails(line) && (index == 0 || !trails(&self.lines[index - 1])) {
                column =
                    self.lines[index..].iter().take_while(|line| trails(line)).map(width).max().unwrap_or(0)
                        + 4;
            }
            let start = text.len();
            text.push_str(&" ".repeat(4 * line.level));
            text.push_str(&line.code);
            if let Some(comment) = line.comment {
                if !line.code.is_empty() {
                    text.push_str(&" ".repeat(column - width(line)));
                }
                text.push_str(comment);
            }
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        text
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Class(class) => {
                let code = format!("class {} [{}]", class.name.text, exprs(&class.shape));
                self.entry(class.span, code);
            }
            Item::Pass(decl) => self.pass(decl),
            Item::Transform(transform) => self.transform(transform),
            Item::Schedule(schedule) => self.schedule(schedule),
        }
    }

    fn pass(&mut self, decl: &PassDecl) {
        let site = match decl.site {
            DeclaredSite::Stage => "stage",
            DeclaredSite::EveryRank { lockstep: false } => "every rank",
            DeclaredSite::EveryRank { lockstep: true } => "every rank in lockstep",
        };
        let head = format!("pass {} at {site}", decl.name.text);
        let clauses: Vec<String> = decl.clauses.iter().map(clause).collect();
        let width =
            4 * self.level + head.len() + clauses.iter().map(|clause| clause.len() + 2).sum::<usize>();
        if width <= WIDTH {
            let parts: Vec<&str> = std::iter::once(&head).chain(&clauses).map(String::as_str).collect();
            self.entry(decl.span, parts.join("  "));
        } else {
            self.entry(decl.span, head);
            for clause in clauses {
                self.line(format!("    {clause}"));
            }
        }
    }

    fn transform(&mut self, transform: &Transform) {
        let head = format!("transform \"{}\" {{", transform.name.text);
        self.block(transform.span, head, |page| {
            for item in &transform.items {
                match &item.form {
                    TransformForm::Pass(decl) => page.pass(decl),
                    TransformForm::Barrier(barrier) => page.entry(item.span, self::barrier(barrier)),
                    TransformForm::Edge(edge) => {
                        page.entry(item.span, format!("{} needs {}", site(&edge.to), needs(&edge.needs)));
                    }
                    TransformForm::Limit(limit) => page.entry(item.span, self::limit(limit)),
                    TransformForm::Deepen(by) => page.entry(item.span, format!("deepen {}", expr(by))),
                }
            }
        });
    }

    fn schedule(&mut self, schedule: &Schedule) {
        let params: Vec<String> = schedule
            .params
            .iter()
            .map(|param| format!("{} = {}", param.name.text, expr(&param.value)))
            .collect();
        let params = if params.is_empty() { String::new() } else { format!("({}) ", params.join(", ")) };
        let head = format!("schedule \"{}\" {params}{{", schedule.name.text);
        self.block(schedule.span, head, |page| {
            for item in &schedule.items {
                page.schedule_item(item);
            }
        });
    }

    fn schedule_item(&mut self, item: &ScheduleItem) {
        let code = match &item.form {
            ScheduleForm::Passes(passes) => format!("passes {}", names(passes)),
            ScheduleForm::Chunks(chunks) => format!("chunks {}", expr(chunks)),
            ScheduleForm::Retime => "retime".to_owned(),
            ScheduleForm::Require { measure, most } => match measure {
                Measure::Activations => format!("require peak <= {}", expr(most)),
                Measure::Bytes(unit) => format!("require peak <= {} {}", expr(most), unit.word()),
                Measure::Bubble => format!("require bubble <= {} percent", expr(most)),
            },
            ScheduleForm::Slices(slices) => format!("slices {}", expr(slices)),
            ScheduleForm::Place(Placement::Loop) => "place loop".to_owned(),
            ScheduleForm::Place(Placement::Wave) => "place wave".to_owned(),
            ScheduleForm::Place(Placement::Of { stage, rank }) => {
                format!("place {} -> {}", stage.text, expr(rank))
            }
            ScheduleForm::Place(Placement::Bidirectional) => "place bidirectional".to_owned(),
            ScheduleForm::Apply(transform) => format!("apply \"{}\"", transform.text),
            ScheduleForm::Let { name, value } => format!("let {} = {}", name.text, expr(value)),
            ScheduleForm::Stream { pass, keys } => format!("stream {} by {}", pass.text, exprs(keys)),
            ScheduleForm::Order(order) => return self.order(item.span, order),
        };
        self.entry(item.span, code);
    }
}

fn names(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(", ")
}

fn clause(clause: &Clause) -> String {
    match &clause.form {
        ClauseForm::Computes(word) => format!("computes {}", word.text),
        ClauseForm::Needs(list) => format!("needs {}", needs(list)),
        ClauseForm::Gives(classes) => format!("gives {}", names(classes)),
        ClauseForm::Makes(classes) => format!("makes {}", names(classes)),
        ClauseForm::Frees(classes) => format!("frees {}", names(classes)),
        ClauseForm::Fused { into, computes } => {
            format!("or fused into {} computes {}", into.text, computes.text)
        }
    }
}

fn needs(needs: &[Need]) -> String {
    needs.iter().map(need).collect::<Vec<_>>().join(", ")
}

fn need(need: &Need) -> String {
    let form = match need.form {
        NeedForm::Direct => "",
        NeedForm::Broadcast => "broadcast ",
        NeedForm::Reduce => "reduce ",
    };
    let port = need.port.as_ref().map_or(String::new(), |port| format!(".{}", port.text));
    format!("{form}{}{}{port}", need.name.text, at(need.at))
}

fn at(at: Option<At>) -> String {
    at.map_or(String::new(), |at| format!("({})", at.site.word()))
}

fn site(site: &Site) -> String {
    format!("{}{}", site.name.text, at(site.at))
}

fn barrier(barrier: &Barrier) -> String {
    let part = |part: &super::ast::BarrierPart| {
        let by = part.by.as_ref().map_or(String::new(), |by| format!(" by {}", by.text));
        format!("{} {}.{}{by}", part.op.word(), part.pass.text, part.port.text)
    };
    format!(
        "barrier {} = {}",
        barrier.name.text,
        barrier.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    )
}

fn limit(limit: &Limit) -> String {
    let ahead = limit.ahead.as_ref().map_or(String::new(), |ahead| format!(" ahead of {}", site(ahead)));
    format!("limit {} <= {}{ahead}", site(&limit.what), expr(&limit.most))
}

fn pattern(pattern: &Pattern) -> String {
    match &pattern.form {
        PatternForm::Pass { pass, chunk: None } => pass.text.clone(),
        PatternForm::Pass { pass, chunk: Some(chunk) } => format!("{}.{}", pass.text, count(chunk)),
        PatternForm::Pair(sides) => format!("{} & {}", self::pattern(&sides[0]), self::pattern(&sides[1])),
        PatternForm::Sequence(parts) => format!("({})", sequence(parts)),
        PatternForm::Repeat { body, times } => {
            let times = match times {
                Times::Count(times) => count(times),
                Times::UntilOut => "*".to_owned(),
            };
            format!("{}^{times}", self::pattern(body))
        }
        PatternForm::If { condition, then, otherwise } => {
            let otherwise =
                otherwise.as_ref().map_or(String::new(), |other| format!(" else {}", braced(other)));
            format!("if {} {}{otherwise}", expr(condition), braced(then))
        }
        PatternForm::For { variable, from, to, body } => {
            format!("for {} in {}..{} {}", variable.text, expr(from), expr(to), braced(body))
        }
    }
}

fn sequence(parts: &[Pattern]) -> String {
    parts.iter().map(pattern).collect::<Vec<_>>().join(" ")
}

fn braced(body: &Pattern) -> String {
    match &body.form {
        PatternForm::Sequence(parts) if parts.is_empty() => "{}".to_owned(),
        PatternForm::Sequence(parts) => format!("{{ {} }}", sequence(parts)),
        _ => format!("{{ {} }}", pattern(body)),
    }
}
