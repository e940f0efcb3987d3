//! Plan -> its text form, for people and snapshots; described in `docs/plan.md`.
//!
//! One line for each declaration and instruction, written as it is made: the text of a large plan need not fit in memory.

use std::fmt::{self, Write};

use crate::ir::{
    At, BufferId, ClassId, Collective, CollectiveId, GroupId, Header, Instr, InstrId, Kind, KindId, Lane,
    Microbatch, Need, Op, Pass, Payload, Place, Plan, Port, Queue, Rank, RankPlan, Relation, Site, Source,
    Stage, Where,
};

/// The version of the text form that is written.
pub const VERSION: u32 = 1;

/// Lines are gathered up to this size before they are handed on.
const CHUNK: usize = 1 << 14;

/// Writes the text form of a plan.
///
/// # Errors
/// Those of `out`.
pub fn write_plan<W: Write + ?Sized>(plan: &Plan, out: &mut W) -> fmt::Result {
    let mut printer = Printer { out, text: String::with_capacity(2 * CHUNK), header: &plan.header };
    printer.header(plan.ranks.len())?;
    for (rank, plan) in plan.ranks.iter().enumerate() {
        printer.rank(Rank::new(rank), plan)?;
    }
    printer.flush()
}

/// The text form of a plan.
///
/// # Panics
/// Never: a string takes whatever is written to it.
#[must_use]
pub fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    write_plan(plan, &mut text).expect("a string takes all text");
    text
}

struct Printer<'plan, 'out, W: ?Sized> {
    out: &'out mut W,
    text: String,
    header: &'plan Header,
}

impl<W: Write + ?Sized> Printer<'_, '_, W> {
    fn flush(&mut self) -> fmt::Result {
        self.out.write_str(&self.text)?;
        self.text.clear();
        Ok(())
    }

    fn end_line(&mut self) -> fmt::Result {
        self.text.push('\n');
        if self.text.len() < CHUNK { Ok(()) } else { self.flush() }
    }

    fn word(&mut self, word: &str) {
        self.text.push_str(word);
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.text.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
    }

    fn id(&mut self, sigil: &str, id: u32) {
        self.word(sigil);
        self.number(u64::from(id));
    }

    fn ids(&mut self, title: &str, sigil: &str, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        self.word(title);
        for &id in ids {
            self.text.push(' ');
            self.id(sigil, id);
        }
    }

