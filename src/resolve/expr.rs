//! Expressions: names bound to slots and types checked once, then evaluated many times.

use super::error::{ResolveError, suggest};
use crate::ir::Span;
use crate::syntax::ast::{Expr, ExprForm, Function, Operator};

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// An integer.
    Number,
    /// True or false; 1 or 0 in a slot.
    Truth,
}

impl Type {
    fn described(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Truth => "a condition",
        }
    }
}

/// The names that an expression may use; the position of a name is its slot.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    names: Vec<(String, Type)>,
    /// What the expressions belong to, for errors.
    place: &'static str,
}

impl Scope {
    pub(super) fn new(place: &'static str, names: &[&str]) -> Self {
        Self { names: names.iter().map(|&name| (name.to_owned(), Type::Number)).collect(), place }
    }

    /// The same names for expressions of another place.
    pub(super) fn at(&self, place: &'static str) -> Self {
        Self { names: self.names.clone(), place }
    }

    /// Adds a name; its slot is the number of names before it.
    pub(super) fn push(&mut self, name: &str, of: Type) -> usize {
        self.names.push((name.to_owned(), of));
        self.names.len() - 1
    }

    /// Forgets the names from a slot on.
    pub(super) fn truncate(&mut self, slots: usize) {
        self.names.truncate(slots);
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn slot(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|(other, _)| other == name)
    }
}

/// An expression over slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Number(i64),
    Slot(usize),
    Negate(Box<Code>, Span),
    Binary { op: Operator, left: Box<Code>, right: Box<Code>, span: Span },
    Call { function: Function, args: Vec<Code>, span: Span },
    If(Box<[Code; 3]>),
}

/// An operation without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    by_zero: bool,
    at: Span,
}

impl Fault {
    /// The error, with the place where it happened: empty, or ` on rank 3`.
    pub(super) fn on(self, place: String) -> ResolveError {
        if self.by_zero {
            ResolveError::DivisionByZero { place, at: self.at }
        } else {
            ResolveError::Overflow { place, at: self.at }
        }
    }
}

/// Binds a number's names; errors go to the list.
pub(super) fn number(expr: &Expr, scope: &Scope, errors: &mut Vec<ResolveError>) -> Option<Code> {
    typed(expr, Type::Number, scope, errors)
}

/// Binds a condition's names; errors go to the list.
pub(super) fn condition(expr: &Expr, scope: &Scope, errors: &mut Vec<ResolveError>) -> Option<Code> {
    typed(expr, Type::Truth, scope, errors)
}

fn typed(expr: &Expr, expected: Type, scope: &Scope, errors: &mut Vec<ResolveError>) -> Option<Code> {
    let (code, found) = bind(expr, scope, errors)?;
    if found == expected {
        return Some(code);
    }
    errors.push(wrong_type(found, expected, expr.span));
    None
}

fn wrong_type(found: Type, expected: Type, at: Span) -> ResolveError {
    let help = match expected {
        Type::Number => "choose between two numbers: `if … { 1 } else { 0 }`",
        Type::Truth => "compare it: `… > 0`",
    };
    ResolveError::WrongType { found: found.described(), expected: expected.described(), help, at }
}

/// Binds an expression's names; errors go to the list.
pub(super) fn bind(expr: &Expr, scope: &Scope, errors: &mut Vec<ResolveError>) -> Option<(Code, Type)> {
    match &expr.form {
        ExprForm::Number(value) => Some((Code::Number(*value), Type::Number)),
        ExprForm::Name(name) => {
            if let Some(slot) = scope.slot(name) {
                return Some((Code::Slot(slot), scope.names[slot].1));
            }
            let help = suggest(name, scope.names.iter().map(|(name, _)| name.as_str()));
            let (name, place) = (name.clone(), scope.place);
            errors.push(ResolveError::UnknownName { name, place, help, at: expr.span });
            None
        }
        ExprForm::Negate(operand) => {
            let code = number(operand, scope, errors)?;
            Some((Code::Negate(Box::new(code), expr.span), Type::Number))
        }
        ExprForm::Binary { op, left, right } => {
            let (left, right) = (number(left, scope, errors), number(right, scope, errors));
            let (left, right) = (Box::new(left?), Box::new(right?));
            let of = if op.compares() { Type::Truth } else { Type::Number };
            Some((Code::Binary { op: *op, left, right, span: expr.span }, of))
        }
        ExprForm::Call { function, args } => {
            check_arguments(*function, args.len(), expr.span, errors)?;
            let bound: Vec<_> = args.iter().map(|arg| number(arg, scope, errors)).collect();
            let args = bound.into_iter().collect::<Option<Vec<_>>>()?;
            Some((Code::Call { function: *function, args, span: expr.span }, Type::Number))
        }
        ExprForm::If { condition: test, then, otherwise } => {
            let test = condition(test, scope, errors);
            let then = bind(then, scope, errors);
            let (other, other_span) = (bind(otherwise, scope, errors), otherwise.span);
            let ((then, of), (other, found)) = (then?, other?);
            if found != of {
                errors.push(wrong_type(found, of, other_span));
                return None;
            }
            Some((Code::If(Box::new([test?, then, other])), of))
        }
    }
}

