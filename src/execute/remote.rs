//! What moves between the processes of a run: a thread that writes and one that reads for each connection, between the sockets and the same
//! mailboxes and boards that ranks of one process use.
//!
//! A message stays in its mailbox until the reader's process says that it was read, so a send means what it means in one process. The
//! members of a board in other processes deposit by message, and say when they have collected; sums are taken here, in rank order. What
//! goes out is noted in a queue that is long enough for all that can be under way, so a rank never waits for a socket. The buffers that
//! frames are written from and read into are allocated once.
//!
//! What comes in is bounded by what the plan can send before a byte of it is stored; anything else ends the run.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::machine::Shared;
use super::transport::Seat;
use crate::ir::{KindId, Microbatch, Pass, Port, Rank, Site, Stage, Value};
use crate::launch::{Mesh, Place};

/// Bytes of a frame's head: kind, place, sequence, elements, and five words of a value.
const HEAD: usize = 1 + 4 + 8 + 4 + 20;

/// The longest note between the steps.
const LONGEST_NOTE: usize = 1 << 20;

/// What is to be sent to another process.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// The message in a mailbox.
    Mail(usize),
    /// The message in a mailbox was read.
    Credit(usize),
    /// A member's contribution, with its data where the other process reads it.
    Given { board: usize, seat: Seat },
    /// A member has collected.
    Taken { board: usize, sequence: u64 },
    /// Something between two steps, with the count of such exchanges before it.
    Note { turn: u64, bytes: Arc<Vec<u8>> },
    /// The run is over here, and why; without a reason it is over well.
    Bye(Option<Fault>),
}

/// Why a run of several processes ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The process that is to blame.
    pub(super) process: usize,
    /// What happened, as a part of a sentence about that process.
    pub(super) reason: String,
}

/// The other processes, as this one sees them.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) process: usize,
    ranks: usize,
    processes: usize,
    outboxes: Vec<Option<Sender<Outgoing>>>,
    streams: Vec<Option<TcpStream>>,
    notes: Receiver<(usize, u64, Vec<u8>)>,
    inbox: Sender<(usize, u64, Vec<u8>)>,
    fault: Mutex<Option<Fault>>,
    /// By process: milliseconds after `clock` when the last frame came.
    heard: Vec<AtomicU64>,
    ended: Vec<AtomicBool>,
    clock: Instant,
}

impl Remote {
    /// Takes the connections of a mesh; `capacity` is the most that can be under way to one process.
    pub(super) fn new(mesh: Mesh, ranks: usize, capacity: usize) -> (Self, Vec<Receiver<Outgoing>>) {
        let processes = mesh.peers.len();
        let (inbox, notes) = unbounded();
        let (mut outboxes, mut queues) = (Vec::new(), Vec::new());
        for peer in &mesh.peers {
            let (sender, receiver) = bounded(capacity);
            outboxes.push(peer.as_ref().map(|_| sender));
            queues.push(receiver);
        }
        let heard = (0..processes).map(|_| AtomicU64::new(0)).collect();
        let ended = (0..processes).map(|_| AtomicBool::new(false)).collect();
        let (process, streams) = (mesh.process, mesh.peers);
        let (fault, clock) = (Mutex::new(None), Instant::now());
        let remote =
            Self { process, ranks, processes, outboxes, streams, notes, inbox, fault, heard, ended, clock };
        (remote, queues)
    }

    /// The process that has a rank.
    pub(super) fn home(&self, rank: Rank) -> usize {
        Place::home(rank, self.ranks, self.processes)
    }

    /// Whether a rank is in another process.
    pub(super) fn is_away(&self, rank: Rank) -> bool {
        self.home(rank) != self.process
    }

    /// The ranks of a process.
    pub(super) fn ranks_of(&self, process: usize) -> impl Iterator<Item = Rank> + use<> {
        let each = self.ranks / self.processes;
        (process * each..(process + 1) * each).map(Rank::new)
    }

    /// Notes something to be sent. The queue has room for all that can be under way, and waits for nobody.
    pub(super) fn post(&self, process: usize, what: Outgoing) {
        if let Some(Some(outbox)) = self.outboxes.get(process)
            && outbox.try_send(what).is_err()
        {
            self.blame(process, "takes no messages any more".to_owned());
        }
    }

