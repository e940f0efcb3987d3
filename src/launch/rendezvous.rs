//! Strangers -> a mesh: process 0 listens, the others come, all compare their terms, and then every process has a connection to every other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::error::LaunchError;
use super::hello::{Hello, LONGEST, MAGIC, Terms, Verdict, processes};
use super::link::Link;
use super::place::Place;
use super::secret::{Secret, equal, nonce};

/// How long a stranger may take to introduce itself.
const COURTESY: Duration = Duration::from_secs(5);

/// How many strangers are listened to at once.
const CROWD: usize = 128;

/// The pause between two looks at a listener.
const NAP: Duration = Duration::from_millis(5);

/// The longest answer of process 0.
const LONGEST_VERDICT: usize = 256 << 10;

/// A process's connections to all others.
#[derive(Debug)]
pub struct Mesh {
    /// Which process this is.
    pub process: usize,
    /// By process; none to itself.
    pub peers: Vec<Option<TcpStream>>,
}

/// Brings the processes of a run together.
///
/// # Errors
/// One does not come in time, or means another run.
pub fn meet(place: &Place, terms: &Terms) -> Result<Mesh, LaunchError> {
    let deadline = Instant::now() + place.patience;
    let address = format!("{}:{}", place.host, place.port);
    let found = (place.host.as_str(), place.port).to_socket_addrs().and_then(|mut all| {
        all.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no machine has this name"))
    });
    let at = found.map_err(|source| LaunchError::NoAddress { address: address.clone(), source })?;
    if place.secret.is_empty() && !at.ip().is_loopback() {
        return Err(LaunchError::NoSecret { address });
    }
    if place.process == 0 { host(place, terms, at, deadline) } else { join(place, terms, at, deadline) }
}

/// A guest that has proved that it knows the secret.
struct Guest {
    hello: Hello,
    link: Link,
}

/// Process 0: listens, hears everyone, and answers all at once.
fn host(place: &Place, terms: &Terms, at: SocketAddr, deadline: Instant) -> Result<Mesh, LaunchError> {
    let listening = |source| LaunchError::CannotListen { address: at.to_string(), source };
    let listener = TcpListener::bind(at).map_err(listening)?;
    listener.set_nonblocking(true).map_err(listening)?;
    let (sender, arrivals) = bounded(CROWD);
    let (secret, turned_away) = (place.secret.clone(), Arc::new(AtomicUsize::new(0)));
    let door = Door { listener, sender, turned_away: Arc::clone(&turned_away), inside: Arc::default() };
    let (mut guests, mut taken) = (Vec::new(), None);
    guests.resize_with(place.processes, || None);
    while guests.iter().skip(1).any(Option::is_none) && Instant::now() < deadline && taken.is_none() {
        door.open(deadline, &secret, receive);
        taken = admit(&arrivals, &mut guests);
        thread::sleep(NAP);
    }
    let verdict = judge(place, terms, &guests, taken, turned_away.load(Ordering::Relaxed));
    let text = serde_json::to_vec(&verdict).unwrap_or_default();
    for guest in guests.iter_mut().flatten() {
        // Who has gone away is missed when the first message is due.
        let _ = guest.link.write_text(&text);
    }
    refuse(verdict)?;
    let peers = guests.into_iter().map(|guest| guest.map(|guest| guest.link.release()).transpose());
    let unreachable = |error: io::Error| unreachable(0, "a process that came", &error);
    Ok(Mesh { process: 0, peers: peers.collect::<io::Result<_>>().map_err(unreachable)? })
}

/// Seats those who came; who comes to a seat that is taken is told so.
fn admit(arrivals: &Receiver<Guest>, guests: &mut [Option<Guest>]) -> Option<usize> {
    for guest in arrivals.try_iter() {
        let process = guest.hello.process;
        match guests.get_mut(process) {
            Some(seat) if seat.is_none() && process > 0 => *seat = Some(guest),
            _ => {
                let mut link = guest.link;
                let text = serde_json::to_vec(&Verdict::Taken { process }).unwrap_or_default();
                let _ = link.write_text(&text);
                return Some(process);
            }
        }
    }
    None
}

