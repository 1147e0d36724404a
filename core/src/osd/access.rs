//! Obeying who may not write, and saying so.
//!
//! Owns: ending what groups had accepted against new rules, and the confirmation. Does not own the rules (`map::access`).
//!
//! ```text
//!   rules change -> new requests are refused; what has not begun ends -> what is under way is done -> confirmed
//! ```

use super::Osd;
use crate::io::Env;
use crate::map::access::Obeyed;
use crate::map::keys;
use crate::store::ObjectStore;

impl<S: ObjectStore> Osd<S> {
    /// `config/access` is new, or was read for the first time.
    pub(super) fn access_changed(&mut self, env: &mut Env<'_>) {
        let node = self.groups.node_mut();
        node.access = self.map.access().cloned().unwrap_or_default();
        node.access_revision = self.map.access_revision();
        self.groups.with_all(env, |pg, host| pg.access_changed(host));
        self.obeyed = None;
    }

    /// Confirms the rules once nothing is under way that they refuse.
    pub(super) fn confirm_access(&mut self) {
        let Some(revision) = self.groups.node().access_revision else { return };
        if revision == 0 || self.obeyed == Some(revision) {
            return;
        }
        let access = &self.groups.node().access;
        if self.groups.iter().all(|(_, pg)| pg.obeys(access)) {
            self.obeyed = Some(revision);
            let value = serde_json::to_vec(&Obeyed { revision }).expect("plain data has a JSON form");
            self.publisher.set(keys::osd_access(self.config.osd), value, true);
        }
    }
}
