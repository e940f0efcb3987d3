//! Text -> tree -> text is a fixed point, and keeps what it should.

use proptest::prelude::*;
use schedc::ir::{FileId, Span};
use schedc::source::STDLIB;
use schedc::syntax::ast::*;
use schedc::syntax::{parse, print};

const FILE: FileId = FileId(0);
const NOWHERE: Span = Span { file: FILE, start: 0, end: 0 };

/// Prints, and checks that printing what was printed changes nothing.
pub(crate) fn formatted(text: &str) -> String {
    let once = print(&parse(FILE, text).expect("the text is well spelt"));
    let again = print(&parse(FILE, &once).unwrap_or_else(|error| panic!("{error}:\n{once}")));
    assert_eq!(once, again);
    once
}

/// The comments of a text, in order.
fn comments(text: &str) -> Vec<String> {
    let tree = parse(FILE, text).unwrap();
    tree.trivia.comments.into_iter().map(|comment| comment.text).collect()
}

#[test]
fn the_library_and_the_examples_stand_in_the_printed_form() {
    for file in STDLIB {
        assert_eq!(formatted(file.text), file.text, "run `schedc fmt stdlib/{}.sched`", file.name);
    }
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(formatted(&text), text, "run `schedc fmt {}`", path.display());
    }
}

#[test]
fn comments_survive_however_a_text_is_laid_out() {
    for file in STDLIB {
        let crammed = file.text.replace("    ", " ");
        assert_eq!(comments(&crammed), comments(&formatted(&crammed)), "{}", file.name);
    }
}

#[test]
fn comments_stay_with_their_lines_and_blank_lines_are_single() {
    let text = "\n\n//! Doc.\nschedule \"x\"(v=1){// head\n\n\n// own\nlet w=min(ranks , v) // w\nlet longer = 1//l\n\n\n\norder F^w  // inside\n (F B)^* B^(w+1)  // after\n // last\n\n}\n// end";
    insta::assert_snapshot!(formatted(text));
}

#[test]
fn long_declarations_and_orders_are_broken() {
    let needs = ["broadcast F(last)"; 9].join(", ");
    let order = vec!["(F.1 B.0)^2"; 20].join(" ");
    let text = format!("pass S at every rank needs {needs} makes logits\nschedule \"x\" {{ order {order} }}");
    insta::assert_snapshot!(formatted(&text));
}

fn word() -> impl Strategy<Value = Word> {
    "[a-z]{1,3}_".prop_map(|text| Word { text, span: NOWHERE })
}

fn node(form: ExprForm) -> Expr {
    Expr::new(form, NOWHERE)
}

fn operator() -> impl Strategy<Value = Operator> {
    use Operator::*;
    prop::sample::select(vec![
        Add, Subtract, Multiply, Divide, Remainder, Equal, NotEqual, Less, AtMost, More, AtLeast,
    ])
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (0..=i64::MAX).prop_map(|number| node(ExprForm::Number(number))),
        word().prop_map(|name| node(ExprForm::Name(name.text))),
        Just(node(ExprForm::Name("chunks".to_owned()))),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let function = prop::sample::select(vec![Function::Min, Function::Max, Function::Abs]);
        prop_oneof![
            boxed().prop_map(|operand| node(ExprForm::Negate(operand))),
            (operator(), boxed(), boxed()).prop_map(|(op, left, right)| node(ExprForm::Binary {
                op,
                left,
                right
            })),
            (function, prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(function, args)| node(ExprForm::Call { function, args })),
            (boxed(), boxed(), boxed()).prop_map(|(condition, then, otherwise)| node(ExprForm::If {
                condition,
                then,
                otherwise
            })),
        ]
    })
}

