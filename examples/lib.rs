//! Runnable examples. Each folder has a README, settings for `crossdock run`, and the services that the example needs. A
//! test in `tests/` runs it as its README describes.
