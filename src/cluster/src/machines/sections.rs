//! The states of several machines in one snapshot.
//!
//! A section for each machine: its number (4 bytes), then pieces, each after its length (4), then a length of 0. The end of
//! the file ends the last one. Numbers and lengths are little-endian.

use std::io::{self, Read, Write};

/// Maximum length of a piece in bytes.
const PIECE_LEN_MAX: usize = 64 << 10;

/// Writes one section.
pub(super) struct SectionWriter<'w> {
    to: &'w mut dyn Write,
    piece: Vec<u8>,
}

impl<'w> SectionWriter<'w> {
    pub(super) fn begin(to: &'w mut dyn Write, number: u32) -> io::Result<Self> {
        to.write_all(&number.to_le_bytes())?;
        Ok(Self { to, piece: Vec::with_capacity(PIECE_LEN_MAX) })
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.piece.len()).unwrap_or(u32::MAX);
        self.to.write_all(&len.to_le_bytes())?;
        self.to.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.write_piece()?;
        }
        self.write_piece()
    }
}

impl Write for SectionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_LEN_MAX {
            self.write_piece()?;
        }
        let taken = &bytes[..bytes.len().min(PIECE_LEN_MAX - self.piece.len())];
        self.piece.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills the buffer; false if there is nothing more to read.
///
/// # Errors
/// Those of the reader; [`io::ErrorKind::UnexpectedEof`] after a part of it.
pub(super) fn read_if_any(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Reads one section.
pub(super) struct SectionReader<'r> {
    from: &'r mut dyn Read,
    /// What is left of the current piece.
    left: usize,
    is_at_end: bool,
}

impl<'r> SectionReader<'r> {
    /// Starts with the next section, and returns its number; `None` at the end of the file.
    pub(super) fn next(from: &'r mut dyn Read) -> io::Result<Option<(u32, Self)>> {
        let mut number = [0; 4];
        if !read_if_any(from, &mut number)? {
            return Ok(None);
        }
        Ok(Some((u32::from_le_bytes(number), Self { from, left: 0, is_at_end: false })))
    }

    /// Ends the section.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if a part of it was not read.
    pub(super) fn end(mut self) -> io::Result<()> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a part of the state was not read")),
        }
    }
}

impl Read for SectionReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_at_end || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut len = [0; 4];
            self.from.read_exact(&mut len)?;
            self.left = u32::from_le_bytes(len) as usize;
            if self.left == 0 {
                self.is_at_end = true;
                return Ok(0);
            }
        }
        let wanted = buffer.len().min(self.left);
        let read = self.from.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sections: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut file = Vec::new();
        for (number, state) in sections {
            let mut section = SectionWriter::begin(&mut file, *number).expect("memory");
            section.write_all(state).expect("memory");
            section.end().expect("memory");
        }
        file
    }

    fn read(mut file: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
        let mut sections = Vec::new();
        while let Some((number, mut section)) = SectionReader::next(&mut file)? {
            let mut state = Vec::new();
            section.read_to_end(&mut state)?;
            section.end()?;
            sections.push((number, state));
        }
        Ok(sections)
    }

    #[test]
    fn sections_of_any_length_are_read_as_they_were_written() {
        for len in [0, 1, PIECE_LEN_MAX - 1, PIECE_LEN_MAX, PIECE_LEN_MAX + 1, 3 * PIECE_LEN_MAX] {
            let sections = vec![(7, vec![1; len]), (2, Vec::new()), (9, vec![2; 10])];
            assert_eq!(read(&written(&sections)).expect("intact"), sections, "{len} bytes");
        }
        assert_eq!(read(&[]).expect("intact"), []);
    }

    #[test]
    fn a_section_that_is_cut_off_or_not_read_to_its_end_is_an_error() {
        let file = written(&[(7, vec![1; 100])]);
        for len in 1..file.len() {
            assert!(read(&file[..len]).is_err(), "the first {len} bytes");
        }
        let mut from = file.as_slice();
        let (_, mut section) = SectionReader::next(&mut from).expect("intact").expect("a section");
        section.read_exact(&mut [0; 99]).expect("a part of it");
        assert!(section.end().is_err());
    }
}
