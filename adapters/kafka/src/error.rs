//! Faults of the adapter.

use crossdock_message::{Code, EndpointVerdict, Fault, Retry};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

const UNCONFIRMED: &str = "UNCONFIRMED";

/// The brokers may or may not have stored the record.
pub(crate) fn unconfirmed(problem: impl std::fmt::Display) -> Fault {
    let message = format!("the brokers did not confirm the record, and may or may not have stored it: {problem}");
    Fault::new(Code::Unavailable, UNCONFIRMED, message).logged()
}

/// The record was not sent: it can be retried unchanged.
pub(crate) fn unreachable(problem: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Unavailable, "UNREACHABLE", format!("the brokers cannot be reached: {problem}"))
        .with_endpoint_verdict(EndpointVerdict::Unreachable)
        .with_retry(Retry::Same)
        .logged()
}

/// The reply cannot be used.
pub(crate) fn bad_reply(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "BAD_REPLY", format!("the service's reply cannot be used: {problem}")).logged()
}

/// No reply will arrive.
pub(crate) fn reply_lost() -> Fault {
    Fault::new(Code::Unavailable, "CONNECTION_LOST", "replies can no longer be received").logged()
}

/// Whether the brokers refused a batch because of its size.
pub(crate) fn is_size_limit(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge))
}

/// Why a record was not sent: the client did not accept it.
pub(crate) fn not_sent(error: &KafkaError, topic: &str) -> Fault {
    match not_stored(error, topic) {
        fault if fault.reason.as_str() == UNCONFIRMED => match error.rdkafka_error_code() {
            Some(code) => unreachable(code),
            None => unreachable("the client failed"),
        },
        fault if fault.code == Code::Unavailable => fault.with_retry(Retry::Same),
        fault => fault,
    }
}

/// Why a record was not stored.
pub(crate) fn not_stored(error: &KafkaError, topic: &str) -> Fault {
    let refused = |code, reason: &'static str, problem: &str| {
        Fault::new(code, reason, format!("the topic `{topic}` {problem}"))
            .with_endpoint_verdict(EndpointVerdict::None)
            .logged()
    };
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => {
            let message = "too many records wait to be sent";
            Fault::new(Code::ResourceExhausted, "CONFIRMS_PENDING", message).with_retry(Retry::Same)
        }
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize,
        ) => refused(Code::InvalidArgument, "REFUSED", "does not take records of this size").with_http_status(413),
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic,
            // It may have been stored, if the topic disappeared later.
        ) => refused(Code::Unavailable, "NO_TOPIC", "or its partition does not exist"),
        // Another record of its batch was invalid.
        Some(RDKafkaErrorCode::InvalidDifferentRecord) => {
            refused(Code::Unavailable, "BATCH_REFUSED", "refused another record of the same batch")
                .with_retry(Retry::Same)
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            refused(Code::PermissionDenied, "REFUSED", "cannot be written with this login")
        }
        Some(
            RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidMessage | RDKafkaErrorCode::PolicyViolation,
        ) => refused(Code::InvalidArgument, "REFUSED", "does not take such a record, for example one without a key"),
        Some(RDKafkaErrorCode::NotEnoughReplicas) => {
            refused(Code::Unavailable, "NOT_REPLICATED", "has too few replicas in sync").with_retry(Retry::Same)
        }
        Some(code) => unconfirmed(code),
        // The text of other errors may contain values of settings.
        None => unconfirmed("the client failed"),
    }
}
