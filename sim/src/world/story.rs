//! What happened, kept for people to look at: messages from node to node, and moments of nodes and of the whole.
//!
//! Kept only on demand ([`World::tell_story`](super::World::tell_story)): most runs are never looked at.

use super::NodeId;
use ashlar_core::time::Time;

/// Longest text of a message or moment.
const TEXT_MAX: usize = 400;

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Who sent it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The event by which.
    pub event: u64,
    /// When.
    pub sent: Time,
    /// When it arrived, if it did.
    pub arrived: Option<Time>,
    /// What it says.
    pub text: String,
}

/// Something that happened at one point of time.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The event.
    pub event: u64,
    /// When.
    pub at: Time,
    /// To whom; none: to several, or to what lies between them.
    pub node: Option<NodeId>,
    /// What.
    pub text: String,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Messages, in the order in which they were sent.
    pub passages: Vec<Passage>,
    /// The rest, in order.
    pub scenes: Vec<Scene>,
}

impl Story {
    /// A message is sent; returns its number.
    pub(super) fn sent(&mut self, event: u64, at: Time, (from, to): (NodeId, NodeId), text: String) -> usize {
        self.passages.push(Passage { from, to, event, sent: at, arrived: None, text: shortened(text) });
        self.passages.len() - 1
    }

    /// It arrived.
    pub(super) fn arrived(&mut self, number: usize, at: Time) {
        self.passages[number].arrived = Some(at);
    }

    /// Something happened; to a node if the text begins with its name.
    pub(super) fn happened(&mut self, event: u64, at: Time, text: String) {
        let number = text.strip_prefix("node ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        self.scenes.push(Scene { event, at, node: number.map(NodeId), text: shortened(text) });
    }
}

fn shortened(text: String) -> String {
    if text.len() <= TEXT_MAX { text } else { text.chars().take(TEXT_MAX).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_know_their_node_and_passages_their_end() {
        let mut story = Story::default();
        story.happened(1, Time(5), "node 12 starts".into());
        story.happened(2, Time(6), "the network's paths change".into());
        assert_eq!((story.scenes[0].node, story.scenes[1].node), (Some(NodeId(12)), None));
        let number = story.sent(3, Time(7), (NodeId(1), NodeId(2)), "x".repeat(2 * TEXT_MAX));
        story.arrived(number, Time(9));
        assert_eq!(story.passages[number].arrived, Some(Time(9)));
        assert_eq!(story.passages[number].text.len(), TEXT_MAX + 3);
    }
}
