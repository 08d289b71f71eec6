//! Forges packs byte by byte: what `retort pack` would never write.

/// What every forged file holds, and its SHA-256.
pub(super) const TEXT: &[u8] = b"retort: 1\n";
pub(super) const SHA256: &str = "8eebdbcab8cffe8593ebb0c50a47dc6d2fd14b80a981a76508c4ad5636118153";
/// The largest block of a zstd frame.
const BLOCK: usize = 128 << 10;

/// A manifest over files that all hold `TEXT`.
pub(super) fn manifest(paths: &[&str]) -> String {
    manifest_of(&paths.iter().map(|path| (*path, TEXT.len() as u64)).collect::<Vec<_>>())
}

/// A manifest over files of these lengths.
pub(super) fn manifest_of(members: &[(&str, u64)]) -> String {
    let member = |(path, bytes): &(&str, u64)| serde_json::json!({"path": path, "bytes": bytes, "sha256": SHA256});
    let members: Vec<_> = members.iter().map(member).collect();
    serde_json::json!({"version": 1, "retort": "0", "pipeline": "p.yaml", "members": members}).to_string()
}

/// A tar archive, being forged.
#[derive(Clone, Default)]
pub(super) struct Forge(Vec<u8>);

impl Forge {
    /// An archive that begins with the manifest of these paths.
    pub(super) fn with(paths: &[&str]) -> Self {
        Forge::default().file("manifest.json", manifest(paths).as_bytes())
    }

    /// Adds a plain file.
    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name.as_bytes(), b'0', content, content.len() as u64)
    }

    /// Adds the plain files of these names, all with `TEXT`.
    pub(super) fn files(self, names: &[&str]) -> Self {
        names.iter().fold(self, |forge, name| forge.file(name, TEXT))
    }

    /// Adds an entry of any type; its header says `size`, whatever the content is.
    pub(super) fn entry(mut self, name: &[u8], kind: u8, content: &[u8], size: u64) -> Self {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        if size < 1 << 33 {
            header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        } else {
            // Too long for octal digits: GNU's binary numbers.
            header[124] = 0x80;
            header[128..136].copy_from_slice(&size.to_be_bytes());
        }
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = kind;
        header[157..168].copy_from_slice(b"/etc/passwd");
        header[257..265].copy_from_slice(b"ustar  \0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds bytes as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Ends the archive.
    pub(super) fn end(self) -> Self {
        self.raw(&[0; 1024])
    }

    /// As a zstd frame: raw blocks, and after them so many zeros, which take next to no room.
    pub(super) fn compressed(&self, zeros: u64) -> Vec<u8> {
        // The magic number; no content size, no checksum; a window of 2 MiB.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        let mut block = |kind: usize, size: usize, bytes: &[u8], last: bool| {
            let head = usize::from(last) + (kind << 1) + (size << 3);
            frame.extend_from_slice(&head.to_le_bytes()[..3]);
            frame.extend_from_slice(bytes);
        };
        for chunk in self.0.chunks(BLOCK) {
            block(0, chunk.len(), chunk, false);
        }
        let mut left = zeros;
        while left > 0 {
            let size = left.min(BLOCK as u64);
            block(1, size as usize, &[0], false);
            left -= size;
        }
        block(0, 0, &[], true);
        frame
    }
}