    /// Notes something to be sent to all other processes that have one of these ranks.
    pub(super) fn post_members(&self, members: &[Rank], what: &Outgoing) {
        let mut last = self.process;
        for process in members.iter().map(|&rank| self.home(rank)) {
            // Members ascend, and the ranks of a process are neighbours.
            if process != last && process != self.process {
                self.post(process, what.clone());
            }
            last = process;
        }
    }

    /// The first fault is the one that is told.
    pub(super) fn blame(&self, process: usize, reason: String) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(Fault { process, reason });
    }

    /// What has gone wrong in another process.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The other processes that have been silent for so long.
    pub(super) fn silent(&self, since: Duration) -> Vec<usize> {
        let now = self.clock.elapsed().as_millis() as u64;
        let longest = since.as_millis() as u64;
        let others = (0..self.processes).filter(|&process| process != self.process);
        let silent =
            |process: &usize| now.saturating_sub(self.heard[*process].load(Ordering::Relaxed)) >= longest;
        others.filter(silent).collect()
    }

    /// Sends a note to every other process.
    pub(super) fn tell(&self, turn: u64, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        for process in 0..self.processes {
            self.post(process, Outgoing::Note { turn, bytes: Arc::clone(&bytes) });
        }
    }

    /// The next note of any process, if one comes in time.
    pub(super) fn note(&self, pause: Duration) -> Option<(usize, u64, Vec<u8>)> {
        self.notes.recv_timeout(pause).ok()
    }

    /// How many processes there are.
    pub(super) fn processes(&self) -> usize {
        self.processes
    }

    /// Says that this process has ended, and waits a moment until the others have heard it.
    pub(super) fn leave(&self, fault: Option<&Fault>, grace: Duration) {
        for process in 0..self.processes {
            self.post(process, Outgoing::Bye(fault.cloned()));
        }
        let deadline = Instant::now() + grace;
        let gone = |process: usize| process == self.process || self.ended[process].load(Ordering::SeqCst);
        while !(0..self.processes).all(gone) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        for stream in self.streams.iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn hear(&self, process: usize) {
        self.heard[process].store(self.clock.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// What a thread of a connection does until it ends.
type Duty = Box<dyn FnOnce(&Shared) -> Result<(), String> + Send>;

/// Starts the threads of every connection.
///
/// # Errors
/// A thread or a second handle of a connection is refused.
pub(super) fn start(
    shared: &Arc<Shared>,
    queues: Vec<Receiver<Outgoing>>,
    largest: usize,
    beat: Duration,
) -> io::Result<()> {
    let Some(remote) = &shared.network.remote else { return Ok(()) };
    for (process, queue) in queues.into_iter().enumerate() {
        let Some(stream) = &remote.streams[process] else { continue };
        let (output, input) = (stream.try_clone()?, stream.try_clone()?);
        let spawn = |name: String, run: Duty| {
            let shared = Arc::clone(shared);
            thread::Builder::new().name(name).spawn(move || {
                if let (Err(reason), Some(remote)) = (run(&shared), &shared.network.remote) {
                    remote.blame(process, reason);
                    remote.ended[process].store(true, Ordering::SeqCst);
                }
            })
        };
        let writing = move |shared: &Shared| write_all(shared, process, output, &queue, largest, beat);
        spawn(format!("to {process}"), Box::new(writing))?;
        let reading = move |shared: &Shared| read_all(shared, process, input, largest);
        spawn(format!("from {process}"), Box::new(reading))?;
    }
    Ok(())
}

const MAIL: u8 = 1;
const CREDIT: u8 = 2;
const GIVEN: u8 = 3;
const TAKEN: u8 = 4;
const NOTE: u8 = 5;
const BYE: u8 = 6;
const BEAT: u8 = 7;

/// A frame's head.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    kind: u8,
    place: u32,
    sequence: u64,
    count: u32,
    words: [u32; 5],
}

impl Head {
    fn write(&self, into: &mut Vec<u8>) {
        into.push(self.kind);
        into.extend_from_slice(&self.place.to_le_bytes());
        into.extend_from_slice(&self.sequence.to_le_bytes());
        into.extend_from_slice(&self.count.to_le_bytes());
        self.words.iter().for_each(|word| into.extend_from_slice(&word.to_le_bytes()));
    }

    fn read(bytes: &[u8; HEAD]) -> Self {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let sequence = u64::from_le_bytes(std::array::from_fn(|byte| bytes[5 + byte]));
        let words = std::array::from_fn(|index| word(17 + 4 * index));
        Self { kind: bytes[0], place: word(1), sequence, count: word(13), words }
    }
}

fn words(value: Value) -> [u32; 5] {
    let (kind, site) = match value.pass.site {
        Site::Stage(stage) => (0, stage.0),
        Site::Rank(rank) => (1, rank.0),
    };
    [value.pass.kind.0, kind, site, value.pass.microbatch.0, value.port.0]
}

fn value([pass, kind, site, microbatch, port]: [u32; 5]) -> Value {
    let site = if kind == 0 { Site::Stage(Stage(site)) } else { Site::Rank(Rank(site)) };
    Value { pass: Pass { kind: KindId(pass), site, microbatch: Microbatch(microbatch) }, port: Port(port) }
}

fn floats(numbers: &[f32], into: &mut Vec<u8>) {
    for number in numbers {
        into.extend_from_slice(&number.to_le_bytes());
    }
}

/// Writes what is noted for a process, and a sign of life with what this process's ranks are doing.
fn write_all(
    shared: &Shared,
    process: usize,
    mut stream: TcpStream,
    queue: &Receiver<Outgoing>,
    largest: usize,
    beat: Duration,
) -> Result<(), String> {
    let mut frame: Vec<u8> = Vec::with_capacity(HEAD + largest * 4);
    let mut due = Instant::now();
    loop {
        let next = queue.recv_deadline(due);
        frame.clear();
        let mut last = false;
        match next {
            Ok(Outgoing::Note { turn, bytes }) => {
                let head = Head { kind: NOTE, sequence: turn, count: bytes.len() as u32, ..Head::default() };
                head.write(&mut frame);
                frame.extend_from_slice(&bytes);
            }
            Ok(Outgoing::Bye(fault)) => {
                last = true;
                farewell(fault.as_ref(), &mut frame);
            }
            Ok(what) => pack(shared, process, &what, &mut frame),
            Err(RecvTimeoutError::Timeout) => {
                due = Instant::now() + beat;
                sign_of_life(shared, &mut frame);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if let Err(error) = stream.write_all(&frame) {
            // Who reads from it knows better why it ended.
            thread::sleep(Duration::from_millis(100));
            return if last { Ok(()) } else { Err(format!("cannot be written to: {error}")) };
        }
        if last {
            let _ = stream.shutdown(Shutdown::Write);
            return Ok(());
        }
    }
}

fn farewell(fault: Option<&Fault>, frame: &mut Vec<u8>) {
    let reason: &str = fault.map_or("", |fault| &fault.reason);
    let reason: String = reason.chars().take(1000).collect();
    let place = fault.map_or(0, |fault| fault.process as u32);
    Head {
        kind: BYE,
        place,
        sequence: u64::from(fault.is_some()),
        count: reason.len() as u32,
        ..Head::default()
    }
    .write(frame);
    frame.extend_from_slice(reason.as_bytes());
}

fn pack(shared: &Shared, process: usize, what: &Outgoing, frame: &mut Vec<u8>) {
    let network = &shared.network;
    match *what {
        Outgoing::Mail(place) => {
            network.mailboxes[place].forward(|value, data| {
                let (place, count) = (place as u32, data.len() as u32);
                Head { kind: MAIL, place, sequence: 0, count, words: words(value) }.write(frame);
                floats(data, frame);
            });
        }
        Outgoing::Credit(place) => {
            Head { kind: CREDIT, place: place as u32, ..Head::default() }.write(frame);
        }
        Outgoing::Given { board, seat } => {
            let (sequence, member) = (seat.sequence, seat.member as u32);
            network.boards[board].forward(seat, |data| {
                let head = Head {
                    kind: GIVEN,
                    place: board as u32,
                    sequence,
                    count: data.len() as u32,
                    words: [member, 0, 0, 0, 0],
                };
                head.write(frame);
                floats(data, frame);
            });
        }
        Outgoing::Taken { board, sequence } => {
            Head { kind: TAKEN, place: board as u32, sequence, ..Head::default() }.write(frame);
        }
        Outgoing::Note { .. } | Outgoing::Bye(_) => debug_assert!(false, "not for process {process}"),
    }
}

/// What the ranks of this process are doing: eight bytes a number.
fn sign_of_life(shared: &Shared, frame: &mut Vec<u8>) {
    let Some(remote) = &shared.network.remote else { return };
    let start = frame.len();
    Head { kind: BEAT, ..Head::default() }.write(frame);
    for rank in remote.ranks_of(remote.process) {
        shared.status[rank.index()]
            .numbers()
            .for_each(|number| frame.extend_from_slice(&number.to_le_bytes()));
    }
    let count = ((frame.len() - start - HEAD) / 8) as u32;
    frame[start + 13..start + 17].copy_from_slice(&count.to_le_bytes());
}

/// How the end of a connection is told.
fn gone(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "is gone: its connection was closed".to_owned(),
        _ => format!("is gone: {error}"),
    }
}

/// Reads so many bytes, if the plan can have sent them.
fn body<'a>(stream: &mut TcpStream, bytes: &'a mut [u8], length: usize) -> Result<&'a [u8], String> {
    let Some(bytes) = bytes.get_mut(..length) else {
        return Err("sent more than the plan has".to_owned());
    };
    stream.read_exact(bytes).map_err(|error| gone(&error))?;
    Ok(bytes)
}

/// Reads what a process sends, until it says that it has ended.
fn read_all(shared: &Shared, process: usize, mut stream: TcpStream, largest: usize) -> Result<(), String> {
    let Some(remote) = &shared.network.remote else { return Ok(()) };
    let mut bytes: Vec<u8> = vec![0; largest * 4];
    loop {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).map_err(|error| gone(&error))?;
        remote.hear(process);
        let head = Head::read(&head);
        let count = head.count as usize;
        match head.kind {
            MAIL | CREDIT | GIVEN | TAKEN => {
                let data = if matches!(head.kind, MAIL | GIVEN) {
                    body(&mut stream, &mut bytes, count.saturating_mul(4))?
                } else {
                    &[]
                };
                deliver(shared, process, &head, data).ok_or("sent what the plan does not have")?;
            }
            NOTE if count <= LONGEST_NOTE => {
                let mut note = vec![0; count];
                stream.read_exact(&mut note).map_err(|error| gone(&error))?;
                let _ = remote.inbox.send((process, head.sequence, note));
            }
            BEAT => {
                let data = body(&mut stream, &mut bytes, count.saturating_mul(8))?;
                let (numbers, _) = data.as_chunks::<8>();
                let mut numbers = numbers.iter().map(|&bytes| u64::from_le_bytes(bytes));
                for rank in remote.ranks_of(process) {
                    shared.status[rank.index()].take_over(&mut numbers);
                }
            }
            BYE => {
                let reason = String::from_utf8_lossy(body(&mut stream, &mut bytes, count)?).into_owned();
                if head.sequence != 0 {
                    remote.blame(head.place as usize, reason);
                }
                remote.ended[process].store(true, Ordering::SeqCst);
                return Ok(());
            }
            _ => return Err("sent what is no frame of schedc".to_owned()),
        }
    }
}

