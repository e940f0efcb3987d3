//! A process of the run that sends nonsense once it was let in: the others end with its name, whatever it sends.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use miette::Diagnostic as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schedc::execute::ExecuteError;
use schedc::execute::check::CheckReport;
use schedc::execute::model::Train;
use schedc::execute::tokenizer::TokenizerKind;
use schedc::execute::train::{Listener, Opening, Settings, Taken, terms, train_across};
use schedc::execute::watchdog::Limits;
use schedc::ir::Dims;
use schedc::launch::{Place, Secret, meet};
use schedc::verify::Verified;

use crate::compiled::{library, tiny};

struct Deaf;

impl Listener for Deaf {
    fn checked(&mut self, _: &CheckReport) {}
    fn opened(&mut self, _: &Opening) {}
    fn taken(&mut self, _: &Taken) {}
    fn saved(&mut self, _: &Path) {}
    fn dumped(&mut self, _: &Path) {}
}

fn settings() -> Settings {
    Settings {
        steps: 2,
        train: Train::default(),
        data: None,
        tokenizer: TokenizerKind::Bytes,
        check: false,
        checkpoint: None,
        checkpoint_every: 1,
        dump: None,
        record: 0,
        limits: Limits { stall: Duration::from_secs(2), drill: None },
        plan_hash: Some("the plan".to_owned()),
    }
}

/// How process 0 ends when process 1 sends some bytes after the rendezvous, and is gone.
fn after(plan: &Verified, bytes: &[u8]) -> ExecuteError {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = |process| Place {
        process,
        processes: 2,
        local: 0,
        host: "127.0.0.1".to_owned(),
        port,
        secret: Secret::new("shared"),
        patience: Duration::from_secs(30),
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| train_across(plan, &settings(), Some(&place(0)), &mut Deaf));
        let terms = terms(plan, &settings(), "cpu").unwrap();
        let mesh = meet(&place(1), &terms).unwrap();
        let mut stream = mesh.peers.into_iter().flatten().next().unwrap();
        // It may be gone by then.
        let _ = stream.write_all(bytes);
        drop(stream);
        first.join().expect("no panic").unwrap_err()
    })
}

/// A frame's head: kind, place, sequence, elements, five words.
fn head(kind: u8, place: u32, sequence: u64, count: u32, words: [u32; 5]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(place.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[test]
fn nonsense_after_the_rendezvous_ends_the_run_by_name() {
    let plan = library("1f1b", Some("vocab-2"), 2, 2, Dims { vocab: 261, ..tiny(2, false) });
    let most = u32::MAX;
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "is gone"),
        (vec![1, 2, 3], "is gone"),
        (head(0, 0, 0, 0, [0; 5]), "no frame of schedc"),
        (head(200, 0, 0, 0, [0; 5]), "no frame of schedc"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n".to_vec(), "no frame of schedc"),
        (head(1, 0, 0, most, [0; 5]), "sent more than the plan has"),
        (head(3, 0, 0, most, [0; 5]), "sent more than the plan has"),
        (head(7, 0, 0, most, [0; 5]), "sent more than the plan has"),
        (head(6, 0, 0, most, [0; 5]), "sent more than the plan has"),
        (head(5, 0, 0, most, [0; 5]), "no frame of schedc"),
        (head(1, most, 0, 0, [most; 5]), "sent what the plan does not have"),
        (head(2, most, 0, 0, [0; 5]), "sent what the plan does not have"),
        (head(3, most, most.into(), 0, [most; 5]), "sent what the plan does not have"),
        (head(3, 0, u64::MAX, 0, [most; 5]), "sent what the plan does not have"),
        (head(4, most, 0, 0, [0; 5]), "sent what the plan does not have"),
        (head(4, 0, u64::MAX, 0, [0; 5]), "sent what the plan does not have"),
    ];
    let mut draws = ChaCha8Rng::seed_from_u64(7);
    for _ in 0..24 {
        // Frames of every kind with places and counts near those that there are.
        let mut bytes = Vec::new();
        for _ in 0..draws.random_range(1..6) {
            let kind = draws.random_range(0..9);
            let count = draws.random_range(0..4);
            let words = std::array::from_fn(|_| draws.random_range(0..3));
            bytes.extend(head(kind, draws.random_range(0..3), draws.random_range(0..3), count, words));
            bytes.extend((0..draws.random_range(0..5) * count).map(|_| draws.random_range(0..=255_u8)));
        }
        cases.push((bytes, ""));
    }
    for (bytes, expected) in cases {
        let started = Instant::now();
        let error = after(&plan, &bytes);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?} for {bytes:?}");
        let code = error.code().unwrap().to_string();
        let codes =
            ["schedc::execute::process_failed", "schedc::execute::stalled", "schedc::execute::rank_failed"];
        assert!(codes.contains(&code.as_str()), "{code} for {bytes:?}");
        assert!(error.to_string().contains(expected), "{error} instead of {expected} for {bytes:?}");
    }
}
