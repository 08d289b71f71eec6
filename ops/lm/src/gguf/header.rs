//! Reads what comes before a GGUF file's tensors: keys and values, and where each tensor lies.

use std::fs::File;
use std::io::{BufReader, Read, Result, Seek, SeekFrom};

use candle_core::quantized::gguf_file::Content;

/// Bytes that are read at once.
const AT_ONCE: usize = 1 << 20;

/// The header of a file, from its begin.
pub(crate) fn read(file: File) -> candle_core::Result<Content> {
    Content::read(&mut Placed { file: BufReader::with_capacity(AT_ONCE, file), at: 0 })
}

/// A reader that knows where it is. candle asks before every text, of which a vocabulary has a hundred thousand, and a file asks the system.
struct Placed {
    file: BufReader<File>,
    at: u64,
}

impl Read for Placed {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let n = self.file.read(into)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Placed {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }

    fn stream_position(&mut self) -> Result<u64> {
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn it_is_where_the_file_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100]).unwrap();
        let mut placed = Placed { file: BufReader::with_capacity(16, file), at: 0 };
        placed.seek(SeekFrom::Start(3)).unwrap();
        let mut bytes = [0; 21];
        placed.read_exact(&mut bytes).unwrap();
        assert_eq!((placed.stream_position().unwrap(), placed.file.stream_position().unwrap()), (24, 24));
        assert_eq!(placed.seek(SeekFrom::End(-9)).unwrap(), 91);
        assert_eq!(placed.read_to_end(&mut Vec::new()).unwrap(), 9);
        assert_eq!((placed.stream_position().unwrap(), placed.file.stream_position().unwrap()), (100, 100));
    }
}