    /// A name as it stands where all its characters are plain, else in quotes.
    fn name(&mut self, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '(' | ')');
        if !name.is_empty() && name.chars().all(plain) {
            self.word(name);
        } else {
            self.text.push('"');
            self.word(name);
            self.text.push('"');
        }
    }

    fn class(&mut self, id: ClassId) {
        match self.header.catalog.classes.get(id.index()) {
            Some(class) => self.word(&class.name),
            None => self.id(ClassId::SIGIL, id.0),
        }
    }

    fn kind(&mut self, id: KindId) {
        match self.header.catalog.kinds.get(id.index()) {
            Some(kind) => self.word(&kind.name),
            None => self.id(KindId::SIGIL, id.0),
        }
    }

    fn collective_name(&mut self, id: CollectiveId) {
        match self.header.catalog.collectives.get(id.index()) {
            Some(collective) => self.name(&collective.name),
            None => self.id(CollectiveId::SIGIL, id.0),
        }
    }

    fn shape(&mut self, shape: &[u64]) {
        self.text.push('[');
        for (position, &side) in shape.iter().enumerate() {
            if position > 0 {
                self.text.push(',');
            }
            self.number(side);
        }
        self.text.push(']');
    }

    fn header(&mut self, ranks: usize) -> fmt::Result {
        let header = self.header;
        self.word("schedc plan ");
        self.number(u64::from(VERSION));
        self.word("\nname ");
        self.name(&header.name);
        if !header.transforms.is_empty() {
            self.word("\nwith");
            for name in &header.transforms {
                self.text.push(' ');
                self.name(name);
            }
        }
        if !header.mode.is_training() {
            self.word("\nforward only");
        }
        self.word("\nranks ");
        self.number(ranks as u64);
        self.word("\nmicrobatches ");
        self.number(u64::from(header.microbatches));
        if header.slices != 1 {
            self.id("\nslices ", header.slices);
        }
        self.word("\nstages");
        for &rank in &header.stages {
            self.word(" ");
            self.id(Rank::SIGIL, rank.0);
        }
        if header.flows != 1 {
            self.word("\nflows ");
            self.number(u64::from(header.flows));
        }
        self.model();
        if let Some(layers) = &header.partition.0 {
            self.word("\nlayers");
            for &count in layers {
                self.id(" ", count);
            }
        }
        self.end_line()?;
        self.catalog()?;
        for (id, group) in header.groups.iter().enumerate() {
            self.word("group ");
            self.id(GroupId::SIGIL, GroupId::new(id).0);
            for &rank in &group.0 {
                self.word(" ");
                self.id(Rank::SIGIL, rank.0);
            }
            self.end_line()?;
        }
        Ok(())
    }

    fn model(&mut self) {
        let model = self.header.model;
        self.word("\nmodel");
        for (title, number) in [
            (" layers=", model.layers),
            (" hidden=", model.hidden),
            (" heads=", model.heads),
            (" sequence=", model.sequence),
            (" batch=", model.batch),
            (" vocab=", model.vocab),
        ] {
            self.id(title, number);
        }
        self.word(if model.tied { " tied=true" } else { " tied=false" });
        if !model.precision.is_single() {
            self.word(" precision=");
            self.word(model.precision.word());
        }
    }

    fn catalog(&mut self) -> fmt::Result {
        let catalog = &self.header.catalog;
        for class in &catalog.classes {
            self.word("class ");
            self.word(&class.name);
            self.word(" stages");
            for shape in &class.at_stage {
                self.text.push(' ');
                self.shape(shape);
            }
            self.word(" rank ");
            self.shape(&class.at_rank);
            self.end_line()?;
        }
        for kind in &catalog.kinds {
            self.pass(kind)?;
        }
        for collective in &catalog.collectives {
            self.collective(collective)?;
        }
        Ok(())
    }

    fn pass(&mut self, kind: &Kind) -> fmt::Result {
        self.word("pass ");
        self.word(&kind.name);
        self.word(match kind.at {
            At::Stage => " at stage",
            At::EveryRank => " at rank",
        });
        self.word(match kind.queue {
            Queue::Compute => "",
            Queue::Lockstep => " on lockstep",
            Queue::Group => " on group",
        });
        if let Some(compute) = kind.computes {
            self.word(" computes ");
            self.word(compute.word());
        }
        for (title, classes) in [(" gives ", &kind.gives), (" makes ", &kind.makes), (" frees ", &kind.frees)]
        {
            for (position, &class) in classes.iter().enumerate() {
                self.word(if position == 0 { title } else { "," });
                self.class(class);
            }
        }
        self.end_line()?;
        kind.needs.iter().try_for_each(|need| self.need(need))
    }

    fn need(&mut self, need: &Need) -> fmt::Result {
        self.word("  needs ");
        match need.from {
            Source::Pass { kind, at, port } => {
                self.kind(kind);
                self.word(match at {
                    Relation::Here => "(here)",
                    Relation::Prev => "(prev)",
                    Relation::Next => "(next)",
                    Relation::First => "(first)",
                    Relation::Last => "(last)",
                    Relation::Earlier => "(earlier)",
                    Relation::Later => "(later)",
                });
                if let Some(port) = port {
                    self.word(".");
                    self.id(Port::SIGIL, port.0);
                }
            }
            Source::Collective(id) => {
                self.word("result ");
                self.collective_name(id);
            }
        }
        self.word(match need.on {
            Where::All => "",
            Where::First => " at first",
            Where::Last => " at last",
        });
        self.end_line()
    }

    fn collective(&mut self, collective: &Collective) -> fmt::Result {
        let place = |place| match place {
            Where::All => "all",
            Where::First => "first",
            Where::Last => "last",
        };
        self.word("collective ");
        self.name(&collective.name);
        self.word(" ");
        self.word(collective.op.word());
        self.word(" ");
        self.kind(collective.kind);
        self.word(".");
        self.id(Port::SIGIL, collective.port.0);
        self.word(" from ");
        self.word(place(collective.source));
        self.word(" to ");
        self.word(place(collective.reader));
        if let Some(after) = collective.after {
            self.word(" after ");
            self.collective_name(after);
        }
        if collective.lockstep {
            self.word(" lockstep");
        }
        self.end_line()
    }

    fn rank(&mut self, rank: Rank, plan: &RankPlan) -> fmt::Result {
        self.word("rank ");
        self.id(Rank::SIGIL, rank.0);
        self.word("\npeak ");
        self.number(plan.peak.bytes.0);
        self.word(" B");
        for (class, &live) in plan.peak.live.iter().enumerate() {
            self.word(" ");
            self.class(ClassId::new(class));
            self.id("=", live);
        }
        self.word("\nlanes");
        for &lane in &plan.lanes {
            self.word(" ");
            self.lane(lane);
        }
        self.end_line()?;
        for (id, buffer) in plan.buffers.iter().enumerate() {
            self.word("buffer ");
            self.id(BufferId::SIGIL, BufferId::new(id).0);
            self.word(" ");
            self.class(buffer.class);
            self.word(" ");
            self.shape(&buffer.shape);
            match buffer.place {
                Place::Arena(offset) => {
                    self.word(" at ");
                    self.number(offset.0);
                }
                Place::TiedGradient => self.word(" tied-gradient"),
                Place::StageGradient(stage) => self.id(" stage-gradient s", stage.0),
            }
            self.end_line()?;
        }
        for (id, instr) in plan.instrs.iter().enumerate() {
            self.instr(InstrId::new(id), instr, plan)?;
        }
        Ok(())
    }

    fn lane(&mut self, lane: Lane) {
        match lane {
            Lane::Compute => self.word("compute"),
            Lane::Send(peer) => self.id("send-r", peer.0),
            Lane::Recv(peer) => self.id("recv-r", peer.0),
            Lane::Group(group) => self.id(GroupId::SIGIL, group.0),
        }
    }

    fn instr(&mut self, id: InstrId, instr: &Instr, plan: &RankPlan) -> fmt::Result {
        self.id(InstrId::SIGIL, id.0);
        self.word(" ");
        match plan.lanes.get(instr.lane.index()) {
            Some(&lane) => self.lane(lane),
            None => self.id("l", instr.lane.0),
        }
        self.word(if instr.overlaps { " & " } else { " " });
        self.op(&instr.op);
        if operands_lie_in_pool(instr, plan) {
            let operands = plan.operands(instr);
            self.ids(" reads", BufferId::SIGIL, operands.reads);
            self.ids(" writes", BufferId::SIGIL, operands.writes);
            self.ids(" frees", BufferId::SIGIL, operands.frees);
            self.ids(" waits", InstrId::SIGIL, operands.waits);
        }
        self.end_line()
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Pass(pass) => self.instance(*pass),
            Op::Send { to, value } => {
                self.id("send r", to.0);
                self.word(" ");
                self.instance(value.pass);
                self.id(".o", value.port.0);
            }
            Op::Recv { from, value } => {
                self.id("recv r", from.0);
                self.word(" ");
                self.instance(value.pass);
                self.id(".o", value.port.0);
            }
            Op::Collective { payload, op, group, root, elements } => {
                self.word(op.word());
                match payload {
                    Payload::Value { collective, microbatch } => {
                        self.word(" ");
                        self.collective_name(*collective);
                        self.word(" ");
                        self.unit(*microbatch);
                    }
                    Payload::TiedGradient => self.word(" tied-gradient"),
                    Payload::StageGradient(stage) => self.id(" stage-gradient s", stage.0),
                }
                self.id(" on g", group.0);
                if let Some(root) = root {
                    self.id(" root r", root.0);
                }
                self.word(" elements ");
                self.number(*elements);
            }
            Op::Step => self.word("step"),
        }
    }

    fn instance(&mut self, pass: Pass) {
        self.kind(pass.kind);
        self.word(".");
        match pass.site {
            Site::Stage(stage) => self.id(Stage::SIGIL, stage.0),
            Site::Rank(rank) => self.id(Rank::SIGIL, rank.0),
        }
        self.word(".");
        self.unit(pass.microbatch);
    }

    /// A microbatch, or a slice of one.
    fn unit(&mut self, unit: Microbatch) {
        let cut = self.header.cut();
        self.id(Microbatch::SIGIL, cut.microbatch(unit).0);
        if cut.slices > 1 {
            self.id(".", cut.slice(unit));
        }
    }
}

/// Whether an instruction's operands can be cut out of the pool; a plan that was never verified may claim anything.
fn operands_lie_in_pool(instr: &Instr, plan: &RankPlan) -> bool {
    let operands: usize = instr.counts.iter().copied().map(usize::from).sum();
    (instr.start as usize).checked_add(operands).is_some_and(|end| end <= plan.pool.len())
}
