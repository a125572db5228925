//! The inputs that fuzzing kept, and every part of them: no law is broken, within a bounded time.

use std::time::{Duration, Instant};

use crossdock_tests::fuzz::TARGETS;
use crossdock_tests::repository;

/// For one input: a second for each 64 KiB, and what a debug build and a busy machine cost.
const TIME_MAX: Duration = Duration::from_secs(10);

#[test]
fn kept_inputs_break_no_law() {
    for (name, target) in TARGETS {
        let folder = repository().join("tests/fuzz/corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a file").path();
            let input = std::fs::read(&path).expect("an input");
            let begun = Instant::now();
            // A stack as small as that of any thread which reads foreign bytes.
            let (target, whole) = (*target, input.clone());
            let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
                target(&whole);
                // Cut off in the middle, as a connection that ends does it.
                for part in 1..8 {
                    target(&whole[..whole.len() * part / 8]);
                }
            });
            let ended = run.expect("a thread").join();
            assert!(ended.is_ok(), "{name} breaks a law with {}", path.display());
            assert!(begun.elapsed() < TIME_MAX, "{name} takes {:?} for {}", begun.elapsed(), path.display());
            count += 1;
        }
        assert!(count >= 3, "{name} has {count} kept inputs");
    }
}
