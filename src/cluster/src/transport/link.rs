//! One connection: frames in and out.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crossdock_zab::{Link, ServerId, Session, Zxid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::live::Entered;
use super::{Incoming, Outgoing, Transport};
use crate::wal;
use crate::wire::{Alive, FRAME_LEN_MAX, Frame, Hello, Kind, SnapshotPart};

/// For a greeting.
const GREETING_TIME: Duration = Duration::from_secs(3);
/// What a greeting may weigh.
const GREETING_LEN_MAX: usize = 4096;
/// A connection on which nothing was sent for so long says that it lives.
const IDLE_TIME: Duration = Duration::from_millis(500);
/// One on which nothing came for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// For what was written to be taken.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Messages that are written together.
const TOGETHER: usize = 256;
/// Between two signs that something large gets on.
const PROGRESS_TIME: Duration = Duration::from_millis(100);
/// Bytes of messages of one connection that may wait for the driver.
const ROOM: usize = 64 << 20;
/// Bytes of a snapshot in one frame, and of messages that are written at once.
const PART: usize = 256 * 1024;

/// A connection, encrypted or not.
pub(super) type Stream = Box<dyn Both>;

pub(super) trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

/// A connection before its messages.
pub(super) struct Frames {
    stream: Stream,
    received: BytesMut,
}

impl Frames {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    pub(super) async fn greet(&mut self, hello: Hello) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        Frame::of(Kind::Hello(hello)).write(&mut bytes);
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let written = tokio::time::timeout(GREETING_TIME, written).await;
        written.map_err(|_| "it takes no greeting".to_owned())?.map_err(|problem| problem.to_string())
    }

    pub(super) async fn greeted(&mut self) -> Result<Hello, String> {
        let greeting = async {
            loop {
                match Frame::take(&mut self.received, GREETING_LEN_MAX)? {
                    Some(Frame { kind: Some(Kind::Hello(hello)) }) => return Ok(hello),
                    Some(_) => return Err("it does not greet".to_owned()),
                    None => {}
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(0) => return Err("it closed before it greeted".to_owned()),
                    Ok(_) => {}
                    Err(problem) => return Err(problem.to_string()),
                }
            }
        };
        tokio::time::timeout(GREETING_TIME, greeting)
            .await
            .unwrap_or_else(|_| Err("it does not greet in time".to_owned()))
    }

    /// Takes and gives messages, until the connection ends or nobody gives any more.
    pub(super) async fn exchange(
        self,
        transport: &Transport,
        (peer, link): (ServerId, Link),
        outgoing: mpsc::Receiver<Outgoing>,
        heard: &Entered<'_>,
    ) -> Result<(), String> {
        let (read, write) = tokio::io::split(self.stream);
        let busy = AtomicBool::new(false);
        let mut arriving = Arriving {
            progress: Progress::new(transport, peer, link),
            snapshot: None,
            snapshots: 0,
            room: Arc::new(Semaphore::new(ROOM)),
            busy: &busy,
        };
        let mut sending =
            Sending { progress: Progress::new(transport, peer, link), bytes: BytesMut::new(), busy: &busy };
        let ended = tokio::select! {
            ended = receive(read, self.received, &mut arriving, heard) => ended,
            ended = sending.run(write, outgoing) => ended,
        };
        arriving.drop_snapshot();
        ended
    }
}

/// Tells the driver now and then that something large gets on.
struct Progress<'t> {
    transport: &'t Transport,
    peer: ServerId,
    link: Link,
    told: Instant,
}

impl<'t> Progress<'t> {
    fn new(transport: &'t Transport, peer: ServerId, link: Link) -> Self {
        Self { transport, peer, link, told: Instant::now() }
    }

    async fn tell(&mut self) {
        if self.told.elapsed() < PROGRESS_TIME {
            return;
        }
        self.told = Instant::now();
        let (peer, link) = (self.peer, self.link);
        // A driver that has ended is told nothing more.
        let _ = self.transport.driver.send(Incoming::Progress { peer, link }).await;
    }
}

struct Sending<'t> {
    progress: Progress<'t>,
    bytes: BytesMut,
    /// This end is at something that came and takes long.
    busy: &'t AtomicBool,
}

