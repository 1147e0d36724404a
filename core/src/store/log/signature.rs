//! What the first bytes of a device say that lives there, so that nothing is overwritten by accident.

use super::superblock::{Inspect, inspect};

/// Bytes that [`signature`] wants to see: the last of the marks lies a little behind 64 KiB.
pub const SIGNATURE_BYTES: u32 = 128 << 10;

/// Mark, its place, and whose it is. The places are those that the formats' own documents give.
const MARKS: [(&[u8], usize, &str); 13] = [
    (b"EFI PART", 512, "a GPT partition table"),
    (b"EFI PART", 4096, "a GPT partition table"),
    (&[0x53, 0xef], 1080, "an ext2, ext3 or ext4 file system"),
    (b"XFSB", 0, "an XFS file system"),
    (b"_BHRfS_M", 65_600, "a btrfs file system"),
    (b"LUKS\xba\xbe", 0, "a LUKS volume"),
    (b"LABELONE", 512, "an LVM physical volume"),
    (b"SWAPSPACE2", 4086, "swap space"),
    (b"NTFS    ", 3, "an NTFS file system"),
    (b"FAT32", 82, "a FAT file system"),
    (&[0xfc, 0x4e, 0x2b, 0xa9], 4096, "a Linux RAID member"),
    (&[0x10, 0x20, 0xf5, 0xf2], 1024, "an F2FS file system"),
    (&[0x55, 0xaa], 510, "a partition table or boot sector"),
];

/// What is on a device that begins with `bytes`; nothing if they are all zero.
pub fn signature(bytes: &[u8]) -> Option<String> {
    match inspect(bytes) {
        Inspect::Blank if bytes.iter().all(|byte| *byte == 0) => return None,
        Inspect::Store { store, cluster, osd, .. } => {
            return Some(format!("the store {store} of {osd:?} of cluster {cluster}"));
        }
        Inspect::Damaged => return Some("a damaged store".to_string()),
        Inspect::Newer => return Some("a store of a newer version".to_string()),
        Inspect::Blank | Inspect::Foreign => {}
    }
    let holds = |(mark, at, _): &&(&[u8], usize, &str)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    let known = MARKS.iter().find(holds).map(|(_, _, whose)| (*whose).to_string());
    Some(known.unwrap_or_else(|| "data of an unknown kind".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_recognised_and_nothing_else_is_blank() {
        let mut bytes = vec![0; SIGNATURE_BYTES as usize];
        assert_eq!(signature(&bytes), None);
        bytes[100_000] = 1;
        assert_eq!(signature(&bytes).as_deref(), Some("data of an unknown kind"));
        for (mark, at, whose) in MARKS {
            let mut bytes = vec![0; SIGNATURE_BYTES as usize];
            bytes[at..at + mark.len()].copy_from_slice(mark);
            assert_eq!(signature(&bytes).as_deref(), Some(whose));
        }
        bytes[..8].copy_from_slice(b"ASHLARSB");
        assert!(signature(&bytes).is_some_and(|text| text.contains("store")));
        assert_eq!(signature(&[0; 512]), None, "a short device");
    }
}
