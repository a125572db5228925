//! Runs every fuzz target on its corpus, including prefixes of each input: no property is violated, in bounded time.

use std::time::{Duration, Instant};

use crossdock_tests::fuzz::TARGETS;
use crossdock_tests::repository;

/// Time limit for one input, generous for debug builds on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(10);

#[test]
fn corpus_inputs_violate_no_property() {
    for (name, target) in TARGETS {
        let folder = repository().join("tests/fuzz/corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a file").path();
            let input = std::fs::read(&path).expect("an input");
            let begun = Instant::now();
            // The smallest stack of the threads that read untrusted input.
            let target = *target;
            let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
                target(&input);
                // Truncated, as if the connection ended.
                for part in 1..8 {
                    target(&input[..input.len() * part / 8]);
                }
            });
            let ended = run.expect("a thread").join();
            assert!(ended.is_ok(), "{name} violates a property with {}", path.display());
            assert!(begun.elapsed() < TIME_MAX, "{name} takes {:?} for {}", begun.elapsed(), path.display());
            count += 1;
        }
        assert!(count >= 3, "the corpus of {name} has only {count} inputs");
    }
}
