//! A single connection: frames in both directions.

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crossdock_zab::{Link, ServerId, Session, Summary, Zxid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::error::LinkError;
use super::live::Registration;
use super::outbox::Queued;
use super::{Incoming, Outgoing, Transport};
use crate::injected_bug::{InjectedBug, is_injected};
use crate::platform::files::{self, File};
use crate::platform::{self, Instant};
use crate::temporary_file::TemporaryFile;
use crate::wal;
use crate::wire::{Alive, FRAME_LEN_MAX, Frame, Hello, Kind, Refused, SnapshotPart};

/// Timeout to send or receive a Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum length of a Hello frame.
const HELLO_LEN_MAX: usize = 4096;
/// Maximum number of characters of a peer's reason in the log.
const REASON_LEN_MAX: usize = 500;
/// An idle connection sends a heartbeat after this time.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// A connection that receives nothing for this time is dropped.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are collected into one write.
const BATCH_LEN_MAX: usize = 256;
/// Minimum interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of one connection's messages that may wait for the driver.
const RECEIVE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a snapshot in one frame, and of messages in one write.
const PART_LEN: usize = 256 * 1024;

/// Room below which a connection gets another buffer of [`PART_LEN`]. Transactions stay in memory as parts of their buffer,
/// so one for each read would take a multiple of their size.
const READ_LEN_MIN: usize = 4 * 1024;

/// A connection, with or without TLS.
pub(super) type Stream = Box<dyn Duplex>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection during the handshake.
pub(super) struct Frames {
    stream: Stream,
    received: BytesMut,
}

impl Frames {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    pub(super) async fn send_hello(&mut self, hello: Hello) -> Result<(), LinkError> {
        self.send(Kind::Hello(hello)).await
    }

    /// Tells the peer why it is refused, so that its operator learns it as well.
    pub(super) async fn send_refusal(&mut self, reason: &LinkError) {
        let refused = Refused { reason: reason.to_string() };
        // The connection ends in any case.
        let _ = self.send(Kind::Refused(refused)).await;
    }

    async fn send(&mut self, kind: Kind) -> Result<(), LinkError> {
        let mut bytes = BytesMut::new();
        Frame::of(kind).write(&mut bytes);
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let written = tokio::time::timeout(HELLO_TIMEOUT, written).await;
        Ok(written.map_err(|_| LinkError::TimedOut("sending Hello"))??)
    }

    pub(super) async fn receive_hello(&mut self) -> Result<Hello, LinkError> {
        let greeting = async {
            loop {
                match Frame::take(&mut self.received, HELLO_LEN_MAX).map_err(LinkError::Protocol)? {
                    Some(Frame { kind: Some(Kind::Hello(hello)) }) => return Ok(hello),
                    Some(Frame { kind: Some(Kind::Refused(Refused { reason })) }) => {
                        return Err(LinkError::Refused(reason.chars().take(REASON_LEN_MAX).collect()));
                    }
                    Some(_) => return Err(LinkError::Protocol("another frame before its Hello")),
                    None => {}
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(0) => return Err(LinkError::Closed),
                    Ok(_) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::time::timeout(HELLO_TIMEOUT, greeting).await.unwrap_or(Err(LinkError::TimedOut("waiting for a Hello")))
    }

    /// Exchanges messages until the connection ends or the driver drops its sender.
    pub(super) async fn exchange(
        self,
        transport: &Transport,
        (peer, link): (ServerId, Link),
        outgoing: mpsc::Receiver<Queued>,
        registration: &Registration<'_>,
    ) -> Result<(), LinkError> {
        let (read, write) = tokio::io::split(self.stream);
        let busy = AtomicBool::new(false);
        let mut receiver = Receiver {
            progress: Progress::new(transport, peer, link),
            snapshot: None,
            snapshots: 0,
            room: Arc::new(Semaphore::new(RECEIVE_BYTES_MAX)),
            busy: &busy,
        };
        let mut sender = Sender {
            progress: Progress::new(transport, peer, link),
            bytes: BytesMut::new(),
            busy: &busy,
            transfer: None,
        };
        let receiving = receive(read, self.received, &mut receiver, registration);
        first_to_end(receiving, sender.run(write, outgoing)).await
    }
}

/// Runs two futures until one of them ends. Which one goes first alternates: each may use up the time slice of the task.
async fn first_to_end<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut is_other_first = true;
    poll_fn(|cx| {
        is_other_first = !is_other_first;
        if is_other_first && let Poll::Ready(ended) = other.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        match one.as_mut().poll(cx) {
            Poll::Pending if !is_other_first => other.as_mut().poll(cx),
            polled => polled,
        }
    })
    .await
}

/// Reports to the driver, at a limited rate, that a large transfer advances.
struct Progress<'t> {
    transport: &'t Transport,
    peer: ServerId,
    link: Link,
    reported: Instant,
}

impl<'t> Progress<'t> {
    fn new(transport: &'t Transport, peer: ServerId, link: Link) -> Self {
        Self { transport, peer, link, reported: Instant::now() }
    }

    async fn report(&mut self) {
        if self.reported.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.reported = Instant::now();
        let (peer, link) = (self.peer, self.link);
        // The receiver is closed once the driver has ended.
        let _ = self.transport.driver.send(Incoming::Progress { peer, link }).await;
    }
}

/// A snapshot that is being sent, in parts and at a limited rate.
struct Transfer {
    session: Session,
    zxid: Zxid,
    path: PathBuf,
    /// The next part and the rest of the file, read by another thread.
    next: JoinHandle<std::io::Result<(Bytes, File)>>,
    /// When the next part is due.
    due: Instant,
}

impl Transfer {
    fn start(session: Session, zxid: Zxid, path: PathBuf) -> Result<Self, LinkError> {
        let file = files::open_to_read(&path).map_err(|error| LinkError::ReadSnapshot { path: path.clone(), error })?;
        Ok(Self { session, zxid, path, next: read_part(file), due: Instant::now() })
    }

    /// The next part, once it is read; the last one is empty.
    async fn part(&mut self, rate: u64) -> Result<SnapshotPart, LinkError> {
        let read = (&mut self.next).await.map_err(|_| LinkError::Stopping)?;
        let (bytes, file) = read.map_err(|error| LinkError::ReadSnapshot { path: self.path.clone(), error })?;
        self.due = Instant::now() + Duration::from_secs_f64(bytes.len() as f64 / rate.max(1) as f64);
        if !bytes.is_empty() {
            self.next = read_part(file);
        }
        Ok(SnapshotPart { session: self.session.0, zxid: self.zxid.to_u64(), bytes })
    }
}

fn read_part(mut file: File) -> JoinHandle<std::io::Result<(Bytes, File)>> {
    platform::run_blocking(move || {
        let mut buffer = vec![0; PART_LEN];
        let count = file.read(&mut buffer)?;
        buffer.truncate(count);
        Ok((buffer.into(), file))
    })
}

struct Sender<'t> {
    progress: Progress<'t>,
    bytes: BytesMut,
    /// This end is processing something large that it received.
    busy: &'t AtomicBool,
    transfer: Option<Transfer>,
}

impl Sender<'_> {
    async fn run(
        &mut self,
        mut write: WriteHalf<Stream>,
        mut outgoing: mpsc::Receiver<Queued>,
    ) -> Result<(), LinkError> {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        let mut last_sent = Instant::now();
        loop {
            let is_sending = self.transfer.is_some();
            let wait = self.transfer.as_ref().map_or(PROGRESS_INTERVAL, |transfer| {
                transfer.due.saturating_duration_since(Instant::now()).min(PROGRESS_INTERVAL)
            });
            match tokio::time::timeout(wait, outgoing.recv_many(&mut batch, BATCH_LEN_MAX)).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) => {
                    let busy = self.busy.load(Ordering::Relaxed);
                    let is_idle = last_sent.elapsed() >= HEARTBEAT_INTERVAL;
                    if is_idle || (busy && !is_sending) {
                        Frame::of(Kind::Alive(Alive { busy })).write(&mut self.bytes);
                    }
                }
            }
            for one in batch.drain(..) {
                match one.outgoing {
                    Outgoing::Message(_)
                        if is_injected(InjectedBug::LoseMessage) && platform::random().is_multiple_of(256) => {}
                    Outgoing::Message(message) => {
                        if let Some(kind) = Kind::of_message(&message) {
                            Frame::of(kind).write(&mut self.bytes);
                        }
                        if self.bytes.len() >= PART_LEN {
                            // Yield to other tasks of this thread between writes.
                            self.flush(&mut write).await?;
                        }
                    }
                    Outgoing::Snapshot { session, zxid, path } => {
                        self.transfer = Some(Transfer::start(session, zxid, path)?);
                    }
                    Outgoing::NoSnapshot(session) => {
                        self.transfer.take_if(|transfer| transfer.session == session);
                    }
                }
            }
            self.add_part().await?;
            if !self.bytes.is_empty() {
                last_sent = Instant::now();
            }
            self.flush(&mut write).await?;
        }
    }

    /// Adds the next part of a snapshot, if it is due.
    async fn add_part(&mut self) -> Result<(), LinkError> {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.due <= Instant::now()) else {
            return Ok(());
        };
        let part = transfer.part(self.progress.transport.settings.snapshot_rate).await?;
        if part.bytes.is_empty() {
            self.transfer = None;
        }
        Frame::of(Kind::Snapshot(part)).write(&mut self.bytes);
        self.progress.report().await;
        Ok(())
    }

    async fn flush(&mut self, write: &mut WriteHalf<Stream>) -> Result<(), LinkError> {
        let bytes = self.bytes.split();
        let is_large = bytes.len() > 2 * PART_LEN;
        for piece in bytes.chunks(PART_LEN) {
            let written = async {
                write.write_all(piece).await?;
                write.flush().await
            };
            let written = tokio::time::timeout(WRITE_TIMEOUT, written).await;
            written.map_err(|_| LinkError::TimedOut("writing"))??;
            if is_large {
                self.progress.report().await;
            }
        }
        Ok(())
    }
}