fn judge(
    place: &Place,
    terms: &Terms,
    guests: &[Option<Guest>],
    taken: Option<usize>,
    turned_away: usize,
) -> Verdict {
    if let Some(process) = taken {
        return Verdict::Taken { process };
    }
    let mut all = vec![Some(terms)];
    all.extend(guests.iter().skip(1).map(|guest| guest.as_ref().map(|guest| &guest.hello.terms)));
    if let Some((what, who)) = Terms::differences(&all) {
        return Verdict::Differs { what, who };
    }
    let missing: Vec<usize> = (1..guests.len()).filter(|&process| guests[process].is_none()).collect();
    if !missing.is_empty() {
        let strangers = match turned_away {
            0 => String::new(),
            1 => "; one connection without the right secret was turned away".to_owned(),
            more => format!("; {more} connections without the right secret were turned away"),
        };
        let (seconds, missing) = (place.patience.as_secs_f64(), processes(&missing));
        return Verdict::Missing { seconds, missing, strangers };
    }
    let nowhere = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let peers = guests.iter().map(|guest| {
        let guest = guest.as_ref()?;
        Some((guest.link.stream.peer_addr().ok()?.ip(), guest.hello.port))
    });
    Verdict::Go { session: nonce(), peers: peers.map(|peer| peer.unwrap_or(nowhere)).collect() }
}

fn refuse(verdict: Verdict) -> Result<(), LaunchError> {
    match verdict {
        Verdict::Go { .. } => Ok(()),
        Verdict::Differs { what, who } => Err(LaunchError::Differs { what, who }),
        Verdict::Missing { seconds, missing, strangers } => {
            Err(LaunchError::MissingProcess { seconds, missing, strangers })
        }
        Verdict::Taken { process } => Err(LaunchError::PlaceTaken { process }),
    }
}

/// Where connections come in. Each is heard on a thread of its own, so that a silent one holds up nobody.
struct Door<T> {
    listener: TcpListener,
    sender: Sender<T>,
    turned_away: Arc<AtomicUsize>,
    inside: Arc<AtomicUsize>,
}

impl<T: Send + 'static> Door<T> {
    /// Lets in who stands there. Where the crowd is full the rest waits outside.
    fn open(&self, deadline: Instant, secret: &Secret, hear: fn(Link, &Secret) -> io::Result<T>) {
        while self.inside.load(Ordering::Relaxed) < CROWD {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let until = deadline.min(Instant::now() + COURTESY);
            let (sender, secret) = (self.sender.clone(), secret.clone());
            let (inside, turned_away) = (Arc::clone(&self.inside), Arc::clone(&self.turned_away));
            inside.fetch_add(1, Ordering::Relaxed);
            let started = thread::Builder::new().spawn(move || {
                match Link::new(stream, until).and_then(|link| hear(link, &secret)) {
                    Ok(guest) => drop(sender.send(guest)),
                    Err(_) => drop(turned_away.fetch_add(1, Ordering::Relaxed)),
                }
                inside.fetch_sub(1, Ordering::Relaxed);
            });
            if started.is_err() {
                self.inside.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Hears a guest: a challenge, its introduction with the proof, and the proof of process 0 in turn.
fn receive(mut link: Link, secret: &Secret) -> io::Result<Guest> {
    let challenge = nonce();
    link.write(&[&MAGIC[..], &challenge].concat())?;
    let stranger = || io::Error::from(io::ErrorKind::PermissionDenied);
    if link.read::<8>()? != MAGIC {
        return Err(stranger());
    }
    let own: [u8; 32] = link.read()?;
    let proof: [u8; 32] = link.read()?;
    let text = link.read_text(LONGEST)?;
    let known = equal(&proof, &secret.proof(&[b"guest", &challenge, &own, &text]));
    // The host's proof is sent to everyone: one with another secret learns from it that it is wrong, and nothing else.
    link.write(&secret.proof(&[b"host", &challenge, &own]))?;
    if !known {
        return Err(stranger());
    }
    let hello = serde_json::from_slice(&text).map_err(io::Error::other)?;
    Ok(Guest { hello, link: Link::new(link.release()?, Instant::now() + Place::LONGEST_VISIT)? })
}

/// Any other process: comes, is heard, waits for the answer, and connects to those before it.
fn join(place: &Place, terms: &Terms, at: SocketAddr, deadline: Instant) -> Result<Mesh, LaunchError> {
    let (stream, own) = knock(place, at, deadline)?;
    let process = place.process;
    let lost = |error: io::Error| {
        let address = at.to_string();
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it went away".to_owned(),
            _ => error.to_string(),
        };
        LaunchError::NobodyListens { process, address, seconds: place.patience.as_secs_f64(), reason }
    };
    let ip = stream.local_addr().map_err(lost)?.ip();
    let listener = TcpListener::bind((ip, 0)).map_err(lost)?;
    let port = listener.local_addr().map_err(lost)?.port();
    // Process 0 may wait for the last of us as long as it has patience, and says so then.
    let mut link = Link::new(stream, deadline + COURTESY).map_err(lost)?;
    if link.read::<8>().map_err(lost)? != MAGIC {
        return Err(lost(io::Error::other("what listens there is no schedc of this version")));
    }
    let challenge: [u8; 32] = link.read().map_err(lost)?;
    let text = serde_json::to_vec(&Hello { process, port, terms: terms.clone() }).unwrap_or_default();
    let proof = place.secret.proof(&[b"guest", &challenge, &own, &text]);
    link.write(&[&MAGIC[..], &own, &proof].concat()).and_then(|()| link.write_text(&text)).map_err(lost)?;
    let proof: [u8; 32] = link.read().map_err(lost)?;
    if !equal(&proof, &place.secret.proof(&[b"host", &challenge, &own])) {
        return Err(LaunchError::WrongSecret { address: at.to_string(), process });
    }
    let verdict = link.read_text(LONGEST_VERDICT).map_err(lost)?;
    let verdict: Verdict = serde_json::from_slice(&verdict).map_err(io::Error::other).map_err(lost)?;
    let Verdict::Go { session, peers } = verdict else {
        refuse(verdict)?;
        return Err(lost(io::Error::other("its answer makes no sense")));
    };
    if peers.len() != place.processes {
        return Err(lost(io::Error::other("it counts other processes")));
    }
    let host = link.release().map_err(lost)?;
    connect(place, host, &listener, session, &peers)
}

/// Tries to reach process 0 until it listens.
fn knock(place: &Place, at: SocketAddr, deadline: Instant) -> Result<(TcpStream, [u8; 32]), LaunchError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&at, left) {
            // A port of one's own can be met when nobody listens there.
            Ok(stream) if stream.local_addr().ok() != stream.peer_addr().ok() => {
                return Ok((stream, nonce()));
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(LaunchError::NobodyListens {
                    process: place.process,
                    address: at.to_string(),
                    seconds: place.patience.as_secs_f64(),
                    reason: error.to_string(),
                });
            }
            Ok(_) | Err(_) => {}
        }
        thread::sleep(NAP * 4);
    }
}

