//! Expressions -> text, with the brackets that they need.

use crate::syntax::ast::{Expr, ExprForm, Operator};

/// What stands after `^` or after the dot of a chunk.
pub(super) fn count(number: &Expr) -> String {
    match number.form {
        ExprForm::Number(_) | ExprForm::Name(_) => expr(number),
        _ => format!("({})", expr(number)),
    }
}

pub(super) fn exprs(list: &[Expr]) -> String {
    list.iter().map(expr).collect::<Vec<_>>().join(", ")
}

pub(super) fn expr(expr: &Expr) -> String {
    let mut text = String::new();
    write(expr, &mut text);
    text
}

/// How tightly a form binds: comparisons 0, sums 1, products 2, signs 3, the rest 4.
fn binding(expr: &Expr) -> u8 {
    match &expr.form {
        ExprForm::Binary { op, .. } if op.compares() => 0,
        ExprForm::Binary { op: Operator::Add | Operator::Subtract, .. } => 1,
        ExprForm::Binary { .. } => 2,
        ExprForm::Negate(_) => 3,
        ExprForm::Number(_) | ExprForm::Name(_) | ExprForm::Call { .. } | ExprForm::If { .. } => 4,
    }
}

/// Writes an operand, in brackets where it binds less than `least`.
fn operand(expr: &Expr, least: u8, text: &mut String) {
    let brackets = binding(expr) < least;
    text.push_str(if brackets { "(" } else { "" });
    write(expr, text);
    text.push_str(if brackets { ")" } else { "" });
}

fn write(expr: &Expr, text: &mut String) {
    match &expr.form {
        ExprForm::Number(number) => text.push_str(&number.to_string()),
        ExprForm::Name(name) => text.push_str(name),
        ExprForm::Negate(inner) => {
            text.push('-');
            operand(inner, 3, text);
        }
        ExprForm::Binary { op, left, right } => {
            let own = binding(expr);
            operand(left, own.max(u8::from(op.compares())), text);
            text.push(' ');
            text.push_str(op.sign());
            text.push(' ');
            operand(right, own + 1, text);
        }
        ExprForm::Call { function, args } => {
            text.push_str(function.word());
            text.push('(');
            text.push_str(&exprs(args));
            text.push(')');
        }
        ExprForm::If { condition, then, otherwise } => {
            text.push_str("if ");
            write(condition, text);
            text.push_str(" { ");
            write(then, text);
            text.push_str(" } else { ");
            write(otherwise, text);
            text.push_str(" }");
        }
    }
}
