//! Rare interleavings that a campaign must meet: marks that the product's code and the simulator set where they happen.
//!
//! A mark that is never hit says that the load or the faults no longer reach what it stands for: then nothing of what was
//! found there before would be found again. A mark is an observation, made on a branch that is rarely taken; it costs
//! nothing elsewhere, in production neither.

use ashlar_faultinject::mix::FaultKind;
use std::collections::BTreeMap;

/// A campaign of the default scenario of so many seeds hits all of them.
pub const SEEDS: u64 = 2000;

/// Marks that such a campaign must hit.
pub const EXPECTED: &[&str] = &[
    "a body was damaged between members",
    "a chunk's member was lost while it was read",
    "a damaged copy is to be repaired",
    "a damaged page of the log is not needed any more",
    "a member gets a second chance",
    "a member gets what it missed",
    "a member is fenced against this primary",
    "a member is too full for recovery",
    "a member was lost during peering",
    "a part was read after its reader had gone on",
    "a patch was refused",
    "a primary does not know the newest rules of access yet",
    "a primary is fenced by a higher epoch",
    "a read computes a missing chunk",
    "a read waits for chunks to be recovered",
    "a read waits for the lease",
    "a reply to a call that was answered before",
    "a reply to an attempt that is over",
    "a report of removed images failed",
    "a retry of a request that is under way",
    "a retry of a request that was carried out",
    "a scrub found a page of the log damaged",
    "a scrub gives an object up for now",
    "a scrub has come to its end",
    "a source answered after it was given up",
    "a source answered after others were asked",
    "a source of recovery was lost",
    "a statement that came too late for its peering",
    "a step of recovery of an object that is whole",
    "a step of recovery that came too late",
    "a sync joins the flushes under way",
    "a trim had succeeded although its reply was lost",
    "a trim was overtaken by a new epoch",
    "a watch repeats what it reported",
    "a write is withdrawn, since a member has no space, or a damaged chunk",
    "a write waits for the repair of what it must read",
    "an OSD outside keeps its copies, since it is wanted",
    "an answer that came too late for its comparison",
    "an order to leave that contradicts the map known here",
    "an uncertain object waits for a member that did not answer",
    "asking for an epoch without an unreachable member",
    "changes were told after the recovery had gone on",
    "full attempt: a set lost too many members",
    "member refuses an attempt that it did not join",
    "no member has space for a new object",
    "osd: a query before the news of its group",
    "peering waits for news of removed images",
    "recovery waits for space on a member",
    "sim: an OSD ends while it opens its store",
    "sim: an OSD ends while operations are under way",
    "sim: nodes agree on an older version of the protocol",
    "sim: power is lost with disk requests or cached pages pending",
    "sim: two processes open connections to each other at once",
    "the reply to the record of an interval was lost",
    "what a member missed is not known, it gets the whole copy",
];