fn check_arguments(function: Function, count: usize, at: Span, errors: &mut Vec<ResolveError>) -> Option<()> {
    let (fits, expected, example) = match function {
        Function::Abs => (count == 1, "one argument", "abs(x)"),
        Function::Min => (count >= 2, "two arguments or more", "min(x, y)"),
        Function::Max => (count >= 2, "two arguments or more", "max(x, y)"),
    };
    if fits {
        return Some(());
    }
    errors.push(ResolveError::WrongArguments { function: function.word(), expected, count, example, at });
    None
}

impl Code {
    /// The value over the slots. Recursion is bounded by the height of parsed expressions.
    pub(super) fn eval(&self, slots: &[i64]) -> Result<i64, Fault> {
        match self {
            Self::Number(value) => Ok(*value),
            Self::Slot(slot) => Ok(slots[*slot]),
            Self::Negate(operand, span) => {
                operand.eval(slots)?.checked_neg().ok_or(Fault { by_zero: false, at: *span })
            }
            Self::Binary { op, left, right, span } => apply(*op, left.eval(slots)?, right.eval(slots)?)
                .map_err(|by_zero| Fault { by_zero, at: *span }),
            Self::Call { function: Function::Abs, args, span } => {
                args[0].eval(slots)?.checked_abs().ok_or(Fault { by_zero: false, at: *span })
            }
            Self::Call { function, args, .. } => {
                let mut best = args[0].eval(slots)?;
                for arg in &args[1..] {
                    let next = arg.eval(slots)?;
                    best = if *function == Function::Min { best.min(next) } else { best.max(next) };
                }
                Ok(best)
            }
            Self::If(parts) => {
                let [test, then, otherwise] = &**parts;
                if test.eval(slots)? != 0 { then.eval(slots) } else { otherwise.eval(slots) }
            }
        }
    }

    /// The same with the slots below `known.len()` replaced by their values, and computed as far as that goes.
    pub(super) fn fold(&self, known: &[i64]) -> Self {
        let folded = match self {
            Self::Number(_) => return self.clone(),
            Self::Slot(slot) => return known.get(*slot).map_or_else(|| self.clone(), |&v| Self::Number(v)),
            Self::Negate(operand, span) => Self::Negate(Box::new(operand.fold(known)), *span),
            Self::Binary { op, left, right, span } => Self::Binary {
                op: *op,
                left: Box::new(left.fold(known)),
                right: Box::new(right.fold(known)),
                span: *span,
            },
            Self::Call { function, args, span } => Self::Call {
                function: *function,
                args: args.iter().map(|arg| arg.fold(known)).collect(),
                span: *span,
            },
            Self::If(parts) => {
                let [test, then, otherwise] = &**parts;
                match test.fold(known) {
                    Self::Number(0) => return otherwise.fold(known),
                    Self::Number(_) => return then.fold(known),
                    test => Self::If(Box::new([test, then.fold(known), otherwise.fold(known)])),
                }
            }
        };
        if folded.children().all(|child| matches!(child, Self::Number(_))) {
            // What has no value keeps its form and fails where it is evaluated.
            return folded.eval(&[]).map_or(folded, Self::Number);
        }
        folded
    }

    /// Whether a slot is used.
    pub(super) fn uses(&self, slot: usize) -> bool {
        *self == Self::Slot(slot) || self.children().any(|child| child.uses(slot))
    }

    fn children(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        match self {
            Self::Number(_) | Self::Slot(_) => Box::new(std::iter::empty()),
            Self::Negate(operand, _) => Box::new(std::iter::once(&**operand)),
            Self::Binary { left, right, .. } => Box::new([&**left, &**right].into_iter()),
            Self::Call { args, .. } => Box::new(args.iter()),
            Self::If(parts) => Box::new(parts.iter()),
        }
    }
}

/// The result of an operator; `Err(true)` for a division by zero, `Err(false)` for an overflow.
fn apply(op: Operator, left: i64, right: i64) -> Result<i64, bool> {
    match op {
        Operator::Add => left.checked_add(right).ok_or(false),
        Operator::Subtract => left.checked_sub(right).ok_or(false),
        Operator::Multiply => left.checked_mul(right).ok_or(false),
        Operator::Divide => left.checked_div(right).ok_or(right == 0),
        Operator::Remainder => left.checked_rem(right).ok_or(right == 0),
        Operator::Equal => Ok(i64::from(left == right)),
        Operator::NotEqual => Ok(i64::from(left != right)),
        Operator::Less => Ok(i64::from(left < right)),
        Operator::AtMost => Ok(i64::from(left <= right)),
        Operator::More => Ok(i64::from(left > right)),
        Operator::AtLeast => Ok(i64::from(left >= right)),
    }
}
