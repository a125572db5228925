//! Files on the disk of the current instance.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::context::{Context, current};
use super::threads::pause;
use crate::platform::disk::Disk;
use crate::platform::seeded::Random;

/// An open file.
#[derive(Debug)]
pub struct File {
    context: Context,
    generation: u64,
    inode: usize,
    position: usize,
    holds_lock: AtomicBool,
}

impl Drop for File {
    fn drop(&mut self) {
        if *self.holds_lock.get_mut() {
            let mut state = self.context.world.lock();
            let disk = state.disk(self.context.server);
            if disk.generation == self.generation {
                disk.unlock(self.inode);
            }
        }
    }
}

/// Performs an operation of an instance that has not crashed, and may crash by it.
fn operate<T>(
    context: &Context,
    name: &str,
    operation: impl FnOnce(&mut Disk, &mut Random) -> io::Result<T>,
) -> io::Result<T> {
    // Others may run between two operations.
    if context.world.lock().random.one_in(16) {
        pause(Duration::from_millis(1));
    }
    let now = context.world.now();
    context.world.lock().operate(context, (now, name), operation)
}

/// Opens a file that has this inode now.
fn opened(context: Context, name: &str, find: impl FnOnce(&mut Disk) -> io::Result<usize>) -> io::Result<File> {
    let (generation, inode) = operate(&context, name, |disk, _| Ok((disk.generation, find(disk)?)))?;
    Ok(File { context, generation, inode, position: 0, holds_lock: AtomicBool::new(false) })
}

impl File {
    fn operate<T>(&self, name: &str, operation: impl FnOnce(&mut Disk, &mut Random) -> io::Result<T>) -> io::Result<T> {
        operate(&self.context, name, |disk, random| {
            if disk.generation != self.generation {
                return Err(closed());
            }
            operation(disk, random)
        })
    }

    fn read_from(&self, buffer: &mut [u8], offset: usize) -> io::Result<usize> {
        self.operate("read", |disk, _| {
            let content = disk.content(self.inode);
            let rest = content.get(offset..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    /// Waits as long as a sync takes.
    fn wait(&self) {
        let takes = {
            let mut state = self.context.world.lock();
            let most = state.disk(self.context.server).sync_millis;
            state.random.below(most + 1)
        };
        pause(Duration::from_millis(takes));
    }

    fn sync(&self) -> io::Result<()> {
        self.wait();
        self.operate("sync", |disk, random| {
            if std::mem::take(&mut disk.fails_sync) {
                return Err(disk.fail_sync(self.inode, random));
            }
            disk.sync(self.inode);
            Ok(())
        })
    }
}

pub(super) fn closed() -> io::Error {
    io::Error::other("the instance has crashed")
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.read_from(buffer, self.position)?;
        self.position += len;
        Ok(len)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(position) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.position = usize::try_from(position).map_err(io::Error::other)?;
        Ok(position)
    }
}

impl Write for File {
    /// This is how a received snapshot is stored.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let offset = self.position;
        self.operate("write", |disk, random| {
            if !bytes.is_empty() && std::mem::take(&mut disk.damages_received) {
                let mut damaged = bytes.to_vec();
                damaged[random.index(bytes.len())] ^= 1 << random.below(8);
                disk.write(self.inode, &damaged, offset)
            } else {
                disk.write(self.inode, bytes, offset)
            }
        })?;
        self.position += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn create(path: &Path) -> io::Result<File> {
    opened(current(), "create", |disk| Ok(disk.create(path)))
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    opened(current(), "open", |disk| disk.find(path))
}

pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(path)
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    operate(&current(), "read", |disk, _| {
        let inode = disk.find(path)?;
        Ok(disk.content(inode).to_vec())
    })
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let offset = usize::try_from(offset).map_err(io::Error::other)?;
    if file.read_from(buffer, offset)? < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    operate(&current(), "list", |disk, _| {
        if !disk.has_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(disk.list(folder))
    })
}

pub(crate) fn has_folder(folder: &Path) -> bool {
    let context = current();
    context.world.lock().disk(context.server).has_folder(folder)
}

pub(crate) fn lock(file: &File) -> io::Result<()> {
    file.operate("lock", |disk, _| disk.lock(file.inode))?;
    file.holds_lock.store(true, Ordering::Relaxed);
    Ok(())
}

pub(crate) fn free_space(_: &Path) -> Option<u64> {
    None
}

pub(crate) fn write_at(file: &File, _: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    let offset = usize::try_from(offset).map_err(io::Error::other)?;
    file.operate("write", |disk, _| disk.write(file.inode, bytes, offset))
}

pub(crate) fn start_writing(_: &File, _: u64, _: u64) {}

pub(crate) fn sync_data(file: &File, _: &Path) -> io::Result<()> {
    file.sync()
}

pub(crate) fn sync_all(file: &File, _: &Path) -> io::Result<()> {
    file.sync()
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    operate(&current(), "rename", |disk, _| disk.rename(from, to))
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    operate(&current(), "remove", |disk, _| disk.remove(path))
}

/// An open folder.
pub(crate) fn open_folder(_: &Path) -> io::Result<File> {
    opened(current(), "open", |_| Ok(usize::MAX))
}

pub(crate) fn sync_folder(opened: &File, _: &Path) -> io::Result<()> {
    opened.wait();
    opened.operate("sync a folder", |disk, _| {
        disk.sync_names();
        Ok(())
    })
}

pub(crate) fn remove_folder(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn rename_folder(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    operate(&current(), "create a folder", |disk, _| {
        disk.add_folder(folder);
        Ok(())
    })
}