fn sequence(parts: Vec<Pattern>) -> Pattern {
    Pattern { form: PatternForm::Sequence(parts), span: NOWHERE }
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let pass = (word(), prop::option::of(expr())).prop_map(|(pass, chunk)| PatternForm::Pass { pass, chunk });
    let leaf = pass.prop_map(|form| Pattern { form, span: NOWHERE });
    leaf.prop_recursive(4, 30, 4, |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..4).prop_map(sequence);
        let times = prop_oneof![Just(Times::UntilOut), expr().prop_map(Times::Count)];
        prop_oneof![
            list(),
            (list(), times).prop_map(|(body, times)| Pattern {
                form: PatternForm::Repeat { body: Box::new(body), times },
                span: NOWHERE
            }),
            (expr(), list(), prop::option::of(list())).prop_map(|(condition, then, otherwise)| Pattern {
                form: PatternForm::If { condition, then: Box::new(then), otherwise: otherwise.map(Box::new) },
                span: NOWHERE
            }),
            (word(), expr(), expr(), list()).prop_map(|(variable, from, to, body)| Pattern {
                form: PatternForm::For { variable, from, to, body: Box::new(body) },
                span: NOWHERE
            }),
        ]
    })
}

fn member() -> impl Strategy<Value = Member> {
    (word(), prop::option::of(expr())).prop_map(|(pass, chunk)| Member { pass, chunk, span: NOWHERE })
}

fn block() -> impl Strategy<Value = Block> {
    let entry =
        (member(), prop::option::of(expr())).prop_map(|(pass, at)| BlockEntry { pass, at, span: NOWHERE });
    (expr(), prop::collection::vec(entry, 0..5)).prop_map(|(every, entries)| Block { every, entries })
}

fn greedy() -> impl Strategy<Value = Greedy> {
    let form = prop_oneof![
        (word(), expr()).prop_map(|(class, most)| GreedyForm::Limit { class, most }),
        prop::collection::vec(member(), 0..5).prop_map(GreedyForm::Prefer),
    ];
    let item = form.prop_map(|form| GreedyItem { form, span: NOWHERE });
    prop::collection::vec(item, 0..4).prop_map(|items| Greedy { items })
}

fn schedule_item() -> impl Strategy<Value = ScheduleItem> {
    let list = || prop::collection::vec(word(), 1..4);
    let form = prop_oneof![
        list().prop_map(ScheduleForm::Passes),
        expr().prop_map(ScheduleForm::Chunks),
        Just(ScheduleForm::Place(Placement::Wave)),
        (word(), expr()).prop_map(|(stage, rank)| ScheduleForm::Place(Placement::Of { stage, rank })),
        word().prop_map(ScheduleForm::Apply),
        (word(), expr()).prop_map(|(name, value)| ScheduleForm::Let { name, value }),
        (word(), prop::collection::vec(expr(), 1..4))
            .prop_map(|(pass, keys)| ScheduleForm::Stream { pass, keys }),
        prop::collection::vec(pattern(), 0..6)
            .prop_map(|parts| ScheduleForm::Order(OrderForm::Pattern(sequence(parts)))),
        block().prop_map(|block| ScheduleForm::Order(OrderForm::Block(block))),
        greedy().prop_map(|greedy| ScheduleForm::Order(OrderForm::Greedy(greedy))),
    ];
    form.prop_map(|form| ScheduleItem { form, span: NOWHERE })
}

fn need() -> impl Strategy<Value = Need> {
    let form = prop::sample::select(vec![NeedForm::Direct, NeedForm::Broadcast, NeedForm::Reduce]);
    (form, word(), prop::option::of(at()), prop::option::of(word())).prop_map(|(form, name, at, port)| Need {
        form,
        name,
        at,
        port,
        span: NOWHERE,
    })
}

fn at() -> impl Strategy<Value = At> {
    let site = prop::sample::select(AtSite::WORDS.map(|(site, _)| site).to_vec());
    site.prop_map(|site| At { site, span: NOWHERE })
}

