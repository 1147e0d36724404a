//! What the first and the last bytes of a device say that lives there, so that nothing is overwritten by accident.

use super::superblock::{COPIES_AT, Inspect, inspect};

/// Bytes at the beginning that [`signature`] wants to see: the last of the marks lies a little behind 64 KiB.
pub const SIGNATURE_BYTES: u32 = 128 << 10;
/// Bytes at the end that it wants to see, and that a new store writes over: two labels of ZFS, of 256 KiB each on a
/// multiple of that, lie furthest from the end.
pub const TAIL_BYTES: u32 = 768 << 10;
/// Bytes of a sector, as the formats count them.
const SECTOR: usize = 512;
/// ZFS has 128 KiB of roots in the second half of each label; one of them is enough to know it.
const ZFS_ROOT: [u8; 8] = [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0];

/// Mark, its place, and whose it is. The places are those that the formats' own documents give.
const MARKS: [(&[u8], usize, &str); 15] = [
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
    (&[0xfc, 0x4e, 0x2b, 0xa9], 0, "a Linux RAID member"),
    (&[0xfc, 0x4e, 0x2b, 0xa9], 4096, "a Linux RAID member"),
    (&[0x10, 0x20, 0xf5, 0xf2], 1024, "an F2FS file system"),
    (b"bluestore block device", 0, "a store of Ceph"),
    (&[0x55, 0xaa], 510, "a partition table or boot sector"),
];

/// Marks at the beginning of some sector near the end, and whose they are.
const LAST_MARKS: [(&[u8], &str); 6] = [
    (b"EFI PART", "the backup of a GPT partition table"),
    (&[0xfc, 0x4e, 0x2b, 0xa9], "the end of a Linux RAID member"),
    (&[0xa9, 0x2b, 0x4e, 0xfc], "the end of a Linux RAID member"),
    (&[0xde, 0x11, 0xde, 0x11], "the end of a RAID member (DDF)"),
    (b"Intel Raid ISM Cfg Sig. ", "the end of a RAID member (Intel)"),
    (&ZFS_ROOT, "the end of a ZFS device"),
];

/// Where the last bytes that [`signature`] wants to see begin, on a device of `bytes`: on a unit.
pub fn tail_at(bytes: u64) -> u64 {
    let at = bytes.saturating_sub(u64::from(TAIL_BYTES));
    at - at % u64::from(crate::buf::UNIT)
}

/// What is on a device that begins with `head` and ends with `tail`, which begins at [`tail_at`]; nothing if they are all
/// zero.
pub fn signature(head: &[u8], tail: &[u8]) -> Option<String> {
    for copy in COPIES_AT.iter().filter_map(|at| head.get(usize::try_from(*at).ok()?..)) {
        match inspect(copy) {
            Inspect::Store { store, cluster, osd, .. } => {
                return Some(format!("the store {store} of {osd:?} of cluster {cluster}"));
            }
            Inspect::Damaged => return Some("a damaged store".to_string()),
            Inspect::Newer => return Some("a store of a newer version".to_string()),
            Inspect::Blank | Inspect::Foreign => {}
        }
    }
    let holds = |(mark, at, _): &&(&[u8], usize, &str)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    let known = MARKS.iter().find(holds).map(|(_, _, whose)| *whose);
    let last = || {
        let marks = tail.chunks(SECTOR).find_map(|sector| LAST_MARKS.iter().find(|(mark, _)| sector.starts_with(mark)));
        marks.map(|(_, whose)| *whose)
    };
    let any = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    let unknown = || any(head).then_some("data of an unknown kind");
    let unknown_end = || any(tail).then_some("data of an unknown kind at its end");
    known.or_else(last).or_else(unknown).or_else(unknown_end).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_recognised_and_nothing_else_is_blank() {
        let mut bytes = vec![0; SIGNATURE_BYTES as usize];
        assert_eq!(signature(&bytes, &[]), None);
        bytes[100_000] = 1;
        assert_eq!(signature(&bytes, &[]).as_deref(), Some("data of an unknown kind"));
        for (mark, at, whose) in MARKS {
            let mut bytes = vec![0; SIGNATURE_BYTES as usize];
            bytes[at..at + mark.len()].copy_from_slice(mark);
            assert_eq!(signature(&bytes, &[0; 4096]).as_deref(), Some(whose));
        }
        bytes[..8].copy_from_slice(b"ASHLARSB");
        assert!(signature(&bytes, &[]).is_some_and(|text| text.contains("store")));
        assert_eq!(signature(&[0; 512], &[0; 512]), None, "a short device");
    }

    #[test]
    fn what_lives_at_the_end_is_recognised() {
        let head = vec![0; SIGNATURE_BYTES as usize];
        let mut tail = vec![0; TAIL_BYTES as usize];
        assert_eq!(signature(&head, &tail), None);
        tail[70_001] = 1;
        assert_eq!(signature(&head, &tail).as_deref(), Some("data of an unknown kind at its end"));
        for (mark, whose) in LAST_MARKS {
            let mut tail = vec![0; TAIL_BYTES as usize];
            let at = tail.len() - 16 * SECTOR;
            tail[at..at + mark.len()].copy_from_slice(mark);
            assert_eq!(signature(&head, &tail).as_deref(), Some(whose));
        }
        assert_eq!((tail_at(1 << 30), tail_at(512)), ((1 << 30) - u64::from(TAIL_BYTES), 0));
        assert_eq!(tail_at((1 << 30) + 512) % 4096, 0, "sectors begin where they do on the device");
    }

    #[test]
    fn a_store_of_which_only_the_second_superblock_is_left_is_a_store() {
        let mut head = vec![0; SIGNATURE_BYTES as usize];
        head[65_536..65_544].copy_from_slice(b"ASHLARSB");
        assert_eq!(signature(&head, &[]).as_deref(), Some("a damaged store"));
    }
}