impl Sending<'_> {
    async fn run(
        &mut self,
        mut write: WriteHalf<Stream>,
        mut outgoing: mpsc::Receiver<Outgoing>,
    ) -> Result<(), String> {
        let mut together = Vec::with_capacity(TOGETHER);
        let mut said = Instant::now();
        loop {
            match tokio::time::timeout(PROGRESS_TIME, outgoing.recv_many(&mut together, TOGETHER)).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) => {
                    let busy = self.busy.load(Ordering::Relaxed);
                    if busy || said.elapsed() >= IDLE_TIME {
                        Frame::of(Kind::Alive(Alive { busy })).write(&mut self.bytes);
                    }
                }
            }
            for one in together.drain(..) {
                match one {
                    Outgoing::Message(message) => {
                        if let Some(kind) = Kind::of_message(&message) {
                            Frame::of(kind).write(&mut self.bytes);
                        }
                        if self.bytes.len() >= PART {
                            // Others of this thread have their turn between two pieces.
                            self.flush(&mut write).await?;
                        }
                    }
                    Outgoing::Snapshot { session, zxid, path } => {
                        self.flush(&mut write).await?;
                        self.snapshot(&mut write, &outgoing, (session, zxid), &path).await?;
                    }
                }
            }
            if !self.bytes.is_empty() {
                said = Instant::now();
            }
            self.flush(&mut write).await?;
        }
    }

    async fn flush(&mut self, write: &mut WriteHalf<Stream>) -> Result<(), String> {
        let bytes = self.bytes.split();
        let is_large = bytes.len() > PART;
        for piece in bytes.chunks(PART) {
            let written = async {
                write.write_all(piece).await?;
                write.flush().await
            };
            let written = tokio::time::timeout(WRITE_TIME, written).await;
            written.map_err(|_| "it takes nothing".to_owned())?.map_err(|problem| problem.to_string())?;
            if is_large {
                self.progress.tell().await;
            }
        }
        Ok(())
    }

    /// Sends a snapshot in parts, no faster than the rate, as long as the driver wants the connection.
    async fn snapshot(
        &mut self,
        write: &mut WriteHalf<Stream>,
        outgoing: &mpsc::Receiver<Outgoing>,
        (session, zxid): (Session, Zxid),
        path: &Path,
    ) -> Result<(), String> {
        let problem = |problem: std::io::Error| format!("the snapshot {}: {problem}", path.display());
        let rate = self.progress.transport.settings.snapshot_rate;
        let mut file = File::open(path).map_err(problem)?;
        let mut buffer = vec![0; PART];
        loop {
            if outgoing.is_closed() {
                return Err("it is given up".to_owned());
            }
            let count = file.read(&mut buffer).map_err(problem)?;
            let part = SnapshotPart {
                session: session.0,
                zxid: zxid.to_u64(),
                bytes: Bytes::copy_from_slice(&buffer[..count]),
            };
            Frame::of(Kind::Snapshot(part)).write(&mut self.bytes);
            self.flush(write).await?;
            self.progress.tell().await;
            if count == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate.max(1) as f64)).await;
        }
    }
}

/// What has come of a snapshot.
struct Arrived {
    session: Session,
    zxid: Zxid,
    path: PathBuf,
    file: File,
}

struct Arriving<'t> {
    progress: Progress<'t>,
    snapshot: Option<Arrived>,
    /// How many have come over this connection: each has a file of its own.
    snapshots: u64,
    /// Bytes that may wait for the driver.
    room: Arc<Semaphore>,
    busy: &'t AtomicBool,
}

async fn receive(
    mut read: ReadHalf<Stream>,
    mut bytes: BytesMut,
    arriving: &mut Arriving<'_>,
    heard: &Entered<'_>,
) -> Result<(), String> {
    loop {
        let mut before = bytes.len();
        while let Some(frame) = Frame::take(&mut bytes, FRAME_LEN_MAX)? {
            // What waits for the driver is no sign of life: that one may hang.
            arriving.busy.store(false, Ordering::Relaxed);
            arriving.frame(frame, before - bytes.len()).await?;
            before = bytes.len();
        }
        // Of one frame a part is here.
        let is_large = bytes.len() >= PART;
        arriving.busy.store(is_large, Ordering::Relaxed);
        if is_large {
            arriving.progress.tell().await;
        }
        bytes.reserve(PART);
        match tokio::time::timeout(SILENCE_MAX, read.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Err("it closed the connection".to_owned()),
            Ok(Ok(_)) => heard.now(),
            Ok(Err(problem)) => return Err(problem.to_string()),
            Err(_) => return Err("it is silent".to_owned()),
        }
    }
}

