//! The archive format of an initramfs: cpio "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
//! A header of thirteen 8-digit hexadecimal numbers after a magic, the name, the content; each padded to 4 bytes.

use std::collections::BTreeSet;

/// An archive that grows entry by entry. Parents of a path are made when it is added.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inodes: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// An empty directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.parents(path);
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[]);
        }
    }

    /// A file that root may execute.
    pub(crate) fn program(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | 0o755, (0, 0), content);
    }

    /// A file that everyone may read.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | 0o644, (0, 0), content);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entry(path, LINK, (0, 0), to.as_bytes());
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if !parent.is_empty() && self.directories.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        let name = path.trim_start_matches('/');
        // A content of 4 GiB cannot be written in this format; the largest here is a binary of some tens of MiB.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let header = [
            self.inodes,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time: equal inputs give equal archives
            size,
            0, // major and minor of the device that the file lay on
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum, unused in this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in header {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: (name, mode, content).
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let number = |index: usize| {
                let digits = &bytes[6 + 8 * index..14 + 8 * index];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (number(1), number(6) as usize, number(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let content = (110 + name_size).next_multiple_of(4);
            entries.push((name, mode, bytes[content..content + size].to_vec()));
            bytes = &bytes[(content + size).next_multiple_of(4)..];
            if entries.last().unwrap().0 == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
        }
    }

    #[test]
    fn what_is_written_can_be_read_parents_first() {
        let mut archive = Archive::default();
        archive.directory("/proc");
        archive.program("/usr/sbin/ip", b"12345");
        archive.file("/usr/lib/x", b"");
        archive.link("/sbin", "usr/sbin");
        archive.device("/dev/console", 5, 1);
        archive.directory("/usr");
        let names: Vec<_> = read(&archive.finish())
            .into_iter()
            .map(|(name, mode, content)| (name, format!("{mode:o}"), content.len()))
            .collect();
        let expected = [
            ("proc", "40755", 0),
            ("usr", "40755", 0),
            ("usr/sbin", "40755", 0),
            ("usr/sbin/ip", "100755", 5),
            ("usr/lib", "40755", 0),
            ("usr/lib/x", "100644", 0),
            ("sbin", "120777", 8),
            ("dev", "40755", 0),
            ("dev/console", "20600", 0),
            ("TRAILER!!!", "0", 0),
        ];
        let expected: Vec<_> = expected.map(|(name, mode, size)| (name.to_owned(), mode.to_owned(), size)).into();
        assert_eq!(names, expected);
    }

    #[test]
    fn equal_inputs_give_equal_archives() {
        let archive = || {
            let mut archive = Archive::default();
            archive.file("/a/b", b"c");
            archive.finish()
        };
        assert_eq!(archive(), archive());
    }
}