/// Puts a frame where it belongs; `None` where the plan has no such place.
fn deliver(shared: &Shared, process: usize, head: &Head, data: &[u8]) -> Option<()> {
    let network = &shared.network;
    let remote = network.remote.as_ref()?;
    let from_there = |rank: Rank| remote.home(rank) == process;
    let (place, bells) = (head.place as usize, &network.bells);
    let (numbers, _) = data.as_chunks::<4>();
    let numbers = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes));
    match head.kind {
        MAIL => {
            let mailbox = network.mailboxes.get(place)?;
            let fits = from_there(mailbox.writer()) && !remote.is_away(mailbox.reader());
            (fits && mailbox.arrive(value(head.words), numbers, bells)).then_some(())
        }
        CREDIT => {
            let mailbox = network.mailboxes.get(place)?;
            (from_there(mailbox.reader()) && mailbox.was_read(bells)).then_some(())
        }
        GIVEN => {
            let board = network.boards.get(place)?;
            let seat = Seat { member: head.words[0] as usize, sequence: head.sequence };
            let member = board.members().get(seat.member).copied()?;
            (from_there(member) && board.arrive(seat, numbers, bells)).then_some(())
        }
        TAKEN => {
            let board = network.boards.get(place)?;
            board.was_taken(head.sequence, bells).then_some(())
        }
        _ => None,
    }
}
