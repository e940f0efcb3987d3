//! Every input received, every send received and waited for, receives in the order of the sends.

use miette::LabeledSpan;

use super::super::action::Action;
use super::super::error::{Problem, Report};
use super::{Facts, NONE, Sort};

/// Checks all messages.
pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for sort in Sort::ALL {
        for stage in 0..facts.stages {
            match facts.receiver(sort, stage) {
                None => off_pipeline(facts, sort, stage, report),
                Some(to) if facts.rank(stage) == facts.rank(to) => local(facts, sort, (stage, to), report),
                Some(to) => crossing(facts, sort, (stage, to), report),
            }
        }
    }
    if report.is_empty() {
        in_order(facts, report);
    }
}

/// No sends and waits of a stage where the pipeline ends, no receives where it begins.
fn off_pipeline(facts: &Facts<'_>, sort: Sort, stage: usize, report: &mut Report) {
    let ends = &facts.ends[sort as usize];
    let first = facts.stages - 1 - stage;
    let (why, from) = match sort {
        Sort::Activation => ("no stage comes after the last", "no stage comes before the first"),
        Sort::Gradient => ("no stage comes before the first", "no stage comes after the last"),
    };
    for microbatch in 0..facts.microbatches {
        let slot = facts.slot(stage, microbatch);
        let wrong = [(ends.send[slot], why), (ends.wait[slot], why)];
        let entering = (ends.recv[facts.slot(first, microbatch)], from);
        for (end, why) in wrong.into_iter().chain([entering]).filter(|(end, _)| *end != NONE) {
            report.add(|| Problem::NoPeer { cell: facts.rows.cell(end), why });
        }
    }
}

/// No messages between stages of one rank.
fn local(facts: &Facts<'_>, sort: Sort, (stage, to): (usize, usize), report: &mut Report) {
    let ends = &facts.ends[sort as usize];
    for microbatch in 0..facts.microbatches {
        let (from, into) = (facts.slot(stage, microbatch), facts.slot(to, microbatch));
        for (end, peer) in [(ends.send[from], to), (ends.wait[from], to), (ends.recv[into], stage)] {
            if end != NONE {
                report.add(|| Problem::LocalMessage { cell: facts.rows.cell(end), peer: peer as u32 });
            }
        }
    }
}

/// The messages of one stage to a stage on another rank.
fn crossing(facts: &Facts<'_>, sort: Sort, (stage, to): (usize, usize), report: &mut Report) {
    let rows = facts.rows;
    let ends = &facts.ends[sort as usize];
    let passes = facts.passes(sort);
    for microbatch in 0..facts.microbatches {
        let (from, into) = (facts.slot(stage, microbatch), facts.slot(to, microbatch));
        let (send, recv, wait) = (ends.send[from], ends.recv[into], ends.wait[from]);
        let (source, reader) = (passes[from], passes[into]);
        let named = |stage: usize, op| format!("{stage}{op}{microbatch}");
        if recv != NONE && send == NONE {
            let (send, rank) = (named(stage, sort.send()), facts.rank(stage));
            report.add(|| Problem::MissingSend { recv: rows.cell(recv), send, rank });
        }
        if recv == NONE && send != NONE {
            let (recv, rank) = (named(to, sort.recv()), facts.rank(to));
            report.add(|| Problem::MissingReceive { send: rows.cell(send), recv, rank });
        } else if recv == NONE || recv > reader {
            let late = (recv != NONE).then(|| rows.cell(recv));
            let late_at = late.as_ref().map(|cell| cell.span);
            let recv = named(to, sort.recv());
            report.add(|| Problem::NotReceived { pass: rows.cell(reader), recv, late, late_at });
        }
        if send != NONE && send < facts.done(source) {
            report.add(|| Problem::TooEarly { early: rows.cell(send), late: rows.cell(source) });
        }
        if send != NONE && (wait == NONE || wait < send) {
            report.add(|| Problem::UnwaitedSend { send: rows.cell(send), wait: named(stage, sort.wait()) });
        } else if send == NONE && wait != NONE {
            report.add(|| Problem::WaitForNothing {
                wait: rows.cell(wait),
                started: named(stage, sort.send()),
            });
        }
    }
}

/// On each channel, from one rank to another, receives come in the order of the sends.
///
/// Requires: every send has its receive.
fn in_order(facts: &Facts<'_>, report: &mut Report) {
    let (channel_of, channels) = channels(facts);
    // The send and receive that came last on each channel.
    let mut last = vec![(NONE, NONE); channels];
    for (index, action) in facts.rows.actions.iter().enumerate() {
        let Some((sort, recv)) = received(facts, action) else { continue };
        let before = &mut last[channel_of[sort as usize][action.stage as usize] as usize];
        let ends = (index as u32, recv);
        if before.1 != NONE && recv < before.1 {
            let before = *before;
            report.add(|| disorder(facts, before, ends));
        } else {
            *before = ends;
        }
    }
}

/// Of a send: what it carries, and its receive.
fn received(facts: &Facts<'_>, action: &Action) -> Option<(Sort, u32)> {
    let sort = Sort::of(action.op).filter(|sort| sort.send() == action.op)?;
    let to = facts.receiver(sort, action.stage as usize)?;
    let slot = facts.slot(to, action.microbatch as usize);
    Some((sort, facts.ends[sort as usize].recv[slot]))
}

/// By sort and sending stage: the number of the channel, from one rank to another, that a message takes; and how many there are.
fn channels(facts: &Facts<'_>) -> ([Vec<u32>; 2], usize) {
    let mut edges = Vec::with_capacity(2 * facts.stages);
    for sort in Sort::ALL {
        for stage in 0..facts.stages {
            let to = facts.receiver(sort, stage).map_or(NONE, |to| facts.rank_of[to]);
            edges.push((facts.rank_of[stage], to, sort, stage));
        }
    }
    edges.sort_unstable_by_key(|&(from, to, ..)| (from, to));
    let mut channel_of = [vec![0; facts.stages], vec![0; facts.stages]];
    let mut channels = 0;
    for (position, &(from, to, sort, stage)) in edges.iter().enumerate() {
        let new =
            position.checked_sub(1).is_none_or(|before| (edges[before].0, edges[before].1) != (from, to));
        channels += usize::from(new);
        channel_of[sort as usize][stage] = channels as u32 - 1;
    }
    (channel_of, channels)
}

/// Two messages, sent in this order and received in the other.
fn disorder(facts: &Facts<'_>, first: (u32, u32), second: (u32, u32)) -> Problem {
    let cell = |end| facts.rows.cell(end);
    let label = |text: &str, end| LabeledSpan::new_with_span(Some(text.to_owned()), cell(end).span);
    let ends = vec![
        label("sent first", first.0),
        label("sent second", second.0),
        label("received first", second.1),
        label("received second", first.1),
    ];
    Problem::ReceiveOrder { recvs: Box::new([cell(first.1), cell(second.1)]), ends }
}
