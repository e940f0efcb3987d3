//! Passes, values, collectives and instructions as messages name them: as the text form does.

use crate::ir::{CollectiveId, Header, Op, Pass, Payload, Value};

/// `F.s0.m1`, or `F.s0.m1.0` where sequences are sliced.
pub(super) fn pass(header: &Header, pass: Pass) -> String {
    let unit = header.cut().name(pass.microbatch);
    format!("{}.{}.{unit}", header.catalog.kind(pass.kind).name, pass.site)
}

/// `F.s0.m1.o0`.
pub(super) fn value(header: &Header, value: Value) -> String {
    format!("{}.{}", pass(header, value.pass), value.port)
}

/// `C1.stats m0`.
pub(super) fn collective(header: &Header, id: CollectiveId) -> &str {
    &header.catalog.collective(id).name
}

/// `C1.stats m0`, or `tied-gradient`.
pub(super) fn payload(header: &Header, payload: Payload) -> String {
    match payload {
        Payload::Value { collective: id, microbatch } => {
            format!("{} {}", collective(header, id), header.cut().name(microbatch))
        }
        Payload::TiedGradient => "tied-gradient".to_owned(),
        Payload::StageGradient(stage) => format!("stage-gradient {stage}"),
    }
}

/// `send r1 F.s0.m1.o0`.
pub(super) fn op(header: &Header, op: &Op) -> String {
    match op {
        Op::Pass(id) => pass(header, *id),
        Op::Send { to, value: sent } => format!("send {to} {}", value(header, *sent)),
        Op::Recv { from, value: expected } => format!("recv {from} {}", value(header, *expected)),
        Op::Collective { payload: collected, op, .. } => format!("{op} {}", payload(header, *collected)),
        Op::Step => "step".to_owned(),
    }
}