fn pass() -> impl Strategy<Value = PassDecl> {
    let site = prop::sample::select(vec![
        DeclaredSite::Stage,
        DeclaredSite::EveryRank { lockstep: false },
        DeclaredSite::EveryRank { lockstep: true },
    ]);
    let list = || prop::collection::vec(word(), 1..4);
    let clauses = (
        prop::option::of(word().prop_map(ClauseForm::Computes)),
        prop::option::of(prop::collection::vec(need(), 1..4).prop_map(ClauseForm::Needs)),
        prop::option::of(list().prop_map(ClauseForm::Gives)),
        prop::option::of(list().prop_map(ClauseForm::Makes)),
        prop::option::of((word(), word()).prop_map(|(into, computes)| ClauseForm::Fused { into, computes })),
    );
    (word(), site, clauses).prop_map(|(name, site, (computes, needs, gives, makes, fused))| {
        let forms = [computes, needs, gives, makes, fused].into_iter().flatten();
        let clauses = forms.map(|form| Clause { form, span: NOWHERE }).collect();
        PassDecl { name, site, clauses, span: NOWHERE }
    })
}

fn transform_item() -> impl Strategy<Value = TransformItem> {
    let end = || {
        let end = prop::sample::select(vec![AtSite::First, AtSite::Last]);
        let at = prop::option::of(end.prop_map(|site| At { site, span: NOWHERE }));
        (word(), at).prop_map(|(name, at)| Site { name, at, span: NOWHERE })
    };
    let op = prop::sample::select(BarrierOp::WORDS.map(|(op, _)| op).to_vec());
    let part = (op, word(), word(), prop::option::of(word())).prop_map(|(op, pass, port, by)| BarrierPart {
        op,
        pass,
        port,
        by,
        span: NOWHERE,
    });
    let form = prop_oneof![
        pass().prop_map(TransformForm::Pass),
        (word(), prop::collection::vec(part, 1..3))
            .prop_map(|(name, parts)| TransformForm::Barrier(Barrier { name, parts })),
        (end(), prop::collection::vec(need(), 1..3))
            .prop_map(|(to, needs)| TransformForm::Edge(Edge { to, needs })),
        (end(), expr(), prop::option::of(end()))
            .prop_map(|(what, most, ahead)| TransformForm::Limit(Limit { what, most, ahead })),
        expr().prop_map(TransformForm::Deepen),
    ];
    form.prop_map(|form| TransformItem { form, span: NOWHERE })
}

fn item() -> impl Strategy<Value = Item> {
    let params =
        prop::collection::vec((word(), expr()).prop_map(|(name, value)| Param { name, value }), 0..3);
    prop_oneof![
        (word(), prop::collection::vec(expr(), 0..3)).prop_map(|(name, shape)| Item::Class(ClassDecl {
            name,
            shape,
            span: NOWHERE
        })),
        pass().prop_map(Item::Pass),
        (word(), prop::collection::vec(transform_item(), 0..6))
            .prop_map(|(name, items)| Item::Transform(Transform { name, items, span: NOWHERE })),
        (word(), params, prop::collection::vec(schedule_item(), 0..6)).prop_map(|(name, params, items)| {
            Item::Schedule(Schedule { name, params, items, span: NOWHERE })
        }),
    ]
}

/// A tree without its places, as text.
fn shape(file: &File) -> String {
    let text = format!("{:?}", file.items);
    let mut rest = text.as_str();
    let mut shape = String::new();
    while let Some((before, after)) = rest.split_once("Span {") {
        shape.push_str(before);
        rest = after.split_once('}').expect("a span is closed").1;
    }
    shape + rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_survives_its_text(items in prop::collection::vec(item(), 0..4)) {
        let tree = File { id: FILE, items, trivia: Trivia::default() };
        let text = print(&tree);
        let read = parse(FILE, &text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        prop_assert_eq!(shape(&tree), shape(&read));
        prop_assert_eq!(print(&read), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "([a-zA-Z0-9 (){}\\[\\],.^*+/%=<>&\"\n-]|schedule|pass|order|needs|//){0,60}") {
        if let Ok(tree) = parse(FILE, &text) {
            let printed = print(&tree);
            let again = parse(FILE, &printed);
            prop_assert!(again.is_ok(), "{}", printed);
        }
    }
}
