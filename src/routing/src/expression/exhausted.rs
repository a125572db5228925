//! Converts an exhausted budget to a fault.

use crossdock_expression::Exhausted;
use crossdock_expression::budget::{BYTES_MAX, WORK_MAX};
use crossdock_message::{Code, Fault};

/// A fault of the caller, or an internal one if an input of the expression is data of a service.
pub(crate) fn fault(cause: Exhausted, of_caller: bool, source: &str) -> Fault {
    let (code, reason, message) = match cause {
        Exhausted::Work => (
            Code::InvalidArgument,
            "TOO_MUCH_WORK",
            format!("`{source}` exceeds the limit of {WORK_MAX} units of work per message"),
        ),
        Exhausted::Bytes => {
            let message = format!("`{source}` exceeds the limit of {} MiB of memory per message", BYTES_MAX >> 20);
            (Code::InvalidArgument, "TOO_MUCH_MEMORY", message)
        }
        // Never reported: the evaluation is rerun outside a slice.
        Exhausted::Slice => return Fault::new(Code::Internal, "SLICE", "the slice is exceeded"),
        Exhausted::Time => {
            let message = format!("the deadline passed while `{source}` was evaluated");
            return Fault::new(Code::DeadlineExceeded, "DEADLINE", message);
        }
    };
    if of_caller { Fault::caller(code, reason, message) } else { Fault::new(Code::Internal, reason, message) }
}
