//! Results of messages in snapshots.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::ids::{RequestId, SessionId};
use crate::results::Remembered;

/// The result of a message.
#[derive(Clone, PartialEq, Message)]
pub struct SavedResult {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "bytes", tag = "3")]
    result: Bytes,
    #[prost(fixed64, tag = "4")]
    digest: u64,
    #[prost(uint64, tag = "5")]
    until: u64,
    #[prost(uint64, tag = "6")]
    session: u64,
    #[prost(uint64, tag = "7")]
    number: u64,
    #[prost(uint64, tag = "8")]
    zxid: u64,
}

pub(super) fn result_of(group: &str, key: &str, remembered: &Remembered) -> SavedResult {
    let Remembered { result, digest, until, by, zxid } = remembered;
    SavedResult {
        group: group.to_owned(),
        key: key.to_owned(),
        result: result.clone(),
        digest: *digest,
        until: *until,
        session: by.session.0,
        number: by.number,
        zxid: *zxid,
    }
}

/// The group, the key and the result.
pub(super) fn read_result(saved: SavedResult) -> (Arc<str>, Arc<str>, Remembered) {
    let SavedResult { group, key, result, digest, until, session, number, zxid } = saved;
    let by = RequestId { session: SessionId(session), number };
    let result = Bytes::copy_from_slice(&result);
    (group.into(), key.into(), Remembered { result, digest, until, by, zxid })
}