impl Arriving<'_> {
    async fn frame(&mut self, frame: Frame, len: usize) -> Result<(), String> {
        let (peer, link) = (self.progress.peer, self.progress.link);
        let incoming = match frame.kind {
            Some(Kind::Alive(alive)) => {
                if alive.busy {
                    self.progress.tell().await;
                }
                return Ok(());
            }
            Some(Kind::Snapshot(part)) => {
                self.progress.tell().await;
                match self.part(&part)? {
                    Some(arrived) => {
                        let Arrived { session, zxid, path, .. } = arrived;
                        self.check(zxid, path.clone()).await?;
                        Incoming::Snapshot { peer, link, session, zxid, path }
                    }
                    None => return Ok(()),
                }
            }
            Some(kind) => match kind.into_message() {
                Some(message) => {
                    let bytes = u32::try_from(len.min(ROOM)).unwrap_or(u32::MAX);
                    let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
                    let room = room.map_err(|problem| problem.to_string())?;
                    Incoming::Message { peer, link, message, room }
                }
                None => return Err("it sent what is no message".to_owned()),
            },
            None => return Err("it sent an empty frame".to_owned()),
        };
        self.progress.transport.driver.send(incoming).await.map_err(|_| "this instance ends".to_owned())
    }

    /// Looks at a snapshot that has come. Both ends are told meanwhile that this one lives.
    async fn check(&mut self, zxid: Zxid, path: PathBuf) -> Result<(), String> {
        self.busy.store(true, Ordering::Relaxed);
        let mut checking = std::pin::pin!(whole(zxid, path));
        let checked = loop {
            match tokio::time::timeout(PROGRESS_TIME, &mut checking).await {
                Ok(checked) => break checked,
                Err(_) => self.progress.tell().await,
            }
        };
        self.busy.store(false, Ordering::Relaxed);
        checked
    }

    /// Takes a part of a snapshot; gives the snapshot once all of it is there.
    fn part(&mut self, part: &SnapshotPart) -> Result<Option<Arrived>, String> {
        let (session, zxid) = (Session(part.session), Zxid::from_u64(part.zxid));
        if self.snapshot.as_ref().is_some_and(|arrived| (arrived.session, arrived.zxid) != (session, zxid)) {
            self.drop_snapshot();
        }
        let name = format!("incoming-{}-{}", self.progress.link.0, self.snapshots);
        let path = self.progress.transport.settings.data.join(name);
        let problem = |problem: std::io::Error| format!("a snapshot cannot be kept: {problem}");
        let mut arrived = match self.snapshot.take() {
            Some(arrived) => arrived,
            None => Arrived { session, zxid, file: File::create(&path).map_err(problem)?, path },
        };
        arrived.file.write_all(&part.bytes).map_err(problem)?;
        if part.bytes.is_empty() {
            self.snapshots += 1;
            return Ok(Some(arrived));
        }
        self.snapshot = Some(arrived);
        Ok(None)
    }

    fn drop_snapshot(&mut self) {
        if let Some(arrived) = self.snapshot.take() {
            let _ = std::fs::remove_file(arrived.path);
        }
    }
}

/// Makes the file of a snapshot durable, and sees whether it is as it was written; one that is not is deleted.
async fn whole(zxid: Zxid, path: PathBuf) -> Result<(), String> {
    let checking = tokio::task::spawn_blocking(move || {
        let checked = File::open(&path).and_then(|file| file.sync_all()).map_err(|problem| problem.to_string());
        let checked = checked.and_then(|()| match wal::is_snapshot(zxid, &path) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it sent a snapshot that is damaged: look at its disk".to_owned()),
            Err(problem) => Err(problem.to_string()),
        });
        if checked.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        checked
    });
    checking.await.map_err(|problem| problem.to_string())?
}