/// A snapshot that is being received.
struct IncomingSnapshot {
    session: Session,
    zxid: Zxid,
    file: File,
    received: TemporaryFile,
}

struct Receiver<'t> {
    progress: Progress<'t>,
    snapshot: Option<IncomingSnapshot>,
    /// The number of snapshots received on this connection; each has its own file.
    snapshots: u64,
    /// Limits the bytes that wait for the driver.
    room: Arc<Semaphore>,
    busy: &'t AtomicBool,
}

async fn receive(
    mut read: ReadHalf<Stream>,
    mut bytes: BytesMut,
    receiver: &mut Receiver<'_>,
    registration: &Registration<'_>,
) -> Result<(), LinkError> {
    loop {
        let mut before = bytes.len();
        while let Some(frame) = Frame::take(&mut bytes, FRAME_LEN_MAX).map_err(LinkError::Protocol)? {
            // A frame that waits for the driver is no progress: the driver may hang.
            receiver.busy.store(false, Ordering::Relaxed);
            receiver.frame(frame, before - bytes.len()).await?;
            before = bytes.len();
        }
        // The rest of the frame is still arriving.
        let is_large = bytes.len() >= PART_LEN;
        receiver.busy.store(is_large, Ordering::Relaxed);
        if is_large {
            receiver.progress.report().await;
        }
        make_room(&mut bytes);
        match tokio::time::timeout(RECEIVE_TIMEOUT, read.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Err(LinkError::Closed),
            Ok(Ok(_)) => registration.touch(),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(LinkError::TimedOut("waiting for data")),
        }
    }
}

