//! A budget that is spent, as the fault of whoever sent the message.

use crossdock_expression::Exhausted;
use crossdock_expression::budget::BYTES_MAX;
use crossdock_message::{Code, Fault};

/// The fault for the sender of the message, or an internal one if a service's reply exhausted the budget.
pub(crate) fn fault(spent: Exhausted, of_caller: bool, source: &str) -> Fault {
    let (code, reason, message) = match spent {
        Exhausted::Work => (
            Code::InvalidArgument,
            "TOO_MUCH_WORK",
            format!("`{source}` takes too much work on a message of this size"),
        ),
        Exhausted::Bytes => {
            let message = format!("`{source}` makes more than {} MiB of this message", BYTES_MAX >> 20);
            (Code::InvalidArgument, "TOO_MUCH_MEMORY", message)
        }
        // Never reported: the evaluation is restarted outside of a slice.
        Exhausted::Slice => return Fault::new(Code::Internal, "SLICE", "the work does not fit into its slice"),
        Exhausted::Time => {
            let message = format!("the time was spent while `{source}` was evaluated");
            return Fault::new(Code::DeadlineExceeded, "DEADLINE", message);
        }
    };
    if of_caller { Fault::caller(code, reason, message) } else { Fault::new(Code::Internal, reason, message) }
}