/// Marks that it may miss, with the reason.
pub const RARE: &[(&str, &str)] = &[
    ("a copy was removed after another could not be", "not in 2,000 seeds"),
    ("a duplicate whose answer was seen while it waited", "1 in 2,000 seeds"),
    ("a late duplicate of a request whose answer was seen", "not in 2,000 seeds"),
    ("a member cannot apply a write to its damaged copy", "5 in 2,000 seeds"),
    ("a member confirmed a write that is over", "not in 2,000 seeds"),
    ("a member does not know its role yet", "2 in 2,000 seeds"),
    ("a member has space again", "few disks are full"),
    ("a part was read after the recovery had gone on", "a source that answers late"),
    ("a part was read for another recovery", "a source that answers late"),
    (
        "a patch did not give the version that it should",
        "never, but by a mistake or by damage that checksums do not show",
    ),
    ("a new object is withdrawn, since a member has no space", "full disks only"),
    ("a write is refused, since a member has no space for what it builds on", "full disks only"),
    ("a void version waits for space to be replaced", "full disks only"),
    ("peering waits for space on a member", "full disks only"),
    ("there is no space for a version that was never acknowledged", "full disks only"),
    ("sim: groups on full disks are served with fewer members than promised", "full disks only"),
    ("a patch was for another version than the member's", "never, but by a mistake"),
    ("a group before this one recorded an interval of as high an epoch", "few in 2,000 seeds"),
    ("a new group does not know yet which groups were before it", "few in 2,000 seeds"),
    ("a request of a session that a newer one follows", "not in 2,000 seeds"),
    ("a retry of a request that changed nothing", "4 in 2,000 seeds"),
    ("a scrub found something", "few in 2,000 seeds"),
    ("a scrub leaves a busy object to the next round", "few in 2,000 seeds"),
    ("a version counts that cannot be supplied", "not in 2,000 seeds"),
    ("a version was superseded while it was read", "not in 2,000 seeds"),
    ("an answer of the metadata store that nobody waits for", "not in 2,000 seeds"),
    ("an answer to a scrub that was given up", "few in 2,000 seeds"),
    ("an object that not all members have is deleted", "not in 2,000 seeds"),
    ("an order to vacate that contradicts the map known here", "2 in 2,000 seeds"),
    ("an uncertain object without a good copy", "not in 2,000 seeds"),
    ("changes were told for another question", "a source that answers late"),
    ("asking for a new epoch to drop tombstones", "not in 2,000 seeds"),
    ("no good copy of an object is left", "6 in 2,000 seeds"),
    ("osd: a reply that nobody asked for", "peers behave, and links are closed in order"),
    ("osd: a primary has not heard that its pool was removed", "pools are removed in a scenario of their own"),
    ("osd: message of a peer on a link that is not in use", "peers behave, and links are closed in order"),
    ("osd: request on a link that is not a client's", "peers behave, and links are closed in order"),
    (
        "sim: a node is refused for its version of the protocol",
        "upgrades go step by step but in a scenario of their own",
    ),
    ("the choice of a version that cannot be read is made anew", "1 in 2,000 seeds"),
];

/// The expected ones that were not hit.
pub fn never_hit(hit: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    expected().filter(|name| !hit.contains_key(name)).collect()
}

/// What a campaign must hit: what is listed above, and each kind of fault that stays within promises.
fn expected() -> impl Iterator<Item = &'static str> {
    let kinds = FaultKind::ALL.iter().filter(|kind| !kind.is_beyond_promises()).map(|kind| kind.mark());
    EXPECTED.iter().copied().chain(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The marks that the code of a folder sets, tests apart.
    fn marks_of(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of code") {
            let path = entry.expect("readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_string();
            if name.starts_with("tests") {
                continue;
            }
            if path.is_dir() {
                marks_of(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable code");
            for start in ["mark(\"", "mark(env, \"", "mark(node, \"", "mark(\n"] {
                for (at, _) in text.match_indices(start) {
                    let rest = text[at + start.len()..].trim_start().trim_start_matches('"');
                    found.extend(rest.split_once('"').map(|(mark, _)| mark.to_string()));
                }
            }
        }
    }

    #[test]
    fn every_mark_is_expected_or_known_to_be_rare() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut found = BTreeSet::new();
        marks_of(&root.join("core/src"), &mut found);
        marks_of(&root.join("sim/src/cluster"), &mut found);
        marks_of(&root.join("sim/src/world"), &mut found);
        let names = EXPECTED.iter().chain(RARE.iter().map(|(name, _)| name)).map(ToString::to_string);
        let listed: BTreeSet<String> = names.collect();
        assert_eq!(listed.len(), EXPECTED.len() + RARE.len(), "each once");
        let unknown: Vec<_> = found.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&found).collect();
        assert!(unknown.is_empty() && gone.is_empty(), "marks not listed: {unknown:?}; listed, never set: {gone:?}");
    }

    #[test]
    fn what_was_not_hit_is_named() {
        let all: BTreeMap<&'static str, u64> = expected().map(|name| (name, 1)).collect();
        assert!(never_hit(&all).is_empty() && !EXPECTED.is_empty());
        let but_one: BTreeMap<&'static str, u64> = expected().skip(1).map(|name| (name, 1)).collect();
        assert_eq!(never_hit(&but_one), [EXPECTED[0]]);
    }
}