/// Gets another buffer if the current one is nearly full.
fn make_room(bytes: &mut BytesMut) {
    if bytes.capacity() - bytes.len() < READ_LEN_MIN {
        bytes.reserve(PART_LEN);
    }
}

impl Receiver<'_> {
    async fn frame(&mut self, frame: Frame, len: usize) -> Result<(), LinkError> {
        let (peer, link) = (self.progress.peer, self.progress.link);
        let incoming = match frame.kind {
            Some(Kind::Alive(alive)) => {
                if alive.busy {
                    self.progress.report().await;
                }
                return Ok(());
            }
            Some(Kind::Snapshot(part)) => {
                self.progress.report().await;
                match self.store_part(&part)? {
                    Some(incoming) => {
                        let IncomingSnapshot { session, zxid, received, .. } = incoming;
                        let summary = self.verify_snapshot(zxid, received.path().to_owned()).await?;
                        Incoming::Snapshot { peer, link, session, summary, file: received }
                    }
                    None => return Ok(()),
                }
            }
            Some(kind) => match kind.into_message() {
                Some(message) => {
                    let bytes = u32::try_from(len.min(RECEIVE_BYTES_MAX)).unwrap_or(u32::MAX);
                    let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
                    let room = room.map_err(|_| LinkError::Stopping)?;
                    Incoming::Message { peer, link, message, room }
                }
                None => return Err(LinkError::Protocol("an invalid message")),
            },
            None => return Err(LinkError::Protocol("an empty frame")),
        };
        self.progress.transport.driver.send(incoming).await.map_err(|_| LinkError::Stopping)
    }

    /// Verifies a received snapshot. Meanwhile, both ends get progress reports.
    async fn verify_snapshot(&mut self, zxid: Zxid, path: PathBuf) -> Result<Summary, LinkError> {
        self.busy.store(true, Ordering::Relaxed);
        let mut checking = std::pin::pin!(verify(zxid, path));
        let checked = loop {
            match tokio::time::timeout(PROGRESS_INTERVAL, &mut checking).await {
                Ok(checked) => break checked,
                Err(_) => self.progress.report().await,
            }
        };
        self.busy.store(false, Ordering::Relaxed);
        checked
    }

    /// Stores a part of a snapshot. Returns the snapshot once it is complete.
    fn store_part(&mut self, part: &SnapshotPart) -> Result<Option<IncomingSnapshot>, LinkError> {
        let (session, zxid) = (Session(part.session), Zxid::from_u64(part.zxid));
        if self.snapshot.as_ref().is_some_and(|incoming| (incoming.session, incoming.zxid) != (session, zxid)) {
            self.snapshot = None;
        }
        let name = format!("incoming-{}-{}", self.progress.link.0, self.snapshots);
        let path = self.progress.transport.settings.data.join(name);
        let mut incoming = match self.snapshot.take() {
            Some(incoming) => incoming,
            None => {
                let file = files::create(&path).map_err(LinkError::StoreSnapshot)?;
                IncomingSnapshot { session, zxid, file, received: TemporaryFile::new(path) }
            }
        };
        incoming.file.write_all(&part.bytes).map_err(LinkError::StoreSnapshot)?;
        if part.bytes.is_empty() {
            self.snapshots += 1;
            return Ok(Some(incoming));
        }
        self.snapshot = Some(incoming);
        Ok(None)
    }
}

/// Makes a received snapshot durable and verifies it.
async fn verify(zxid: Zxid, path: PathBuf) -> Result<Summary, LinkError> {
    let checking = platform::run_blocking(move || {
        let checked =
            files::open_to_read(&path).and_then(|file| files::sync_all(&file, &path)).map_err(LinkError::StoreSnapshot);
        checked.and_then(|()| match wal::verify_snapshot(zxid, &path) {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => Err(LinkError::DamagedSnapshot),
            Err(error) => Err(LinkError::VerifySnapshot(error)),
        })
    });
    checking.await.map_err(|_| LinkError::Stopping)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_stay_in_memory_share_buffers() {
        let (mut bytes, mut kept, mut buffers) = (BytesMut::new(), Vec::new(), 0);
        for _ in 0..20_000 {
            let before = bytes.capacity();
            make_room(&mut bytes);
            buffers += usize::from(bytes.capacity() > before);
            bytes.extend_from_slice(&[7; 100]);
            kept.push(bytes.split_to(100).freeze());
        }
        // Two megabytes in buffers of a quarter each.
        assert!(buffers <= 9, "{buffers} buffers");
    }
}
