//! Runnable scenarios. Each folder here has a README, settings for `crossdock run`, the services that it needs, and a
//! test in `tests/` that runs it as its README says.