/// Connects to the processes before this one, and waits for those after it.
fn connect(
    place: &Place,
    host: TcpStream,
    listener: &TcpListener,
    session: [u8; 32],
    peers: &[(IpAddr, u16)],
) -> Result<Mesh, LaunchError> {
    let (own, deadline) = (place.process, Instant::now() + place.patience);
    let mut found: Vec<Option<TcpStream>> = peers.iter().map(|_| None).collect();
    found[0] = Some(host);
    let proof = |from: usize, to: usize| {
        place.secret.proof(&[b"peer", &session, &(from as u64).to_le_bytes(), &(to as u64).to_le_bytes()])
    };
    for (process, &peer) in peers.iter().enumerate().take(own).skip(1) {
        let reach = || -> io::Result<TcpStream> {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let mut link = Link::new(TcpStream::connect_timeout(&peer.into(), left)?, deadline)?;
            link.write(&[&MAGIC[..], &(own as u64).to_le_bytes(), &proof(own, process)].concat())?;
            link.release()
        };
        let failed = |error: io::Error| unreachable(own, &format!("process {process}"), &error);
        found[process] = Some(reach().map_err(failed)?);
    }
    let own_failed = |error: io::Error| unreachable(own, "the processes after it", &error);
    listener.set_nonblocking(true).map_err(own_failed)?;
    let (sender, arrivals) = bounded(CROWD);
    let door = Door {
        listener: listener.try_clone().map_err(own_failed)?,
        sender,
        turned_away: Arc::default(),
        inside: Arc::default(),
    };
    while found.iter().skip(own + 1).any(Option::is_none) {
        if Instant::now() >= deadline {
            let missing: Vec<usize> = (own + 1..found.len()).filter(|&at| found[at].is_none()).collect();
            return Err(unreachable(own, &processes(&missing), &io::ErrorKind::TimedOut.into()));
        }
        door.open(deadline, &place.secret, peer);
        for (process, shown, stream) in arrivals.try_iter() {
            if process > own && process < found.len() && equal(&shown, &proof(process, own)) {
                found[process].get_or_insert(stream);
            }
        }
        thread::sleep(NAP);
    }
    Ok(Mesh { process: own, peers: found })
}

/// Hears a peer: its number and its proof.
fn peer(mut link: Link, _: &Secret) -> io::Result<(usize, [u8; 32], TcpStream)> {
    if link.read::<8>()? != MAGIC {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let process = u64::from_le_bytes(link.read()?) as usize;
    let proof = link.read()?;
    Ok((process, proof, link.release()?))
}

fn unreachable(process: usize, other: &str, error: &io::Error) -> LaunchError {
    LaunchError::Unreachable { process, other: other.to_owned(), reason: error.to_string() }
}
