//! Hints' shell.

use super::super::world::Out;
use super::Process;
use cluster::placement::NodeId;
use cluster::write::Missed;
use std::sync::Arc;

impl Process {
    pub(super) fn hints_keep(&mut self, _out: &mut Out<'_>, _missed: Vec<Missed>) {}
    pub(super) fn hints_view(&mut self, _out: &mut Out<'_>) {}
    pub(super) fn hints_tick(&mut self, _out: &mut Out<'_>) {}
    pub(super) fn hint_ended(
        &mut self,
        _out: &mut Out<'_>,
        _node: NodeId,
        _token: u64,
        _end: Result<Arc<[Vec<u8>]>, String>,
    ) {
    }
}
