//! Benchmarks only; they stand in `benches/`.
