//! Expressions: numbers and conditions.

use crate::ir::Span;

/// An expression. Where it was parsed, its height is bounded, so that whoever walks it may recurse.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub form: ExprForm,
    /// Where.
    pub span: Span,
    /// The height of the tree.
    height: u16,
    /// The size of the tree.
    nodes: u32,
}

/// The forms of an expression.
#[derive(Clone, Debug)]
pub enum ExprForm {
    /// Not negative.
    Number(i64),
    /// A variable.
    Name(String),
    /// `-x`.
    Negate(Box<Expr>),
    /// `x + y`.
    Binary {
        /// The operator.
        op: Operator,
        /// Before it.
        left: Box<Expr>,
        /// After it.
        right: Box<Expr>,
    },
    /// `min(x, y)`.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        args: Vec<Expr>,
    },
    /// `if condition { then } else { otherwise }`.
    If {
        /// A comparison.
        condition: Box<Expr>,
        /// Where it holds.
        then: Box<Expr>,
        /// Where it does not.
        otherwise: Box<Expr>,
    },
}

impl Expr {
    /// A node over its parts.
    #[must_use]
    pub fn new(form: ExprForm, span: Span) -> Self {
        let (mut height, mut nodes) = (0, 1_u32);
        for part in form.parts() {
            height = part.height.max(height);
            nodes = nodes.saturating_add(part.nodes);
        }
        Self { form, span, height: height.saturating_add(1), nodes }
    }

    /// The height of the tree; a number has 1.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// How many numbers, names and operations it has.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes
    }
}

impl ExprForm {
    /// The expressions that it is made of.
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Number(_) | Self::Name(_) => Vec::new(),
            Self::Negate(operand) => vec![operand],
            Self::Binary { left, right, .. } => vec![left, right],
            Self::Call { args, .. } => args.iter().collect(),
            Self::If { condition, then, otherwise } => vec![condition, then, otherwise],
        }
    }
}

/// Operators with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`, toward zero.
    Divide,
    /// `%`, with the sign of the left operand.
    Remainder,
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    More,
    /// `>=`.
    AtLeast,
}

impl Operator {
    /// As written.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether its result is true or false rather than a number.
    #[must_use]
    pub fn compares(self) -> bool {
        !matches!(self, Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder)
    }
}

/// The functions of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// The smallest of its arguments.
    Min,
    /// The largest of its arguments.
    Max,
    /// Without its sign.
    Abs,
}

impl Function {
    /// Every function with its name.
    pub const WORDS: [(Self, &'static str); 3] = [(Self::Min, "min"), (Self::Max, "max"), (Self::Abs, "abs")];

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}
